//! `grid_sum.cu`

use super::{case, sum_tolerance};
use crate::{Arg, Case, Expected, Random, bytes_of};

const THREADS: usize = 128;

pub fn cases() -> Vec<Case> {
    [
        (1000, 3, "several strides, the last one partial"),
        (512, 2, "full strides only"),
        (1, 1, "one element: the first block is the last"),
        (100, 3, "blocks without elements"),
        (300, 130, "more blocks than the last one has threads"),
    ]
    .into_iter()
    .map(|(len, grid, purpose)| {
        let x = Random::new(2).floats(len);
        let sum = x.iter().map(|&x| f64::from(x)).sum();
        let depth = len / (grid * THREADS) + grid / THREADS + 18;
        let tolerance = sum_tolerance(x.iter().map(|&x| f64::from(x).abs()), depth);
        let args = vec![
            Arg::In("x", bytes_of(&x)),
            Arg::Out("partials", Expected::Anything(4 * grid as u64)),
            Arg::InOut("ticket", bytes_of(&[0u32]), Expected::exactly(&[0u32])),
            Arg::Out("out", Expected::Floats { values: vec![sum], tolerances: vec![tolerance] }),
            Arg::U32(len as u32),
        ];
        case(format!("len {len}, grid {grid}"), purpose, grid as u32, THREADS as u32, args)
    })
    .collect()
}
