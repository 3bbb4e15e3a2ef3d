//! The global gradient norm: see [`crate::ops::GradNorm`] and `kernels/grad_norm.cu`.

use super::launch::params::{
    GRAD_NORM_MAX_BLOCKS, GRAD_NORM_MIN_BLOCKS, GRAD_NORM_THREADS, GRAD_NORM_TILE, GradNormPartialsParams,
    GradNormReduceParams,
};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::{Cuda, Operand};
use crate::error::Result;
use crate::ops::{GradNorm, Operation};

const PARTIALS: Kernel<GradNormPartialsParams> =
    Kernel::new("grad_norm", "grad_norm_partials", GRAD_NORM_THREADS).min_blocks(GRAD_NORM_MIN_BLOCKS);
const REDUCE: Kernel<GradNormReduceParams> = Kernel::new("grad_norm", "grad_norm_reduce", GRAD_NORM_THREADS);

pub(super) const KERNELS: &[Spec] = &[PARTIALS.spec, REDUCE.spec];

/// CTAs for P elements, each with a partial sum. Only P determines the number, because it determines the order of the sum.
fn ctas(p: usize) -> usize {
    p.div_ceil(GRAD_NORM_TILE as usize).min(GRAD_NORM_MAX_BLOCKS as usize)
}

/// Bytes of workspace that [`norm`] needs for P elements.
pub(super) fn workspace_bytes(p: usize) -> usize {
    ctas(p) * size_of::<f32>()
}

pub(super) fn norm(cuda: &Cuda, op: GradNorm<'_, Cuda>) -> Result<()> {
    let p = op.check()?;
    let ctas = ctas(p);
    let workspace = cuda.device().workspace(workspace_bytes(p))?;
    let partials = GradNormPartialsParams {
        grad: op.grad.aligned(GradNorm::<Cuda>::NAME, "grad")?,
        partials: workspace.ptr(),
        len: p as u64,
    };
    let reduce = GradNormReduceParams { partials: workspace.ptr(), norm: op.norm.ptr(), num_partials: ctas as u64 };
    cuda.device().launch(&PARTIALS, Grid::of(ctas), [("P", p)], &partials)?;
    cuda.device().launch(&REDUCE, Grid::of(1), [("P", p)], &reduce)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn p_decides_the_number_of_partial_sums() {
        for (p, want) in [(1, 1), (4096, 1), (4097, 2), (1 << 23, 2048), (124_475_904, 2048)] {
            assert_eq!((ctas(p), workspace_bytes(p)), (want, 4 * want), "P = {p}");
        }
    }
}
