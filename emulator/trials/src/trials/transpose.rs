//! `transpose.cu`

use crate::{Arg, Case, Expected, Random, bytes_of};

const TILE: u32 = 32;

pub fn cases() -> Vec<Case> {
    [
        (32, 32, "one full tile"),
        (33, 70, "partial tiles in both dimensions"),
        (1, 65, "a single row"),
        (72, 5, "one partial tile wide, several tiles high"),
        (70, 40, "partial tiles next to full ones"),
    ]
    .into_iter()
    .map(|(rows, columns, purpose)| {
        let x = Random::new(3).floats((rows * columns) as usize);
        let element = |i: u32| x[(i % rows * columns + i / rows) as usize];
        let out: Vec<f32> = (0..rows * columns).map(element).collect();
        Case {
            shape: format!("rows {rows}, columns {columns}"),
            purpose,
            grid: [columns.div_ceil(TILE), rows.div_ceil(TILE), 1],
            block: [TILE, 8, 1],
            dynamic_shared: 0,
            args: vec![
                Arg::In("x", bytes_of(&x)),
                Arg::Out("out", Expected::exactly(&out)),
                Arg::U32(rows),
                Arg::U32(columns),
            ],
        }
    })
    .collect()
}
