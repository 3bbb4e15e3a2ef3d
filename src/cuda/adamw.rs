//! AdamW: see [`crate::ops::AdamW`] and `kernels/adamw.cu`.

use super::launch::params::{ADAMW_ELEMENTS_PER_BLOCK, ADAMW_THREADS, AdamWParams};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::{Cuda, Operand};
use crate::error::{Error, Result};
use crate::ops::{AdamW, AdamWSettings, Operation};

const UPDATE: Kernel<AdamWParams> = Kernel::new("adamw", "adamw", ADAMW_THREADS);

pub(super) const KERNELS: &[Spec] = &[UPDATE.spec];

pub(super) fn update(cuda: &Cuda, op: AdamW<'_, Cuda>) -> Result<()> {
    const NAME: &str = AdamW::<Cuda>::NAME;
    let p = op.check()?;
    let Some(master) = op.master else {
        return Err(Error::invalid("adamw: check() accepted bf16 weights without master weights"));
    };
    let AdamWSettings { learning_rate, beta1, beta2, eps, weight_decay, step, max_norm, seed, first_index } =
        op.settings;
    // In f64, as in the reference: 1 - βᵗ cancels when β is close to 1.
    let correction = |beta: f32| (1.0 - f64::from(beta).powf(step as f64)) as f32;
    let params = AdamWParams {
        weight: op.weight.aligned(NAME, "weight")?,
        master: master.aligned(NAME, "master")?,
        grad: op.grad.aligned(NAME, "grad")?,
        m: op.m.aligned(NAME, "m")?,
        v: op.v.aligned(NAME, "v")?,
        norm: op.guard.norm.ptr(),
        loss: op.guard.loss.ptr(),
        len: p as u64,
        seed,
        step,
        first_index,
        learning_rate,
        beta1,
        beta2,
        eps,
        weight_decay,
        bias_correction1: correction(beta1),
        bias_correction2: correction(beta2),
        max_norm,
        norm_limit: op.guard.norm_limit,
        loss_limit: op.guard.loss_limit,
    };
    cuda.device().launch(&UPDATE, Grid::of(p.div_ceil(ADAMW_ELEMENTS_PER_BLOCK as usize)), [("P", p)], &params)
}
