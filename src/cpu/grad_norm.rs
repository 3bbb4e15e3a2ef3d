//! The global gradient norm: see [`crate::ops::GradNorm`].

use rayon::prelude::*;

use super::real::sum;
use super::simd::vectorised;
use super::{Cpu, Real};
use crate::error::Result;
use crate::ops::{GradNorm, Operation};

/// Elements per partial sum.
const CHUNK: usize = 1 << 14;

pub(super) fn norm<R: Real>(op: GradNorm<'_, Cpu<R>>) -> Result<()> {
    op.check()?;
    let chunks = op.grad.as_slice().par_chunks(CHUNK);
    // Partial sums are collected in order and then added in order, in double precision because there may be many.
    let partial: Vec<f64> = chunks.map(|grad| sum_of_squares(grad).wide()).collect();
    op.norm.into_slice()[0] = R::of(partial.iter().sum::<f64>().sqrt());
    Ok(())
}

vectorised! {
    fn sum_of_squares<R: Real>(values: &[R]) -> R {
        sum(values.len(), |i| values[i] * values[i])
    }
}
