//! What a forward pass writes, and what a backward pass needs beside it.

use serde::{Deserialize, Serialize};

use super::config::Config;
use crate::error::Result;
use crate::tensor::{Element, Shape, Storage, Tensor};

/// Which activations a training step keeps for the backward, and which it computes again.
///
/// The gradients have the same bits whichever is chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Everything is kept.
    #[default]
    None,
    /// The MLP's (N, 4C) after GELU is computed again from the pre-activation.
    Gelu,
    /// That, and the two (N, C) layernorm outputs of each block.
    Layernorm,
}

/// How long activations are needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// For a backward pass.
    Backward(Recompute),
    /// For the next layer alone.
    Forward,
}

/// One tensor a layer, or fewer that layers take turns with.
pub struct Stack<S: Storage, E: Element>(Vec<Tensor<S, E>>);

impl<S: Storage, E: Element> Stack<S, E> {
    pub(super) fn zeros(storage: &S, count: usize, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        (0..count).map(|_| Tensor::zeros(storage, shape)).collect::<Result<_>>().map(Stack)
    }

    /// The tensor of entry `index`.
    pub fn at(&self, index: usize) -> &Tensor<S, E> {
        &self.0[index % self.0.len()]
    }

    /// The tensor of entry `index`.
    pub fn at_mut(&mut self, index: usize) -> &mut Tensor<S, E> {
        let len = self.0.len();
        &mut self.0[index % len]
    }

    /// Entry `index` to read and the next to write. Panics when they share one tensor.
    pub fn step(&mut self, index: usize) -> (&Tensor<S, E>, &mut Tensor<S, E>) {
        let len = self.0.len();
        let [input, output] =
            self.0.get_disjoint_mut([index % len, (index + 1) % len]).expect("a stack of two tensors at least");
        (input, output)
    }
}

/// Token ids of a micro-batch.
pub struct Inputs<S: Storage> {
    /// (B, T), inputs.
    pub tokens: Tensor<S, i32>,
    /// (B, T), targets; negative ones are ignored.
    pub targets: Tensor<S, i32>,
}

impl<S: Storage> Inputs<S> {
    /// Room for two micro-batches of (batch, time) tokens that take turns: one is filled while operations read the other.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn pair(storage: &S, batch: usize, time: usize) -> Result<[Self; 2]> {
        let ids = || Tensor::zeros(storage, [batch, time]);
        Ok([Inputs { tokens: ids()?, targets: ids()? }, Inputs { tokens: ids()?, targets: ids()? }])
    }
}

/// Activations of a forward pass over (B, T) tokens, up to the final layernorm.
pub struct Activations<S: Storage> {
    /// B.
    pub batch: usize,
    /// T.
    pub time: usize,
    /// What is kept.
    pub keep: Keep,
    /// (B, T, C) each: entry 0 after the embedding, 2l+1 after block l's attention, 2l+2 after its MLP.
    pub residual: Stack<S, S::Compute>,
    /// (B, T, C) a layer.
    pub ln1_out: Stack<S, S::Compute>,
    /// (B, T) a layer.
    pub ln1_mean: Stack<S, S::Accum>,
    /// (B, T) a layer.
    pub ln1_rstd: Stack<S, S::Accum>,
    /// (B, T, 3C) a layer.
    pub qkv: Stack<S, S::Compute>,
    /// (B, NH, T) a layer.
    pub lse: Stack<S, S::Accum>,
    /// (B, T, C) a layer, before the output projection.
    pub attn_out: Stack<S, S::Compute>,
    /// (B, T, C) a layer.
    pub ln2_out: Stack<S, S::Compute>,
    /// (B, T) a layer.
    pub ln2_mean: Stack<S, S::Accum>,
    /// (B, T) a layer.
    pub ln2_rstd: Stack<S, S::Accum>,
    /// (B, T, 4C) a layer, before GELU.
    pub fc_pre: Stack<S, S::Compute>,
    /// (B, T, 4C) a layer, after GELU.
    pub fc_gelu: Stack<S, S::Compute>,
    /// (B, T, C).
    pub lnf_out: Tensor<S, S::Compute>,
    /// (B, T).
    pub lnf_mean: Tensor<S, S::Accum>,
    /// (B, T).
    pub lnf_rstd: Tensor<S, S::Accum>,
}

impl<S: Storage> Activations<S> {
    /// Room for a pass over (batch, time) tokens.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn new(storage: &S, config: &Config, batch: usize, time: usize, keep: Keep) -> Result<Self> {
        let (b, t, c, l) = (batch, time, config.channels, config.layers);
        let all = if keep == Keep::Forward { 1 } else { l };
        let unless = |recomputed: &[Recompute]| match keep {
            Keep::Backward(recompute) if !recomputed.contains(&recompute) => l,
            _ => 1,
        };
        let gelus = unless(&[Recompute::Gelu, Recompute::Layernorm]);
        let norms = unless(&[Recompute::Layernorm]);
        // Without a backward a block needs its input, the middle and its output, in turns.
        let residuals = if keep == Keep::Forward { 3 } else { 2 * l + 1 };
        Ok(Activations {
            batch,
            time,
            keep,
            residual: Stack::zeros(storage, residuals, [b, t, c])?,
            ln1_out: Stack::zeros(storage, norms, [b, t, c])?,
            ln1_mean: Stack::zeros(storage, all, [b, t])?,
            ln1_rstd: Stack::zeros(storage, all, [b, t])?,
            qkv: Stack::zeros(storage, all, [b, t, 3 * c])?,
            lse: Stack::zeros(storage, all, [b, config.heads, t])?,
            attn_out: Stack::zeros(storage, all, [b, t, c])?,
            ln2_out: Stack::zeros(storage, norms, [b, t, c])?,
            ln2_mean: Stack::zeros(storage, all, [b, t])?,
            ln2_rstd: Stack::zeros(storage, all, [b, t])?,
            fc_pre: Stack::zeros(storage, all, [b, t, 4 * c])?,
            fc_gelu: Stack::zeros(storage, gelus, [b, t, 4 * c])?,
            lnf_out: Tensor::zeros(storage, [b, t, c])?,
            lnf_mean: Tensor::zeros(storage, [b, t])?,
            lnf_rstd: Tensor::zeros(storage, [b, t])?,
        })
    }
}

/// The LM head's side of a pass: logits and losses.
pub struct Head<S: Storage> {
    /// (B, T, Vp); after [`super::Gpt2::loss`] their gradient.
    pub logits: Tensor<S, S::Compute>,
    /// (B, T), nats.
    pub losses: Tensor<S, S::Accum>,
    /// (1), the mean over the rows that count and the micro-batches.
    pub total: Tensor<S, S::Accum>,
}

impl<S: Storage> Head<S> {
    /// Room for (batch, time) tokens.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn new(storage: &S, config: &Config, batch: usize, time: usize) -> Result<Self> {
        Ok(Head {
            logits: Tensor::zeros(storage, [batch, time, config.padded_vocab()])?,
            losses: Tensor::zeros(storage, [batch, time])?,
            total: Tensor::zeros(storage, [1])?,
        })
    }
}

/// Gradients of activations, each living for one step of the backward.
pub struct ActivationGrads<S: Storage> {
    /// (B, T, C), of the residual stream.
    pub dresidual: Tensor<S, S::Compute>,
    /// (B, T, C), of whatever a branch's last matmul hands back.
    pub dbranch: Tensor<S, S::Compute>,
    /// (B, T, 3C).
    pub dqkv: Tensor<S, S::Compute>,
    /// (B, T, 4C).
    pub dfc: Tensor<S, S::Compute>,
}

impl<S: Storage> ActivationGrads<S> {
    /// Room for (batch, time) tokens.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn new(storage: &S, config: &Config, batch: usize, time: usize) -> Result<Self> {
        let c = config.channels;
        let zeros = |width| Tensor::zeros(storage, [batch, time, width]);
        Ok(ActivationGrads { dresidual: zeros(c)?, dbranch: zeros(c)?, dqkv: zeros(3 * c)?, dfc: zeros(4 * c)? })
    }
}
