//! f64 arithmetic in the directed rounding modes, in integers. It is rare in real kernels, so it need not be fast.

use super::rounding::Round;

/// Bits of an f64's significand.
const PRECISION: i32 = 53;
/// The exponent of the smallest subnormal, 2⁻¹⁰⁷⁴.
const MIN_EXPONENT: i32 = -1074;

/// A magnitude: significand · 2^exponent. Bit 0 is sticky: it is also set if bits below it were lost.
#[derive(Clone, Copy)]
struct Magnitude {
    significand: u128,
    exponent: i32,
}

impl Magnitude {
    fn of(value: f64) -> Self {
        let bits = value.to_bits();
        let fraction = u128::from(bits & ((1 << 52) - 1));
        match (bits >> 52 & 0x7ff) as i32 {
            0 => Self { significand: fraction, exponent: MIN_EXPONENT },
            biased => Self { significand: fraction | 1 << 52, exponent: biased - 1075 },
        }
    }

    /// The same magnitude with its highest bit at position `top`; bits shifted out set bit 0.
    fn aligned(self, top: i32) -> Self {
        let shift = top - (127 - self.significand.leading_zeros() as i32);
        let exponent = self.exponent - shift;
        if shift >= 0 {
            return Self { significand: self.significand << shift, exponent };
        }
        Self { significand: shift_right_sticky(self.significand, -shift), exponent }
    }
}

fn shift_right_sticky(significand: u128, shift: i32) -> u128 {
    if shift >= 128 {
        return (significand != 0) as u128;
    }
    let lost = significand & ((1 << shift) - 1) != 0;
    significand >> shift | lost as u128
}

/// Rounds a magnitude that is not zero, in a directed mode.
fn round(negative: bool, magnitude: Magnitude, mode: Round) -> f64 {
    let Magnitude { significand, exponent } = magnitude;
    let top = exponent + 127 - significand.leading_zeros() as i32;
    let unit = (top - PRECISION + 1).max(MIN_EXPONENT);
    let (kept, exact) = match unit - exponent {
        shift if shift <= 0 => (significand << -shift, true),
        shift if shift >= 128 => (0, false),
        shift => (significand >> shift, significand & ((1 << shift) - 1) == 0),
    };
    let away = matches!((mode, negative), (Round::Down, true) | (Round::Up, false));
    let kept = kept as u64 + (away && !exact) as u64;
    // A carry out of the significand increments the exponent, as it should; subnormals have a zero exponent field.
    let field = if kept < 1 << 52 { 0 } else { (unit - MIN_EXPONENT) as u64 };
    let bits = (field << 52) + kept;
    let infinity = f64::INFINITY.to_bits();
    let bits = if away { bits.min(infinity) } else { bits.min(infinity - 1) };
    f64::from_bits(bits | (negative as u64) << 63)
}

fn zero(negative: bool) -> f64 {
    if negative { -0.0 } else { 0.0 }
}

pub(super) fn fma(a: f64, b: f64, c: f64, mode: Round) -> f64 {
    if !(a.is_finite() && b.is_finite() && c.is_finite()) {
        return a.mul_add(b, c);
    }
    let negative = a.is_sign_negative() != b.is_sign_negative();
    if a == 0.0 || b == 0.0 {
        return match c {
            0.0 if negative == c.is_sign_negative() => zero(negative),
            0.0 => zero(mode == Round::Down),
            _ => c,
        };
    }
    let (x, y) = (Magnitude::of(a), Magnitude::of(b));
    let product = Magnitude { significand: x.significand * y.significand, exponent: x.exponent + y.exponent };
    if c == 0.0 {
        return round(negative, product, mode);
    }
    // With the top bits at the same position, both have zeros at the end: the product at least 20, `c` at least 73. A
    // shift that loses bits is longer than that, and then cancellation cannot move the lost bits near the rounding.
    let (mut high, mut low) = (product.aligned(125), Magnitude::of(c).aligned(125));
    let (mut high_negative, mut low_negative) = (negative, c.is_sign_negative());
    if (low.exponent, low.significand) > (high.exponent, high.significand) {
        std::mem::swap(&mut high, &mut low);
        std::mem::swap(&mut high_negative, &mut low_negative);
    }
    let low = shift_right_sticky(low.significand, high.exponent - low.exponent);
    let significand = if high_negative == low_negative { high.significand + low } else { high.significand - low };
    if significand == 0 {
        return zero(mode == Round::Down);
    }
    round(high_negative, Magnitude { significand, exponent: high.exponent }, mode)
}

pub(super) fn mul(a: f64, b: f64, mode: Round) -> f64 {
    // The added zero has the product's sign and so changes nothing.
    fma(a, b, zero(a.is_sign_negative() != b.is_sign_negative()), mode)
}

pub(super) fn add(a: f64, b: f64, mode: Round) -> f64 {
    fma(a, 1.0, b, mode)
}

pub(super) fn div(a: f64, b: f64, mode: Round) -> f64 {
    if !(a.is_finite() && b.is_finite()) || a == 0.0 || b == 0.0 {
        return a / b;
    }
    let (x, y) = (Magnitude::of(a).aligned(126), Magnitude::of(b).aligned(52));
    let lost = x.significand % y.significand != 0;
    let significand = (x.significand / y.significand) | lost as u128;
    let quotient = Magnitude { significand, exponent: x.exponent - y.exponent };
    round(a.is_sign_negative() != b.is_sign_negative(), quotient, mode)
}

pub(super) fn sqrt(a: f64, mode: Round) -> f64 {
    if !(a.is_finite() && a > 0.0) {
        return a.sqrt();
    }
    let mut x = Magnitude::of(a).aligned(125);
    if x.exponent % 2 != 0 {
        x = x.aligned(126);
    }
    let root = x.significand.isqrt();
    let lost = root * root != x.significand;
    round(false, Magnitude { significand: root << 1 | lost as u128, exponent: x.exponent / 2 - 1 }, mode)
}
