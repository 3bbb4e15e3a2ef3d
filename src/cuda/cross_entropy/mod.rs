//! Cross-entropy: see [`crate::ops::CrossEntropyForward`] and `kernels/cross_entropy.cu`.
//!
//! Targets are not seen by the host: one of V or more makes its loss and its row's gradient NaN.

use super::Cuda;
use super::launch::params::*;
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::Operand;
use crate::error::{Error, Result};
use crate::ops::{CrossEntropyBackward, CrossEntropyForward, LossDims, LossSum, Operation, Write};
use crate::tensor::Storage;

const STEM: &str = "cross_entropy";

type Forward = Kernel<CrossEntropyForwardParams>;
type Backward = Kernel<CrossEntropyBackwardParams>;

const fn forward_kernel(name: &'static str) -> Forward {
    Kernel::new(STEM, name, CROSS_ENTROPY_THREADS).min_blocks(CROSS_ENTROPY_MIN_BLOCKS)
}

const fn backward_kernel(name: &'static str, blocks: u32) -> Backward {
    Kernel::new(STEM, name, CROSS_ENTROPY_THREADS).min_blocks(blocks)
}

const FORWARD_WARP: Forward = forward_kernel("cross_entropy_forward_warp");
const FORWARD_BLOCK: Forward = forward_kernel("cross_entropy_forward_block");
const BACKWARD_WARP: Backward = backward_kernel("cross_entropy_backward_warp", CROSS_ENTROPY_MIN_BLOCKS);
const BACKWARD_20K: Backward = backward_kernel("cross_entropy_backward_20k", CROSS_ENTROPY_MIN_BLOCKS);
const BACKWARD_51K: Backward = backward_kernel("cross_entropy_backward_51k", CROSS_ENTROPY_51K_MIN_BLOCKS);
const BACKWARD_STREAM: Backward = backward_kernel("cross_entropy_backward_stream", CROSS_ENTROPY_MIN_BLOCKS);
const LOSS_SUM: Kernel<LossSumParams> = Kernel::new(STEM, "loss_sum", LOSS_SUM_THREADS);

pub(super) const KERNELS: &[Spec] = &[
    FORWARD_WARP.spec,
    FORWARD_BLOCK.spec,
    BACKWARD_WARP.spec,
    BACKWARD_20K.spec,
    BACKWARD_51K.spec,
    BACKWARD_STREAM.spec,
    LOSS_SUM.spec,
];

/// V and Vp as kernels take them: targets are i32, so that more columns than those count cannot be meant.
fn columns(operation: &'static str, dims: LossDims) -> Result<(u32, u32)> {
    match i32::try_from(dims.vp) {
        Ok(vp) => Ok((dims.v as u32, vp as u32)),
        Err(_) => {
            Err(Error::Precondition { operation, rule: "Vp < 2147483648".into(), found: format!("Vp = {}", dims.vp) })
        }
    }
}

/// Vectors that lie wholly inside of V.
fn whole_vectors(v: u32) -> u32 {
    v / <Cuda as Storage>::VECTOR as u32
}

fn blocks_of_warps(n: usize) -> Grid {
    Grid::of(n.div_ceil(CROSS_ENTROPY_WARP_ROWS_PER_BLOCK as usize))
}

pub(super) fn forward(cuda: &Cuda, op: CrossEntropyForward<'_, Cuda>) -> Result<()> {
    const NAME: &str = CrossEntropyForward::<Cuda>::NAME;
    let dims = op.check()?;
    let (v, vp) = columns(NAME, dims)?;
    let params = CrossEntropyForwardParams {
        logits: op.logits.aligned(NAME, "logits")?,
        targets: op.targets.address(),
        losses: op.losses.address(),
        n: dims.n as u64,
        v,
        vp,
    };
    let (kernel, grid) = match whole_vectors(v) {
        vectors if vectors <= CROSS_ENTROPY_WARP_MAX_VECTORS => (&FORWARD_WARP, blocks_of_warps(dims.n)),
        _ => (&FORWARD_BLOCK, Grid::of(dims.n)),
    };
    cuda.device().launch(kernel, grid, sizes(dims), &params)
}

pub(super) fn backward(cuda: &Cuda, op: CrossEntropyBackward<'_, Cuda>) -> Result<()> {
    const NAME: &str = CrossEntropyBackward::<Cuda>::NAME;
    let dims = op.check()?;
    let (v, vp) = columns(NAME, dims)?;
    let params = CrossEntropyBackwardParams {
        logits: op.logits.aligned(NAME, "logits")?,
        targets: op.targets.address(),
        losses: op.losses.address(),
        n: dims.n as u64,
        vp: vp.into(),
        v,
        scale: op.scale as f32,
    };
    let (kernel, grid) = match whole_vectors(v) {
        vectors if vectors <= CROSS_ENTROPY_WARP_MAX_VECTORS => (&BACKWARD_WARP, blocks_of_warps(dims.n)),
        vectors if vectors <= CROSS_ENTROPY_20K_MAX_VECTORS => (&BACKWARD_20K, Grid::of(dims.n)),
        vectors if vectors <= CROSS_ENTROPY_51K_MAX_VECTORS => (&BACKWARD_51K, Grid::of(dims.n)),
        _ => (&BACKWARD_STREAM, Grid::of(dims.n)),
    };
    cuda.device().launch(kernel, grid, sizes(dims), &params)
}

pub(super) fn sum_losses(cuda: &Cuda, op: LossSum<'_, Cuda>) -> Result<()> {
    let n = op.check()?;
    let params = LossSumParams {
        losses: op.losses.address(),
        total: op.total.address(),
        n: n as u64,
        scale: op.scale as f32,
        accumulate: (op.write == Write::Accumulate).into(),
    };
    cuda.device().launch(&LOSS_SUM, Grid::of(1), [("N", n)], &params)
}

fn sizes(dims: LossDims) -> [(&'static str, usize); 3] {
    [("N", dims.n), ("V", dims.v), ("Vp", dims.vp)]
}
