//! `histogram.cu`

use super::case;
use crate::{Arg, Case, Expected, Random, bytes_of};

pub fn cases() -> Vec<Case> {
    [
        (1000, 3, 96, "a block size that does not divide the number of bins"),
        (2048, 2, 512, "more threads than bins"),
        (5, 1, 256, "one thread per bin, most bins empty"),
        (600, 2, 256, "a partial second stride"),
    ]
    .into_iter()
    .map(|(len, grid, block, purpose)| {
        let mut random = Random::new(5);
        // The first and the last bin are always used, the others at random.
        let data: Vec<u8> = (0..len).map(|i| if i < 2 { 255 * i as u8 } else { random.bits() as u8 }).collect();
        let before = random.words(256);
        let mut after = before.clone();
        data.iter().for_each(|&value| after[usize::from(value)] = after[usize::from(value)].wrapping_add(1));
        let args = vec![
            Arg::In("data", data),
            Arg::InOut("counts", bytes_of(&before), Expected::exactly(&after)),
            Arg::U32(len),
        ];
        case(format!("len {len}, grid {grid}, block {block}"), purpose, grid, block, args)
    })
    .collect()
}
