//! GELU: see [`crate::ops::GeluForward`] and `kernels/gelu.cu`.

use super::launch::params::{GELU_FORWARD_ELEMENTS_PER_BLOCK, GELU_FORWARD_THREADS, GeluForwardParams};
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::{Cuda, Operand};
use crate::error::Result;
use crate::ops::{GeluForward, Operation};

const FORWARD: Kernel<GeluForwardParams> = Kernel::new("gelu", "gelu_forward", GELU_FORWARD_THREADS);

pub(super) const KERNELS: &[Spec] = &[FORWARD.spec];

pub(super) fn forward(cuda: &Cuda, op: GeluForward<'_, Cuda>) -> Result<()> {
    const NAME: &str = GeluForward::<Cuda>::NAME;
    let len = op.check()?;
    let params = GeluForwardParams { x: op.x.aligned(NAME, "x")?, out: op.out.aligned(NAME, "out")?, len: len as u64 };
    let grid = Grid::of(len.div_ceil(GELU_FORWARD_ELEMENTS_PER_BLOCK as usize));
    cuda.device().launch(&FORWARD, grid, [("N·C", len)], &params)
}
