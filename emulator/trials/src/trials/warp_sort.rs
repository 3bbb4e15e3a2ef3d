//! `warp_sort.cu`

use super::case;
use crate::{Arg, Case, Expected, Random, bytes_of};

const RUN: usize = 32;

pub fn cases() -> Vec<Case> {
    [(64, "full runs"), (100, "a run of four, and a warp without a run"), (1, "one value")]
        .into_iter()
        .map(|(len, purpose)| {
            let mut x: Vec<i32> = Random::new(9).words(len).into_iter().map(|word| word as i32).collect();
            // The largest and the smallest value, and two equal ones.
            x[0] = i32::MAX;
            if len > 20 {
                (x[7], x[19], x[20]) = (i32::MIN, 12, 12);
            }
            let mut out = x.clone();
            out.chunks_mut(RUN).for_each(<[i32]>::sort_unstable);
            let args = vec![Arg::In("x", bytes_of(&x)), Arg::Out("out", Expected::exactly(&out)), Arg::U32(len as u32)];
            case(format!("len {len}"), purpose, len.div_ceil(2 * RUN) as u32, 2 * RUN as u32, args)
        })
        .collect()
}
