//! AdamW with gradient clipping, and a guard that leaves everything as it was when a step went wrong.

use std::any::TypeId;

use super::check::{Rules, bytes};
use super::{Accum, AccumMut, ComputeMut, Floor, Operation};
use crate::error::Result;
use crate::tensor::Storage;

/// The numbers of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay of the first moment.
    pub beta1: f32,
    /// Decay of the second moment.
    pub beta2: f32,
    /// Added to the root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f32,
    /// Updates made, this one included: 1 for the first. For the bias correction.
    pub step: u64,
    /// Gradients are scaled down to this global norm; infinite for no clipping.
    pub max_norm: f32,
    /// Key of the stochastic rounding's draws.
    pub seed: u64,
    /// Index of the first element among all parameters, so that a parameter's draw does not depend on how the
    /// parameters are cut into calls. A multiple of [`Storage::VECTOR`].
    pub first_index: u64,
}

/// When an update must not happen: its loss or gradient norm is not finite or above a limit.
///
/// Decided where the numbers are, so that the host need not wait for them in the middle of a step.
pub struct UpdateGuard<'a, S: Storage> {
    /// (1), from [`super::GradNorm`].
    pub norm: Accum<'a, S>,
    /// (1), from [`super::LossSum`].
    pub loss: Accum<'a, S>,
    /// Largest norm that is taken; infinite for no limit.
    pub norm_limit: f32,
    /// Largest loss that is taken; infinite for no limit.
    pub loss_limit: f32,
}

/// Nothing when the guard forbids it. Else, with `g = grad · min(1, max_norm / (norm + 1e-6))` and `t = step`:
/// `m = β1·m + (1-β1)·g`, `v = β2·v + (1-β2)·g²`,
/// `w = w - lr·(m / (1-β1ᵗ) / (√(v / (1-β2ᵗ)) + ε) + weight_decay·w)`
///
/// `w` is `master`, and `weight` its stochastic rounding ([`super::philox::round_to_bf16`] by Philox draw number
/// `first_index + i` of key `seed`, purpose rounding, counter `step`) where [`Storage::Compute`] is narrower than [`Storage::Accum`]; else `weight` itself, and there is no
/// master. Source: Loshchilov and Hutter 2019.
pub struct AdamW<'a, S: Storage> {
    /// (P), as the model reads them, updated in place.
    pub weight: ComputeMut<'a, S>,
    /// (P), updated in place; exactly when the weights are narrower.
    pub master: Option<AccumMut<'a, S>>,
    /// (P).
    pub grad: Accum<'a, S>,
    /// (P), first moment, updated in place.
    pub m: AccumMut<'a, S>,
    /// (P), second moment, updated in place.
    pub v: AccumMut<'a, S>,
    /// When to leave all as it is.
    pub guard: UpdateGuard<'a, S>,
    /// The numbers.
    pub settings: AdamWSettings,
}

/// Whether a backend's weights need a wider master copy.
pub(crate) fn needs_master<S: Storage>() -> bool {
    TypeId::of::<S::Compute>() != TypeId::of::<S::Accum>()
}

impl<S: Storage> Operation for AdamW<'_, S> {
    const NAME: &'static str = "adamw";
    /// P.
    type Dims = usize;

    fn check(&self) -> Result<usize> {
        let rules = Rules(Self::NAME);
        let p = self.weight.shape().len();
        rules.not_empty("weight", self.weight.shape())?;
        rules.len("grad", "(P)", self.grad.shape(), p)?;
        rules.len("m", "(P)", self.m.shape(), p)?;
        rules.len("v", "(P)", self.v.shape(), p)?;
        rules.require(
            self.master.is_some() == needs_master::<S>(),
            "master exactly when weights are narrower",
            || format!("master given: {}, needed: {}", self.master.is_some(), needs_master::<S>()),
        )?;
        if let Some(master) = &self.master {
            rules.len("master", "(P)", master.shape(), p)?;
        }
        rules.shape("norm", "(1)", self.guard.norm.shape(), [1])?;
        rules.shape("loss", "(1)", self.guard.loss.shape(), [1])?;
        let AdamWSettings { learning_rate, beta1, beta2, eps, weight_decay, step, max_norm, .. } = self.settings;
        rules.require(learning_rate.is_finite(), "lr finite", || format!("lr = {learning_rate}"))?;
        rules.require(weight_decay.is_finite(), "weight_decay finite", || format!("weight_decay = {weight_decay}"))?;
        rules.require(max_norm > 0.0, "max_norm > 0", || format!("max_norm = {max_norm}"))?;
        rules.require((0.0..1.0).contains(&beta1), "0 <= β1 < 1", || format!("β1 = {beta1}"))?;
        rules.require((0.0..1.0).contains(&beta2), "0 <= β2 < 1", || format!("β2 = {beta2}"))?;
        rules.require(eps > 0.0, "ε > 0", || format!("ε = {eps}"))?;
        rules.require(step > 0, "step >= 1", || format!("step = {step}"))?;
        rules.vectors::<S>("P", p)?;
        // A draw makes four numbers, so that a vector of parameters begins with the first of them.
        let (first, vector) = (self.settings.first_index, S::VECTOR as u64);
        rules.require(first.is_multiple_of(vector), format_args!("first_index % {vector} == 0"), || {
            format!("first_index = {first}")
        })?;
        Ok(p)
    }

    fn floor(&self) -> Floor {
        let p = self.weight.shape().len();
        // grad read; m, v and master (or the weight in its place) read and written; a narrower weight written.
        let narrow = if self.master.is_some() { bytes::<S::Compute>(p) } else { 0 };
        Floor { bytes: bytes::<S::Accum>(7 * p) + narrow, flops: 0 }
    }
}
