//! AdamW with gradient clipping, and a guard that skips the update when the step's loss or gradient norm is bad.

use std::any::TypeId;

use super::check::{Rules, bytes};
use super::operation::{Accum, AccumMut, ComputeMut, Floor, Operation};
use crate::error::Result;
use crate::tensor::Storage;

/// Scalars of one update.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct AdamWSettings {
    /// Learning rate of this step.
    pub learning_rate: f32,
    /// Decay rate of the first moment.
    pub beta1: f32,
    /// Decay rate of the second moment.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f32,
    /// Number of updates including this one, so 1 for the first; used for bias correction.
    pub step: u64,
    /// Gradients are clipped to this global norm; infinite disables clipping.
    pub max_norm: f32,
    /// RNG seed (Philox key) of the stochastic rounding.
    pub seed: u64,
    /// Index of the first element among all parameters, so that a parameter's random draw does not depend on how the
    /// parameters are split into calls. A multiple of [`Storage::VECTOR`].
    pub first_index: u64,
}

/// Condition for skipping an update: the loss or the gradient norm is not finite or exceeds its limit.
///
/// The backend evaluates it on the device, so the host does not have to wait for the two numbers within a step.
pub struct UpdateGuard<'a, S: Storage> {
    /// (1), output of [`super::GradNorm`].
    pub norm: Accum<'a, S>,
    /// (1), output of [`super::LossSum`].
    pub loss: Accum<'a, S>,
    /// Largest accepted norm; infinite for no limit.
    pub norm_limit: f32,
    /// Largest accepted loss; infinite for no limit.
    pub loss_limit: f32,
}

/// Does nothing if the guard rejects the step. Otherwise, with `g = grad · min(1, max_norm / (norm + 1e-6))` and
/// `t = step`: `m = β1·m + (1-β1)·g`, `v = β2·v + (1-β2)·g²`,
/// `w = w - lr·(m / (1-β1ᵗ) / (√(v / (1-β2ᵗ)) + ε) + weight_decay·w)`
///
/// If [`Storage::Compute`] is narrower than [`Storage::Accum`], `w` is `master`, and `weight` becomes its stochastic
/// rounding: [`super::philox::round_to_bf16`] with Philox draw `first_index + i` of key `seed`, purpose rounding, counter
/// `step`. Otherwise `w` is `weight` itself and there is no master copy. Source: Loshchilov and Hutter 2019.
pub struct AdamW<'a, S: Storage> {
    /// (P), the weights that the model reads, updated in place.
    pub weight: ComputeMut<'a, S>,
    /// (P), full-precision master weights, updated in place; present exactly if the weights are narrower.
    pub master: Option<AccumMut<'a, S>>,
    /// (P), gradients.
    pub grad: Accum<'a, S>,
    /// (P), first moment, updated in place.
    pub m: AccumMut<'a, S>,
    /// (P), second moment, updated in place.
    pub v: AccumMut<'a, S>,
    /// Condition for skipping the update.
    pub guard: UpdateGuard<'a, S>,
    /// Scalars of the update.
    pub settings: AdamWSettings,
}

/// Whether a backend's weights need a full-precision master copy.
pub(crate) fn needs_master<S: Storage>() -> bool {
    TypeId::of::<S::Compute>() != TypeId::of::<S::Accum>()
}

impl<S: Storage> Operation for AdamW<'_, S> {
    const NAME: &'static str = "adamw";
    /// P, the number of parameters.
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
        // One Philox call yields four draws; a vector of parameters must start at the first of the four.
        let (first, vector) = (self.settings.first_index, S::VECTOR as u64);
        rules.require(first.is_multiple_of(vector), format_args!("first_index % {vector} == 0"), || {
            format!("first_index = {first}")
        })?;
        Ok(p)
    }

    fn floor(&self) -> Floor {
        let p = self.weight.shape().len();
        // Reads grad; reads and writes m, v and master (or weight, if there is no master); writes a narrower weight.
        let narrow = if self.master.is_some() { bytes::<S::Compute>(p) } else { 0 };
        Floor { bytes: bytes::<S::Accum>(7 * p) + narrow, flops: 0 }
    }
}
