//! Token and position embedding.

use super::check::{Rules, bytes};
use super::operation::{AccumMut, Compute, ComputeMut, Floor, Ids, Operation, Write};
use crate::error::Result;
use crate::tensor::Storage;

/// Sizes of an embedding operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EmbeddingDims {
    /// Batch size.
    pub b: usize,
    /// Tokens per sequence.
    pub t: usize,
    /// Number of channels.
    pub c: usize,
    /// Padded vocabulary size: the number of rows of the token table.
    pub vp: usize,
    /// Number of rows of the position table.
    pub max_t: usize,
}

/// `out[b, t] = wte[tokens[b, t]] + wpe[position + t]`
///
/// Rules: `position + T <= T_max`; every id in `0..Vp`. Source: Radford et al. 2019.
pub struct EmbeddingForward<'a, S: Storage> {
    /// (B, T), token ids.
    pub tokens: Ids<'a, S>,
    /// (Vp, C), token table.
    pub wte: Compute<'a, S>,
    /// (T_max, C), position table.
    pub wpe: Compute<'a, S>,
    /// Position of the first token of every sequence; 0 except when decoding.
    pub position: usize,
    /// (B, T, C) `=`.
    pub out: ComputeMut<'a, S>,
}

impl<S: Storage> Operation for EmbeddingForward<'_, S> {
    const NAME: &'static str = "embedding_forward";
    type Dims = EmbeddingDims;

    fn check(&self) -> Result<EmbeddingDims> {
        let rules = Rules(Self::NAME);
        let [b, t] = self.tokens.shape().matrix();
        let ([vp, c], [max_t, _]) = (self.wte.shape().matrix(), self.wpe.shape().matrix());
        rules.not_empty("tokens", self.tokens.shape())?;
        rules.shape("wpe", "(T_max, C)", self.wpe.shape(), [max_t, c])?;
        rules.matrix("out", "(B·T, C)", self.out.shape(), [b * t, c])?;
        rules.vectors::<S>("C", c)?;
        rules.require(self.position.saturating_add(t) <= max_t, "position + T <= T_max", || {
            format!("position = {}, T = {t}, T_max = {max_t}", self.position)
        })?;
        Ok(EmbeddingDims { b, t, c, vp, max_t })
    }

    fn floor(&self) -> Floor {
        let [n, c] = self.out.shape().matrix();
        // In the best case all tokens are the same row. Position rows are read once for the whole batch.
        let [_, t] = self.tokens.shape().matrix();
        Floor { bytes: bytes::<i32>(n) + bytes::<S::Compute>(c + t * c + n * c), flops: 0 }
    }
}

/// `dwte[tokens[b, t]] += dout[b, t]`, `dwpe[t] (+)= Σ_b dout[b, t]`
///
/// `dwte` always accumulates, because the tied LM head has written its gradient before. With [`Write::Overwrite`], rows of
/// `dwpe` past T become zero. Rows that several tokens share are summed in a fixed order.
pub struct EmbeddingBackward<'a, S: Storage> {
    /// (B, T), token ids.
    pub tokens: Ids<'a, S>,
    /// (B, T, C).
    pub dout: Compute<'a, S>,
    /// (Vp, C) `+=`.
    pub dwte: AccumMut<'a, S>,
    /// (T_max, C), written according to `write`.
    pub dwpe: AccumMut<'a, S>,
    /// Write mode of `dwpe`.
    pub write: Write,
}

impl<S: Storage> Operation for EmbeddingBackward<'_, S> {
    const NAME: &'static str = "embedding_backward";
    type Dims = EmbeddingDims;

    fn check(&self) -> Result<EmbeddingDims> {
        let rules = Rules(Self::NAME);
        let [b, t] = self.tokens.shape().matrix();
        let ([vp, c], [max_t, _]) = (self.dwte.shape().matrix(), self.dwpe.shape().matrix());
        rules.not_empty("tokens", self.tokens.shape())?;
        rules.shape("dwpe", "(T_max, C)", self.dwpe.shape(), [max_t, c])?;
        rules.matrix("dout", "(B·T, C)", self.dout.shape(), [b * t, c])?;
        rules.vectors::<S>("C", c)?;
        rules.require(t <= max_t, "T <= T_max", || format!("T = {t}, T_max = {max_t}"))?;
        Ok(EmbeddingDims { b, t, c, vp, max_t })
    }

    fn floor(&self) -> Floor {
        let [n, c] = self.dout.shape().matrix();
        let [_, t] = self.tokens.shape().matrix();
        // Overwriting also writes the rows of positions past T.
        let [max_t, _] = self.dwpe.shape().matrix();
        let positions = if self.write == Write::Overwrite { max_t } else { 2 * t };
        let touched = bytes::<S::Accum>(2 * c + positions * c);
        Floor { bytes: bytes::<i32>(n) + bytes::<S::Compute>(n * c) + touched, flops: 0 }
    }
}
