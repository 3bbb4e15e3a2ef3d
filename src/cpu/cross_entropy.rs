//! Cross-entropy: see [`crate::ops::CrossEntropyForward`].

use rayon::prelude::*;

use super::real::{max, sum};
use super::simd::{min_rows, vectorised};
use super::{Cpu, Real};
use crate::error::{Error, Result};
use crate::ops::{CrossEntropyBackward, CrossEntropyForward, LossDims, LossSum, Operation, Write};

/// Checks all targets; called before anything is written.
fn check_targets(operation: &'static str, targets: &[i32], v: usize) -> Result<()> {
    match targets.iter().position(|&id| id >= 0 && id as usize >= v) {
        None => Ok(()),
        Some(at) => Err(Error::Precondition {
            operation,
            rule: "target < V".into(),
            found: format!("target {at} = {}, V = {v}", targets[at]),
        }),
    }
}

pub(super) fn forward<R: Real>(op: CrossEntropyForward<'_, Cpu<R>>) -> Result<()> {
    let LossDims { v, vp, .. } = op.check()?;
    let (logits, targets) = (op.logits.as_slice(), op.targets.as_slice());
    check_targets(CrossEntropyForward::<Cpu<R>>::NAME, targets, v)?;
    let rows = op.losses.into_slice().par_iter_mut().zip(targets).zip(logits.par_chunks(vp));
    rows.with_min_len(min_rows(vp)).for_each(|((loss, &target), row)| {
        *loss = if target < 0 { R::zero() } else { log_sum_exp(&row[..v]) - row[target as usize] };
    });
    Ok(())
}

pub(super) fn backward<R: Real>(op: CrossEntropyBackward<'_, Cpu<R>>) -> Result<()> {
    let LossDims { v, vp, .. } = op.check()?;
    let targets = op.targets.as_slice();
    check_targets(CrossEntropyBackward::<Cpu<R>>::NAME, targets, v)?;
    let scale = R::of(op.scale);
    let rows = op.losses.into_slice().par_iter_mut().zip(targets).zip(op.logits.into_slice().par_chunks_mut(vp));
    rows.with_min_len(min_rows(vp)).for_each(|((loss, &target), row)| {
        *loss = R::zero();
        if target < 0 {
            row.fill(R::zero());
            return;
        }
        let target = target as usize;
        let (logits, padding) = row.split_at_mut(v);
        let target_logit = logits[target];
        *loss = scaled_softmax(logits, scale) - target_logit;
        logits[target] -= scale;
        padding.fill(R::zero());
    });
    Ok(())
}

vectorised! {
    fn log_sum_exp<R: Real>(logits: &[R]) -> R {
        let max = max(logits);
        let total = sum(logits.len(), |i| (logits[i] - max).fast_exp());
        max + total.ln()
    }

    /// Replaces the logits by `scale · softmax(logits)`, and returns their log-sum-exp.
    fn scaled_softmax<R: Real>(logits: &mut [R], scale: R) -> R {
        let max = max(logits);
        for x in logits.iter_mut() {
            *x = (*x - max).fast_exp();
        }
        let total = sum(logits.len(), |i| logits[i]);
        let factor = scale / total;
        for x in logits.iter_mut() {
            *x *= factor;
        }
        max + total.ln()
    }
}

pub(super) fn sum_losses<R: Real>(op: LossSum<'_, Cpu<R>>) -> Result<()> {
    let n = op.check()?;
    let losses = op.losses.as_slice();
    let value = R::of(op.scale) * sum(n, |i| losses[i]);
    let total = &mut op.total.into_slice()[0];
    *total = match op.write {
        Write::Overwrite => value,
        Write::Accumulate => *total + value,
    };
    Ok(())
}
