//! Sampling: see [`crate::ops::Sample`].

use std::cmp::Ordering;

use super::{Cpu, Real};
use crate::error::Result;
use crate::ops::philox::{self, Purpose};
use crate::ops::{Operation, Sample, SampleDims};

pub(super) fn sample<R: Real>(op: Sample<'_, Cpu<R>>) -> Result<()> {
    let SampleDims { v, vp, .. } = op.check()?;
    let rows = op.logits.as_slice().chunks(vp).zip(op.tokens.into_slice());
    for (row, (logits, token)) in rows.enumerate() {
        let logits = &logits[..v];
        *token = if op.temperature == 0.0 {
            argmax(logits)
        } else {
            let uniform = philox::uniform(philox::draw(op.seed, Purpose::Sampling, op.draw, row as u64));
            sample_row(logits, op.temperature, op.top_k, op.top_p, uniform)
        } as i32;
    }
    Ok(())
}

/// Index of the largest logit, the lowest index among equals. NaN is never selected unless all logits are NaN.
fn argmax<R: Real>(logits: &[R]) -> usize {
    let mut best = 0;
    for (id, &x) in logits.iter().enumerate() {
        if x > logits[best] || logits[best].is_nan() {
            best = id;
        }
    }
    best
}

/// Descending order of logits: NaN is last, equal logits are ordered by id.
fn rank<R: Real>(logits: &[R], a: usize, b: usize) -> Ordering {
    let key = |id: usize| if logits[id].is_nan() { R::neg_infinity() } else { logits[id] };
    key(b).partial_cmp(&key(a)).unwrap_or(Ordering::Equal).then(a.cmp(&b))
}

fn sample_row<R: Real>(logits: &[R], temperature: f32, top_k: usize, top_p: f32, uniform: f32) -> usize {
    let mut ids: Vec<usize> = (0..logits.len()).collect();
    if top_k < ids.len() {
        ids.select_nth_unstable_by(top_k, |&a, &b| rank(logits, a, b));
        ids.truncate(top_k);
    }
    ids.sort_unstable_by(|&a, &b| rank(logits, a, b));

    let max = logits[ids[0]].wide();
    let weight = |id: usize| ((logits[id].wide() - max) / f64::from(temperature)).exp();
    let total: f64 = ids.iter().map(|&id| weight(id)).sum();
    // The nucleus: the smallest number of tokens whose probability reaches top_p, at least one.
    let mut kept = 0.0;
    let mut nucleus = 0;
    while nucleus < ids.len() && (nucleus == 0 || kept < f64::from(top_p) * total) {
        kept += weight(ids[nucleus]);
        nucleus += 1;
    }

    let mut rest = f64::from(uniform) * kept;
    for &id in &ids[..nucleus] {
        rest -= weight(id);
        if rest < 0.0 {
            return id;
        }
    }
    ids[nucleus - 1]
}
