//! `collatz.cu`

use super::case;
use crate::{Arg, Case, Expected, Random, bytes_of};

const THREADS: u32 = 64;

pub fn cases() -> Vec<Case> {
    [(1, "one thread, which never enters the loop"), (64, "one full block"), (100, "lanes without a number")]
        .into_iter()
        .map(|(len, purpose)| {
            let mut random = Random::new(4);
            // 1 takes no step and 2 one; 27 takes 111 steps; one number has more than 32 bits.
            let first = [1, 2, 3, 27, 1 << 34];
            let rest = (first.len()..len).map(|_| random.bits() % 60 + 1);
            let start: Vec<u64> = first.into_iter().chain(rest).take(len).collect();
            let steps: Vec<u32> = start.iter().map(|&n| steps(n)).collect();
            let args = vec![
                Arg::In("start", bytes_of(&start)),
                Arg::Out("steps", Expected::exactly(&steps)),
                Arg::U32(len as u32),
            ];
            case(format!("len {len}"), purpose, (len as u32).div_ceil(THREADS), THREADS, args)
        })
        .collect()
}

fn steps(mut n: u64) -> u32 {
    let mut steps = 0;
    while n > 1 {
        n = if n.is_multiple_of(2) { n / 2 } else { 3 * n + 1 };
        steps += 1;
    }
    steps
}
