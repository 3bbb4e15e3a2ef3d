//! Softmax and cross-entropy on the logits: the forward alone, or forward and backward in place in one pass.

use super::check::{Rules, bytes};
use super::operation::{Accum, AccumMut, Compute, ComputeMut, Floor, Ids, Operation, Write};
use crate::error::Result;
use crate::tensor::{Shape, Storage};

/// Sizes of a loss operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LossDims {
    /// Number of rows.
    pub n: usize,
    /// Vocabulary size.
    pub v: usize,
    /// Padded vocabulary size: the number of columns of the logits.
    pub vp: usize,
}

fn loss_dims<S: Storage>(rules: &Rules, logits: Shape, targets: Shape, losses: Shape, v: usize) -> Result<LossDims> {
    let [n, vp] = logits.matrix();
    rules.not_empty("logits", logits)?;
    rules.len("targets", "(N)", targets, n)?;
    rules.len("losses", "(N)", losses, n)?;
    rules.require(0 < v && v <= vp, "1 <= V <= Vp", || format!("V = {v}, Vp = {vp}"))?;
    rules.vectors::<S>("Vp", vp)?;
    Ok(LossDims { n, v, vp })
}

/// `losses[n] = lse(logits[n, 0..V]) - logits[n, targets[n]]`, in nats
///
/// A row with a negative target is ignored: its loss is 0. Columns V..Vp are not read.
pub struct CrossEntropyForward<'a, S: Storage> {
    /// (N, Vp).
    pub logits: Compute<'a, S>,
    /// (N).
    pub targets: Ids<'a, S>,
    /// V.
    pub vocab: usize,
    /// (N) `=`.
    pub losses: AccumMut<'a, S>,
}

impl<S: Storage> Operation for CrossEntropyForward<'_, S> {
    const NAME: &'static str = "cross_entropy_forward";
    type Dims = LossDims;

    fn check(&self) -> Result<LossDims> {
        let (logits, targets, losses) = (self.logits.shape(), self.targets.shape(), self.losses.shape());
        loss_dims::<S>(&Rules(Self::NAME), logits, targets, losses, self.vocab)
    }

    fn floor(&self) -> Floor {
        let [n, _] = self.logits.shape().matrix();
        let rows = bytes::<S::Accum>(n) + bytes::<i32>(n);
        Floor { bytes: bytes::<S::Compute>(n * self.vocab) + rows, flops: 0 }
    }
}

/// Computes [`CrossEntropyForward`], and in place `logits[n, v] = (softmax(logits[n])[v] - [v == targets[n]]) · scale`
///
/// Columns V..Vp become 0, and so does every column of an ignored row.
pub struct CrossEntropyBackward<'a, S: Storage> {
    /// (N, Vp): the logits, replaced by their gradient.
    pub logits: ComputeMut<'a, S>,
    /// (N).
    pub targets: Ids<'a, S>,
    /// V.
    pub vocab: usize,
    /// Gradient of the total loss with respect to the loss of one row: 1 / (rows that are not ignored, over all
    /// micro-batches of the step).
    pub scale: f64,
    /// (N) `=`.
    pub losses: AccumMut<'a, S>,
}

impl<S: Storage> Operation for CrossEntropyBackward<'_, S> {
    const NAME: &'static str = "cross_entropy_backward";
    type Dims = LossDims;

    fn check(&self) -> Result<LossDims> {
        let (logits, targets, losses) = (self.logits.shape(), self.targets.shape(), self.losses.shape());
        loss_dims::<S>(&Rules(Self::NAME), logits, targets, losses, self.vocab)
    }

    fn floor(&self) -> Floor {
        let [n, vp] = self.logits.shape().matrix();
        let rows = bytes::<S::Accum>(n) + bytes::<i32>(n);
        Floor { bytes: bytes::<S::Compute>(n * self.vocab + n * vp) + rows, flops: 0 }
    }
}

/// `total (+)= scale · Σ_n losses[n]`, summed in a fixed order
///
/// Accumulates the loss of a step on the device over all its micro-batches.
pub struct LossSum<'a, S: Storage> {
    /// (N), in nats.
    pub losses: Accum<'a, S>,
    /// Same value as [`CrossEntropyBackward::scale`], so that `total` is the mean loss.
    pub scale: f64,
    /// (1), written according to `write`.
    pub total: AccumMut<'a, S>,
    /// Write mode of `total`.
    pub write: Write,
}

impl<S: Storage> Operation for LossSum<'_, S> {
    const NAME: &'static str = "loss_sum";
    /// N, the number of rows.
    type Dims = usize;

    fn check(&self) -> Result<usize> {
        let rules = Rules(Self::NAME);
        rules.not_empty("losses", self.losses.shape())?;
        rules.shape("total", "(1)", self.total.shape(), [1])?;
        Ok(self.losses.shape().len())
    }

    fn floor(&self) -> Floor {
        Floor { bytes: bytes::<S::Accum>(self.losses.shape().len() + self.write.accesses()), flops: 0 }
    }
}
