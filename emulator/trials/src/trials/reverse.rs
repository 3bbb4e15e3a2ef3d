//! `reverse.cu`

use super::case;
use crate::{Arg, Case, Expected, Random, bytes_of};

pub fn cases() -> Vec<Case> {
    [
        (2, 13000, 512, "rows of 52,000 bytes: more shared memory than 48 KiB"),
        (3, 5, 32, "more threads than columns"),
        (2, 64, 64, "one thread per column"),
    ]
    .into_iter()
    .map(|(rows, columns, block, purpose)| {
        let x = Random::new(8).words(rows * columns);
        let out: Vec<u32> = x.chunks_exact(columns).flat_map(|row| row.iter().rev().copied()).collect();
        let args = vec![Arg::In("x", bytes_of(&x)), Arg::Out("out", Expected::exactly(&out)), Arg::U32(columns as u32)];
        let shape = format!("rows {rows}, columns {columns}, block {block}");
        Case { dynamic_shared: 4 * columns as u32, ..case(shape, purpose, rows as u32, block, args) }
    })
    .collect()
}
