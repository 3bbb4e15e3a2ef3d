//! IEEE arithmetic in every format and rounding mode, by LLVM's software floating point.

use rustc_apfloat::ieee::{BFloat, Double, Half, Quad, Single};
use rustc_apfloat::{Float, FloatConvert, Round};

/// A format with the NaN that PTX's arithmetic writes.
pub trait Reference: Float + FloatConvert<Quad> {
    const NAN_BITS: u64;
}

impl Reference for Half {
    const NAN_BITS: u64 = 0x7fff;
}

impl Reference for BFloat {
    const NAN_BITS: u64 = 0x7fff;
}

impl Reference for Single {
    const NAN_BITS: u64 = 0x7fff_ffff;
}

impl Reference for Double {
    const NAN_BITS: u64 = 0xfff8_0000_0000_0000;
}

pub fn read<F: Reference>(bits: u64) -> F {
    F::from_bits(u128::from(bits))
}

pub fn write<F: Reference>(value: F) -> u64 {
    if value.is_nan() { F::NAN_BITS } else { value.to_bits() as u64 }
}

/// Replaces a subnormal by a zero of its sign.
pub fn flush<F: Reference>(value: F) -> F {
    if value.is_denormal() { F::ZERO.copy_sign(value) } else { value }
}

/// Clamps to [0, 1]; NaN becomes 0.
pub fn saturate<F: Reference>(value: F) -> F {
    let one = F::from_u128(1).value;
    if value.is_nan() || value.is_negative() || value.is_zero() {
        F::ZERO
    } else if value > one {
        one
    } else {
        value
    }
}

pub const ROUNDINGS: [(&str, Round); 4] = [
    ("rn", Round::NearestTiesToEven),
    ("rz", Round::TowardZero),
    ("rm", Round::TowardNegative),
    ("rp", Round::TowardPositive),
];

pub fn quad<F: Reference>(value: F) -> Quad {
    value.convert(&mut false).value
}

/// Whether `root` is the square root of `square` in a rounding mode. Both are finite and positive; squares of numbers of
/// up to 54 bits are exact in 113.
pub fn is_root<F: Reference>(square: F, root: F, round: Round) -> bool {
    let product = |x: Quad| (x * x).value;
    let half = |a: F, b: F| ((quad(a) + quad(b)).value * Quad::from_bits(0x3ffe << 112)).value;
    let (below, above) = (root.next_down().value, root.next_up().value);
    let square = quad(square);
    match round {
        Round::TowardZero | Round::TowardNegative => product(quad(root)) <= square && square < product(quad(above)),
        Round::TowardPositive => product(quad(below)) < square && square <= product(quad(root)),
        _ => product(half(below, root)) <= square && square <= product(half(root, above)),
    }
}
