//! `transpose.cu`

use crate::{Arg, Case, Random, Want, bytes_of};

const TILE: u32 = 32;

pub fn cases() -> Vec<Case> {
    [
        (32, 32, "one whole tile"),
        (33, 70, "both extents end inside of a tile"),
        (1, 65, "a single row"),
        (72, 5, "a single part of a tile wide; more rows than one tile"),
        (70, 40, "tiles with whole neighbours below"),
    ]
    .into_iter()
    .map(|(rows, columns, why)| {
        let x = Random::new(3).floats((rows * columns) as usize);
        let element = |i: u32| x[(i % rows * columns + i / rows) as usize];
        let out: Vec<f32> = (0..rows * columns).map(element).collect();
        Case {
            shape: format!("rows {rows}, columns {columns}"),
            why,
            grid: [columns.div_ceil(TILE), rows.div_ceil(TILE), 1],
            block: [TILE, 8, 1],
            dynamic_shared: 0,
            args: vec![
                Arg::In("x", bytes_of(&x)),
                Arg::Out("out", Want::exactly(&out)),
                Arg::U32(rows),
                Arg::U32(columns),
            ],
        }
    })
    .collect()
}
