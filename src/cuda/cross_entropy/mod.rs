//! Cross-entropy: see [`crate::ops::CrossEntropyForward`] and `kernels/cross_entropy.cu`.
//!
//! The host does not see the targets. A target of V or more makes its loss and the gradient of its row NaN.

mod config;

use config::{Backward, Forward};

use super::launch::params::*;
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::{Cuda, Operand};
use crate::error::{Error, Result};
use crate::ops::{CrossEntropyBackward, CrossEntropyForward, LossDims, LossSum, Operation, Write};

const STEM: &str = "cross_entropy";

const fn forward_kernel(name: &'static str) -> Kernel<CrossEntropyForwardParams> {
    Kernel::new(STEM, name, CROSS_ENTROPY_THREADS).min_blocks(CROSS_ENTROPY_MIN_BLOCKS)
}

const fn backward_kernel(name: &'static str, min_blocks: u32) -> Kernel<CrossEntropyBackwardParams> {
    Kernel::new(STEM, name, CROSS_ENTROPY_THREADS).min_blocks(min_blocks)
}

const FORWARD_WARP: Kernel<CrossEntropyForwardParams> = forward_kernel("cross_entropy_forward_warp");
const FORWARD_BLOCK: Kernel<CrossEntropyForwardParams> = forward_kernel("cross_entropy_forward_block");
const BACKWARD_WARP: Kernel<CrossEntropyBackwardParams> =
    backward_kernel("cross_entropy_backward_warp", CROSS_ENTROPY_MIN_BLOCKS);
const BACKWARD_20K: Kernel<CrossEntropyBackwardParams> =
    backward_kernel("cross_entropy_backward_20k", CROSS_ENTROPY_MIN_BLOCKS);
const BACKWARD_51K: Kernel<CrossEntropyBackwardParams> =
    backward_kernel("cross_entropy_backward_51k", CROSS_ENTROPY_51K_MIN_BLOCKS);
const BACKWARD_STREAM: Kernel<CrossEntropyBackwardParams> =
    backward_kernel("cross_entropy_backward_stream", CROSS_ENTROPY_MIN_BLOCKS);
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

/// V and Vp in 32 bits. Targets are i32, so no larger vocabulary could be indexed.
fn columns(operation: &'static str, dims: LossDims) -> Result<(u32, u32)> {
    match i32::try_from(dims.vp) {
        Ok(vp) => Ok((dims.v as u32, vp as u32)),
        Err(_) => {
            Err(Error::Precondition { operation, rule: "Vp < 2147483648".into(), found: format!("Vp = {}", dims.vp) })
        }
    }
}

pub(super) fn forward(cuda: &Cuda, op: CrossEntropyForward<'_, Cuda>) -> Result<()> {
    const NAME: &str = CrossEntropyForward::<Cuda>::NAME;
    let dims = op.check()?;
    let (v, vp) = columns(NAME, dims)?;
    let params = CrossEntropyForwardParams {
        logits: op.logits.aligned(NAME, "logits")?,
        targets: op.targets.ptr(),
        losses: op.losses.ptr(),
        n: dims.n as u64,
        v,
        vp,
    };
    let choice = Forward::new(v);
    let kernel = match choice {
        Forward::Warp => &FORWARD_WARP,
        Forward::Block => &FORWARD_BLOCK,
    };
    cuda.device().launch(kernel, Grid::of(choice.ctas(dims.n)), sizes(dims), &params)
}

pub(super) fn backward(cuda: &Cuda, op: CrossEntropyBackward<'_, Cuda>) -> Result<()> {
    const NAME: &str = CrossEntropyBackward::<Cuda>::NAME;
    let dims = op.check()?;
    let (v, vp) = columns(NAME, dims)?;
    let params = CrossEntropyBackwardParams {
        logits: op.logits.aligned(NAME, "logits")?,
        targets: op.targets.ptr(),
        losses: op.losses.ptr(),
        n: dims.n as u64,
        vp: vp.into(),
        v,
        scale: op.scale as f32,
    };
    let choice = Backward::new(v);
    let kernel = match choice {
        Backward::Warp => &BACKWARD_WARP,
        Backward::Columns20k => &BACKWARD_20K,
        Backward::Columns51k => &BACKWARD_51K,
        Backward::Stream => &BACKWARD_STREAM,
    };
    cuda.device().launch(kernel, Grid::of(choice.ctas(dims.n)), sizes(dims), &params)
}

pub(super) fn sum_losses(cuda: &Cuda, op: LossSum<'_, Cuda>) -> Result<()> {
    let n = op.check()?;
    let params = LossSumParams {
        losses: op.losses.ptr(),
        total: op.total.ptr(),
        n: n as u64,
        scale: op.scale as f32,
        accumulate: (op.write == Write::Accumulate).into(),
    };
    cuda.device().launch(&LOSS_SUM, Grid::of(1), [("N", n)], &params)
}

fn sizes(dims: LossDims) -> [(&'static str, usize); 3] {
    [("N", dims.n), ("V", dims.v), ("Vp", dims.vp)]
}
