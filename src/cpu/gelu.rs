//! GELU: see [`crate::ops::GeluForward`].

use rayon::prelude::*;

use super::{Cpu, Real};
use crate::error::Result;
use crate::ops::{GeluForward, Operation};

const CUBIC: f64 = 0.044715;

/// `√(2/π)`
fn root<R: Real>() -> R {
    R::of(std::f64::consts::FRAC_2_SQRT_PI * std::f64::consts::FRAC_1_SQRT_2)
}

/// `x/2 · (1 + tanh(√(2/π) · (x + 0.044715·x³)))`
pub(super) fn gelu<R: Real>(x: R) -> R {
    let half = R::of(0.5);
    half * x * (R::one() + (root::<R>() * (x + R::of(CUBIC) * x * x * x)).tanh())
}

/// The derivative of [`gelu`].
pub(super) fn dgelu<R: Real>(x: R) -> R {
    let half = R::of(0.5);
    let tanh = (root::<R>() * (x + R::of(CUBIC) * x * x * x)).tanh();
    let dinner = root::<R>() * (R::one() + R::of(3.0 * CUBIC) * x * x);
    half * (R::one() + tanh) + half * x * (R::one() - tanh * tanh) * dinner
}

pub(super) fn forward<R: Real>(op: GeluForward<'_, Cpu<R>>) -> Result<()> {
    op.check()?;
    let [_, c] = op.x.shape().matrix();
    let rows = op.out.into_slice().par_chunks_mut(c).zip(op.x.as_slice().par_chunks(c));
    rows.for_each(|(out, x)| {
        for (out, &x) in out.iter_mut().zip(x) {
            *out = gelu(x);
        }
    });
    Ok(())
}
