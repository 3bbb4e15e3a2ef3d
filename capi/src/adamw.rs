//! AdamW and the gradient norm by which it clips.

use std::ffi::c_void;

use ironwarp::Result;
use ironwarp::cuda::workspace;
use ironwarp::ops::{AdamW, AdamWSettings, Backend, GradNorm as Norm, UpdateGuard};

use crate::arguments::Arguments;
use crate::call::{Status, Stream, Workspace, call, workspace_size};

/// `norm = sqrt(sum grad^2)` over P elements. P is a multiple of 8.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct GradNorm {
    /// (P) f32.
    pub grad: *const f32,
    /// (1) f32, written.
    pub norm: *mut f32,
    /// Number of elements.
    pub p: i64,
}

/// Enqueues a gradient norm.
///
/// # Safety
/// `args` is NULL or points to a struct whose pointers are as documented, until the work has completed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_grad_norm(args: *const GradNorm, workspace: Workspace, stream: Stream) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("grad_norm", args, stream, Some(workspace), |args, check, cuda| {
            let p = elements(check, args.p)?;
            cuda.grad_norm(Norm {
                grad: check.f32("grad", args.grad, [p])?,
                norm: check.f32_mut("norm", args.norm, [1])?,
            })
        })
    }
}

/// Writes the bytes of workspace that `ironwarp_grad_norm` needs for these sizes.
///
/// # Safety
/// `args` is NULL or points to a struct; `bytes` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_grad_norm_workspace_size(args: *const GradNorm, bytes: *mut usize) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        workspace_size("grad_norm_workspace_size", args, bytes, |args, check| {
            Ok(workspace::grad_norm(elements(check, args.p)?))
        })
    }
}

/// One update of P parameters, all in place: with `g = grad * min(1, max_norm / (norm + 1e-6))` and t = step,
/// `m = beta1 * m + (1 - beta1) * g`, `v = beta2 * v + (1 - beta2) * g^2`,
/// `master = master - learning_rate * (m / (1 - beta1^t) / (sqrt(v / (1 - beta2^t)) + eps) + weight_decay * master)`, and
/// `weight` is `master` rounded to bf16 stochastically. P is a multiple of 8.
///
/// Nothing is updated if the norm or the loss is not finite, so that one bad step is skipped without a wait.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct Adamw {
    /// (P) bf16, the weights that the other operations read.
    pub weight: *mut c_void,
    /// (P) f32, the full-precision master weights.
    pub master: *mut f32,
    /// (P) f32.
    pub grad: *const f32,
    /// (P) f32, the first moment.
    pub m: *mut f32,
    /// (P) f32, the second moment.
    pub v: *mut f32,
    /// (1) f32, output of `ironwarp_grad_norm` over all parameters.
    pub norm: *const f32,
    /// (1) f32, the loss of the step; may be NULL.
    pub loss: *const f32,
    /// Number of parameters.
    pub p: i64,
    /// Number of updates including this one, so 1 for the first.
    pub step: u64,
    /// Seed of the stochastic rounding.
    pub seed: u64,
    /// Index of the first parameter among all parameters, a multiple of 8: a parameter's draw does not depend on how the
    /// parameters are split into calls.
    pub first_index: u64,
    /// Learning rate.
    pub learning_rate: f32,
    /// Decay rate of the first moment.
    pub beta1: f32,
    /// Decay rate of the second moment.
    pub beta2: f32,
    /// Added to the square root of the second moment.
    pub eps: f32,
    /// Decoupled weight decay, multiplied by the learning rate.
    pub weight_decay: f32,
    /// Gradients are clipped to this global norm; infinity disables clipping.
    pub max_norm: f32,
}

/// Enqueues an update.
///
/// # Safety
/// As `ironwarp_grad_norm`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_adamw(args: *const Adamw, stream: Stream) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("adamw", args, stream, None, |args, check, cuda| {
            let p = elements(check, args.p)?;
            let norm = check.f32("norm", args.norm, [1])?;
            cuda.adamw(AdamW {
                weight: check.bf16_mut("weight", args.weight, [p])?,
                master: Some(check.f32_mut("master", args.master, [p])?),
                grad: check.f32("grad", args.grad, [p])?,
                m: check.f32_mut("m", args.m, [p])?,
                v: check.f32_mut("v", args.v, [p])?,
                guard: UpdateGuard {
                    norm,
                    // The norm is finite when it is accepted, so that it also stands for a loss that is not given.
                    loss: if args.loss.is_null() { norm } else { check.f32("loss", args.loss, [1])? },
                    norm_limit: f32::INFINITY,
                    loss_limit: f32::INFINITY,
                },
                settings: AdamWSettings {
                    learning_rate: check.number("learning_rate", args.learning_rate)?,
                    beta1: check.number("beta1", args.beta1)?,
                    beta2: check.number("beta2", args.beta2)?,
                    eps: check.number("eps", args.eps)?,
                    weight_decay: check.number("weight_decay", args.weight_decay)?,
                    step: args.step,
                    max_norm: check.number("max_norm", args.max_norm)?,
                    seed: args.seed,
                    first_index: args.first_index,
                },
            })
        })
    }
}

fn elements(check: &Arguments, p: i64) -> Result<usize> {
    let p = check.size("P", p)?;
    check.tensor_exists("(P)", &[p])?;
    Ok(p)
}
