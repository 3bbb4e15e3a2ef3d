//! `row_sum.cu`

use super::{case, sum_tolerance};
use crate::{Arg, Case, Expected, Random, bytes_of};

pub fn cases() -> Vec<Case> {
    [
        (3, 100, 2, 64, "more rows than blocks, a partial last stride"),
        (2, 64, 2, 64, "one element per thread"),
        (1, 1, 2, 32, "one element, and a block without a row"),
        (2, 45, 1, 1024, "the largest block, with more threads than columns"),
        (1, 3, 1, 96, "warps without an element"),
    ]
    .into_iter()
    .map(|(rows, columns, grid, block, purpose)| {
        let x = Random::new(1).floats(rows * columns);
        let rows_of_x = || x.chunks_exact(columns).map(|row| row.iter().map(|&x| f64::from(x)));
        let values = rows_of_x().map(Iterator::sum).collect();
        let depth = columns / block as usize + 11;
        let tolerances = rows_of_x().map(|row| sum_tolerance(row.map(f64::abs), depth)).collect();
        let args = vec![
            Arg::In("x", bytes_of(&x)),
            Arg::Out("out", Expected::Floats { values, tolerances }),
            Arg::U32(rows as u32),
            Arg::U32(columns as u32),
        ];
        case(format!("rows {rows}, columns {columns}, grid {grid}, block {block}"), purpose, grid, block, args)
    })
    .collect()
}
