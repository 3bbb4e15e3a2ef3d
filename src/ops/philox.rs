//! Philox4x32-10, the counter-based random number generator of all operations.
//!
//! A random number is a pure function of key and counter, so any backend can recompute the number of any element. Source:
//! Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3".

use half::bf16;
use rayon::prelude::*;

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

/// Four independent random 32-bit words for a key and a counter.
pub fn philox4x32(key: u64, counter: [u32; 4]) -> [u32; 4] {
    let mut key = [key as u32, (key >> 32) as u32];
    let mut x = counter;
    for _ in 0..ROUNDS {
        let p0 = u64::from(MULTIPLIERS[0]) * u64::from(x[0]);
        let p1 = u64::from(MULTIPLIERS[1]) * u64::from(x[2]);
        x = [(p1 >> 32) as u32 ^ x[1] ^ key[0], p1 as u32, (p0 >> 32) as u32 ^ x[3] ^ key[1], p0 as u32];
        key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
    }
    x
}

/// The use of a random number. Different purposes have disjoint counters, so they never share a number under one key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum Purpose {
    /// Tokens of [`super::Sample`].
    Sampling = 1,
    /// Stochastic rounding of [`super::AdamW`].
    Rounding = 2,
    /// Initial weights: [`crate::model::init`].
    Initialization = 3,
}

/// Draws `4·block` to `4·block + 3` of a key at a counter below 2⁵⁶.
///
/// Words 0 and 1 of the Philox counter are `block`; words 2 and 3 are `counter`, with the purpose in the top 8 bits.
pub fn draw_block(key: u64, purpose: Purpose, counter: u64, block: u64) -> [u32; 4] {
    let high = (counter >> 32) as u32 & 0x00ff_ffff | (purpose as u32) << 24;
    philox4x32(key, [block as u32, (block >> 32) as u32, counter as u32, high])
}

/// Draw `index` of a key at a counter below 2⁵⁶: one random 32-bit word, the word `index % 4` of its [`draw_block`].
pub fn draw(key: u64, purpose: Purpose, counter: u64, index: u64) -> u32 {
    draw_block(key, purpose, counter, index / 4)[(index % 4) as usize]
}

/// Converts a random word to a uniform number in [0, 1): a multiple of 2⁻²⁴, which f32 represents exactly.
pub fn uniform(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// Stochastic rounding of `value` to one of its two bf16 neighbours, decided by the low 16 bits of a random word. The
/// probability of rounding away from zero is the distance from the neighbour towards zero, divided by the spacing.
///
/// The rounding is unbiased, so updates smaller than the spacing survive on average; rounding to nearest would lose each of
/// them. Infinities and NaN are preserved. The largest finite numbers may become infinite, as in rounding to nearest.
pub fn round_to_bf16(value: f32, word: u32) -> bf16 {
    let bits = value.to_bits();
    // Adds the random bits below the last mantissa bit that is kept. NaNs are made quiet: a NaN with payload bits only in
    // the low half would otherwise be truncated to an infinity.
    let sum = if value.is_nan() { bits | 0x0040_0000 } else { bits + (word & 0xffff) };
    bf16::from_bits((sum >> 16) as u16)
}

/// The bf16 weights that [`super::AdamW`] computes from `master`, the parameters of a whole model, in update `step`.
pub fn narrow_weights(master: &[f32], seed: u64, step: u64) -> Vec<bf16> {
    let draw = |index: usize| draw(seed, Purpose::Rounding, step, index as u64);
    master.par_iter().enumerate().map(|(index, &value)| round_to_bf16(value, draw(index))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Known answers from the authors' Random123 distribution.
    #[test]
    fn known_answers() {
        let cases = [
            (0, [0; 4], [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]),
            (u64::MAX, [u32::MAX; 4], [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]),
            (
                0x299f_31d0_a409_3822,
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1],
            ),
        ];
        for (key, counter, want) in cases {
            assert_eq!(philox4x32(key, counter), want, "key {key:#x}");
        }
    }

    #[test]
    fn rounding_known_answers() {
        for (bits, word, want) in [
            (0x3f80_0000, 0xffff, 0x3f80), // 1 is a bf16
            (0x3f80_0001, 0xfffe, 0x3f80), // just above it: rounds down for all words but the last
            (0x3f80_0001, 0xffff, 0x3f81),
            (0x3f80_8000, 0x7fff, 0x3f80), // half-way
            (0x3f80_8000, 0x8000, 0x3f81),
            (0xbf80_8000, 0x8000, 0xbf81),      // away from zero on both sides
            (0x3f80_8000, 0xabcd_7fff, 0x3f80), // the upper half of a random word is ignored
            (0x0000_0001, 0xffff, 0x0001),
            (0x7f7f_ffff, 0x0000, 0x7f7f),
            (0x7f7f_ffff, 0x0001, 0x7f80),
            (0x7f80_0000, 0xffff, 0x7f80),
            (0xff80_0000, 0xffff, 0xff80),
            (0x7f80_0001, 0x0000, 0x7fc0),
            (0xffff_ffff, 0xffff, 0xffff),
        ] {
            let got = round_to_bf16(f32::from_bits(bits), word).to_bits();
            assert_eq!(got, want, "{bits:#x} by {word:#x}: {got:#x}");
        }
    }

    /// The mean over all 2¹⁶ random words is the value itself.
    #[test]
    fn rounding_is_unbiased() {
        for value in [1.003, -0.7654321, 3.1e-12, 12345.678] {
            let sum: f64 = (0..1 << 16).map(|word| round_to_bf16(value, word).to_f64()).sum();
            assert_eq!(sum / 65536.0, f64::from(value));
        }
    }

    #[test]
    fn uniforms_are_below_one() {
        assert_eq!(uniform(0), 0.0);
        assert!(uniform(u32::MAX) < 1.0);
        let sampling = draw(1, Purpose::Sampling, 2, 3);
        assert_ne!(sampling, draw(1, Purpose::Sampling, 2, 7));
        assert_ne!(sampling, draw(1, Purpose::Rounding, 2, 3));
    }
}
