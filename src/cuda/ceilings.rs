//! What this GPU can do at most, measured by kernels of our own: `kernels/ceilings.cu`.
//!
//! A share of a data sheet's peak depends on the sheet, and there is one only for GPUs that somebody has listed. These two
//! run on any GPU, with its clocks and its power limit of the moment, and give what other kernels are held against:
//!
//! | Ceiling | From | Unit |
//! |---|---|---|
//! | copy rate | bytes of `src` plus bytes of `dst`, over the time of [`ceiling_copy`] | bytes / s |
//! | tensor-core rate | what [`ceiling_mma`] returns, over its time | FLOP / s, a multiply-add counted as two |
//!
//! Timing is the caller's. Buffers several times as large as L2, as the copy is to measure memory; iterations for some
//! milliseconds, beside which the start of [`ceiling_mma`], about 1,000 instructions a warp, is nothing.
//!
//! The second is the ceiling of `mma.sync`, the instruction that every GPU since compute capability 8.0 has. Hopper's
//! `wgmma` goes beyond it; what it can reach is to be measured by kernels that use it.

use super::Cuda;
use super::launch::params::{
    CEILING_COPY_THREADS, CEILING_COPY_VECTORS_PER_BLOCK, CEILING_MMA_ACCUMULATORS, CEILING_MMA_MIN_BLOCKS,
    CEILING_MMA_THREADS, CeilingCopyParams, CeilingMmaParams,
};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::Operand;
use crate::error::{Error, Result};
use crate::tensor::{Element, View, ViewMut};

const COPY: Kernel<CeilingCopyParams> = Kernel::new("ceilings", "ceiling_copy", CEILING_COPY_THREADS);
const MMA: Kernel<CeilingMmaParams> =
    Kernel::new("ceilings", "ceiling_mma", CEILING_MMA_THREADS).min_blocks(CEILING_MMA_MIN_BLOCKS);

pub(super) const KERNELS: &[Spec] = &[COPY.spec, MMA.spec];

/// Bytes of a vector.
const VECTOR: usize = 16;
/// Lanes of a warp.
const WARP: u64 = 32;
/// Of one `mma.sync` of (16, 16) by (16, 8).
const PRODUCT_FLOPS: u64 = 2 * 16 * 8 * 16;
/// Of [`ceiling_mma`], for each element of `out` and iteration: every lane of a warp writes one.
const LANE_FLOPS: u64 = CEILING_MMA_ACCUMULATORS as u64 * PRODUCT_FLOPS / WARP;

/// `dst = src`, moving `2 · len · E::BYTES` bytes.
///
/// # Errors
/// [`Error::Precondition`]: both of one length, a multiple of 16 bytes and not empty, and aligned to 16 bytes.
pub fn ceiling_copy<E: Element>(cuda: &Cuda, src: View<'_, Cuda, E>, dst: ViewMut<'_, Cuda, E>) -> Result<()> {
    const NAME: &str = COPY.spec.name;
    let (len, dst_len) = (src.shape().len(), dst.shape().len());
    require(NAME, len > 0, "src not empty", || format!("src is {}", src.shape()))?;
    require(NAME, dst_len == len, "dst as long as src", || format!("src has {len} elements, dst {dst_len}"))?;
    let bytes = len * E::BYTES;
    require(NAME, bytes.is_multiple_of(VECTOR), "bytes % 16 == 0", || format!("{bytes} bytes"))?;
    let len = bytes / VECTOR;
    let params = CeilingCopyParams { src: src.aligned(NAME, "src")?, dst: dst.aligned(NAME, "dst")?, len: len as u64 };
    let grid = Grid::of(len.div_ceil(CEILING_COPY_VECTORS_PER_BLOCK as usize));
    cuda.device().launch(&COPY, grid, [("bytes", bytes)], &params)
}

/// `iterations` products of bf16 tiles in each of a warp's 8 chains, in registers alone; returns their FLOPs.
///
/// A block for each 256 elements of `out`: [`ceiling_mma_len`] fills the GPU once. With the warp's A (32, 16), B (16, 32)
/// and D (32, 32), close to normally distributed by the thread's number, it computes `D + A·B` for an odd number of
/// iterations and D, but for rounding, for an even one. Element i is the sum over what lane i holds of it.
///
/// # Errors
/// [`Error::Precondition`]: `out` not empty and a multiple of 256, FLOPs below 2⁶⁴.
pub fn ceiling_mma(cuda: &Cuda, iterations: u32, out: ViewMut<'_, Cuda, f32>) -> Result<u64> {
    const NAME: &str = MMA.spec.name;
    const THREADS: usize = CEILING_MMA_THREADS as usize;
    let n = out.shape().len();
    require(NAME, n > 0, "out not empty", || format!("out is {}", out.shape()))?;
    require(NAME, n.is_multiple_of(THREADS), &format!("N % {THREADS} == 0"), || format!("N = {n}"))?;
    let flops = LANE_FLOPS.checked_mul(n as u64).and_then(|flops| flops.checked_mul(iterations.into()));
    let flops = flops.ok_or_else(|| failed(NAME, "FLOPs < 2^64", format!("N = {n}, iterations = {iterations}")))?;
    let params = CeilingMmaParams { out: out.address(), iterations: iterations.into() };
    let sizes = [("N", n), ("iterations", iterations as usize)];
    cuda.device().launch(&MMA, Grid::of(n / THREADS), sizes, &params)?;
    Ok(flops)
}

/// Elements of [`ceiling_mma`]'s `out` with which every multiprocessor has all the blocks that it has room for, once.
pub fn ceiling_mma_len(cuda: &Cuda) -> usize {
    cuda.device().properties().sm_count * (CEILING_MMA_MIN_BLOCKS * CEILING_MMA_THREADS) as usize
}

fn require(kernel: &'static str, holds: bool, rule: &str, found: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(failed(kernel, rule, found())) }
}

fn failed(kernel: &'static str, rule: &str, found: String) -> Error {
    Error::Precondition { operation: kernel, rule: rule.into(), found }
}
