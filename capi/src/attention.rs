//! Fused attention.

use std::ffi::c_void;

use ironwarp::Result;
use ironwarp::cuda::{Cuda, workspace};
use ironwarp::ops::{
    AttentionBackward as Backward, AttentionDims, AttentionForward as Forward, Backend, HeadStrides, Heads,
    HeadsLayout, HeadsMut, Qkv, QkvMut,
};

use crate::arguments::Arguments;
use crate::call::{Status, Stream, Workspace, call, workspace_size};

/// Where the rows of Q, K, V or of a gradient are: row (b, t, h), HS contiguous elements, begins at element
/// `b * batch + t * token + h * head`. Each is a multiple of 8. A packed (B, T, 3, NH, HS) tensor is three pointers with
/// batch = T * 3 * NH * HS, token = 3 * NH * HS and head = HS. PyTorch's contiguous (B, NH, T, HS) has batch = NH * T * HS,
/// token = HS and head = T * HS.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct HeadsStrides {
    /// From a sequence to the next.
    pub batch: i64,
    /// From a token to the next one of its sequence.
    pub token: i64,
    /// From a head to the next one of its token.
    pub head: i64,
}

/// `out[i] = sum_j exp(s[i, j] - lse[i]) * v[j]` for every head, with `s[i, j] = q[i] . k[j] / sqrt(HS)` and
/// `lse[i] = log(sum_j exp(s[i, j]))`; with `causal` over j <= i, else over all j. HS is a multiple of 16, at most 128.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AttentionForward {
    /// (B, T, NH, HS) bf16 with `q_strides`.
    pub q: *const c_void,
    /// (B, T, NH, HS) bf16 with `k_strides`.
    pub k: *const c_void,
    /// (B, T, NH, HS) bf16 with `v_strides`.
    pub v: *const c_void,
    /// (B, T, NH * HS) bf16, written.
    pub out: *mut c_void,
    /// (B, NH, T) f32, written; kept for the backward.
    pub lse: *mut f32,
    /// Strides of `q` in elements.
    pub q_strides: HeadsStrides,
    /// Strides of `k` in elements.
    pub k_strides: HeadsStrides,
    /// Strides of `v` in elements.
    pub v_strides: HeadsStrides,
    /// Batch size.
    pub b: i64,
    /// Sequence length.
    pub t: i64,
    /// Number of heads.
    pub nh: i64,
    /// Head size.
    pub hs: i64,
    /// 1: a token attends to itself and the tokens before it; 0: to all.
    pub causal: i32,
}

/// Enqueues attention.
///
/// # Safety
/// `args` is NULL or points to a struct whose pointers are as documented, until the work has completed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_attention_forward(args: *const AttentionForward, stream: Stream) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("attention_forward", args, stream, None, |args, check, cuda| {
            let dims @ AttentionDims { b, t, nh, hs } = sizes(check, [args.b, args.t, args.nh, args.hs])?;
            cuda.attention_forward(Forward {
                qkv: Qkv::Separate {
                    q: heads(check, "q", args.q, dims, args.q_strides)?,
                    k: heads(check, "k", args.k, dims, args.k_strides)?,
                    v: heads(check, "v", args.v, dims, args.v_strides)?,
                },
                causal: check.flag("causal", args.causal)?,
                out: check.bf16_mut("out", args.out, [b, t, nh * hs])?,
                lse: check.f32_mut("lse", args.lse, [b, nh, t])?,
            })
        })
    }
}

/// The gradients of IronwarpAttentionForward: with `p[i, j] = exp(s[i, j] - lse[i])`,
/// `ds = p * (dout . v - rowsum(dout * out))`: `dq = ds k / sqrt(HS)`, `dk = ds^T q / sqrt(HS)`, `dv = p^T dout`.
#[repr(C)]
#[derive(Debug, Clone, Copy)]
pub struct AttentionBackward {
    /// (B, T, NH * HS) bf16, the gradient of `out`.
    pub dout: *const c_void,
    /// (B, T, NH, HS) bf16 with `q_strides`.
    pub q: *const c_void,
    /// (B, T, NH, HS) bf16 with `k_strides`.
    pub k: *const c_void,
    /// (B, T, NH, HS) bf16 with `v_strides`.
    pub v: *const c_void,
    /// (B, T, NH * HS) bf16, the output of the forward.
    pub out: *const c_void,
    /// (B, NH, T) f32, from the forward.
    pub lse: *const f32,
    /// (B, T, NH, HS) bf16 with `dq_strides`, written. Elements between its rows are not.
    pub dq: *mut c_void,
    /// (B, T, NH, HS) bf16 with `dk_strides`, written.
    pub dk: *mut c_void,
    /// (B, T, NH, HS) bf16 with `dv_strides`, written.
    pub dv: *mut c_void,
    /// Strides of `q` in elements.
    pub q_strides: HeadsStrides,
    /// Strides of `k` in elements.
    pub k_strides: HeadsStrides,
    /// Strides of `v` in elements.
    pub v_strides: HeadsStrides,
    /// Strides of `dq` in elements.
    pub dq_strides: HeadsStrides,
    /// Strides of `dk` in elements.
    pub dk_strides: HeadsStrides,
    /// Strides of `dv` in elements.
    pub dv_strides: HeadsStrides,
    /// Batch size.
    pub b: i64,
    /// Sequence length.
    pub t: i64,
    /// Number of heads.
    pub nh: i64,
    /// Head size.
    pub hs: i64,
    /// As in the forward.
    pub causal: i32,
}

/// Enqueues the gradients of attention.
///
/// # Safety
/// As `ironwarp_attention_forward`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_attention_backward(
    args: *const AttentionBackward,
    workspace: Workspace,
    stream: Stream,
) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        call("attention_backward", args, stream, Some(workspace), |args, check, cuda| {
            let dims @ AttentionDims { b, t, nh, hs } = sizes(check, [args.b, args.t, args.nh, args.hs])?;
            let c = nh * hs;
            cuda.attention_backward(Backward {
                dout: check.bf16("dout", args.dout, [b, t, c])?,
                qkv: Qkv::Separate {
                    q: heads(check, "q", args.q, dims, args.q_strides)?,
                    k: heads(check, "k", args.k, dims, args.k_strides)?,
                    v: heads(check, "v", args.v, dims, args.v_strides)?,
                },
                causal: check.flag("causal", args.causal)?,
                out: check.bf16("out", args.out, [b, t, c])?,
                lse: check.f32("lse", args.lse, [b, nh, t])?,
                dqkv: QkvMut::Separate {
                    dq: heads_mut(check, "dq", args.dq, dims, args.dq_strides)?,
                    dk: heads_mut(check, "dk", args.dk, dims, args.dk_strides)?,
                    dv: heads_mut(check, "dv", args.dv, dims, args.dv_strides)?,
                },
            })
        })
    }
}

/// Writes the bytes of workspace that `ironwarp_attention_backward` needs for these sizes.
///
/// # Safety
/// `args` is NULL or points to a struct; `bytes` is NULL or can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ironwarp_attention_backward_workspace_size(
    args: *const AttentionBackward,
    bytes: *mut usize,
) -> Status {
    // SAFETY: passed on to the caller.
    unsafe {
        workspace_size("attention_backward_workspace_size", args, bytes, |args, check| {
            Ok(workspace::attention_backward(sizes(check, [args.b, args.t, args.nh, args.hs])?))
        })
    }
}

fn sizes(check: &Arguments, [b, t, nh, hs]: [i64; 4]) -> Result<AttentionDims> {
    let [b, t, nh, hs] = check.sizes([("B", b), ("T", t), ("NH", nh), ("HS", hs)])?;
    check.tensor_exists("(B, T, NH, HS)", &[b, t, nh, hs])?;
    Ok(AttentionDims { b, t, nh, hs })
}

fn heads(
    check: &Arguments,
    name: &str,
    ptr: *const c_void,
    dims: AttentionDims,
    strides: HeadsStrides,
) -> Result<Heads<'static, Cuda>> {
    let (layout, len) = layout(check, name, dims, strides)?;
    Ok(Heads { data: check.bf16(name, ptr, [len])?, layout })
}

fn heads_mut(
    check: &Arguments,
    name: &str,
    ptr: *mut c_void,
    dims: AttentionDims,
    strides: HeadsStrides,
) -> Result<HeadsMut<'static, Cuda>> {
    let (layout, len) = layout(check, name, dims, strides)?;
    Ok(HeadsMut { data: check.bf16_mut(name, ptr, [len])?, layout })
}

/// The layout, and the number of elements from the first to the end of the last row.
fn layout(
    check: &Arguments,
    name: &str,
    dims: AttentionDims,
    HeadsStrides { batch, token, head }: HeadsStrides,
) -> Result<(HeadsLayout, usize)> {
    let stride = |axis: &str, value: i64| {
        usize::try_from(value).map_err(|_| {
            let found = format_args!("{axis} stride of {name} = {value}");
            check.failed(format_args!("{axis} stride of {name} >= 0"), found)
        })
    };
    let strides =
        HeadStrides { batch: stride("batch", batch)?, token: stride("token", token)?, head: stride("head", head)? };
    let AttentionDims { b, t, nh, hs } = dims;
    let steps = [(b, strides.batch), (t, strides.token), (nh, strides.head)];
    // Saturates at a size that no allocation has.
    let len = steps.iter().fold(hs, |len, &(entries, stride)| len.saturating_add((entries - 1).saturating_mul(stride)));
    Ok((HeadsLayout::Strided { dims, strides }, len))
}
