//! `matmul.cu`

use half::bf16;

use super::sum_tolerance;
use crate::{Arg, Case, Expected, Random, bytes_of};

const BLOCK: usize = 32;

pub fn cases() -> Vec<Case> {
    [
        (32, 32, 32, "one full tile, one k step"),
        (5, 6, 8, "partial in every dimension; ends in the first half of a warp's rows and columns"),
        (45, 26, 72, "ends in the second half of a warp's rows and columns; partial last k step"),
        (16, 8, 64, "ends between the halves; two full k steps, as many as are prefetched"),
        (33, 36, 200, "more k steps than twice the stages"),
    ]
    .into_iter()
    .map(|(m, n, k, purpose)| {
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
            purpose,
            grid: [n.div_ceil(BLOCK) as u32, m.div_ceil(BLOCK) as u32, 1],
            block: [128, 1, 1],
            dynamic_shared: 0,
            args: vec![
                Arg::In("a", bytes_of(&a)),
                Arg::In("b", bytes_of(&b)),
                Arg::Out("c", Expected::Floats { values, tolerances }),
                Arg::U32(m as u32),
                Arg::U32(n as u32),
                Arg::U32(k as u32),
            ],
        }
    })
    .collect()
}
