//! `chained_scan.cu`

use super::case;
use crate::{Arg, Case, Random, Want, bytes_of};

const THREADS: usize = 128;

pub fn cases() -> Vec<Case> {
    [
        (1, "one element: no block to wait for"),
        (128, "one whole block"),
        (300, "a chain, the last block a part"),
        (1024, "a longer chain of whole blocks"),
    ]
    .into_iter()
    .map(|(len, why)| {
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
            Arg::Out("out", Want::exactly(&out)),
            Arg::Out("totals", Want::exactly(&totals)),
            Arg::InOut("ready", bytes_of(&vec![0u32; blocks]), Want::exactly(&vec![1u32; blocks])),
            Arg::InOut("ticket", bytes_of(&[0u32]), Want::exactly(&[blocks as u32])),
            Arg::U32(len as u32),
        ];
        case(format!("len {len}"), why, blocks as u32, THREADS as u32, args)
    })
    .collect()
}
