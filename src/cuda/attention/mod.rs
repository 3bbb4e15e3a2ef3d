//! Causal attention: see [`crate::ops::AttentionForward`], [`crate::ops::AttentionBackward`] and
//! `kernels/attention_forward_sm80.cu`, `kernels/attention_backward_sm80.cu`.

use std::f64::consts::LOG2_E;

use super::Cuda;
use super::launch::params::{
    ATTENTION_BACKWARD_MAX_SMALL_HS, ATTENTION_BACKWARD_MIN_BLOCKS, ATTENTION_BACKWARD_RESIDENT_ROWS,
    ATTENTION_BACKWARD_STREAMED_ROWS, ATTENTION_BACKWARD_THREADS, ATTENTION_FORWARD_BLOCK_M, ATTENTION_FORWARD_BLOCK_N,
    ATTENTION_FORWARD_MIN_BLOCKS, ATTENTION_FORWARD_THREADS, AttentionBackwardParams, AttentionForwardParams,
};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::Operand;
use crate::error::{Error, Result};
use crate::ops::{AttentionBackward, AttentionDims, AttentionForward, Operation};

/// Head sizes are multiples of it, as the tensor cores' products have as many terms.
const STEP: usize = 16;
/// The largest head size.
const MOST: usize = 128;

const FORWARD: [Kernel<AttentionForwardParams>; MOST / STEP] = [
    forward_kernel("attention_forward_hs16", 16),
    forward_kernel("attention_forward_hs32", 32),
    forward_kernel("attention_forward_hs48", 48),
    forward_kernel("attention_forward_hs64", 64),
    forward_kernel("attention_forward_hs80", 80),
    forward_kernel("attention_forward_hs96", 96),
    forward_kernel("attention_forward_hs112", 112),
    forward_kernel("attention_forward_hs128", 128),
];

const QUERIES: [Kernel<AttentionBackwardParams>; MOST / STEP] = [
    backward_kernel("attention_backward_dq_hs16", 16, Side::Queries),
    backward_kernel("attention_backward_dq_hs32", 32, Side::Queries),
    backward_kernel("attention_backward_dq_hs48", 48, Side::Queries),
    backward_kernel("attention_backward_dq_hs64", 64, Side::Queries),
    backward_kernel("attention_backward_dq_hs80", 80, Side::Queries),
    backward_kernel("attention_backward_dq_hs96", 96, Side::Queries),
    backward_kernel("attention_backward_dq_hs112", 112, Side::Queries),
    backward_kernel("attention_backward_dq_hs128", 128, Side::Queries),
];

const KEYS: [Kernel<AttentionBackwardParams>; MOST / STEP] = [
    backward_kernel("attention_backward_dkdv_hs16", 16, Side::Keys),
    backward_kernel("attention_backward_dkdv_hs32", 32, Side::Keys),
    backward_kernel("attention_backward_dkdv_hs48", 48, Side::Keys),
    backward_kernel("attention_backward_dkdv_hs64", 64, Side::Keys),
    backward_kernel("attention_backward_dkdv_hs80", 80, Side::Keys),
    backward_kernel("attention_backward_dkdv_hs96", 96, Side::Keys),
    backward_kernel("attention_backward_dkdv_hs112", 112, Side::Keys),
    backward_kernel("attention_backward_dkdv_hs128", 128, Side::Keys),
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
    QUERIES[0].spec,
    QUERIES[1].spec,
    QUERIES[2].spec,
    QUERIES[3].spec,
    QUERIES[4].spec,
    QUERIES[5].spec,
    QUERIES[6].spec,
    QUERIES[7].spec,
    KEYS[0].spec,
    KEYS[1].spec,
    KEYS[2].spec,
    KEYS[3].spec,
    KEYS[4].spec,
    KEYS[5].spec,
    KEYS[6].spec,
    KEYS[7].spec,
];

const fn forward_kernel(name: &'static str, hs: u32) -> Kernel<AttentionForwardParams> {
    // Queries, and two stages of keys and values.
    let rows = ATTENTION_FORWARD_BLOCK_M + 4 * ATTENTION_FORWARD_BLOCK_N;
    let kernel = Kernel::new("attention_forward_sm80", name, ATTENTION_FORWARD_THREADS);
    kernel.min_blocks(ATTENTION_FORWARD_MIN_BLOCKS).dynamic_shared(rows * hs * 2)
}

/// Whose gradients a kernel of the backward makes.
#[derive(Clone, Copy)]
enum Side {
    Queries,
    Keys,
}

impl Side {
    /// Rows of a block.
    const fn rows(self, hs: u32) -> u32 {
        match self {
            Side::Keys if hs > ATTENTION_BACKWARD_MAX_SMALL_HS => ATTENTION_BACKWARD_RESIDENT_ROWS / 2,
            _ => ATTENTION_BACKWARD_RESIDENT_ROWS,
        }
    }
}

const fn backward_kernel(name: &'static str, hs: u32, side: Side) -> Kernel<AttentionBackwardParams> {
    let tile = if hs > ATTENTION_BACKWARD_MAX_SMALL_HS {
        ATTENTION_BACKWARD_STREAMED_ROWS / 2
    } else {
        ATTENTION_BACKWARD_STREAMED_ROWS
    };
    // Two matrices of own rows, and two stages of two matrices; for keys, with two numbers a query.
    let statistics = match side {
        Side::Queries => 0,
        Side::Keys => 2 * tile * 2 * 4,
    };
    let shared = (2 * side.rows(hs) + 4 * tile) * hs * 2 + statistics;
    let kernel = Kernel::new("attention_backward_sm80", name, ATTENTION_BACKWARD_THREADS);
    kernel.min_blocks(ATTENTION_BACKWARD_MIN_BLOCKS).dynamic_shared(shared)
}

/// What the kernels' numbers can hold.
fn fits(operation: &'static str, AttentionDims { t, nh, hs, .. }: AttentionDims) -> Result<()> {
    let require = |holds: bool, rule: &str, found: String| {
        if holds { Ok(()) } else { Err(Error::Precondition { operation, rule: rule.into(), found }) }
    };
    require(hs % STEP == 0 && hs <= MOST, "HS % 16 == 0 and HS <= 128", format!("HS = {hs}"))?;
    require(t < 1 << 31, "T < 2^31", format!("T = {t}"))?;
    // The rows of a tile are less than 2³² elements apart.
    require(nh * hs < 1 << 23, "C < 2^23", format!("C = {}", nh * hs))
}

/// Heads of which two matrices take 16 MiB, less than half of the L2 of an A100 or newer, so that a block finds there what
/// another has read; or as many as are wished. At least one head.
fn heads_together(AttentionDims { b, t, nh, hs }: AttentionDims, wished: Option<usize>) -> usize {
    const BYTES: usize = 16 << 20;
    wished.unwrap_or(BYTES / (t * hs * 4)).clamp(1, b * nh)
}

/// [`AttentionForward`], with the blocks of so many heads together or of as many as L2 holds: an order of blocks, which
/// changes no bit.
///
/// # Errors
/// A failed check, a head size that no kernel has, operands that are not 16-byte aligned, and the device's own.
pub fn forward(cuda: &Cuda, op: AttentionForward<'_, Cuda>, together: Option<usize>) -> Result<()> {
    const NAME: &str = AttentionForward::<Cuda>::NAME;
    let dims @ AttentionDims { b, t, nh, hs } = op.check()?;
    fits(NAME, dims)?;
    let tiles = t.div_ceil(ATTENTION_FORWARD_BLOCK_M as usize);
    let kernel = &FORWARD[hs / STEP - 1];
    let sizes = [("B", b), ("T", t), ("NH", nh), ("HS", hs)];
    let params = AttentionForwardParams {
        qkv: op.qkv.aligned(NAME, "qkv")?,
        out: op.out.aligned(NAME, "out")?,
        lse: op.lse.address(),
        t: t as u32,
        nh: nh as u32,
        // The launch refuses more heads than 32 bits hold: its grid is no smaller.
        batch_heads: (b * nh) as u32,
        q_tiles: tiles as u32,
        heads_per_group: heads_together(dims, together) as u32,
        softmax_scale_log2: (LOG2_E / (hs as f64).sqrt()) as f32,
    };
    let grid = Grid::of(b * nh * tiles).shared(kernel.spec.dynamic_shared as usize);
    cuda.device().launch(kernel, grid, sizes, &params)
}

/// Bytes that [`backward`] needs beside its operands: two numbers a query.
pub(super) fn backward_workspace_bytes(AttentionDims { b, t, nh, .. }: AttentionDims) -> usize {
    b * nh * t * 2 * size_of::<f32>()
}

/// [`AttentionBackward`], its blocks in an order as for [`forward`].
///
/// # Errors
/// As [`forward`].
pub fn backward(cuda: &Cuda, op: AttentionBackward<'_, Cuda>, together: Option<usize>) -> Result<()> {
    const NAME: &str = AttentionBackward::<Cuda>::NAME;
    let dims @ AttentionDims { b, t, nh, hs } = op.check()?;
    fits(NAME, dims)?;
    let [queries, keys] = [Side::Queries, Side::Keys].map(|side| t.div_ceil(side.rows(hs as u32) as usize));
    let workspace = cuda.device().workspace(backward_workspace_bytes(dims))?;
    let scale = 1.0 / (hs as f64).sqrt();
    let params = AttentionBackwardParams {
        dout: op.dout.aligned(NAME, "dout")?,
        qkv: op.qkv.aligned(NAME, "qkv")?,
        out: op.out.aligned(NAME, "out")?,
        lse: op.lse.address(),
        dqkv: op.dqkv.aligned(NAME, "dqkv")?,
        stats: workspace.address(),
        t: t as u32,
        nh: nh as u32,
        // As in the forward.
        batch_heads: (b * nh) as u32,
        q_tiles: queries as u32,
        kv_tiles: keys as u32,
        heads_per_group: heads_together(dims, together) as u32,
        softmax_scale: scale as f32,
        softmax_scale_log2: (LOG2_E * scale) as f32,
    };
    let sizes = [("B", b), ("T", t), ("NH", nh), ("HS", hs)];
    // The queries' kernel leaves what the keys' needs of a query.
    for (kernel, tiles) in [(&QUERIES[hs / STEP - 1], queries), (&KEYS[hs / STEP - 1], keys)] {
        let grid = Grid::of(b * nh * tiles).shared(kernel.spec.dynamic_shared as usize);
        cuda.device().launch(kernel, grid, sizes, &params)?;
    }
    Ok(())
}
