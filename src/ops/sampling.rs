//! Drawing the next token from logits.

use super::check::{Rules, bytes};
use super::{Compute, Floor, IdsMut, Operation};
use crate::error::Result;
use crate::tensor::Storage;

/// Sizes of a draw.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SampleDims {
    /// Batch.
    pub b: usize,
    /// Vocabulary.
    pub v: usize,
    /// Columns of the logits.
    pub vp: usize,
}

/// One token a row from `softmax(logits[b, 0..V] / temperature)`, cut to the `top_k` largest, then to the fewest most
/// likely tokens whose probabilities reach `top_p`
///
/// Temperature 0 takes the largest logit. Equal logits rank by id, lowest first. Row b's uniform is draw `b` of Philox for sampling,
/// with key `seed` and counter `draw`. Source: Holtzman et al. 2020 for `top_p`.
pub struct Sample<'a, S: Storage> {
    /// (B, Vp).
    pub logits: Compute<'a, S>,
    /// V.
    pub vocab: usize,
    /// Not negative.
    pub temperature: f32,
    /// At most this many tokens; V or more for all.
    pub top_k: usize,
    /// In (0, 1]; 1 for all.
    pub top_p: f32,
    /// Key of the draws.
    pub seed: u64,
    /// Number of the draw, e.g. the token's position.
    pub draw: u64,
    /// (B) `=`.
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
