//! Embedding: see [`crate::ops::EmbeddingForward`] and `kernels/embedding.cu`.
//!
//! Ids are not seen by the host: one outside of `0..Vp` makes its row of `out` NaN, and `dwte` passes over its row of
//! `dout`.

use super::Cuda;
use super::launch::params::*;
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::Operand;
use crate::error::{Error, Result};
use crate::ops::{EmbeddingBackward, EmbeddingDims, EmbeddingForward, Operation, Write};

const STEM: &str = "embedding";
const FORWARD: Kernel<EmbeddingForwardParams> = Kernel::new(STEM, "embedding_forward", EMBEDDING_FORWARD_THREADS);
const COUNT: Kernel<EmbeddingSortParams> = Kernel::new(STEM, "embedding_backward_count", EMBEDDING_SORT_THREADS);
const SORT: Kernel<EmbeddingSortParams> = Kernel::new(STEM, "embedding_backward_sort", EMBEDDING_SORT_THREADS);
const SUM: Kernel<EmbeddingSumParams> =
    Kernel::new(STEM, "embedding_backward_sum", EMBEDDING_SUM_THREADS).min_blocks(EMBEDDING_SUM_MIN_BLOCKS);
const JOIN: Kernel<EmbeddingSumParams> = Kernel::new(STEM, "embedding_backward_reduce", EMBEDDING_SUM_THREADS);

pub(super) const KERNELS: &[Spec] = &[FORWARD.spec, COUNT.spec, SORT.spec, SUM.spec, JOIN.spec];

/// Threads that keep any GPU busy; beyond, a thread takes more sequences, and reads wpe once for all of them.
const BUSY: usize = 1 << 17;
/// Sequences that a thread of the forward has under way at once.
const FORWARD_ROWS: usize = 4;
/// Sequences for which it pays that another warp shares a position.
const SHARE: usize = 16;

/// A size as kernels take it.
fn below(operation: &'static str, rule: &str, size: usize, limit: u64) -> Result<u32> {
    match u32::try_from(size) {
        Ok(small) if u64::from(small) < limit => Ok(small),
        _ => Err(Error::Precondition { operation, rule: rule.into(), found: format!("{size}") }),
    }
}

/// The sizes that both operations have.
struct Sizes {
    b: u32,
    t: u32,
    c: u32,
    vp: u32,
}

impl Sizes {
    fn of(operation: &'static str, dims: &EmbeddingDims) -> Result<Self> {
        let &EmbeddingDims { b, t, c, vp, .. } = dims;
        below(operation, "B·T < 2^31", b * t, 1 << 31)?;
        // Above, a row's stride in bytes or a position's number of vectors would not fit.
        below(operation, "C < 2^30", c, 1 << 30)?;
        below(operation, "T·C/8 < 2^32", t * (c / 8), 1 << 32)?;
        Ok(Sizes { b: b as u32, t: t as u32, c: c as u32, vp: below(operation, "Vp <= 2^31", vp, (1 << 31) + 1)? })
    }
}

pub(super) fn forward(cuda: &Cuda, op: EmbeddingForward<'_, Cuda>) -> Result<()> {
    const NAME: &str = EmbeddingForward::<Cuda>::NAME;
    let dims = op.check()?;
    let Sizes { b, t, c, vp } = Sizes::of(NAME, &dims)?;
    let first_position = op.position * dims.c * size_of::<half::bf16>();
    let params = EmbeddingForwardParams {
        tokens: op.tokens.address(),
        wte: op.wte.aligned(NAME, "wte")?,
        // Rows are whole vectors, so that each is aligned if the first is.
        wpe: op.wpe.aligned(NAME, "wpe")? + first_position as u64,
        out: op.out.aligned(NAME, "out")?,
        b,
        t,
        c,
        vp,
    };
    let vectors = dims.t * dims.c / 8;
    let rows = (BUSY / vectors).clamp(1, dims.b.div_ceil(FORWARD_ROWS).min(65_535));
    let grid = Grid::of(vectors.div_ceil(EMBEDDING_FORWARD_THREADS as usize)).rows(rows);
    cuda.device().launch(&FORWARD, grid, [("B", dims.b), ("T", dims.t), ("C", dims.c)], &params)
}

/// Bytes that a backward of N rows needs beside its operands.
pub(super) fn backward_workspace_bytes(n: usize, c: usize, vp: usize) -> usize {
    // A vocabulary beyond 32 bits is refused by the backward itself.
    Plan::of(n, c, vp.try_into().unwrap_or(u32::MAX)).bytes
}

pub(super) fn backward(cuda: &Cuda, op: EmbeddingBackward<'_, Cuda>) -> Result<()> {
    const NAME: &str = EmbeddingBackward::<Cuda>::NAME;
    let dims = op.check()?;
    let Sizes { b, t, c, vp } = Sizes::of(NAME, &dims)?;
    let n = dims.b * dims.t;
    let plan = Plan::of(n, dims.c, vp);
    let workspace = cuda.device().workspace(plan.bytes)?;
    let sort = EmbeddingSortParams {
        tokens: op.tokens.address(),
        pairs: workspace.address(),
        histograms: workspace.address() + plan.counts,
        n: n as u32,
        vp,
        passes: plan.passes,
        pass: 0,
    };
    let split_log2 = (dims.b / SHARE).max(1).ilog2().min((EMBEDDING_SUM_THREADS / 32).ilog2());
    let positions = if op.write == Write::Overwrite { dims.max_t } else { dims.t };
    let position_blocks = positions.div_ceil(((EMBEDDING_SUM_THREADS / 32) >> split_log2) as usize);
    let sum = EmbeddingSumParams {
        pairs: workspace.address() + plan.sorted,
        dout: op.dout.aligned(NAME, "dout")?,
        dwte: op.dwte.aligned(NAME, "dwte")?,
        dwpe: op.dwpe.aligned(NAME, "dwpe")?,
        carries: workspace.address() + plan.heads,
        b,
        t,
        c,
        vp,
        positions: below(NAME, "T_max < 2^31", positions, 1 << 31)?,
        warps_per_position_log2: split_log2,
        accumulate: (op.write == Write::Accumulate).into(),
        position_blocks: position_blocks as u32,
    };

    let sizes = [("B", dims.b), ("T", dims.t), ("C", dims.c), ("Vp", dims.vp)];
    let device = cuda.device();
    if plan.tiles > 1 {
        device.launch(&COUNT, Grid::of(plan.tiles), sizes, &sort)?;
    }
    // One tile is sorted by one launch.
    for pass in 0..if plan.tiles > 1 { plan.passes } else { 1 } {
        device.launch(&SORT, Grid::of(plan.tiles), sizes, &EmbeddingSortParams { pass, ..sort })?;
    }
    let slices = dims.c.div_ceil(EMBEDDING_SUM_BLOCK_C as usize);
    device.launch(&SUM, Grid::of(position_blocks + plan.blocks).rows(slices), sizes, &sum)?;
    if plan.blocks > 1 {
        device.launch(&JOIN, Grid::of(plan.blocks).rows(slices), sizes, &sum)?;
    }
    Ok(())
}

/// How ids are sorted, and where in the workspace things are: bytes from its start.
struct Plan {
    passes: u32,
    tiles: usize,
    /// Blocks that sum sorted places.
    blocks: usize,
    /// Pairs that the last pass has written; all pairs begin at 0.
    sorted: u64,
    counts: u64,
    heads: u64,
    bytes: usize,
}

impl Plan {
    fn of(n: usize, c: usize, vp: u32) -> Self {
        // Keys are 0..=Vp.
        let passes = (u32::BITS - vp.leading_zeros()).div_ceil(EMBEDDING_SORT_RADIX_BITS).max(1);
        let tiles = n.div_ceil(EMBEDDING_SORT_TILE as usize);
        let blocks = n.div_ceil(EMBEDDING_SUM_BLOCK_PAIRS as usize);
        let mut bytes = 0;
        let mut piece = |size: usize| {
            let at = bytes;
            bytes += size.next_multiple_of(16);
            at as u64
        };
        let pairs = n * size_of::<[u32; 2]>();
        piece(2 * pairs);
        let counts =
            if tiles > 1 { (passes as usize * tiles * size_of::<u32>()) << EMBEDDING_SORT_RADIX_BITS } else { 0 };
        let (counts, heads) = (piece(counts), piece(blocks * c * size_of::<f32>()));
        let sorted = if passes.is_multiple_of(2) { pairs as u64 } else { 0 };
        Plan { passes, tiles, blocks, sorted, counts, heads, bytes }
    }
}
