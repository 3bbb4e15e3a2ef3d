//! Token and position embedding.

use std::ffi::c_void;

use ironwarp::Result;
use ironwarp::cuda::workspace;
use ironwarp::ops::{Backend, EmbeddingBackward as Backward, EmbeddingDims, EmbeddingForward as Forward};

use crate::arguments::Arguments;
use crate::call::{Status, Stream, Workspace, call, workspace_size};

/// `out[b, t] = wte[tokens[b, t]] + wpe[position + t]`, with position + T <= T_max. C is a multiple of 8.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingForward {
    /// (B, T) i32, each at least 0 and less than Vp.
    pub tokens: *const i32,
    /// (Vp, C) bf16, the token table.
    pub wte: *const c_void,
    /// (T_max, C) bf16, the position table.
    pub wpe: *const c_void,
    /// (B, T, C) bf16, written.
    pub out: *mut c_void,
    /// Batch size.
    pub b: i64,
    /// Tokens per sequence.
    pub t: i64,
    /// Number of channels.
    pub c: i64,
    /// Vp, rows of the token table.
    pub vp: i64,
    /// T_max, rows of the position table.
    pub t_max: i64,
    /// Position of the first token of every sequence, at least 0.
    pub position: i64,
}

/// Enqueues an embedding.
///
/// # Safety
/// `args` is NULL or points to a struct whose pointers are as documented, until the work has completed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_embedding_forward(args: *const EmbeddingForward, stream: Stream) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("embedding_forward", args, stream, None, |args, check, cuda| {
            let [b, t, c, vp, t_max] = sizes(check, [args.b, args.t, args.c, args.vp, args.t_max])?;
            let position = usize::try_from(args.position)
                .map_err(|_| check.failed("position >= 0", format_args!("position = {}", args.position)))?;
            cuda.embedding_forward(Forward {
                tokens: check.ids("tokens", args.tokens, [b, t])?,
                wte: check.bf16("wte", args.wte, [vp, c])?,
                wpe: check.bf16("wpe", args.wpe, [t_max, c])?,
                position,
                out: check.bf16_mut("out", args.out, [b, t, c])?,
            })
        })
    }
}

/// `dwte[tokens[b, t]] += dout[b, t]`, `dwpe[t] (+)= sum_b dout[b, t]`. Tokens that share a row are summed in a fixed order.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct EmbeddingBackward {
    /// (B, T) i32, each at least 0 and less than Vp.
    pub tokens: *const i32,
    /// (B, T, C) bf16, the gradient of `out`.
    pub dout: *const c_void,
    /// (Vp, C) f32, always accumulated.
    pub dwte: *mut f32,
    /// (T_max, C) f32, written or accumulated. When written, rows past T become 0.
    pub dwpe: *mut f32,
    /// Batch size.
    pub b: i64,
    /// Tokens per sequence.
    pub t: i64,
    /// Number of channels.
    pub c: i64,
    /// Vp, rows of the token table.
    pub vp: i64,
    /// T_max, rows of the position table.
    pub t_max: i64,
    /// 1: add to `dwpe`; 0: overwrite it.
    pub accumulate: i32,
}

/// Enqueues the gradients of both tables.
///
/// # Safety
/// As `ironwarp_embedding_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_embedding_backward(
    args: *const EmbeddingBackward,
    workspace: Workspace,
    stream: Stream,
) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("embedding_backward", args, stream, Some(workspace), |args, check, cuda| {
            let [b, t, c, vp, t_max] = sizes(check, [args.b, args.t, args.c, args.vp, args.t_max])?;
            cuda.embedding_backward(Backward {
                tokens: check.ids("tokens", args.tokens, [b, t])?,
                dout: check.bf16("dout", args.dout, [b, t, c])?,
                dwte: check.f32_mut("dwte", args.dwte, [vp, c])?,
                dwpe: check.f32_mut("dwpe", args.dwpe, [t_max, c])?,
                write: check.write("accumulate", args.accumulate)?,
            })
        })
    }
}

/// Writes the bytes of workspace that `ironwarp_embedding_backward` needs for these sizes.
///
/// # Safety
/// `args` is NULL or points to a struct; `bytes` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_embedding_backward_workspace_size(
    args: *const EmbeddingBackward,
    bytes: *mut usize,
) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        workspace_size("embedding_backward_workspace_size", args, bytes, |args, check| {
            let [b, t, c, vp, max_t] = sizes(check, [args.b, args.t, args.c, args.vp, args.t_max])?;
            Ok(workspace::embedding_backward(EmbeddingDims { b, t, c, vp, max_t }))
        })
    }
}

fn sizes(check: &Arguments, [b, t, c, vp, t_max]: [i64; 5]) -> Result<[usize; 5]> {
    let [b, t, c, vp, t_max] = check.sizes([("B", b), ("T", t), ("C", c), ("Vp", vp), ("T_max", t_max)])?;
    check.tensor_exists("(B, T, C)", &[b, t, c])?;
    check.tensor_exists("(Vp, C)", &[vp, c])?;
    check.tensor_exists("(T_max, C)", &[t_max, c])?;
    Ok([b, t, c, vp, t_max])
}
