//! Causal attention: see [`crate::ops::AttentionForward`] and `kernels/attention_forward_sm80.cu`.

use std::f64::consts::LOG2_E;

use super::Cuda;
use super::memory::Operand;
use super::params::{
    ATTENTION_FORWARD_KEYS, ATTENTION_FORWARD_MIN_BLOCKS, ATTENTION_FORWARD_QUERIES, ATTENTION_FORWARD_THREADS,
    AttentionForwardParams,
};
use super::spec::{Grid, Kernel, Spec};
use crate::error::{Error, Result};
use crate::ops::{AttentionDims, AttentionForward, Operation};

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

pub(super) const KERNELS: &[Spec] = &[
    FORWARD[0].spec,
    FORWARD[1].spec,
    FORWARD[2].spec,
    FORWARD[3].spec,
    FORWARD[4].spec,
    FORWARD[5].spec,
    FORWARD[6].spec,
    FORWARD[7].spec,
];

const fn forward_kernel(name: &'static str, hs: u32) -> Kernel<AttentionForwardParams> {
    // Queries, and two stages of keys and values.
    let rows = ATTENTION_FORWARD_QUERIES + 4 * ATTENTION_FORWARD_KEYS;
    let kernel = Kernel::new("attention_forward_sm80", name, ATTENTION_FORWARD_THREADS);
    kernel.min_blocks(ATTENTION_FORWARD_MIN_BLOCKS).dynamic_shared(rows * hs * 2)
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

/// Heads whose keys and values take 16 MiB, less than half of the L2 of an A100 or newer, so that a block finds there what
/// another has read. At least one head.
fn fitting_l2(AttentionDims { b, t, nh, hs }: AttentionDims) -> usize {
    const BYTES: usize = 16 << 20;
    (BYTES / (t * hs * 4)).clamp(1, b * nh)
}

/// [`AttentionForward`], with the blocks of so many heads together or of as many as L2 holds: an order of blocks, which
/// changes no bit.
///
/// # Errors
/// A failed check, a head size that no kernel has, operands that are not 16-byte aligned, and the device's own.
pub fn forward(cuda: &Cuda, op: AttentionForward<'_, Cuda>, heads_together: Option<usize>) -> Result<()> {
    const NAME: &str = AttentionForward::<Cuda>::NAME;
    let dims @ AttentionDims { b, t, nh, hs } = op.check()?;
    fits(NAME, dims)?;
    let tiles = t.div_ceil(ATTENTION_FORWARD_QUERIES as usize);
    let kernel = &FORWARD[hs / STEP - 1];
    let sizes = [("B", b), ("T", t), ("NH", nh), ("HS", hs)];
    let params = AttentionForwardParams {
        qkv: op.qkv.aligned(NAME, "qkv")?,
        out: op.out.aligned(NAME, "out")?,
        lse: op.lse.address(),
        t: t as u32,
        nh: nh as u32,
        // The launch refuses more heads than 32 bits hold: its grid is no smaller.
        heads: (b * nh) as u32,
        tiles: tiles as u32,
        group: heads_together.map_or_else(|| fitting_l2(dims), |heads| heads.clamp(1, b * nh)) as u32,
        scale: (LOG2_E / (hs as f64).sqrt()) as f32,
    };
    let grid = Grid::of(b * nh * tiles).shared(kernel.spec.dynamic_shared as usize);
    cuda.device().launch(kernel, grid, sizes, &params)
}
