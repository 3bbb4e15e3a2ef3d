//! AdamW: see [`crate::ops::AdamW`].

use rayon::prelude::*;

use super::simd::vectorised;
use super::{Cpu, Real};
use crate::error::Result;
use crate::ops::{AdamW, AdamWSettings, Operation, UpdateGuard};

/// Elements per parallel task.
const CHUNK: usize = 1 << 14;

/// Whether the guard accepts the step's loss and gradient norm.
fn allows<R: Real>(guard: &UpdateGuard<'_, Cpu<R>>) -> bool {
    let (norm, loss) = (guard.norm.as_slice()[0], guard.loss.as_slice()[0]);
    // Compared in f32, because the host reports and checks the numbers in f32.
    let within = |value: R, limit: f32| value.to_f32().is_finite() && value.to_f32() <= limit;
    within(norm, guard.norm_limit) && within(loss, guard.loss_limit)
}

pub(super) fn update<R: Real>(op: AdamW<'_, Cpu<R>>) -> Result<()> {
    op.check()?;
    if !allows(&op.guard) {
        return Ok(());
    }
    let AdamWSettings { learning_rate, beta1, beta2, eps, weight_decay, step, max_norm, .. } = op.settings;
    let [lr, beta1, beta2, eps, decay] = [learning_rate, beta1, beta2, eps, weight_decay].map(|x| R::of(x.into()));
    let clip = (R::of(max_norm.into()) / (op.guard.norm.as_slice()[0] + R::of(1e-6))).min(R::one());
    // Computed in double precision: 1 - βᵗ suffers from cancellation when β is close to 1.
    let correction = |beta: R| R::of(1.0 - beta.wide().powf(step as f64));
    let (correction1, correction2) = (correction(beta1), correction(beta2));

    let state = op.m.into_slice().par_chunks_mut(CHUNK).zip(op.v.into_slice().par_chunks_mut(CHUNK));
    let weights = op.weight.into_slice().par_chunks_mut(CHUNK).zip(op.grad.as_slice().par_chunks(CHUNK));
    let factors = Factors { lr, beta1, beta2, eps, decay, clip, correction1, correction2 };
    weights.zip(state).for_each(|((weight, grad), (m, v))| update_chunk(weight, grad, m, v, &factors));
    Ok(())
}

/// The numbers that are the same for all elements.
struct Factors<R> {
    lr: R,
    beta1: R,
    beta2: R,
    eps: R,
    decay: R,
    clip: R,
    correction1: R,
    correction2: R,
}

vectorised! {
    fn update_chunk<R: Real>(weight: &mut [R], grad: &[R], m: &mut [R], v: &mut [R], factors: &Factors<R>) {
        let &Factors { lr, beta1, beta2, eps, decay, clip, correction1, correction2 } = factors;
        // Reslicing to equal lengths lets the compiler drop the bounds checks and vectorise the loop.
        let n = weight.len();
        let (grad, m, v) = (&grad[..n], &mut m[..n], &mut v[..n]);
        for i in 0..n {
            let g = grad[i] * clip;
            m[i] = beta1 * m[i] + (R::one() - beta1) * g;
            v[i] = beta2 * v[i] + (R::one() - beta2) * g * g;
            let m_hat = m[i] / correction1;
            let v_hat = v[i] / correction2;
            weight[i] -= lr * (m_hat / (v_hat.sqrt() + eps) + decay * weight[i]);
        }
    }
}
