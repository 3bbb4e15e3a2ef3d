//! `matmul.cu`

use half::bf16;

use super::sum_tolerance;
use crate::{Arg, Case, Random, Want, bytes_of};

const BLOCK: usize = 32;

pub fn cases() -> Vec<Case> {
    [
        (32, 32, 32, "one whole tile, one step"),
        (5, 6, 8, "less than a tile in every direction; ends in the first half of a warp's rows and columns"),
        (45, 26, 72, "ends in the second half; the last step is a part"),
        (16, 8, 64, "ends between the halves; two whole steps, no more than are loaded ahead"),
        (33, 36, 200, "more steps than stages, twice around"),
    ]
    .into_iter()
    .map(|(m, n, k, why)| {
        let mut random = Random::new(6);
        let (a, b) = (random.bf16s(m * k), random.bf16s(n * k));
        let terms = |i: usize| {
            let (row, column) = (&a[i / n * k..][..k], &b[i % n * k..][..k]);
            row.iter().zip(column).map(|(a, b): (&bf16, &bf16)| a.to_f64() * b.to_f64())
        };
        let values = (0..m * n).map(|i| terms(i).sum()).collect();
        let tolerances = (0..m * n).map(|i| sum_tolerance(terms(i).map(f64::abs), k)).collect();
        Case {
            shape: format!("m {m}, n {n}, k {k}"),
            why,
            grid: [n.div_ceil(BLOCK) as u32, m.div_ceil(BLOCK) as u32, 1],
            block: [128, 1, 1],
            dynamic_shared: 0,
            args: vec![
                Arg::In("a", bytes_of(&a)),
                Arg::In("b", bytes_of(&b)),
                Arg::Out("c", Want::Floats { values, tolerances }),
                Arg::U32(m as u32),
                Arg::U32(n as u32),
                Arg::U32(k as u32),
            ],
        }
    })
    .collect()
}
