//! `relay.cu`

use super::case;
use crate::{Arg, Case, Random, Want, bytes_of};

const ROW: usize = 32;

pub fn cases() -> Vec<Case> {
    [(1, "nobody to wait for"), (6, "rows handed on")]
        .into_iter()
        .map(|(blocks, why)| {
            let x = Random::new(11).words(blocks * ROW);
            let mut out = x.clone();
            for i in ROW..out.len() {
                out[i] = out[i].wrapping_add(out[i - ROW]);
            }
            let args = vec![
                Arg::In("x", bytes_of(&x)),
                Arg::Out("out", Want::exactly(&out)),
                Arg::InOut("ready", bytes_of(&vec![0u32; blocks]), Want::exactly(&vec![1u32; blocks])),
                Arg::InOut("ticket", bytes_of(&[0u32]), Want::exactly(&[blocks as u32])),
            ];
            case(format!("blocks {blocks}"), why, blocks as u32, ROW as u32, args)
        })
        .collect()
}
