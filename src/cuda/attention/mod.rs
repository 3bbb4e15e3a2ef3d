//! Attention: see [`crate::ops::AttentionForward`], [`crate::ops::AttentionBackward`] and
//! `kernels/attention_forward_sm80.cu`, `kernels/attention_backward_sm80.cu`.

mod config;

use std::f64::consts::LOG2_E;
use std::fmt::Display;

use config::{Backward, forward_shared_bytes, heads_per_group};

use super::launch::params::{
    ATTENTION_BACKWARD_THREADS, ATTENTION_FORWARD_BLOCK_M, ATTENTION_FORWARD_MIN_BLOCKS, ATTENTION_FORWARD_THREADS,
    AttentionBackwardParams, AttentionForwardParams, AttentionInput, AttentionOutput,
};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::{Cuda, Operand};
use crate::error::{Error, Result};
use crate::ops::{AttentionBackward, AttentionDims, AttentionForward, ComputeMut, HeadStrides, Operation, Qkv, QkvMut};

/// Head sizes are multiples of the K of an MMA.
const MMA_K: usize = 16;
/// The largest head size.
const MAX_HS: usize = 128;

const FORWARD: [Kernel<AttentionForwardParams>; MAX_HS / MMA_K] = [
    forward_kernel("attention_forward_hs16", 16),
    forward_kernel("attention_forward_hs32", 32),
    forward_kernel("attention_forward_hs48", 48),
    forward_kernel("attention_forward_hs64", 64),
    forward_kernel("attention_forward_hs80", 80),
    forward_kernel("attention_forward_hs96", 96),
    forward_kernel("attention_forward_hs112", 112),
    forward_kernel("attention_forward_hs128", 128),
];

const BACKWARD_DQ: [Kernel<AttentionBackwardParams>; MAX_HS / MMA_K] = [
    backward_kernel("attention_backward_dq_hs16", 16, Backward::Dq),
    backward_kernel("attention_backward_dq_hs32", 32, Backward::Dq),
    backward_kernel("attention_backward_dq_hs48", 48, Backward::Dq),
    backward_kernel("attention_backward_dq_hs64", 64, Backward::Dq),
    backward_kernel("attention_backward_dq_hs80", 80, Backward::Dq),
    backward_kernel("attention_backward_dq_hs96", 96, Backward::Dq),
    backward_kernel("attention_backward_dq_hs112", 112, Backward::Dq),
    backward_kernel("attention_backward_dq_hs128", 128, Backward::Dq),
];

const BACKWARD_DKDV: [Kernel<AttentionBackwardParams>; MAX_HS / MMA_K] = [
    backward_kernel("attention_backward_dkdv_hs16", 16, Backward::DkDv),
    backward_kernel("attention_backward_dkdv_hs32", 32, Backward::DkDv),
    backward_kernel("attention_backward_dkdv_hs48", 48, Backward::DkDv),
    backward_kernel("attention_backward_dkdv_hs64", 64, Backward::DkDv),
    backward_kernel("attention_backward_dkdv_hs80", 80, Backward::DkDv),
    backward_kernel("attention_backward_dkdv_hs96", 96, Backward::DkDv),
    backward_kernel("attention_backward_dkdv_hs112", 112, Backward::DkDv),
    backward_kernel("attention_backward_dkdv_hs128", 128, Backward::DkDv),
];

pub(super) const KERNELS: &[Spec] = &[
    FORWARD[0].spec,
    FORWARD[1].spec,
    FORWARD[2].spec,
    FORWARD[3].spec,
    FORWARD[4].spec,
    FORWARD[5].spec,
    FORWARD[6].spec,
    FORWARD[7].spec,
    BACKWARD_DQ[0].spec,
    BACKWARD_DQ[1].spec,
    BACKWARD_DQ[2].spec,
    BACKWARD_DQ[3].spec,
    BACKWARD_DQ[4].spec,
    BACKWARD_DQ[5].spec,
    BACKWARD_DQ[6].spec,
    BACKWARD_DQ[7].spec,
    BACKWARD_DKDV[0].spec,
    BACKWARD_DKDV[1].spec,
    BACKWARD_DKDV[2].spec,
    BACKWARD_DKDV[3].spec,
    BACKWARD_DKDV[4].spec,
    BACKWARD_DKDV[5].spec,
    BACKWARD_DKDV[6].spec,
    BACKWARD_DKDV[7].spec,
];

const fn forward_kernel(name: &'static str, hs: u32) -> Kernel<AttentionForwardParams> {
    let kernel = Kernel::new("attention_forward_sm80", name, ATTENTION_FORWARD_THREADS);
    kernel.min_blocks(ATTENTION_FORWARD_MIN_BLOCKS).dynamic_shared(forward_shared_bytes(hs))
}

const fn backward_kernel(name: &'static str, hs: u32, backward: Backward) -> Kernel<AttentionBackwardParams> {
    let kernel = Kernel::new("attention_backward_sm80", name, ATTENTION_BACKWARD_THREADS);
    kernel.min_blocks(backward.min_blocks(hs)).dynamic_shared(backward.shared_bytes(hs))
}

/// Fails unless `holds`.
fn require(operation: &'static str, holds: bool, rule: impl Display, found: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(Error::Precondition { operation, rule: rule.to_string(), found: found() }) }
}

/// Tokens are less than this many elements apart, because 32-bit offsets reach the last of a tile's 128 rows.
const MAX_TOKEN_STRIDE: usize = 1 << 25;

/// Checks the sizes that the kernels support.
fn check_sizes(operation: &'static str, dims: AttentionDims) -> Result<()> {
    let AttentionDims { t, hs, .. } = dims;
    let supported = hs.is_multiple_of(MMA_K) && hs <= MAX_HS;
    require(operation, supported, "HS % 16 == 0 and HS <= 128", || format!("HS = {hs}"))?;
    require(operation, t < 1 << 31, "T < 2^31", || format!("T = {t}"))?;
    require(operation, dims.c() < MAX_TOKEN_STRIDE, "C < 2^25", || format!("C = {}", dims.c()))
}

/// Checks the strides that the kernels support.
fn check_strides(operation: &'static str, name: &str, HeadStrides { token, head, .. }: HeadStrides) -> Result<()> {
    let rule = format_args!("token stride of {name} < 2^25");
    require(operation, token < MAX_TOKEN_STRIDE, rule, || format!("token stride of {name} = {token}"))?;
    let rule = format_args!("head stride of {name} < 2^32");
    require(operation, head < 1 << 32, rule, || format!("head stride of {name} = {head}"))
}

/// The parameters for Q, K and V.
fn inputs(operation: &'static str, qkv: &Qkv<'_, Cuda>, dims: AttentionDims) -> Result<[AttentionInput; 3]> {
    let [q, k, v] = qkv.tensors(dims).map(|(name, data, strides)| -> Result<AttentionInput> {
        check_strides(operation, name, strides)?;
        let HeadStrides { batch, token, head } = strides;
        let data = data.aligned(operation, name)?;
        Ok(AttentionInput { data, batch_stride: batch as u64, token_stride: token as u32, head_stride: head as u32 })
    });
    Ok([q?, k?, v?])
}

/// The parameters for dQ, dK and dV.
fn outputs(operation: &'static str, dqkv: QkvMut<'_, Cuda>, dims: AttentionDims) -> Result<[AttentionOutput; 3]> {
    let output = |name: &str, data: ComputeMut<'_, Cuda>, strides: HeadStrides| -> Result<AttentionOutput> {
        check_strides(operation, name, strides)?;
        let HeadStrides { batch, token, head } = strides;
        let data = data.aligned(operation, name)?;
        Ok(AttentionOutput { data, batch_stride: batch as u64, token_stride: token as u32, head_stride: head as u32 })
    };
    let strides = dqkv.strides(dims);
    match dqkv {
        QkvMut::Packed(dqkv) => {
            let first = output("dqkv", dqkv, strides[0])?;
            Ok([0, 1, 2].map(|index| AttentionOutput { data: first.data.offset(index * dims.c()), ..first }))
        }
        QkvMut::Separate { dq, dk, dv } => Ok([
            output("dq", dq.data, strides[0])?,
            output("dk", dk.data, strides[1])?,
            output("dv", dv.data, strides[2])?,
        ]),
    }
}

/// Launches [`AttentionForward`], with the requested number of heads per group of CTAs, or with as many as L2 holds. That is
/// an order of CTAs and changes no bit of the result.
///
/// # Errors
/// A failed check, an unsupported head size, token strides or C of 2^25 or more, operands that are not 16-byte aligned,
/// and device errors.
pub fn forward(cuda: &Cuda, op: AttentionForward<'_, Cuda>, requested_heads: Option<usize>) -> Result<()> {
    const NAME: &str = AttentionForward::<Cuda>::NAME;
    let dims @ AttentionDims { b, t, nh, hs } = op.check()?;
    check_sizes(NAME, dims)?;
    let q_tiles = t.div_ceil(ATTENTION_FORWARD_BLOCK_M as usize);
    let kernel = &FORWARD[hs / MMA_K - 1];
    let sizes = [("B", b), ("T", t), ("NH", nh), ("HS", hs)];
    let [q, k, v] = inputs(NAME, &op.qkv, dims)?;
    let params = AttentionForwardParams {
        q,
        k,
        v,
        out: op.out.aligned(NAME, "out")?,
        lse: op.lse.ptr(),
        t: t as u32,
        nh: nh as u32,
        // Fits: the grid has at least one CTA per head, and the launch rejects a grid of more than 31 bits.
        batch_heads: (b * nh) as u32,
        heads_per_group: heads_per_group(dims, requested_heads) as u32,
        softmax_scale_log2: (LOG2_E / (hs as f64).sqrt()) as f32,
        causal: op.causal.into(),
    };
    let grid = Grid::of(b * nh * q_tiles).shared(kernel.spec.dynamic_shared as usize);
    cuda.device().launch(kernel, grid, sizes, &params)
}

/// Bytes of workspace that [`backward`] needs: two f32 per query and head.
pub(super) fn backward_workspace_bytes(AttentionDims { b, t, nh, .. }: AttentionDims) -> usize {
    b * nh * t * 2 * size_of::<f32>()
}

/// Launches [`AttentionBackward`]: the dQ kernel, then the dK/dV kernel. `requested_heads` is as for [`forward`].
///
/// # Errors
/// As [`forward`].
pub fn backward(cuda: &Cuda, op: AttentionBackward<'_, Cuda>, requested_heads: Option<usize>) -> Result<()> {
    const NAME: &str = AttentionBackward::<Cuda>::NAME;
    let dims @ AttentionDims { b, t, nh, hs } = op.check()?;
    check_sizes(NAME, dims)?;
    let workspace = cuda.device().workspace(backward_workspace_bytes(dims))?;
    let scale = 1.0 / (hs as f64).sqrt();
    let [q, k, v] = inputs(NAME, &op.qkv, dims)?;
    let dout = op.dout.aligned(NAME, "dout")?;
    let out = op.out.aligned(NAME, "out")?;
    let [dq, dk, dv] = outputs(NAME, op.dqkv, dims)?;
    let tiles = |kernel: Backward| t.div_ceil(kernel.resident_rows(hs as u32) as usize);
    let sizes = [("B", b), ("T", t), ("NH", nh), ("HS", hs)];
    // The dQ kernel writes the statistics of each query that the dKdV kernel reads.
    for (kernels, tiles) in [(&BACKWARD_DQ, tiles(Backward::Dq)), (&BACKWARD_DKDV, tiles(Backward::DkDv))] {
        let params = AttentionBackwardParams {
            q,
            k,
            v,
            dq,
            dk,
            dv,
            dout,
            out,
            lse: op.lse.ptr(),
            stats: workspace.ptr(),
            t: t as u32,
            nh: nh as u32,
            // Fits, as in the forward.
            batch_heads: (b * nh) as u32,
            resident_tiles: tiles as u32,
            heads_per_group: heads_per_group(dims, requested_heads) as u32,
            softmax_scale: scale as f32,
            softmax_scale_log2: (LOG2_E * scale) as f32,
            causal: op.causal.into(),
        };
        let kernel = &kernels[hs / MMA_K - 1];
        let grid = Grid::of(b * nh * tiles).shared(kernel.spec.dynamic_shared as usize);
        cuda.device().launch(kernel, grid, sizes, &params)?;
    }
    Ok(())
}
