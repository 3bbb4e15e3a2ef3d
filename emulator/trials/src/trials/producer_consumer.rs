//! `producer_consumer.cu`

use super::case;
use crate::{Arg, Case, Expected, Random, bytes_of};

pub fn cases() -> Vec<Case> {
    [
        (167, 1, "buffers used several times, the last chunk partial"),
        (96, 1, "one more chunk than buffers"),
        (5, 2, "one chunk, and a block without any"),
        (500, 3, "chunks distributed over several blocks"),
    ]
    .into_iter()
    .map(|(len, grid, purpose)| {
        let x = Random::new(7).floats(len);
        let out: Vec<f32> = x.iter().map(|x| x * x).collect();
        let args = vec![Arg::In("x", bytes_of(&x)), Arg::Out("out", Expected::exactly(&out)), Arg::U32(len as u32)];
        case(format!("len {len}, grid {grid}"), purpose, grid, 64, args)
    })
    .collect()
}
