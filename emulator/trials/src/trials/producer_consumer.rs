//! `producer_consumer.cu`

use super::case;
use crate::{Arg, Case, Random, Want, bytes_of};

pub fn cases() -> Vec<Case> {
    [
        (167, 1, "buffers used several times, the last chunk a part"),
        (96, 1, "one chunk more than buffers"),
        (5, 2, "one chunk; a block without any"),
        (500, 3, "chunks dealt to several blocks"),
    ]
    .into_iter()
    .map(|(len, grid, why)| {
        let x = Random::new(7).floats(len);
        let out: Vec<f32> = x.iter().map(|x| x * x).collect();
        let args = vec![Arg::In("x", bytes_of(&x)), Arg::Out("out", Want::exactly(&out)), Arg::U32(len as u32)];
        case(format!("len {len}, grid {grid}"), why, grid, 64, args)
    })
    .collect()
}
