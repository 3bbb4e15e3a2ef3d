//! Fused causal self-attention, straight on the packed QKV.

use super::check::{Rules, bytes};
use super::{Accum, AccumMut, Compute, ComputeMut, Floor, Operation};
use crate::error::Result;
use crate::tensor::{Shape, Storage};

/// Sizes of an attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionDims {
    /// Batch.
    pub b: usize,
    /// Sequence length.
    pub t: usize,
    /// Heads.
    pub nh: usize,
    /// Head size.
    pub hs: usize,
}

impl AttentionDims {
    /// `4·B·NH·T²·HS`, the causal half of it: FlashAttention's convention for a forward.
    fn flops(&self) -> u64 {
        2 * (self.b * self.nh * self.hs) as u64 * (self.t as u64).pow(2)
    }
}

/// Reads B, T, NH and HS off the packed tensor.
pub(super) fn packed_dims<S: Storage>(rules: &Rules, qkv: Shape, nh: usize) -> Result<AttentionDims> {
    let &[b, t, c3] = qkv.dims() else {
        return Err(rules.failed("qkv has axes (B, T, 3C)", format_args!("qkv is {qkv}")));
    };
    rules.not_empty("qkv", qkv)?;
    rules.require(nh > 0 && c3.is_multiple_of(3 * nh), "3C % (3·NH) == 0", || format!("3C = {c3}, NH = {nh}"))?;
    let hs = c3 / 3 / nh;
    rules.vectors::<S>("HS", hs)?;
    Ok(AttentionDims { b, t, nh, hs })
}

/// For every head, with q, k, v its (T, HS) parts of `qkv` and `s[i, j] = q[i]·k[j] / √HS` for `j <= i`:
/// `out[i] = Σ_j exp(s[i, j] - lse[i]) · v[j]`, `lse[i] = ln Σ_j exp(s[i, j])`
///
/// Source: Vaswani et al. 2017; Dao et al. 2022 for the form that never holds T² scores.
pub struct AttentionForward<'a, S: Storage> {
    /// (B, T, 3C): q, k, v beside each other, each (NH, HS).
    pub qkv: Compute<'a, S>,
    /// NH.
    pub num_heads: usize,
    /// (B, T, C) `=`.
    pub out: ComputeMut<'a, S>,
    /// (B, NH, T) `=`, natural logarithm; kept for the backward.
    pub lse: AccumMut<'a, S>,
}

impl<S: Storage> Operation for AttentionForward<'_, S> {
    const NAME: &'static str = "attention_forward";
    type Dims = AttentionDims;

    fn check(&self) -> Result<AttentionDims> {
        let rules = Rules(Self::NAME);
        let dims @ AttentionDims { b, t, nh, hs } = packed_dims::<S>(&rules, self.qkv.shape(), self.num_heads)?;
        rules.shape("out", "(B, T, C)", self.out.shape(), [b, t, nh * hs])?;
        rules.shape("lse", "(B, NH, T)", self.lse.shape(), [b, nh, t])?;
        Ok(dims)
    }

    fn floor(&self) -> Floor {
        let flops = self.check().map_or(0, |dims| dims.flops());
        let compute = self.qkv.shape().len() + self.out.shape().len();
        Floor { bytes: bytes::<S::Compute>(compute) + bytes::<S::Accum>(self.lse.shape().len()), flops }
    }
}

/// With `p[i, j] = exp(s[i, j] - lse[i])`, `dp[i, j] = dout[i]·v[j]`, `delta[i] = dout[i]·out[i]` and
/// `ds = p · (dp - delta)`:
/// `dq = ds·k / √HS`, `dk = dsᵀ·q / √HS`, `dv = pᵀ·dout`
pub struct AttentionBackward<'a, S: Storage> {
    /// (B, T, C).
    pub dout: Compute<'a, S>,
    /// (B, T, 3C), the forward's input.
    pub qkv: Compute<'a, S>,
    /// NH.
    pub num_heads: usize,
    /// (B, T, C), the forward's output.
    pub out: Compute<'a, S>,
    /// (B, NH, T), from the forward.
    pub lse: Accum<'a, S>,
    /// (B, T, 3C) `=`: dq, dk, dv, packed as `qkv`.
    pub dqkv: ComputeMut<'a, S>,
}

impl<S: Storage> Operation for AttentionBackward<'_, S> {
    const NAME: &'static str = "attention_backward";
    type Dims = AttentionDims;

    fn check(&self) -> Result<AttentionDims> {
        let rules = Rules(Self::NAME);
        let dims @ AttentionDims { b, t, nh, hs } = packed_dims::<S>(&rules, self.qkv.shape(), self.num_heads)?;
        rules.shape("dout", "(B, T, C)", self.dout.shape(), [b, t, nh * hs])?;
        rules.shape("out", "(B, T, C)", self.out.shape(), [b, t, nh * hs])?;
        rules.shape("lse", "(B, NH, T)", self.lse.shape(), [b, nh, t])?;
        rules.shape("dqkv", "(B, T, 3C)", self.dqkv.shape(), self.qkv.shape())?;
        Ok(dims)
    }

    /// FLOPs are 2.5 × the forward's: five products for its two, by FlashAttention's convention.
    fn floor(&self) -> Floor {
        let flops = self.check().map_or(0, |dims| dims.flops() * 5 / 2);
        let compute = 2 * self.qkv.shape().len() + 2 * self.out.shape().len();
        Floor { bytes: bytes::<S::Compute>(compute) + bytes::<S::Accum>(self.lse.shape().len()), flops }
    }
}
