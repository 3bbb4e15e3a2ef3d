//! Layer normalisation, alone and fused with the residual addition.

use super::check::{Rules, bytes};
use super::operation::{Accum, AccumMut, Compute, ComputeMut, Floor, Operation, Write};
use crate::error::Result;
use crate::tensor::Storage;

/// Sizes of a row-wise operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RowDims {
    /// Number of rows.
    pub n: usize,
    /// Number of channels.
    pub c: usize,
}

/// `out = (x - mean) · rstd · weight + bias`, with `mean = Σx / C` and `rstd = 1 / sqrt(Σ(x - mean)² / C + ε)`
///
/// ε is [`super::LAYERNORM_EPS`]. Source: Ba et al. 2016.
pub struct LayerNormForward<'a, S: Storage> {
    /// (N, C).
    pub x: Compute<'a, S>,
    /// (C).
    pub weight: Compute<'a, S>,
    /// (C).
    pub bias: Compute<'a, S>,
    /// (N, C) `=`.
    pub out: ComputeMut<'a, S>,
    /// (N) `=`, kept for the backward.
    pub mean: AccumMut<'a, S>,
    /// (N) `=`, kept for the backward.
    pub rstd: AccumMut<'a, S>,
}

impl<S: Storage> Operation for LayerNormForward<'_, S> {
    const NAME: &'static str = "layernorm_forward";
    type Dims = RowDims;

    fn check(&self) -> Result<RowDims> {
        let rules = Rules(Self::NAME);
        let [n, c] = self.x.shape().matrix();
        rules.not_empty("x", self.x.shape())?;
        rules.shape("weight", "(C)", self.weight.shape(), [c])?;
        rules.shape("bias", "(C)", self.bias.shape(), [c])?;
        rules.matrix("out", "(N, C)", self.out.shape(), [n, c])?;
        rules.len("mean", "(N)", self.mean.shape(), n)?;
        rules.len("rstd", "(N)", self.rstd.shape(), n)?;
        rules.vectors::<S>("C", c)?;
        Ok(RowDims { n, c })
    }

    fn floor(&self) -> Floor {
        let [n, c] = self.x.shape().matrix();
        Floor { bytes: bytes::<S::Compute>(2 * n * c + 2 * c) + bytes::<S::Accum>(2 * n), flops: 0 }
    }
}

/// `sum = x + residual`, then [`LayerNormForward`] of `sum`
///
/// Used after a branch whose matmul does not add the residual in its epilogue.
pub struct ResidualLayerNormForward<'a, S: Storage> {
    /// (N, C), output of the branch.
    pub x: Compute<'a, S>,
    /// (N, C), the residual stream.
    pub residual: Compute<'a, S>,
    /// (C).
    pub weight: Compute<'a, S>,
    /// (C).
    pub bias: Compute<'a, S>,
    /// (N, C) `=`, the residual stream after the addition. The sum is rounded to this type before it is normalised.
    pub sum: ComputeMut<'a, S>,
    /// (N, C) `=`.
    pub out: ComputeMut<'a, S>,
    /// (N) `=`.
    pub mean: AccumMut<'a, S>,
    /// (N) `=`.
    pub rstd: AccumMut<'a, S>,
}

impl<S: Storage> Operation for ResidualLayerNormForward<'_, S> {
    const NAME: &'static str = "residual_layernorm_forward";
    type Dims = RowDims;

    fn check(&self) -> Result<RowDims> {
        let rules = Rules(Self::NAME);
        let [n, c] = self.x.shape().matrix();
        rules.not_empty("x", self.x.shape())?;
        rules.matrix("residual", "(N, C)", self.residual.shape(), [n, c])?;
        rules.shape("weight", "(C)", self.weight.shape(), [c])?;
        rules.shape("bias", "(C)", self.bias.shape(), [c])?;
        rules.matrix("sum", "(N, C)", self.sum.shape(), [n, c])?;
        rules.matrix("out", "(N, C)", self.out.shape(), [n, c])?;
        rules.len("mean", "(N)", self.mean.shape(), n)?;
        rules.len("rstd", "(N)", self.rstd.shape(), n)?;
        rules.vectors::<S>("C", c)?;
        Ok(RowDims { n, c })
    }

    fn floor(&self) -> Floor {
        let [n, c] = self.x.shape().matrix();
        Floor { bytes: bytes::<S::Compute>(4 * n * c + 2 * c) + bytes::<S::Accum>(2 * n), flops: 0 }
    }
}

/// With `xhat = (x - mean) · rstd` and `g = dout · weight`, per row:
/// `dx (+)= rstd · (g - mean(g) - xhat · mean(g · xhat))`, `dweight (+)= Σ_n dout · xhat`, `dbias (+)= Σ_n dout`
///
/// With accumulating `dx` this is the backward of residual + layernorm: `dx` already holds the gradient of the residual
/// path, and the gradient of the branch is added in the same pass.
pub struct LayerNormBackward<'a, S: Storage> {
    /// (N, C).
    pub dout: Compute<'a, S>,
    /// (N, C), the input of the forward.
    pub x: Compute<'a, S>,
    /// (C).
    pub weight: Compute<'a, S>,
    /// (N).
    pub mean: Accum<'a, S>,
    /// (N).
    pub rstd: Accum<'a, S>,
    /// (N, C), written according to `dx_write`.
    pub dx: ComputeMut<'a, S>,
    /// Write mode of `dx`.
    pub dx_write: Write,
    /// (C), written according to `write`.
    pub dweight: AccumMut<'a, S>,
    /// (C), written according to `write`.
    pub dbias: AccumMut<'a, S>,
    /// Write mode of `dweight` and `dbias`.
    pub write: Write,
}

impl<S: Storage> Operation for LayerNormBackward<'_, S> {
    const NAME: &'static str = "layernorm_backward";
    type Dims = RowDims;

    fn check(&self) -> Result<RowDims> {
        let rules = Rules(Self::NAME);
        let [n, c] = self.x.shape().matrix();
        rules.not_empty("x", self.x.shape())?;
        rules.matrix("dout", "(N, C)", self.dout.shape(), [n, c])?;
        rules.shape("weight", "(C)", self.weight.shape(), [c])?;
        rules.len("mean", "(N)", self.mean.shape(), n)?;
        rules.len("rstd", "(N)", self.rstd.shape(), n)?;
        rules.matrix("dx", "(N, C)", self.dx.shape(), [n, c])?;
        rules.shape("dweight", "(C)", self.dweight.shape(), [c])?;
        rules.shape("dbias", "(C)", self.dbias.shape(), [c])?;
        rules.vectors::<S>("C", c)?;
        Ok(RowDims { n, c })
    }

    fn floor(&self) -> Floor {
        let [n, c] = self.x.shape().matrix();
        let rows = bytes::<S::Compute>((2 + self.dx_write.accesses()) * n * c + c) + bytes::<S::Accum>(2 * n);
        Floor { bytes: rows + bytes::<S::Accum>(2 * c * self.write.accesses()), flops: 0 }
    }
}
