//! The global gradient norm: see [`crate::ops::GradNorm`] and `kernels/grad_norm.cu`.

use super::Cuda;
use super::launch::params::{
    GRAD_NORM_MAX_BLOCKS, GRAD_NORM_THREADS, GRAD_NORM_TILE, GradNormPartialsParams, GradNormReduceParams,
};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::Operand;
use crate::error::Result;
use crate::ops::{GradNorm, Operation};

const PARTIALS: Kernel<GradNormPartialsParams> =
    Kernel::new("grad_norm", "grad_norm_partials", GRAD_NORM_THREADS).min_blocks(8);
const TOTAL: Kernel<GradNormReduceParams> = Kernel::new("grad_norm", "grad_norm_reduce", GRAD_NORM_THREADS);

pub(super) const KERNELS: &[Spec] = &[PARTIALS.spec, TOTAL.spec];

/// P alone decides how many, and so the order of the sum.
fn partials_of(p: usize) -> usize {
    p.div_ceil(GRAD_NORM_TILE as usize).min(GRAD_NORM_MAX_BLOCKS as usize)
}

/// Bytes of the partial sums of P elements.
pub(super) fn workspace_bytes(p: usize) -> usize {
    partials_of(p) * size_of::<f32>()
}

pub(super) fn norm(cuda: &Cuda, op: GradNorm<'_, Cuda>) -> Result<()> {
    let p = op.check()?;
    let blocks = partials_of(p);
    let workspace = cuda.device().workspace(workspace_bytes(p))?;
    let partials = GradNormPartialsParams {
        grad: op.grad.aligned(GradNorm::<Cuda>::NAME, "grad")?,
        partials: workspace.address(),
        len: p as u64,
    };
    let total =
        GradNormReduceParams { partials: workspace.address(), norm: op.norm.address(), num_partials: blocks as u64 };
    cuda.device().launch(&PARTIALS, Grid::of(blocks), [("P", p)], &partials)?;
    cuda.device().launch(&TOTAL, Grid::of(1), [("P", p)], &total)
}
