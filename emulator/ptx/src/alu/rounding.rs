//! f32 arithmetic in every rounding mode, exact and without branches.
//!
//! A sum or product of f32 is exact in f64 or is rounded to odd there: to the one of the two neighbouring f64 whose last
//! bit is set. That last bit then represents everything below it. As f64 has more than two bits beyond f32's, rounding
//! again gives the correctly rounded result (Boldo and Melquiond, "Emulation of FMA and correctly rounded sums", 2008).

/// `.rn`, `.rz`, `.rm`, `.rp`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Round {
    Nearest,
    Zero,
    Down,
    Up,
}

impl Round {
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "rn" => Round::Nearest,
            "rz" => Round::Zero,
            "rm" => Round::Down,
            "rp" => Round::Up,
            _ => return None,
        })
    }
}

/// The rounding modes as types, so that each has its own loop.
pub(super) trait Direction: Copy {
    const ROUND: Round;
}

macro_rules! directions {
    ($($name:ident),*) => {$(
        #[derive(Clone, Copy)]
        pub(super) struct $name;

        impl Direction for $name {
            const ROUND: Round = Round::$name;
        }
    )*};
}

directions!(Nearest, Zero, Down, Up);

macro_rules! odd_sum {
    ($name:ident, $type:ty, $bits:ty) => {
        /// a + b, rounded to odd.
        #[inline(always)]
        pub(super) fn $name(a: $type, b: $type) -> $type {
            let sum = a + b;
            // Knuth's TwoSum: the exact rounding error. It is NaN if the sum is not finite, which adjusts nothing.
            let b_part = sum - a;
            let a_part = sum - b_part;
            let error = (a - a_part) + (b - b_part);
            let bits = sum.to_bits();
            let even = bits & 1 == 0;
            let step = if (error > 0.0) == (sum > 0.0) { 1 } else { <$bits>::MAX };
            let inexact = error.abs() > 0.0;
            <$type>::from_bits(if inexact && even { bits.wrapping_add(step) } else { bits })
        }
    };
}

odd_sum!(odd_sum, f64, u64);
odd_sum!(odd_sum32, f32, u32);

/// The exact rounding error of a sum (Knuth's TwoSum); NaN if the sum is not finite.
#[inline(always)]
fn sum_error(a: f64, b: f64, sum: f64) -> f64 {
    let b_part = sum - a;
    let a_part = sum - b_part;
    (a - a_part) + (b - b_part)
}

/// Gives an exact zero sum its sign: that of both terms if they agree; otherwise it is negative only in rounding down.
#[inline(always)]
fn signed_zero<D: Direction>(sum: f64, a: f64, b: f64) -> f64 {
    let differ = (a.to_bits() ^ b.to_bits()) >> 63 != 0;
    if D::ROUND == Round::Down && sum == 0.0 && differ { -0.0 } else { sum }
}

/// The value rounded in the mode `D`, from the one rounded to the nearest and the side of the exact value it is on.
#[inline(always)]
fn adjust<D: Direction>(nearest: f32, above: bool, below: bool) -> f32 {
    let bits = nearest.to_bits();
    let negative = bits >> 31 != 0;
    let toward_zero = bits.wrapping_sub(1);
    let away = bits.wrapping_add(1);
    f32::from_bits(match D::ROUND {
        Round::Nearest => bits,
        Round::Zero => {
            if (above & !negative) | (below & negative) {
                toward_zero
            } else {
                bits
            }
        }
        Round::Down if above => {
            if negative {
                away
            } else {
                toward_zero
            }
        }
        Round::Up if below => {
            if negative {
                toward_zero
            } else {
                away
            }
        }
        _ => bits,
    })
}

/// An f64, exact or rounded to odd, as f32.
#[inline(always)]
pub(super) fn narrow<D: Direction>(value: f64) -> f32 {
    let nearest = value as f32;
    let back = f64::from(nearest);
    adjust::<D>(nearest, back > value, back < value)
}

/// An f64, exact or rounded to odd, as f32 rounded to odd.
#[inline(always)]
pub(super) fn narrow_odd(value: f64) -> f32 {
    let toward_zero = narrow::<Zero>(value);
    let inexact = f64::from(toward_zero) != value && !value.is_nan();
    f32::from_bits(toward_zero.to_bits() | inexact as u32)
}

#[inline(always)]
pub(super) fn add<D: Direction>(a: f32, b: f32) -> f32 {
    fma::<D>(a, 1.0, b)
}

#[inline(always)]
pub(super) fn mul<D: Direction>(a: f32, b: f32) -> f32 {
    narrow::<D>(f64::from(a) * f64::from(b))
}

#[inline(always)]
pub(super) fn fma<D: Direction>(a: f32, b: f32, c: f32) -> f32 {
    let product = f64::from(a) * f64::from(b);
    let c = f64::from(c);
    if D::ROUND == Round::Nearest {
        return narrow::<D>(odd_sum(product, c));
    }
    let sum = product + c;
    let error = sum_error(product, c, sum);
    let sum = signed_zero::<D>(sum, product, c);
    // After the two roundings, the result is the exact sum or one of its neighbours.
    let nearest = sum as f32;
    let back = f64::from(nearest);
    let same = back == sum;
    adjust::<D>(nearest, (back > sum) | (same & (error < 0.0)), (back < sum) | (same & (error > 0.0)))
}

#[inline(always)]
pub(super) fn div<D: Direction>(a: f32, b: f32) -> f32 {
    let quotient = a / b;
    // The product is exact: 48 bits. Comparing it with `a` tells on which side of the exact quotient this one is.
    let back = f64::from(quotient) * f64::from(b);
    let (more, less) = (back > f64::from(a), back < f64::from(a));
    let flip = b < 0.0;
    adjust::<D>(quotient, more ^ (flip & (more | less)), less ^ (flip & (more | less)))
}

#[inline(always)]
pub(super) fn sqrt<D: Direction>(a: f32) -> f32 {
    let root = a.sqrt();
    let back = f64::from(root) * f64::from(root);
    adjust::<D>(root, back > f64::from(a), back < f64::from(a))
}
