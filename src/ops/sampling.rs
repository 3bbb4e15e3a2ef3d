//! Sampling the next token from logits.

use super::check::{Rules, bytes};
use super::operation::{Compute, Floor, IdsMut, Operation};
use crate::error::Result;
use crate::tensor::Storage;

/// Sizes of a sampling operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleDims {
    /// Batch size.
    pub b: usize,
    /// Vocabulary size.
    pub v: usize,
    /// Padded vocabulary size: the number of columns of the logits.
    pub vp: usize,
}

/// Samples one token per row from `softmax(logits[b, 0..V] / temperature)`, restricted to the `top_k` largest logits and
/// then to the smallest set of most likely tokens whose probabilities sum to at least `top_p` (the nucleus)
///
/// Temperature 0 selects the largest logit. Equal logits rank by id, lowest first. The uniform random number of row b is
/// Philox draw `b` with purpose sampling, key `seed` and counter `draw`. Source: Holtzman et al. 2020 for `top_p`.
pub struct Sample<'a, S: Storage> {
    /// (B, Vp).
    pub logits: Compute<'a, S>,
    /// V.
    pub vocab: usize,
    /// Sampling temperature, not negative.
    pub temperature: f32,
    /// Number of candidate tokens; V or more for all.
    pub top_k: usize,
    /// Probability mass of the nucleus, in (0, 1]; 1 for all tokens.
    pub top_p: f32,
    /// RNG seed (Philox key).
    pub seed: u64,
    /// Philox counter of this call, e.g. the position of the token.
    pub draw: u64,
    /// (B) `=`, sampled token ids.
    pub tokens: IdsMut<'a, S>,
}

impl<S: Storage> Operation for Sample<'_, S> {
    const NAME: &'static str = "sample";
    type Dims = SampleDims;

    fn check(&self) -> Result<SampleDims> {
        let rules = Rules(Self::NAME);
        let [b, vp] = self.logits.shape().matrix();
        let v = self.vocab;
        rules.not_empty("logits", self.logits.shape())?;
        rules.len("tokens", "(B)", self.tokens.shape(), b)?;
        rules.vectors::<S>("Vp", vp)?;
        rules.require(0 < v && v <= vp, "1 <= V <= Vp", || format!("V = {v}, Vp = {vp}"))?;
        let temperature = self.temperature;
        rules.require(temperature.is_finite() && temperature >= 0.0, "0 <= temperature < ∞", || {
            format!("temperature = {temperature}")
        })?;
        rules.require(self.top_k > 0, "top_k >= 1", || format!("top_k = {}", self.top_k))?;
        rules.require(self.top_p > 0.0 && self.top_p <= 1.0, "0 < top_p <= 1", || format!("top_p = {}", self.top_p))?;
        Ok(SampleDims { b, v, vp })
    }

    fn floor(&self) -> Floor {
        let [b, _] = self.logits.shape().matrix();
        Floor { bytes: bytes::<S::Compute>(b * self.vocab) + bytes::<i32>(b), flops: 0 }
    }
}
