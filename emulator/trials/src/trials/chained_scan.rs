//! `chained_scan.cu`

use super::case;
use crate::{Arg, Case, Expected, Random, bytes_of};

const THREADS: usize = 128;

pub fn cases() -> Vec<Case> {
    [
        (1, "one element: no block to wait for"),
        (128, "one full block"),
        (300, "several blocks, the last one partial"),
        (1024, "a longer chain of full blocks"),
    ]
    .into_iter()
    .map(|(len, purpose)| {
        let x = Random::new(10).words(len);
        let running = x.iter().scan(0u32, |sum, &x| {
            *sum = sum.wrapping_add(x);
            Some(*sum)
        });
        let out: Vec<u32> = running.collect();
        let blocks = len.div_ceil(THREADS);
        let totals: Vec<u32> = (1..=blocks).map(|block| out[len.min(block * THREADS) - 1]).collect();
        let args = vec![
            Arg::In("x", bytes_of(&x)),
            Arg::Out("out", Expected::exactly(&out)),
            Arg::Out("totals", Expected::exactly(&totals)),
            Arg::InOut("ready", bytes_of(&vec![0u32; blocks]), Expected::exactly(&vec![1u32; blocks])),
            Arg::InOut("ticket", bytes_of(&[0u32]), Expected::exactly(&[blocks as u32])),
            Arg::U32(len as u32),
        ];
        case(format!("len {len}"), purpose, blocks as u32, THREADS as u32, args)
    })
    .collect()
}
