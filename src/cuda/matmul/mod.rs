//! Matrix products: see [`crate::ops::MatmulForward`] and `kernels/matmul_sm80.cu`.
//!
//! The shape decides tile and split-K. A caller that tunes or tests can request others: a [`TileConfig`].

mod config;

use config::{Config, Gemm, MAX_SPLIT_K};
pub use config::{TileConfig, TileSize};

use super::launch::device_ptr::DevPtr;
use super::launch::params::{
    MATMUL_BLOCK_K, MATMUL_LARGE_BLOCK_M, MATMUL_LARGE_BLOCK_N, MATMUL_LARGE_THREADS, MATMUL_SMALL_BLOCK_M,
    MATMUL_SMALL_BLOCK_N, MATMUL_SMALL_MIN_BLOCKS, MATMUL_SMALL_THREADS, MATMUL_SPLITK_REDUCE_THREADS, MATMUL_STAGES,
    MatmulDgradParams, MatmulForwardParams, MatmulSplitKReduceParams, MatmulWgradParams,
};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::{Cuda, Operand};
use crate::error::{Error, Result};
use crate::ops::{DgradEpilogue, Epilogue, MatmulDgrad, MatmulDims, MatmulForward, MatmulWgrad, Operation, Write};

const STEM: &str = "matmul_sm80";

/// The kernels of one tile.
struct Kernels {
    forward: Kernel<MatmulForwardParams>,
    dgrad: Kernel<MatmulDgradParams>,
    wgrad: Kernel<MatmulWgradParams>,
}

const LARGE: Kernels = Kernels {
    forward: large("matmul_forward_128x256x32"),
    dgrad: large("matmul_dgrad_128x256x32"),
    wgrad: large("matmul_wgrad_128x256x32"),
};
const SMALL: Kernels = Kernels {
    forward: small("matmul_forward_64x64x32"),
    dgrad: small("matmul_dgrad_64x64x32"),
    wgrad: small("matmul_wgrad_64x64x32"),
};
const SPLITK_REDUCE: Kernel<MatmulSplitKReduceParams> =
    Kernel::new(STEM, "matmul_wgrad_splitk_reduce", MATMUL_SPLITK_REDUCE_THREADS);

pub(super) const KERNELS: &[Spec] = &[
    LARGE.forward.spec,
    LARGE.dgrad.spec,
    LARGE.wgrad.spec,
    SMALL.forward.spec,
    SMALL.dgrad.spec,
    SMALL.wgrad.spec,
    SPLITK_REDUCE.spec,
];

const fn large<P: bytemuck::Pod>(name: &'static str) -> Kernel<P> {
    let shared = shared_bytes(MATMUL_LARGE_BLOCK_M, MATMUL_LARGE_BLOCK_N);
    Kernel::new(STEM, name, MATMUL_LARGE_THREADS).dynamic_shared(shared)
}

const fn small<P: bytemuck::Pod>(name: &'static str) -> Kernel<P> {
    let shared = shared_bytes(MATMUL_SMALL_BLOCK_M, MATMUL_SMALL_BLOCK_N);
    Kernel::new(STEM, name, MATMUL_SMALL_THREADS).dynamic_shared(shared).min_blocks(MATMUL_SMALL_MIN_BLOCKS)
}

/// Bytes of the pipeline stages of A (BLOCK_M, BLOCK_K) and B (BLOCK_N, BLOCK_K) in bf16.
const fn shared_bytes(block_m: u32, block_n: u32) -> u32 {
    MATMUL_STAGES * (block_m + block_n) * MATMUL_BLOCK_K * 2
}

/// The kernels of a tile. If an architecture gets kernels of its own, this is the place to choose by architecture; those of
/// sm_80 run on every newer GPU.
fn kernels(tile: TileSize) -> &'static Kernels {
    match tile {
        TileSize::Large => &LARGE,
        TileSize::Small => &SMALL,
    }
}

fn grid(config: &Config, spec: &Spec) -> Grid {
    Grid::of(config.tiles_m * config.tiles_n).rows(config.split_k).shared(spec.dynamic_shared as usize)
}

/// The pointer of an operand that may be absent; null if it is.
fn aligned_or_null<O: Operand>(operand: Option<O>, operation: &'static str, name: &str) -> Result<DevPtr<O::Element>> {
    operand.map_or(Ok(DevPtr::NULL), |operand| operand.aligned(operation, name))
}

/// N, C and OC in 32 bits. They stay below 2³¹, so that a kernel can round them up to whole tiles.
fn sizes(operation: &'static str, MatmulDims { n, c, oc }: MatmulDims) -> Result<[u32; 3]> {
    let size = |name: &str, size: usize| match u32::try_from(size) {
        Ok(fits) if fits < 1 << 31 => Ok(fits),
        _ => Err(Error::Precondition { operation, rule: format!("{name} < 2^31"), found: format!("{name} = {size}") }),
    };
    Ok([size("N", n)?, size("C", c)?, size("OC", oc)?])
}

/// Launches [`MatmulForward`] with the requested tile, or with the one that the shape decides.
///
/// # Errors
/// A failed check, operands that are not 16-byte aligned, sizes of 2³¹ or more, and device errors.
pub fn forward(cuda: &Cuda, op: MatmulForward<'_, Cuda>, requested: Option<TileConfig>) -> Result<()> {
    const NAME: &str = MatmulForward::<Cuda>::NAME;
    let dims @ MatmulDims { n, c, oc } = op.check()?;
    let [n32, c32, oc32] = sizes(NAME, dims)?;
    let (mut bias, mut residual, mut pre) = (None, None, None);
    match op.epilogue {
        Epilogue::None => {}
        Epilogue::Bias { bias: b } => bias = Some(b),
        Epilogue::BiasGelu { bias: b, pre: p } => (bias, pre) = (Some(b), Some(p)),
        Epilogue::BiasResidual { bias: b, residual: r } => (bias, residual) = (Some(b), Some(r)),
    }
    let config = Config::new(Gemm { m: n, n: oc, k: c }, 1, requested);
    let params = MatmulForwardParams {
        x: op.x.aligned(NAME, "x")?,
        weight: op.weight.aligned(NAME, "weight")?,
        bias: aligned_or_null(bias, NAME, "bias")?,
        residual: aligned_or_null(residual, NAME, "residual")?,
        pre: aligned_or_null(pre, NAME, "pre")?,
        out: op.out.aligned(NAME, "out")?,
        n: n32,
        c: c32,
        oc: oc32,
        tiles_m: config.tiles_m as u32,
    };
    let kernel = &kernels(config.tile).forward;
    cuda.device().launch(kernel, grid(&config, &kernel.spec), [("N", n), ("C", c), ("OC", oc)], &params)
}

/// Launches [`MatmulDgrad`] with the requested tile, or with the one that the shape decides.
///
/// # Errors
/// A failed check, operands that are not 16-byte aligned, sizes of 2³¹ or more, and device errors.
pub fn dgrad(cuda: &Cuda, op: MatmulDgrad<'_, Cuda>, requested: Option<TileConfig>) -> Result<()> {
    const NAME: &str = MatmulDgrad::<Cuda>::NAME;
    let dims @ MatmulDims { n, c, oc } = op.check()?;
    let [n32, c32, oc32] = sizes(NAME, dims)?;
    let config = Config::new(Gemm { m: n, n: c, k: oc }, 1, requested);
    let params = MatmulDgradParams {
        dout: op.dout.aligned(NAME, "dout")?,
        weight: op.weight.aligned(NAME, "weight")?,
        pre: match op.epilogue {
            DgradEpilogue::None => DevPtr::NULL,
            DgradEpilogue::DGelu { pre } => pre.aligned(NAME, "pre")?,
        },
        dx: op.dx.aligned(NAME, "dx")?,
        n: n32,
        c: c32,
        oc: oc32,
        tiles_m: config.tiles_m as u32,
    };
    let kernel = &kernels(config.tile).dgrad;
    cuda.device().launch(kernel, grid(&config, &kernel.spec), [("N", n), ("C", c), ("OC", oc)], &params)
}

fn wgrad_config(MatmulDims { n, c, oc }: MatmulDims, requested: Option<TileConfig>) -> Config {
    Config::new(Gemm { m: oc, n: c, k: n }, MAX_SPLIT_K, requested)
}

/// Bytes of the partial sums of all splits of dweight and dbias; 0 without split-K.
fn partials_bytes(config: &Config, MatmulDims { c, oc, .. }: MatmulDims) -> usize {
    if config.split_k == 1 { 0 } else { config.split_k * (oc * c + oc) * size_of::<f32>() }
}

/// Bytes of workspace that [`wgrad`] needs.
pub(super) fn wgrad_workspace_bytes(dims: MatmulDims) -> usize {
    partials_bytes(&wgrad_config(dims, None), dims)
}

/// Launches [`MatmulWgrad`] with the requested configuration, or with the one that the shape decides.
///
/// With split-K the matmul writes partial sums to the workspace, and a second kernel adds them in the order of the splits.
///
/// # Errors
/// A failed check, operands that are not 16-byte aligned, sizes of 2³¹ or more, and device errors.
pub fn wgrad(cuda: &Cuda, op: MatmulWgrad<'_, Cuda>, requested: Option<TileConfig>) -> Result<()> {
    const NAME: &str = MatmulWgrad::<Cuda>::NAME;
    let dims @ MatmulDims { n, c, oc } = op.check()?;
    let [n32, c32, oc32] = sizes(NAME, dims)?;
    let config = wgrad_config(dims, requested);
    let (weights, accumulate) = (oc * c, u32::from(op.write == Write::Accumulate));
    let dweight = op.dweight.aligned(NAME, "dweight")?;
    let dbias = aligned_or_null(op.dbias, NAME, "dbias")?;
    let split_stride = weights + oc;
    let is_split = config.split_k > 1;
    let workspace = if is_split { Some(cuda.device().workspace(partials_bytes(&config, dims))?) } else { None };
    let partials: DevPtr<f32> = workspace.as_ref().map_or(DevPtr::NULL, |workspace| workspace.ptr());
    let params = MatmulWgradParams {
        dout: op.dout.aligned(NAME, "dout")?,
        x: op.x.aligned(NAME, "x")?,
        dweight: if is_split { partials } else { dweight },
        dbias: if is_split && !dbias.is_null() { partials.offset(weights) } else { dbias },
        split_stride: split_stride as u64,
        n: n32,
        c: c32,
        oc: oc32,
        tiles_m: config.tiles_m as u32,
        k_per_split: config.k_per_split as u32,
        accumulate: if is_split { 0 } else { accumulate },
    };
    let sizes = [("N", n), ("C", c), ("OC", oc)];
    let kernel = &kernels(config.tile).wgrad;
    cuda.device().launch(kernel, grid(&config, &kernel.spec), sizes, &params)?;
    if !is_split {
        return Ok(());
    }
    let len = if dbias.is_null() { weights } else { split_stride };
    let reduce = MatmulSplitKReduceParams {
        partials,
        dweight,
        dbias,
        dweight_len: weights as u64,
        len: len as u64,
        split_stride: split_stride as u64,
        split_k: config.split_k as u32,
        accumulate,
    };
    let reduce_grid = Grid::of((len / 4).div_ceil(MATMUL_SPLITK_REDUCE_THREADS as usize));
    cuda.device().launch(&SPLITK_REDUCE, reduce_grid, sizes, &reduce)
}
