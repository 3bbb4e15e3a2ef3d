//! Layernorm: see [`crate::ops::LayerNormForward`] and `kernels/layernorm.cu`.

use half::bf16;

use super::Cuda;
use super::launch::params::{
    LAYERNORM_BACKWARD_MAX_BLOCKS, LAYERNORM_BACKWARD_MIN_ROWS_PER_BLOCK, LAYERNORM_FORWARD_C2048_MIN_BLOCKS,
    LAYERNORM_FORWARD_MIN_BLOCKS, LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK, LAYERNORM_MAX_C, LAYERNORM_REDUCE_VECTORS,
    LAYERNORM_RESIDUAL_C12288_MIN_BLOCKS, LAYERNORM_THREADS, LayernormBackwardParams, LayernormForwardParams,
};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::Operand;
use crate::error::{Error, Result};
use crate::ops::{LayerNormBackward, LayerNormForward, Operation, ResidualLayerNormForward, RowDims, Write};

/// A kernel for C up to a size.
type UpTo<P> = (usize, Kernel<P>);

const fn up_to_forward(c: usize, name: &'static str, blocks: u32) -> UpTo<LayernormForwardParams> {
    let kernel = Kernel::new("layernorm", name, LAYERNORM_THREADS).min_blocks(blocks);
    (c, kernel.dynamic_shared(forward_shared(c) as u32))
}

const fn up_to_backward(c: usize, name: &'static str) -> UpTo<LayernormBackwardParams> {
    (c, Kernel::new("layernorm", name, LAYERNORM_THREADS).dynamic_shared(backward_shared(c) as u32))
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
const JOIN: Kernel<LayernormBackwardParams> = Kernel::new("layernorm", "layernorm_backward_reduce", LAYERNORM_THREADS);

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
    JOIN.spec,
];

/// Weight and bias.
const fn forward_shared(c: usize) -> usize {
    2 * c * size_of::<bf16>()
}

/// The weight, and where a block has several rows two sums a column.
const fn backward_shared(c: usize) -> usize {
    let sums = if c <= 2048 { 2 * c * size_of::<f32>() } else { 0 };
    sums + c * size_of::<bf16>()
}

/// The kernel for C channels.
fn choose<'a, P>(operation: &'static str, kernels: &'a [UpTo<P>], c: usize) -> Result<&'a Kernel<P>> {
    let fitting = kernels.iter().find(|(most, _)| c <= *most);
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
        residual: 0,
        weight: op.weight.aligned(NAME, "weight")?,
        bias: op.bias.aligned(NAME, "bias")?,
        sum: 0,
        out: op.out.aligned(NAME, "out")?,
        mean: op.mean.address(),
        rstd: op.rstd.address(),
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
        mean: op.mean.address(),
        rstd: op.rstd.address(),
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
    // As many blocks as there is room for at once; each goes on to further rows. Rows do not know of each other, so that
    // the number of blocks changes no bit.
    let room = cuda.device().properties().sm_count * kernel.spec.min_blocks as usize;
    let grid = Grid::of(n.div_ceil(LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK as usize).min(room)).shared(forward_shared(c));
    cuda.device().launch(kernel, grid, [("N", n), ("C", c)], params)
}

fn backward_blocks(n: usize) -> usize {
    n.div_ceil(LAYERNORM_BACKWARD_MIN_ROWS_PER_BLOCK as usize).min(LAYERNORM_BACKWARD_MAX_BLOCKS as usize)
}

/// Bytes of a backward's partial sums.
pub(super) fn backward_workspace_bytes(RowDims { n, c }: RowDims) -> usize {
    backward_blocks(n) * 2 * c * size_of::<f32>()
}

pub(super) fn backward(cuda: &Cuda, op: LayerNormBackward<'_, Cuda>) -> Result<()> {
    const NAME: &str = LayerNormBackward::<Cuda>::NAME;
    let dims @ RowDims { n, c } = op.check()?;
    let kernel = choose(NAME, &BACKWARD, c)?;
    let blocks = backward_blocks(n);
    let workspace = cuda.device().workspace(backward_workspace_bytes(dims))?;
    let params = LayernormBackwardParams {
        dout: op.dout.aligned(NAME, "dout")?,
        x: op.x.aligned(NAME, "x")?,
        weight: op.weight.aligned(NAME, "weight")?,
        mean: op.mean.address(),
        rstd: op.rstd.address(),
        dx: op.dx.aligned(NAME, "dx")?,
        dweight: op.dweight.aligned(NAME, "dweight")?,
        dbias: op.dbias.aligned(NAME, "dbias")?,
        partials: workspace.address(),
        n: n as u64,
        c: c as u32,
        blocks: blocks as u32,
        accumulate_dx: (op.dx_write == Write::Accumulate).into(),
        accumulate: (op.write == Write::Accumulate).into(),
    };
    let sizes = [("N", n), ("C", c)];
    cuda.device().launch(kernel, Grid::of(blocks).shared(backward_shared(c)), sizes, &params)?;
    let join = Grid::of((2 * c / 4).div_ceil(LAYERNORM_REDUCE_VECTORS as usize));
    cuda.device().launch(&JOIN, join, sizes, &params)
}
