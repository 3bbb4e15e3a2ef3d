//! GELU: see [`crate::ops::GeluForward`].

use rayon::prelude::*;

use super::simd::{min_rows, vectorised};
use super::{Cpu, Real};
use crate::error::Result;
use crate::ops::{GeluForward, Operation};

const CUBIC: f64 = 0.044715;

/// `√(2/π)`
#[inline(always)]
fn root<R: Real>() -> R {
    R::of(std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2)
}

/// `σ(2u)` with `u = √(2/π) · (x + 0.044715·x³)`. This equals `(1 + tanh(u)) / 2`, without its cancellation for u < 0.
#[inline(always)]
fn gate<R: Real>(x: R) -> R {
    let u = root::<R>() * (x + R::of(CUBIC) * x * x * x);
    R::one() / (R::one() + (R::of(-2.0) * u).fast_exp())
}

/// `x/2 · (1 + tanh(u)) = x · σ(2u)`
#[inline(always)]
fn gelu<R: Real>(x: R) -> R {
    x * gate(x)
}

/// The derivative of [`gelu`]: `σ(2u) + x · σ(2u) · (1 - σ(2u)) · 2u'`
#[inline(always)]
fn dgelu<R: Real>(x: R) -> R {
    let gate = gate(x);
    let du = root::<R>() * (R::one() + R::of(3.0 * CUBIC) * x * x);
    let slope = gate * (R::one() - gate);
    // Where the gate saturates, the slope is 0 and du may be infinite; their product must not become NaN.
    if slope == R::zero() { gate } else { gate + x * slope * R::of(2.0) * du }
}

pub(super) fn forward<R: Real>(op: GeluForward<'_, Cpu<R>>) -> Result<()> {
    op.check()?;
    let [_, c] = op.x.shape().matrix();
    let rows = op.out.into_slice().par_chunks_mut(c).zip(op.x.as_slice().par_chunks(c));
    rows.with_min_len(min_rows(c)).for_each(|(out, x)| gelu_row(x, out));
    Ok(())
}

vectorised! {
    fn gelu_row<R: Real>(x: &[R], out: &mut [R]) {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = gelu(x);
        }
    }

    /// `pre = product + bias, out = gelu(pre)`, where `out` holds the product.
    pub(super) fn bias_gelu_row<R: Real>(out: &mut [R], pre: &mut [R], bias: &[R]) {
        for ((out, pre), &bias) in out.iter_mut().zip(pre).zip(bias) {
            *pre = *out + bias;
            *out = gelu(*pre);
        }
    }

    /// `dx *= gelu'(pre)`
    pub(super) fn dgelu_row<R: Real>(dx: &mut [R], pre: &[R]) {
        for (dx, &pre) in dx.iter_mut().zip(pre) {
            *dx *= dgelu(pre);
        }
    }
}
