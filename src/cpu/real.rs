//! The number types of the CPU backend: `f32` and `f64`.

use num_traits::{Float, NumAssign};

use crate::tensor::FloatElement;

/// `f32` or `f64`, the types that the CPU backend computes in.
pub trait Real: FloatElement + Float + NumAssign {
    /// Converts from f64, rounding to nearest.
    fn of(value: f64) -> Self;

    /// Converts to f64.
    fn wide(self) -> f64;

    /// `eˣ`, inlined, so that the compiler can vectorise loops over it.
    fn fast_exp(self) -> Self;

    /// `c = alpha·a·b + beta·c` for strided matrices, with the signature of `matrixmultiply`.
    ///
    /// # Safety
    /// All elements that (m, k, n) and the strides (rs: row, cs: column) address must be inside the allocations. The
    /// elements of `c` must be distinct, writable and not aliased.
    #[allow(unsafe_code, clippy::too_many_arguments)]
    unsafe fn gemm(
        m: usize,
        k: usize,
        n: usize,
        alpha: Self,
        a: *const Self,
        rsa: isize,
        csa: isize,
        b: *const Self,
        rsb: isize,
        csb: isize,
        beta: Self,
        c: *mut Self,
        rsc: isize,
        csc: isize,
    );
}

macro_rules! real {
    ($type:ty, $gemm:path, $exp:path) => {
        impl Real for $type {
            #[inline(always)]
            fn of(value: f64) -> Self {
                value as $type
            }

            #[inline(always)]
            fn wide(self) -> f64 {
                f64::from(self)
            }

            #[inline(always)]
            fn fast_exp(self) -> Self {
                $exp(self)
            }

            #[allow(unsafe_code)]
            unsafe fn gemm(
                m: usize,
                k: usize,
                n: usize,
                alpha: Self,
                a: *const Self,
                rsa: isize,
                csa: isize,
                b: *const Self,
                rsb: isize,
                csb: isize,
                beta: Self,
                c: *mut Self,
                rsc: isize,
                csc: isize,
            ) {
                // SAFETY: this function's safety contract is that of `matrixmultiply`.
                unsafe { $gemm(m, k, n, alpha, a, rsa, csa, b, rsb, csb, beta, c, rsc, csc) }
            }
        }
    };
}

real!(f32, matrixmultiply::sgemm, exp_f32);
real!(f64, matrixmultiply::dgemm, f64::exp);

/// `eˣ` within 1.5 ulp, where the ulp of a denormal is the spacing of denormals. NaN and infinities as in [`f32::exp`].
///
/// `x = n·ln 2 + r` with an integer n and `|r| <= ln(2)/2`; then a polynomial in r, scaled by 2ⁿ. Coefficients: Cephes
/// (Moshier 1992).
#[inline(always)]
fn exp_f32(x: f32) -> f32 {
    // Adding this constant rounds to an integer, which is then in the low mantissa bits.
    const ROUND: f32 = 12_582_912.0; // 1.5·2²³
    // ln 2 split in a high and a low part. The high part has few enough bits that n times it is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    const LARGEST: f32 = 88.722_84;
    const SMALLEST: f32 = -103.972_08;

    let rounded = x * std::f32::consts::LOG2_E + ROUND;
    let n = rounded.to_bits().wrapping_sub(ROUND.to_bits()) as i32;
    let integer = rounded - ROUND;
    let r = x - integer * LN_2_HIGH - integer * LN_2_LOW;
    let polynomial = [1.398_199_9e-3, 8.333_452e-3, 4.166_579_6e-2, 1.666_666_5e-1, 5e-1]
        .into_iter()
        .fold(1.987_569_1e-4, |sum, coefficient| sum * r + coefficient);
    let value = polynomial * r * r + r + 1.0;
    // 2ⁿ is applied as two factors: it may overflow or underflow f32 although the product does not.
    let power = |n: i32| f32::from_bits((n.wrapping_add(127) << 23) as u32);
    let scaled = value * power(n >> 1) * power(n - (n >> 1));
    if x > LARGEST {
        f32::INFINITY
    } else if x < SMALLEST {
        0.0
    } else {
        scaled
    }
}

/// The largest value, ignoring NaN; -∞ if there is none.
#[inline(always)]
pub(super) fn max<R: Real>(values: &[R]) -> R {
    let mut lanes = [R::neg_infinity(); LANES];
    let larger = |max: R, x: R| if x > max { x } else { max };
    let chunks = values.chunks_exact(LANES);
    let tail = chunks.remainder().iter().fold(R::neg_infinity(), |max, &x| larger(max, x));
    for chunk in chunks {
        for (max, &x) in lanes.iter_mut().zip(chunk) {
            *max = larger(*max, x);
        }
    }
    lanes.into_iter().fold(tail, larger)
}

/// Number of independent accumulators, which the compiler can keep in vector registers.
const LANES: usize = 8;

/// `Σ f(i)` for `i` in `0..n`, in a fixed order: [`LANES`] interleaved partial sums, which are added at the end.
#[inline(always)]
pub(super) fn sum<R: Real>(n: usize, f: impl Fn(usize) -> R) -> R {
    let mut lanes = [R::zero(); LANES];
    let whole = n - n % LANES;
    for i in (0..whole).step_by(LANES) {
        for (lane, sum) in lanes.iter_mut().enumerate() {
            *sum += f(i + lane);
        }
    }
    let tail = (whole..n).map(f).fold(R::zero(), |sum, x| sum + x);
    lanes.iter().fold(tail, |sum, &x| sum + x)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exp_is_within_its_bound() {
        // Every 2^10th float of each sign up to where the result is 0 or infinite.
        let floats = (0..105.0f32.to_bits()).step_by(1 << 10).map(f32::from_bits);
        for x in floats.flat_map(|x| [x, -x]) {
            let (got, want) = (f64::from(exp_f32(x)), f64::from(x).exp());
            if want > f64::from(f32::MAX) {
                assert_eq!(got, f64::INFINITY, "exp({x})");
                continue;
            }
            // An ulp is 2^-23 of the power of two below the value, and at least the spacing of denormals.
            let ulp = (want.log2().floor() - 23.0).max(-149.0).exp2();
            assert!((got - want).abs() <= 1.5 * ulp, "exp({x}) = {got:e}, not {want:e}");
        }
        for (x, want) in [(f32::INFINITY, f32::INFINITY), (f32::NEG_INFINITY, 0.0), (0.0, 1.0), (-0.0, 1.0)] {
            assert_eq!(exp_f32(x), want);
        }
        assert!(exp_f32(f32::NAN).is_nan());
    }

    #[test]
    fn sums_and_maxima_take_every_value_once() {
        for n in 0..40 {
            let values: Vec<f64> = (0..n).map(|i| f64::from(i * 7 % 11) - 5.0).collect();
            assert_eq!(sum(values.len(), |i| values[i]), values.iter().sum::<f64>());
            assert_eq!(max(&values), values.iter().copied().fold(f64::NEG_INFINITY, f64::max));
        }
        assert_eq!(max(&[f32::NAN, 2.0, f32::NAN]), 2.0);
    }
}
