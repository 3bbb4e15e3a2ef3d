//! Cross-entropy: see [`crate::ops::CrossEntropyForward`].

use rayon::prelude::*;

use super::real::{max, sum};
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
    op.losses.into_slice().par_iter_mut().zip(targets).zip(logits.par_chunks(vp)).for_each(|((loss, &target), row)| {
        *loss = R::zero();
        if target >= 0 {
            let logits = &row[..v];
            let max = max(logits);
            let total = sum(v, |i| (logits[i] - max).fast_exp());
            *loss = max + total.ln() - logits[target as usize];
        }
    });
    Ok(())
}

pub(super) fn backward<R: Real>(op: CrossEntropyBackward<'_, Cpu<R>>) -> Result<()> {
    let LossDims { v, vp, .. } = op.check()?;
    let targets = op.targets.as_slice();
    check_targets(CrossEntropyBackward::<Cpu<R>>::NAME, targets, v)?;
    let scale = R::of(op.scale);
    let rows = op.losses.into_slice().par_iter_mut().zip(targets).zip(op.logits.into_slice().par_chunks_mut(vp));
    rows.for_each(|((loss, &target), row)| {
        *loss = R::zero();
        if target < 0 {
            row.fill(R::zero());
            return;
        }
        let target = target as usize;
        let (logits, padding) = row.split_at_mut(v);
        let (max, target_logit) = (max(logits), logits[target]);
        for x in logits.iter_mut() {
            *x = (*x - max).fast_exp();
        }
        let total = sum(v, |i| logits[i]);
        *loss = max + total.ln() - target_logit;
        let factor = scale / total;
        for x in logits.iter_mut() {
            *x *= factor;
        }
        logits[target] -= scale;
        padding.fill(R::zero());
    });
    Ok(())
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
