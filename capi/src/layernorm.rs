//! Layer normalisation, alone and after the addition to the residual stream.

use std::ffi::c_void;

use ironwarp::Result;
use ironwarp::cuda::workspace;
use ironwarp::ops::{Backend, LayerNormBackward, LayerNormForward, ResidualLayerNormForward, RowDims};

use crate::arguments::Arguments;
use crate::call::{Status, Stream, Workspace, call, workspace_size};

/// `out = (x - mean) * rstd * weight + bias` over rows of C channels, with mean = sum(x) / C and
/// rstd = 1 / sqrt(sum((x - mean)^2) / C + 1e-5). C is a multiple of 8.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LayernormForward {
    /// (N, C) bf16.
    pub x: *const c_void,
    /// (C) bf16.
    pub weight: *const c_void,
    /// (C) bf16.
    pub bias: *const c_void,
    /// (N, C) bf16, written.
    pub out: *mut c_void,
    /// (N) f32, written; kept for the backward.
    pub mean: *mut f32,
    /// (N) f32, written; kept for the backward.
    pub rstd: *mut f32,
    /// Number of rows.
    pub n: i64,
    /// Number of channels.
    pub c: i64,
}

/// Enqueues a layernorm.
///
/// # Safety
/// `args` is NULL or points to a struct whose pointers are as documented, until the work has completed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_layernorm_forward(args: *const LayernormForward, stream: Stream) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("layernorm_forward", args, stream, None, |args, check, cuda| {
            let [n, c] = sizes(check, args.n, args.c)?;
            cuda.layernorm_forward(LayerNormForward {
                x: check.bf16("x", args.x, [n, c])?,
                weight: check.bf16("weight", args.weight, [c])?,
                bias: check.bf16("bias", args.bias, [c])?,
                out: check.bf16_mut("out", args.out, [n, c])?,
                mean: check.f32_mut("mean", args.mean, [n])?,
                rstd: check.f32_mut("rstd", args.rstd, [n])?,
            })
        })
    }
}

/// `sum = x + residual`, rounded to bf16, and then `out` = layernorm of `sum` as in IronwarpLayernormForward.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct ResidualLayernormForward {
    /// (N, C) bf16, output of the branch.
    pub x: *const c_void,
    /// (N, C) bf16, the residual stream.
    pub residual: *const c_void,
    /// (C) bf16.
    pub weight: *const c_void,
    /// (C) bf16.
    pub bias: *const c_void,
    /// (N, C) bf16, written: the residual stream after the addition.
    pub sum: *mut c_void,
    /// (N, C) bf16, written.
    pub out: *mut c_void,
    /// (N) f32, written; kept for the backward.
    pub mean: *mut f32,
    /// (N) f32, written; kept for the backward.
    pub rstd: *mut f32,
    /// Number of rows.
    pub n: i64,
    /// Number of channels.
    pub c: i64,
}

/// Enqueues an addition to the residual stream and the layernorm of the sum, in one kernel.
///
/// # Safety
/// As `ironwarp_layernorm_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_residual_layernorm_forward(
    args: *const ResidualLayernormForward,
    stream: Stream,
) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("residual_layernorm_forward", args, stream, None, |args, check, cuda| {
            let [n, c] = sizes(check, args.n, args.c)?;
            cuda.residual_layernorm_forward(ResidualLayerNormForward {
                x: check.bf16("x", args.x, [n, c])?,
                residual: check.bf16("residual", args.residual, [n, c])?,
                weight: check.bf16("weight", args.weight, [c])?,
                bias: check.bf16("bias", args.bias, [c])?,
                sum: check.bf16_mut("sum", args.sum, [n, c])?,
                out: check.bf16_mut("out", args.out, [n, c])?,
                mean: check.f32_mut("mean", args.mean, [n])?,
                rstd: check.f32_mut("rstd", args.rstd, [n])?,
            })
        })
    }
}

/// The gradients of IronwarpLayernormForward. After a fused residual addition, `x` is its `sum`, and `dx` with
/// `accumulate_dx` = 1 adds to the gradient that the residual stream already has.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct LayernormBackward {
    /// (N, C) bf16, the gradient of `out`.
    pub dout: *const c_void,
    /// (N, C) bf16, the input of the forward.
    pub x: *const c_void,
    /// (C) bf16.
    pub weight: *const c_void,
    /// (N) f32, from the forward.
    pub mean: *const f32,
    /// (N) f32, from the forward.
    pub rstd: *const f32,
    /// (N, C) bf16, written or accumulated.
    pub dx: *mut c_void,
    /// (C) f32, written or accumulated.
    pub dweight: *mut f32,
    /// (C) f32, written or accumulated.
    pub dbias: *mut f32,
    /// Number of rows.
    pub n: i64,
    /// Number of channels.
    pub c: i64,
    /// 1: add to `dx`; 0: overwrite it.
    pub accumulate_dx: i32,
    /// 1: add to `dweight` and `dbias`; 0: overwrite them.
    pub accumulate: i32,
}

/// Enqueues the gradients of a layernorm.
///
/// # Safety
/// As `ironwarp_layernorm_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_layernorm_backward(
    args: *const LayernormBackward,
    workspace: Workspace,
    stream: Stream,
) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("layernorm_backward", args, stream, Some(workspace), |args, check, cuda| {
            let [n, c] = sizes(check, args.n, args.c)?;
            cuda.layernorm_backward(LayerNormBackward {
                dout: check.bf16("dout", args.dout, [n, c])?,
                x: check.bf16("x", args.x, [n, c])?,
                weight: check.bf16("weight", args.weight, [c])?,
                mean: check.f32("mean", args.mean, [n])?,
                rstd: check.f32("rstd", args.rstd, [n])?,
                dx: check.bf16_mut("dx", args.dx, [n, c])?,
                dx_write: check.write("accumulate_dx", args.accumulate_dx)?,
                dweight: check.f32_mut("dweight", args.dweight, [c])?,
                dbias: check.f32_mut("dbias", args.dbias, [c])?,
                write: check.write("accumulate", args.accumulate)?,
            })
        })
    }
}

/// Writes the bytes of workspace that `ironwarp_layernorm_backward` needs for these sizes.
///
/// # Safety
/// `args` is NULL or points to a struct; `bytes` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_layernorm_backward_workspace_size(
    args: *const LayernormBackward,
    bytes: *mut usize,
) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        workspace_size("layernorm_backward_workspace_size", args, bytes, |args, check| {
            let [n, c] = sizes(check, args.n, args.c)?;
            Ok(workspace::layernorm_backward(RowDims { n, c }))
        })
    }
}

fn sizes(check: &Arguments, n: i64, c: i64) -> Result<[usize; 2]> {
    let sizes = check.sizes([("N", n), ("C", c)])?;
    check.tensor_exists("(N, C)", &sizes)?;
    Ok(sizes)
}
