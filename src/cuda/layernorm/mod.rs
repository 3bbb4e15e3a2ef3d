//! Layernorm: see [`crate::ops::LayerNormForward`] and `kernels/layernorm.cu`.

mod config;

use config::{backward_ctas, backward_shared_bytes, forward_ctas, forward_shared_bytes};

use super::launch::device_ptr::DevPtr;
use super::launch::params::{
    LAYERNORM_FORWARD_C2048_MIN_BLOCKS, LAYERNORM_FORWARD_MIN_BLOCKS, LAYERNORM_MAX_C, LAYERNORM_REDUCE_VECTORS,
    LAYERNORM_RESIDUAL_C12288_MIN_BLOCKS, LAYERNORM_THREADS, LayernormBackwardParams, LayernormForwardParams,
};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::{Cuda, Operand};
use crate::error::{Error, Result};
use crate::ops::{LayerNormBackward, LayerNormForward, Operation, ResidualLayerNormForward, RowDims, Write};

/// A kernel, and the largest C that it supports.
type UpTo<P> = (usize, Kernel<P>);

const fn up_to_forward(c: usize, name: &'static str, min_blocks: u32) -> UpTo<LayernormForwardParams> {
    let kernel = Kernel::new("layernorm", name, LAYERNORM_THREADS).min_blocks(min_blocks);
    (c, kernel.dynamic_shared(forward_shared_bytes(c) as u32))
}

const fn up_to_backward(c: usize, name: &'static str) -> UpTo<LayernormBackwardParams> {
    (c, Kernel::new("layernorm", name, LAYERNORM_THREADS).dynamic_shared(backward_shared_bytes(c) as u32))
}

const FORWARD: [UpTo<LayernormForwardParams>; 3] = [
    up_to_forward(1024, "layernorm_forward_c1024", LAYERNORM_FORWARD_MIN_BLOCKS),
    up_to_forward(2048, "layernorm_forward_c2048", LAYERNORM_FORWARD_C2048_MIN_BLOCKS),
    up_to_forward(12288, "layernorm_forward_c12288", LAYERNORM_FORWARD_MIN_BLOCKS),
];
const RESIDUAL_FORWARD: [UpTo<LayernormForwardParams>; 3] = [
    up_to_forward(1024, "residual_layernorm_forward_c1024", LAYERNORM_FORWARD_MIN_BLOCKS),
    up_to_forward(2048, "residual_layernorm_forward_c2048", LAYERNORM_FORWARD_C2048_MIN_BLOCKS),
    up_to_forward(12288, "residual_layernorm_forward_c12288", LAYERNORM_RESIDUAL_C12288_MIN_BLOCKS),
];
const BACKWARD: [UpTo<LayernormBackwardParams>; 3] = [
    up_to_backward(1024, "layernorm_backward_c1024"),
    up_to_backward(2048, "layernorm_backward_c2048"),
    up_to_backward(12288, "layernorm_backward_c12288"),
];
const REDUCE: Kernel<LayernormBackwardParams> =
    Kernel::new("layernorm", "layernorm_backward_reduce", LAYERNORM_THREADS);

pub(super) const KERNELS: &[Spec] = &[
    FORWARD[0].1.spec,
    FORWARD[1].1.spec,
    FORWARD[2].1.spec,
    RESIDUAL_FORWARD[0].1.spec,
    RESIDUAL_FORWARD[1].1.spec,
    RESIDUAL_FORWARD[2].1.spec,
    BACKWARD[0].1.spec,
    BACKWARD[1].1.spec,
    BACKWARD[2].1.spec,
    REDUCE.spec,
];

/// The kernel for C channels.
fn choose<'a, P>(operation: &'static str, kernels: &'a [UpTo<P>], c: usize) -> Result<&'a Kernel<P>> {
    let fitting = kernels.iter().find(|(max_c, _)| c <= *max_c);
    fitting.map(|(_, kernel)| kernel).ok_or_else(|| Error::Precondition {
        operation,
        rule: format!("C <= {LAYERNORM_MAX_C}"),
        found: format!("C = {c}"),
    })
}

pub(super) fn forward(cuda: &Cuda, op: LayerNormForward<'_, Cuda>) -> Result<()> {
    const NAME: &str = LayerNormForward::<Cuda>::NAME;
    let dims = op.check()?;
    let params = LayernormForwardParams {
        x: op.x.aligned(NAME, "x")?,
        residual: DevPtr::NULL,
        weight: op.weight.aligned(NAME, "weight")?,
        bias: op.bias.aligned(NAME, "bias")?,
        sum: DevPtr::NULL,
        out: op.out.aligned(NAME, "out")?,
        mean: op.mean.ptr(),
        rstd: op.rstd.ptr(),
        n: dims.n as u64,
        c: dims.c as u64,
    };
    launch_forward(cuda, choose(NAME, &FORWARD, dims.c)?, dims, &params)
}

pub(super) fn residual_forward(cuda: &Cuda, op: ResidualLayerNormForward<'_, Cuda>) -> Result<()> {
    const NAME: &str = ResidualLayerNormForward::<Cuda>::NAME;
    let dims = op.check()?;
    let params = LayernormForwardParams {
        x: op.x.aligned(NAME, "x")?,
        residual: op.residual.aligned(NAME, "residual")?,
        weight: op.weight.aligned(NAME, "weight")?,
        bias: op.bias.aligned(NAME, "bias")?,
        sum: op.sum.aligned(NAME, "sum")?,
        out: op.out.aligned(NAME, "out")?,
        mean: op.mean.ptr(),
        rstd: op.rstd.ptr(),
        n: dims.n as u64,
        c: dims.c as u64,
    };
    launch_forward(cuda, choose(NAME, &RESIDUAL_FORWARD, dims.c)?, dims, &params)
}

fn launch_forward(
    cuda: &Cuda,
    kernel: &Kernel<LayernormForwardParams>,
    RowDims { n, c }: RowDims,
    params: &LayernormForwardParams,
) -> Result<()> {
    let ctas = forward_ctas(n, cuda.device().properties().sm_count, kernel.spec.min_blocks);
    cuda.device().launch(kernel, Grid::of(ctas).shared(forward_shared_bytes(c)), [("N", n), ("C", c)], params)
}

/// Bytes of workspace that [`backward`] needs: partial sums of dweight and dbias of each CTA.
pub(super) fn backward_workspace_bytes(RowDims { n, c }: RowDims) -> usize {
    backward_ctas(n) * 2 * c * size_of::<f32>()
}

pub(super) fn backward(cuda: &Cuda, op: LayerNormBackward<'_, Cuda>) -> Result<()> {
    const NAME: &str = LayerNormBackward::<Cuda>::NAME;
    let dims @ RowDims { n, c } = op.check()?;
    let kernel = choose(NAME, &BACKWARD, c)?;
    let ctas = backward_ctas(n);
    let workspace = cuda.device().workspace(backward_workspace_bytes(dims))?;
    let params = LayernormBackwardParams {
        dout: op.dout.aligned(NAME, "dout")?,
        x: op.x.aligned(NAME, "x")?,
        weight: op.weight.aligned(NAME, "weight")?,
        mean: op.mean.ptr(),
        rstd: op.rstd.ptr(),
        dx: op.dx.aligned(NAME, "dx")?,
        dweight: op.dweight.aligned(NAME, "dweight")?,
        dbias: op.dbias.aligned(NAME, "dbias")?,
        partials: workspace.ptr(),
        n: n as u64,
        c: c as u32,
        blocks: ctas as u32,
        accumulate_dx: (op.dx_write == Write::Accumulate).into(),
        accumulate: (op.write == Write::Accumulate).into(),
    };
    let sizes = [("N", n), ("C", c)];
    cuda.device().launch(kernel, Grid::of(ctas).shared(backward_shared_bytes(c)), sizes, &params)?;
    let reduce_grid = Grid::of((2 * c / 4).div_ceil(LAYERNORM_REDUCE_VECTORS as usize));
    cuda.device().launch(&REDUCE, reduce_grid, sizes, &params)
}
