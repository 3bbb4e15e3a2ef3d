//! Fused causal self-attention on packed QKV.

use super::check::{Rules, bytes};
use super::operation::{Accum, AccumMut, Compute, ComputeMut, Floor, Operation};
use crate::error::Result;
use crate::tensor::{Shape, Storage};

/// Sizes of an attention operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AttentionDims {
    /// Batch size.
    pub b: usize,
    /// Sequence length.
    pub t: usize,
    /// Number of heads.
    pub nh: usize,
    /// Head size.
    pub hs: usize,
}

impl AttentionDims {
    /// Half of `4·B·NH·T²·HS`, because of the causal mask: FlashAttention's convention for a forward pass.
    fn flops(&self) -> u64 {
        2 * (self.b * self.nh * self.hs) as u64 * (self.t as u64).pow(2)
    }
}

/// Derives B, T, NH and HS from the shape of the packed tensor.
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

/// For every head, with q, k and v its (T, HS) slices of `qkv`, and `s[i, j] = q[i]·k[j] / √HS` for `j <= i`:
/// `out[i] = Σ_j exp(s[i, j] - lse[i]) · v[j]`, `lse[i] = ln Σ_j exp(s[i, j])`
///
/// Source: Vaswani et al. 2017; Dao et al. 2022 for the form that does not store the T² scores.
pub struct AttentionForward<'a, S: Storage> {
    /// (B, T, 3C): q, k and v concatenated along the last axis, each (NH, HS).
    pub qkv: Compute<'a, S>,
    /// NH.
    pub num_heads: usize,
    /// (B, T, C) `=`.
    pub out: ComputeMut<'a, S>,
    /// (B, NH, T) `=`, log-sum-exp of each row of scores (natural logarithm); kept for the backward.
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
    /// (B, T, 3C), the input of the forward.
    pub qkv: Compute<'a, S>,
    /// NH.
    pub num_heads: usize,
    /// (B, T, C), the output of the forward.
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

    /// FLOPs are 2.5 × those of the forward: five matrix products instead of two, by FlashAttention's convention.
    fn floor(&self) -> Floor {
        let flops = self.check().map_or(0, |dims| dims.flops() * 5 / 2);
        let compute = 2 * self.qkv.shape().len() + 2 * self.out.shape().len();
        Floor { bytes: bytes::<S::Compute>(compute) + bytes::<S::Accum>(self.lse.shape().len()), flops }
    }
}
