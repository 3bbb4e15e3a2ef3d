//! Narrow floating-point formats to f32 and back, without branches.

use super::rounding::{Direction, Round};

/// A format of 16 or 8 bits: sign, exponent, fraction.
pub(super) trait Format: Copy + 'static {
    /// Bits of the fraction.
    const FRACTION: u32;
    const BIAS: u32;
    /// All bits but the sign.
    const MAGNITUDE: u32;
    /// The largest finite magnitude.
    const LARGEST: u32;
    const NAN: u32 = Self::MAGNITUDE;
    /// Infinity; NaN in a format without infinity.
    const INFINITY: u32 = Self::LARGEST + 1;
}

macro_rules! formats {
    ($($(#[$doc:meta])* $name:ident { fraction: $fraction:literal, bias: $bias:literal, magnitude: $magnitude:literal, largest: $largest:literal })*) => {$(
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub(super) struct $name;

        impl Format for $name {
            const FRACTION: u32 = $fraction;
            const BIAS: u32 = $bias;
            const MAGNITUDE: u32 = $magnitude;
            const LARGEST: u32 = $largest;
        }
    )*};
}

formats! {
    F16 { fraction: 10, bias: 15, magnitude: 0x7fff, largest: 0x7bff }
    BF16 { fraction: 7, bias: 127, magnitude: 0x7fff, largest: 0x7f7f }
    /// E4M3 has no infinity: its NaN follows the largest number, 448.
    E4M3 { fraction: 3, bias: 7, magnitude: 0x7f, largest: 0x7e }
    E5M2 { fraction: 2, bias: 15, magnitude: 0x7f, largest: 0x7b }
}

/// The value as f32, exactly; bits above the format's are ignored. NaN is the canonical one.
#[inline(always)]
pub(super) fn decode<F: Format>(bits: u32) -> f32 {
    let magnitude = bits & F::MAGNITUDE;
    let sign = (bits & (F::MAGNITUDE + 1)) << (31 - F::MAGNITUDE.trailing_ones());
    let shifted = magnitude << (23 - F::FRACTION);
    // A subnormal: its fraction after the leading 1 of the smallest normal number, which is subtracted again.
    let least = (128 - F::BIAS) << 23;
    let subnormal = f32::from_bits(least | shifted) - f32::from_bits(least);
    let normal = shifted.wrapping_add((127 - F::BIAS) << 23);
    let number = if F::BIAS < 127 && shifted < 1 << 23 { subnormal.to_bits() } else { normal };
    let special = if magnitude == F::INFINITY && F::INFINITY != F::NAN { 0x7f80_0000 } else { 0x7fff_ffff };
    let special_sign = if special == 0x7fff_ffff { 0 } else { sign };
    f32::from_bits(if magnitude > F::LARGEST { special | special_sign } else { number | sign })
}

/// Rounds to the nearest, ties to even; overflow gives infinity (NaN in a format without it), a NaN the canonical one.
#[inline(always)]
pub(super) fn encode<F: Format>(value: f32) -> u32 {
    let bits = value.to_bits();
    let magnitude = bits & 0x7fff_ffff;
    let drop = 23 - F::FRACTION;
    // Adding a little less than half a unit of the last bit, or half a unit if that bit is 1, rounds to even.
    let tie = magnitude >> drop & 1;
    let rebiased = magnitude.wrapping_sub((127 - F::BIAS) << 23);
    let rounded = rebiased.wrapping_add((1 << (drop - 1)) - 1).wrapping_add(tie) >> drop;
    // Subnormals: adding a number whose last bit has the weight of the format's last bit rounds to that bit.
    let weight = 1.0f32.to_bits().wrapping_add((drop + 1).wrapping_sub(F::BIAS) << 23);
    let summed = (f32::from_bits(magnitude) + f32::from_bits(weight)).to_bits().wrapping_sub(weight);
    let least_normal = (128 - F::BIAS) << 23;
    let number = if F::BIAS < 127 && magnitude < least_normal { summed } else { rounded };
    let finite = if number > F::LARGEST { F::INFINITY } else { number };
    let sign = bits >> (31 - F::MAGNITUDE.trailing_ones()) & (F::MAGNITUDE + 1);
    if value.is_nan() { F::NAN } else { finite | sign }
}

/// Rounds in any mode, from a value that is exact or rounded to odd.
#[inline(always)]
pub(super) fn encode_directed<F: Format, D: Direction>(value: f32) -> u32 {
    let nearest = encode::<F>(value);
    let back = decode::<F>(nearest).abs();
    let negative = value.is_sign_negative();
    let shrinks = match D::ROUND {
        Round::Nearest => false,
        Round::Zero => true,
        Round::Down => !negative,
        Round::Up => negative,
    };
    let grows = D::ROUND != Round::Nearest && !shrinks;
    let toward_zero = if shrinks & (back > value.abs()) { nearest.wrapping_sub(1) } else { nearest };
    if grows & (back < value.abs()) { nearest.wrapping_add(1) } else { toward_zero }
}

/// tf32: an f32 whose 13 low bits are zero. Rounded to the nearest with ties away from zero (`.rna`), or to even, or
/// toward zero.
#[inline(always)]
pub(super) fn encode_tf32(value: f32, away: bool, to_zero: bool) -> u32 {
    let bits = value.to_bits();
    let even = 0xfff + (bits >> 13 & 1);
    let carry = if away { 0x1000 } else { even };
    let rounded = bits.wrapping_add(if to_zero { 0 } else { carry }) & !0x1fff;
    if value.is_nan() { 0x7fff_ffff } else { rounded }
}

/// The largest finite tf32.
pub(super) const LARGEST_TF32: u32 = 0x7f7f_e000;
