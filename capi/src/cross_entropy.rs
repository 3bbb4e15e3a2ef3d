//! Softmax and cross-entropy.

use std::ffi::c_void;

use ironwarp::Result;
use ironwarp::ops::{Backend, CrossEntropyBackward as Backward, CrossEntropyForward as Forward};

use crate::arguments::Arguments;
use crate::call::{Status, Stream, call};

/// `losses[n] = log(sum_v exp(logits[n, v])) - logits[n, targets[n]]` over the first V columns, in nats. A row with a
/// negative target is ignored: its loss is 0. Vp is a multiple of 8.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyForward {
    /// (N, Vp) bf16. Columns V..Vp are not read.
    pub logits: *const c_void,
    /// (N) i32, each less than V.
    pub targets: *const i32,
    /// (N) f32, written.
    pub losses: *mut f32,
    /// Number of rows.
    pub n: i64,
    /// V, the vocabulary size.
    pub v: i64,
    /// Vp, the padded vocabulary size.
    pub vp: i64,
}

/// Enqueues the losses.
///
/// # Safety
/// `args` is NULL or points to a struct whose pointers are as documented, until the work has completed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_cross_entropy_forward(args: *const CrossEntropyForward, stream: Stream) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("cross_entropy_forward", args, stream, None, |args, check, cuda| {
            let [n, vocab, vp] = sizes(check, args.n, args.v, args.vp)?;
            cuda.cross_entropy_forward(Forward {
                logits: check.bf16("logits", args.logits, [n, vp])?,
                targets: check.ids("targets", args.targets, [n])?,
                vocab,
                losses: check.f32_mut("losses", args.losses, [n])?,
            })
        })
    }
}

/// The losses of IronwarpCrossEntropyForward, and in place
/// `logits[n, v] = (softmax(logits[n])[v] - (v == targets[n])) * scale`. Columns V..Vp and ignored rows become 0.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct CrossEntropyBackward {
    /// (N, Vp) bf16: the logits, replaced by their gradient.
    pub logits: *mut c_void,
    /// (N) i32, each less than V.
    pub targets: *const i32,
    /// (N) f32, written.
    pub losses: *mut f32,
    /// Number of rows.
    pub n: i64,
    /// V, the vocabulary size.
    pub v: i64,
    /// Vp, the padded vocabulary size.
    pub vp: i64,
    /// Gradient of the total loss with respect to the loss of a row, such as 1 / N for a mean.
    pub scale: f32,
}

/// Enqueues the losses and the gradient of the logits, in one kernel.
///
/// # Safety
/// As `ironwarp_cross_entropy_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_cross_entropy_backward(args: *const CrossEntropyBackward, stream: Stream) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("cross_entropy_backward", args, stream, None, |args, check, cuda| {
            let [n, vocab, vp] = sizes(check, args.n, args.v, args.vp)?;
            cuda.cross_entropy_backward(Backward {
                logits: check.bf16_mut("logits", args.logits, [n, vp])?,
                targets: check.ids("targets", args.targets, [n])?,
                vocab,
                scale: check.number("scale", args.scale)?.into(),
                losses: check.f32_mut("losses", args.losses, [n])?,
            })
        })
    }
}

fn sizes(check: &Arguments, n: i64, v: i64, vp: i64) -> Result<[usize; 3]> {
    let [n, v, vp] = check.sizes([("N", n), ("V", v), ("Vp", vp)])?;
    check.tensor_exists("(N, Vp)", &[n, vp])?;
    Ok([n, v, vp])
}
