//! The highest rates that this GPU reaches, measured by kernels of our own: `kernels/ceilings.cu`.
//!
//! A data sheet's peak holds for the clocks that it assumes, and is available only for GPUs whose numbers are in a table.
//! These two kernels run on any GPU, at its current clocks and power limit. Other kernels are compared with their rates:
//!
//! | Ceiling | Computed from | Unit |
//! |---|---|---|
//! | copy rate | bytes of `src` plus bytes of `dst`, over the time of [`ceiling_copy`] | bytes / s |
//! | tensor-core rate | the FLOPs that [`ceiling_mma`] returns, over its time | FLOP / s; a multiply-add counts as two |
//!
//! The caller measures the time. For the copy it needs buffers several times as large as L2, since device memory is to be
//! measured. For the MMAs it needs iterations for some milliseconds, so that the prologue of [`ceiling_mma`], about 1,000
//! instructions per warp, does not count.
//!
//! The second rate is the ceiling of `mma.sync`, the instruction that every GPU since compute capability 8.0 has. Hopper's
//! `wgmma` is faster; its ceiling has to be measured by kernels that use it.

use super::launch::params::{
    CEILING_COPY_THREADS, CEILING_COPY_VECTORS_PER_BLOCK, CEILING_MMA_ACCUMULATORS, CEILING_MMA_MIN_BLOCKS,
    CEILING_MMA_THREADS, CeilingCopyParams, CeilingMmaParams,
};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::{Cuda, Operand};
use crate::error::{Error, Result};
use crate::tensor::{Element, View, ViewMut};

const COPY: Kernel<CeilingCopyParams> = Kernel::new("ceilings", "ceiling_copy", CEILING_COPY_THREADS);
const MMA: Kernel<CeilingMmaParams> =
    Kernel::new("ceilings", "ceiling_mma", CEILING_MMA_THREADS).min_blocks(CEILING_MMA_MIN_BLOCKS);

pub(super) const KERNELS: &[Spec] = &[COPY.spec, MMA.spec];

/// Bytes of a vector access.
const VECTOR: usize = 16;
/// Lanes per warp.
const WARP: u64 = 32;
/// FLOPs of one `mma.sync.m16n8k16`.
const MMA_FLOPS: u64 = 2 * 16 * 8 * 16;
/// FLOPs of [`ceiling_mma`] per iteration and element of `out`. Every lane of a warp writes one element.
const LANE_FLOPS: u64 = CEILING_MMA_ACCUMULATORS as u64 * MMA_FLOPS / WARP;

/// `dst = src`, moving `2 · len · E::BYTES` bytes.
///
/// # Errors
/// [`Error::Precondition`] unless both have the same length, a multiple of 16 bytes above 0, and are 16-byte aligned.
pub fn ceiling_copy<E: Element>(cuda: &Cuda, src: View<'_, Cuda, E>, dst: ViewMut<'_, Cuda, E>) -> Result<()> {
    const NAME: &str = COPY.spec.name;
    let (len, dst_len) = (src.shape().len(), dst.shape().len());
    require(NAME, len > 0, "src not empty", || format!("src is {}", src.shape()))?;
    require(NAME, dst_len == len, "dst as long as src", || format!("src has {len} elements, dst {dst_len}"))?;
    let bytes = len * E::BYTES;
    require(NAME, bytes.is_multiple_of(VECTOR), "bytes % 16 == 0", || format!("{bytes} bytes"))?;
    let len = bytes / VECTOR;
    let params = CeilingCopyParams {
        src: src.aligned(NAME, "src")?.cast(),
        dst: dst.aligned(NAME, "dst")?.cast(),
        len: len as u64,
    };
    let grid = Grid::of(len.div_ceil(CEILING_COPY_VECTORS_PER_BLOCK as usize));
    cuda.device().launch(&COPY, grid, [("bytes", bytes)], &params)
}

/// Executes `iterations` MMAs of bf16 on each of a warp's 8 accumulators, in registers only, and returns their FLOPs.
///
/// The grid has one CTA per 256 elements of `out`; [`ceiling_mma_len`] elements fill the GPU once. Each warp has A (32, 16),
/// B (16, 32) and D (32, 32), approximately normally distributed and seeded by the thread's index. It computes `D + A·B` for
/// an odd number of iterations, and D up to rounding for an even one. Element i of `out` is the sum of the elements that
/// lane i holds of the result.
///
/// # Errors
/// [`Error::Precondition`] unless the length of `out` is a multiple of 256 above 0 and the FLOPs are below 2⁶⁴.
pub fn ceiling_mma(cuda: &Cuda, iterations: u32, out: ViewMut<'_, Cuda, f32>) -> Result<u64> {
    const NAME: &str = MMA.spec.name;
    const THREADS: usize = CEILING_MMA_THREADS as usize;
    let n = out.shape().len();
    require(NAME, n > 0, "out not empty", || format!("out is {}", out.shape()))?;
    require(NAME, n.is_multiple_of(THREADS), &format!("N % {THREADS} == 0"), || format!("N = {n}"))?;
    let flops = LANE_FLOPS.checked_mul(n as u64).and_then(|flops| flops.checked_mul(iterations.into()));
    let flops = flops.ok_or_else(|| failed(NAME, "FLOPs < 2^64", format!("N = {n}, iterations = {iterations}")))?;
    let params = CeilingMmaParams { out: out.ptr(), iterations: iterations.into() };
    let sizes = [("N", n), ("iterations", iterations as usize)];
    cuda.device().launch(&MMA, Grid::of(n / THREADS), sizes, &params)?;
    Ok(flops)
}

/// Length of [`ceiling_mma`]'s `out` for which every SM gets as many CTAs as it can hold, once.
pub fn ceiling_mma_len(cuda: &Cuda) -> usize {
    cuda.device().properties().sm_count * (CEILING_MMA_MIN_BLOCKS * CEILING_MMA_THREADS) as usize
}

fn require(kernel: &'static str, holds: bool, rule: &str, found: impl FnOnce() -> String) -> Result<()> {
    if holds { Ok(()) } else { Err(failed(kernel, rule, found())) }
}

fn failed(kernel: &'static str, rule: &str, found: String) -> Error {
    Error::Precondition { operation: kernel, rule: rule.into(), found }
}
