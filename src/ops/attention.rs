//! Fused self-attention, with or without a causal mask.

use super::check::{Rules, bytes};
use super::operation::{Accum, AccumMut, Compute, ComputeMut, Floor, Operation};
use super::qkv::{Qkv, QkvMut};
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
    /// C: the elements of a token. Saturates, like [`Shape::len`].
    pub(crate) fn c(&self) -> usize {
        self.nh.saturating_mul(self.hs)
    }

    /// (B, T, NH, HS)
    pub(super) fn shape(&self) -> Shape {
        [self.b, self.t, self.nh, self.hs].into()
    }

    /// `4·B·NH·T²·HS`, or half of it with the causal mask: FlashAttention's convention for a forward pass.
    fn flops(&self, causal: bool) -> u64 {
        let factor = if causal { 2 } else { 4 };
        factor * (self.b * self.c()) as u64 * (self.t as u64).pow(2)
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

/// For every head, with q, k and v its (T, HS) matrices, and `s[i, j] = q[i]·k[j] / √HS`:
/// `out[i] = Σ_j exp(s[i, j] - lse[i]) · v[j]`, `lse[i] = ln Σ_j exp(s[i, j])`
///
/// The sums are over all tokens j, or with `causal` over `j <= i`.
///
/// Source: Vaswani et al. 2017; Dao et al. 2022 for the form that does not store the T² scores.
pub struct AttentionForward<'a, S: Storage> {
    /// Q, K and V: packed (B, T, 3C), or three tensors of heads.
    pub qkv: Qkv<'a, S>,
    /// Whether a token attends to itself and the tokens before it only, as in GPT-2.
    pub causal: bool,
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
        let dims @ AttentionDims { b, t, nh, .. } = self.qkv.check(&rules)?;
        rules.shape("out", "(B, T, C)", self.out.shape(), [b, t, dims.c()])?;
        rules.shape("lse", "(B, NH, T)", self.lse.shape(), [b, nh, t])?;
        Ok(dims)
    }

    /// Elements of Q, K and V that several rows share count once. Zero if the check fails.
    fn floor(&self) -> Floor {
        let Ok(dims) = self.check() else { return Floor { bytes: 0, flops: 0 } };
        let compute = self.qkv.len(dims) + self.out.shape().len();
        let bytes = bytes::<S::Compute>(compute) + bytes::<S::Accum>(self.lse.shape().len());
        Floor { bytes, flops: dims.flops(self.causal) }
    }
}

/// With `p[i, j] = exp(s[i, j] - lse[i])`, with `causal` 0 for `j > i`, `dp[i, j] = dout[i]·v[j]`,
/// `delta[i] = dout[i]·out[i]` and `ds = p · (dp - delta)`:
/// `dq = ds·k / √HS`, `dk = dsᵀ·q / √HS`, `dv = pᵀ·dout`
///
/// If rows of Q, K or V overlap, their gradients are nevertheless those of separate rows, which the caller adds.
pub struct AttentionBackward<'a, S: Storage> {
    /// (B, T, C).
    pub dout: Compute<'a, S>,
    /// Q, K and V, the input of the forward.
    pub qkv: Qkv<'a, S>,
    /// As in the forward.
    pub causal: bool,
    /// (B, T, C), the output of the forward.
    pub out: Compute<'a, S>,
    /// (B, NH, T), from the forward.
    pub lse: Accum<'a, S>,
    /// dq, dk and dv `=`: packed (B, T, 3C), or three tensors of heads.
    pub dqkv: QkvMut<'a, S>,
}

impl<S: Storage> Operation for AttentionBackward<'_, S> {
    const NAME: &'static str = "attention_backward";
    type Dims = AttentionDims;

    fn check(&self) -> Result<AttentionDims> {
        let rules = Rules(Self::NAME);
        let dims @ AttentionDims { b, t, nh, .. } = self.qkv.check(&rules)?;
        rules.shape("dout", "(B, T, C)", self.dout.shape(), [b, t, dims.c()])?;
        rules.shape("out", "(B, T, C)", self.out.shape(), [b, t, dims.c()])?;
        rules.shape("lse", "(B, NH, T)", self.lse.shape(), [b, nh, t])?;
        self.dqkv.check(&rules, dims)?;
        Ok(dims)
    }

    /// FLOPs are 2.5 × those of the forward: five matrix products instead of two, by FlashAttention's convention.
    /// Elements of Q, K and V that several rows share count once. Zero if the check fails.
    fn floor(&self) -> Floor {
        let Ok(dims) = self.check() else { return Floor { bytes: 0, flops: 0 } };
        let compute = self.qkv.len(dims) + 3 * dims.shape().len() + 2 * self.out.shape().len();
        let bytes = bytes::<S::Compute>(compute) + bytes::<S::Accum>(self.lse.shape().len());
        Floor { bytes, flops: dims.flops(self.causal) * 5 / 2 }
    }
}
