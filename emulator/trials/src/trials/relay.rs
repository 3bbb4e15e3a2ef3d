//! `relay.cu`

use super::case;
use crate::{Arg, Case, Expected, Random, bytes_of};

const ROW: usize = 32;

pub fn cases() -> Vec<Case> {
    [(1, "one block, which waits for no other"), (6, "blocks that pass rows on")]
        .into_iter()
        .map(|(blocks, purpose)| {
            let x = Random::new(11).words(blocks * ROW);
            let mut out = x.clone();
            for i in ROW..out.len() {
                out[i] = out[i].wrapping_add(out[i - ROW]);
            }
            let args = vec![
                Arg::In("x", bytes_of(&x)),
                Arg::Out("out", Expected::exactly(&out)),
                Arg::InOut("ready", bytes_of(&vec![0u32; blocks]), Expected::exactly(&vec![1u32; blocks])),
                Arg::InOut("ticket", bytes_of(&[0u32]), Expected::exactly(&[blocks as u32])),
            ];
            case(format!("blocks {blocks}"), purpose, blocks as u32, ROW as u32, args)
        })
        .collect()
}
