//! `histogram.cu`

use super::case;
use crate::{Arg, Case, Random, Want, bytes_of};

pub fn cases() -> Vec<Case> {
    [
        (1000, 3, 96, "blocks that do not divide the bins"),
        (2048, 2, 512, "more threads than bins"),
        (5, 1, 256, "a bin a thread, few of them hit"),
        (600, 2, 256, "a second stride that is not whole"),
    ]
    .into_iter()
    .map(|(len, grid, block, why)| {
        let mut random = Random::new(5);
        // The outermost bins always, the others by chance.
        let data: Vec<u8> = (0..len).map(|i| if i < 2 { 255 * i as u8 } else { random.bits() as u8 }).collect();
        let before = random.words(256);
        let mut after = before.clone();
        data.iter().for_each(|&value| after[usize::from(value)] = after[usize::from(value)].wrapping_add(1));
        let args =
            vec![Arg::In("data", data), Arg::InOut("counts", bytes_of(&before), Want::exactly(&after)), Arg::U32(len)];
        case(format!("len {len}, grid {grid}, block {block}"), why, grid, block, args)
    })
    .collect()
}
