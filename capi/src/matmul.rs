//! Linear layers with fused epilogues. A GELU-MLP is IRONWARP_EPILOGUE_BIAS_GELU followed by IRONWARP_EPILOGUE_BIAS.

use std::ffi::c_void;

use ironwarp::Result;
use ironwarp::cuda::workspace;
use ironwarp::ops::{
    self, Backend, DgradEpilogue, MatmulDgrad as Dgrad, MatmulDims, MatmulForward as Forward, MatmulWgrad as Wgrad,
};

use crate::arguments::Arguments;
use crate::call::{Status, Stream, Workspace, call, workspace_size};

/// What a linear layer does with the product y = x * weight^T.
#[repr(i32)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Epilogue {
    /// `out = y`
    None = 0,
    /// `out = y + bias`
    Bias = 1,
    /// `pre = y + bias`, rounded to bf16, and `out = gelu(pre)`, in the tanh form
    BiasGelu = 2,
    /// `out = residual + (y + bias)`
    BiasResidual = 3,
}

/// `out = epilogue(x * weight^T)` with f32 accumulation. C and OC are multiples of 8.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MatmulForward {
    /// (N, C) bf16.
    pub x: *const c_void,
    /// (OC, C) bf16, as PyTorch's Linear has it.
    pub weight: *const c_void,
    /// (OC) bf16; not read without a bias.
    pub bias: *const c_void,
    /// (N, OC) bf16, read by IRONWARP_EPILOGUE_BIAS_RESIDUAL only.
    pub residual: *const c_void,
    /// (N, OC) bf16, written by IRONWARP_EPILOGUE_BIAS_GELU only; kept for the backward.
    pub pre: *mut c_void,
    /// (N, OC) bf16, written.
    pub out: *mut c_void,
    /// Number of rows.
    pub n: i64,
    /// Number of input channels.
    pub c: i64,
    /// Number of output channels.
    pub oc: i64,
    /// One of IRONWARP_EPILOGUE_*.
    pub epilogue: i32,
}

/// Enqueues a linear layer.
///
/// # Safety
/// `args` is NULL or points to a struct whose pointers are as documented, until the work has completed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_matmul_forward(args: *const MatmulForward, stream: Stream) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("matmul_forward", args, stream, None, |args, check, cuda| {
            let [n, c, oc] = sizes(check, args.n, args.c, args.oc)?;
            let bias = || check.bf16("bias", args.bias, [oc]);
            let epilogue = match args.epilogue {
                0 => ops::Epilogue::None,
                1 => ops::Epilogue::Bias { bias: bias()? },
                2 => ops::Epilogue::BiasGelu { bias: bias()?, pre: check.bf16_mut("pre", args.pre, [n, oc])? },
                3 => ops::Epilogue::BiasResidual {
                    bias: bias()?,
                    residual: check.bf16("residual", args.residual, [n, oc])?,
                },
                unknown => {
                    let found = format_args!("epilogue = {unknown}");
                    return Err(check.failed("epilogue is one of IRONWARP_EPILOGUE_*, 0 to 3", found));
                }
            };
            cuda.matmul_forward(Forward {
                x: check.bf16("x", args.x, [n, c])?,
                weight: check.bf16("weight", args.weight, [oc, c])?,
                epilogue,
                out: check.bf16_mut("out", args.out, [n, oc])?,
            })
        })
    }
}

/// `dx = dout * weight`, multiplied by gelu'(pre) if `pre` is not NULL: the gradient of a linear layer's input. With `pre`
/// of the layer before, it is the gradient of that layer's pre-activation.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MatmulDgrad {
    /// (N, OC) bf16.
    pub dout: *const c_void,
    /// (OC, C) bf16.
    pub weight: *const c_void,
    /// (N, C) bf16, output of IRONWARP_EPILOGUE_BIAS_GELU; may be NULL.
    pub pre: *const c_void,
    /// (N, C) bf16, written.
    pub dx: *mut c_void,
    /// Number of rows.
    pub n: i64,
    /// Number of input channels of the layer.
    pub c: i64,
    /// Number of output channels of the layer.
    pub oc: i64,
}

/// Enqueues the gradient of a linear layer's input.
///
/// # Safety
/// As `ironwarp_matmul_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_matmul_dgrad(args: *const MatmulDgrad, stream: Stream) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("matmul_dgrad", args, stream, None, |args, check, cuda| {
            let [n, c, oc] = sizes(check, args.n, args.c, args.oc)?;
            cuda.matmul_dgrad(Dgrad {
                dout: check.bf16("dout", args.dout, [n, oc])?,
                weight: check.bf16("weight", args.weight, [oc, c])?,
                epilogue: if args.pre.is_null() {
                    DgradEpilogue::None
                } else {
                    DgradEpilogue::DGelu { pre: check.bf16("pre", args.pre, [n, c])? }
                },
                dx: check.bf16_mut("dx", args.dx, [n, c])?,
            })
        })
    }
}

/// `dweight (+)= dout^T * x`, `dbias (+)= sum_n dout[n]`: the gradients of a linear layer's parameters.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct MatmulWgrad {
    /// (N, OC) bf16.
    pub dout: *const c_void,
    /// (N, C) bf16, the input of the forward.
    pub x: *const c_void,
    /// (OC, C) f32, written or accumulated.
    pub dweight: *mut f32,
    /// (OC) f32, written or accumulated; may be NULL.
    pub dbias: *mut f32,
    /// Number of rows.
    pub n: i64,
    /// Number of input channels of the layer.
    pub c: i64,
    /// Number of output channels of the layer.
    pub oc: i64,
    /// 1: add to the outputs; 0: overwrite them.
    pub accumulate: i32,
}

/// Enqueues the gradients of a linear layer's parameters.
///
/// # Safety
/// As `ironwarp_matmul_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_matmul_wgrad(
    args: *const MatmulWgrad,
    workspace: Workspace,
    stream: Stream,
) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("matmul_wgrad", args, stream, Some(workspace), |args, check, cuda| {
            let [n, c, oc] = sizes(check, args.n, args.c, args.oc)?;
            let dbias = (!args.dbias.is_null()).then(|| check.f32_mut("dbias", args.dbias, [oc])).transpose()?;
            cuda.matmul_wgrad(Wgrad {
                dout: check.bf16("dout", args.dout, [n, oc])?,
                x: check.bf16("x", args.x, [n, c])?,
                dweight: check.f32_mut("dweight", args.dweight, [oc, c])?,
                dbias,
                write: check.write("accumulate", args.accumulate)?,
            })
        })
    }
}

/// Writes the bytes of workspace that `ironwarp_matmul_wgrad` needs for these sizes; it may be 0.
///
/// # Safety
/// `args` is NULL or points to a struct; `bytes` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_matmul_wgrad_workspace_size(args: *const MatmulWgrad, bytes: *mut usize) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        workspace_size("matmul_wgrad_workspace_size", args, bytes, |args, check| {
            let [n, c, oc] = sizes(check, args.n, args.c, args.oc)?;
            Ok(workspace::matmul_wgrad(MatmulDims { n, c, oc }))
        })
    }
}

fn sizes(check: &Arguments, n: i64, c: i64, oc: i64) -> Result<[usize; 3]> {
    let [n, c, oc] = check.sizes([("N", n), ("C", c), ("OC", oc)])?;
    check.tensor_exists("(N, C)", &[n, c])?;
    check.tensor_exists("(N, OC)", &[n, oc])?;
    check.tensor_exists("(OC, C)", &[oc, c])?;
    Ok([n, c, oc])
}
