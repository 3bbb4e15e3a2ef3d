//! Embedding: see [`crate::ops::EmbeddingForward`] and `kernels/embedding.cu`.
//!
//! The host does not see the ids. An id outside of `0..Vp` makes its row of `out` NaN, and `dwte` ignores its row of
//! `dout`.

mod config;

use config::{Sort, forward_rows, position_ctas, warps_per_position_log2};

use super::launch::device_ptr::DevPtr;
use super::launch::params::*;
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::{Cuda, Operand};
use crate::error::{Error, Result};
use crate::ops::{EmbeddingBackward, EmbeddingDims, EmbeddingForward, Operation, Write};

const STEM: &str = "embedding";
const FORWARD: Kernel<EmbeddingForwardParams> = Kernel::new(STEM, "embedding_forward", EMBEDDING_FORWARD_THREADS);
const COUNT: Kernel<EmbeddingSortParams> = Kernel::new(STEM, "embedding_backward_count", EMBEDDING_SORT_THREADS);
const SORT: Kernel<EmbeddingSortParams> = Kernel::new(STEM, "embedding_backward_sort", EMBEDDING_SORT_THREADS);
const SUM: Kernel<EmbeddingSumParams> =
    Kernel::new(STEM, "embedding_backward_sum", EMBEDDING_SUM_THREADS).min_blocks(EMBEDDING_SUM_MIN_BLOCKS);
const REDUCE: Kernel<EmbeddingSumParams> = Kernel::new(STEM, "embedding_backward_reduce", EMBEDDING_SUM_THREADS);

pub(super) const KERNELS: &[Spec] = &[FORWARD.spec, COUNT.spec, SORT.spec, SUM.spec, REDUCE.spec];

/// A size in 32 bits, below `limit`.
fn below(operation: &'static str, rule: &str, size: usize, limit: u64) -> Result<u32> {
    match u32::try_from(size) {
        Ok(small) if u64::from(small) < limit => Ok(small),
        _ => Err(Error::Precondition { operation, rule: rule.into(), found: format!("{size}") }),
    }
}

/// The sizes that forward and backward have in common, in 32 bits.
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
        // The stride of a row in bytes and the number of vectors of a sequence are 32-bit.
        below(operation, "C < 2^30", c, 1 << 30)?;
        below(operation, "T·C/8 < 2^32", t * (c / 8), 1 << 32)?;
        Ok(Sizes { b: b as u32, t: t as u32, c: c as u32, vp: below(operation, "Vp <= 2^31", vp, (1 << 31) + 1)? })
    }
}

pub(super) fn forward(cuda: &Cuda, op: EmbeddingForward<'_, Cuda>) -> Result<()> {
    const NAME: &str = EmbeddingForward::<Cuda>::NAME;
    let dims = op.check()?;
    let Sizes { b, t, c, vp } = Sizes::of(NAME, &dims)?;
    let params = EmbeddingForwardParams {
        tokens: op.tokens.ptr(),
        wte: op.wte.aligned(NAME, "wte")?,
        // Rows are whole vectors, so every row is aligned if the first one is.
        wpe: op.wpe.aligned(NAME, "wpe")?.offset(op.position * dims.c),
        out: op.out.aligned(NAME, "out")?,
        b,
        t,
        c,
        vp,
    };
    let vectors = dims.t * dims.c / 8;
    let ctas = vectors.div_ceil(EMBEDDING_FORWARD_THREADS as usize);
    let grid = Grid::of(ctas).rows(forward_rows(dims.b, vectors));
    cuda.device().launch(&FORWARD, grid, [("B", dims.b), ("T", dims.t), ("C", dims.c)], &params)
}

/// Bytes of workspace that [`backward`] needs for N rows.
pub(super) fn backward_workspace_bytes(n: usize, c: usize, vp: usize) -> usize {
    // The backward itself rejects a vocabulary of more than 32 bits.
    Sort::new(n, c, vp.try_into().unwrap_or(u32::MAX)).bytes
}

pub(super) fn backward(cuda: &Cuda, op: EmbeddingBackward<'_, Cuda>) -> Result<()> {
    const NAME: &str = EmbeddingBackward::<Cuda>::NAME;
    let dims = op.check()?;
    let Sizes { b, t, c, vp } = Sizes::of(NAME, &dims)?;
    let n = dims.b * dims.t;
    let sort = Sort::new(n, dims.c, vp);
    let workspace = cuda.device().workspace(sort.bytes)?;
    let base: DevPtr<u8> = workspace.ptr();
    let sort_params = EmbeddingSortParams {
        tokens: op.tokens.ptr(),
        pairs: base.cast(),
        histograms: base.offset(sort.histograms).cast(),
        n: n as u32,
        vp,
        passes: sort.passes,
        pass: 0,
    };
    let split_log2 = warps_per_position_log2(dims.b);
    let positions = if op.write == Write::Overwrite { dims.max_t } else { dims.t };
    let position_ctas = position_ctas(positions, split_log2);
    let sum_params = EmbeddingSumParams {
        pairs: base.offset(sort.sorted).cast(),
        dout: op.dout.aligned(NAME, "dout")?,
        dwte: op.dwte.aligned(NAME, "dwte")?,
        dwpe: op.dwpe.aligned(NAME, "dwpe")?,
        carries: base.offset(sort.carries).cast(),
        b,
        t,
        c,
        vp,
        positions: below(NAME, "T_max < 2^31", positions, 1 << 31)?,
        warps_per_position_log2: split_log2,
        accumulate: (op.write == Write::Accumulate).into(),
        position_blocks: position_ctas as u32,
    };

    let sizes = [("B", dims.b), ("T", dims.t), ("C", dims.c), ("Vp", dims.vp)];
    let device = cuda.device();
    // A single tile is sorted by one launch, which goes through all passes.
    let launches = if sort.tiles > 1 { sort.passes } else { 1 };
    if sort.tiles > 1 {
        device.launch(&COUNT, Grid::of(sort.tiles), sizes, &sort_params)?;
    }
    for pass in 0..launches {
        device.launch(&SORT, Grid::of(sort.tiles), sizes, &EmbeddingSortParams { pass, ..sort_params })?;
    }
    let slices = dims.c.div_ceil(EMBEDDING_SUM_BLOCK_C as usize);
    device.launch(&SUM, Grid::of(position_ctas + sort.pair_ctas).rows(slices), sizes, &sum_params)?;
    if sort.pair_ctas > 1 {
        device.launch(&REDUCE, Grid::of(sort.pair_ctas).rows(slices), sizes, &sum_params)?;
    }
    Ok(())
}
