//! `partial_warp.cu`

use super::case;
use crate::{Arg, Case, Expected, Random, bytes_of};

pub fn cases() -> Vec<Case> {
    [
        (16, 16, "a block of half a warp"),
        (20, 32, "some lanes have exited"),
        (32, 32, "a full warp"),
        (7, 32, "fewer lanes than the sum takes"),
    ]
    .into_iter()
    .map(|(len, block, purpose)| {
        let x = Random::new(8).words(len);
        let first = x[0].wrapping_mul(2);
        let plus = |i: usize| if i == 0 { first.wrapping_mul(2) } else { x[i].wrapping_add(first) };
        let mut out: Vec<u32> = (0..len).map(plus).collect();
        if len >= 16 {
            let sum = out[..16].iter().fold(0, |sum: u32, &term| sum.wrapping_add(term));
            out[..16].fill(x[0]);
            out[0] = sum;
        }
        let args = vec![Arg::In("x", bytes_of(&x)), Arg::Out("out", Expected::exactly(&out)), Arg::U32(len as u32)];
        case(format!("len {len}, block {block}"), purpose, 1, block, args)
    })
    .collect()
}
