//! Buffers of a forward and a backward pass: activations and their gradients.

use serde::{Deserialize, Serialize};

use super::config::Config;
use crate::error::Result;
use crate::tensor::{Element, Shape, Storage, Tensor};

/// Activation recomputation: which activations the forward pass keeps for the backward pass, and which the backward pass
/// recomputes.
///
/// Every choice gives gradients with the same bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Keep all activations.
    #[default]
    None,
    /// Recompute the output of GELU, (N, 4C) per block, from the pre-activation.
    Gelu,
    /// Recompute the output of GELU and the two layernorm outputs, (N, C) each, per block.
    Layernorm,
}

/// The lifetime of activations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Keep {
    /// Activations are kept for a backward pass.
    Backward(Recompute),
    /// Activations are kept only until the next layer has read them.
    Forward,
}

/// One tensor per layer, or fewer tensors that the layers reuse in rotation.
pub struct Stack<S: Storage, E: Element>(Vec<Tensor<S, E>>);

impl<S: Storage, E: Element> Stack<S, E> {
    pub(super) fn zeros(storage: &S, count: usize, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        (0..count).map(|_| Tensor::zeros(storage, shape)).collect::<Result<_>>().map(Stack)
    }

    /// The tensor of entry `index`, which is shared with other entries if there are fewer tensors than entries.
    pub fn at(&self, index: usize) -> &Tensor<S, E> {
        &self.0[index % self.0.len()]
    }

    /// The tensor of entry `index`, which is shared with other entries if there are fewer tensors than entries.
    pub fn at_mut(&mut self, index: usize) -> &mut Tensor<S, E> {
        let len = self.0.len();
        &mut self.0[index % len]
    }

    /// Entry `index` for reading and entry `index + 1` for writing. Panics if both share one tensor.
    pub fn step(&mut self, index: usize) -> (&Tensor<S, E>, &mut Tensor<S, E>) {
        let len = self.0.len();
        let [input, output] =
            self.0.get_disjoint_mut([index % len, (index + 1) % len]).expect("a stack of at least two tensors");
        (input, output)
    }
}

/// Token ids of a micro-batch.
pub struct Inputs<S: Storage> {
    /// (B, T), input tokens.
    pub tokens: Tensor<S, i32>,
    /// (B, T), target tokens; rows with a negative target are ignored.
    pub targets: Tensor<S, i32>,
}

impl<S: Storage> Inputs<S> {
    /// Allocates a double buffer for micro-batches of (batch, time) tokens: one is filled while operations read the other.
    ///
    /// # Errors
    /// If allocation fails.
    pub fn pair(storage: &S, batch: usize, time: usize) -> Result<[Self; 2]> {
        let ids = || Tensor::zeros(storage, [batch, time]);
        Ok([Inputs { tokens: ids()?, targets: ids()? }, Inputs { tokens: ids()?, targets: ids()? }])
    }
}

/// Activations of a forward pass over (B, T) tokens, up to and including the final layernorm.
pub struct Activations<S: Storage> {
    /// B.
    pub batch: usize,
    /// T.
    pub time: usize,
    /// How long the activations are kept.
    pub keep: Keep,
    /// (B, T, C) each: the residual stream after the embedding (entry 0), after the attention of block l (entry 2l+1) and
    /// after its MLP (entry 2l+2).
    pub residual: Stack<S, S::Compute>,
    /// (B, T, C) per layer.
    pub ln1_out: Stack<S, S::Compute>,
    /// (B, T) per layer.
    pub ln1_mean: Stack<S, S::Accum>,
    /// (B, T) per layer.
    pub ln1_rstd: Stack<S, S::Accum>,
    /// (B, T, 3C) per layer.
    pub qkv: Stack<S, S::Compute>,
    /// (B, NH, T) per layer.
    pub lse: Stack<S, S::Accum>,
    /// (B, T, C) per layer, before the output projection.
    pub attn_out: Stack<S, S::Compute>,
    /// (B, T, C) per layer.
    pub ln2_out: Stack<S, S::Compute>,
    /// (B, T) per layer.
    pub ln2_mean: Stack<S, S::Accum>,
    /// (B, T) per layer.
    pub ln2_rstd: Stack<S, S::Accum>,
    /// (B, T, 4C) per layer, before GELU.
    pub fc_pre: Stack<S, S::Compute>,
    /// (B, T, 4C) per layer, after GELU.
    pub fc_gelu: Stack<S, S::Compute>,
    /// (B, T, C).
    pub lnf_out: Tensor<S, S::Compute>,
    /// (B, T).
    pub lnf_mean: Tensor<S, S::Accum>,
    /// (B, T).
    pub lnf_rstd: Tensor<S, S::Accum>,
}

impl<S: Storage> Activations<S> {
    /// Allocates the activations of a pass over (batch, time) tokens.
    ///
    /// # Errors
    /// If allocation fails.
    pub fn new(storage: &S, config: &Config, batch: usize, time: usize, keep: Keep) -> Result<Self> {
        let (b, t, c, l) = (batch, time, config.channels, config.layers);
        let all = if keep == Keep::Forward { 1 } else { l };
        let unless = |recomputed: &[Recompute]| match keep {
            Keep::Backward(recompute) if !recomputed.contains(&recompute) => l,
            _ => 1,
        };
        let gelus = unless(&[Recompute::Gelu, Recompute::Layernorm]);
        let norms = unless(&[Recompute::Layernorm]);
        // Without a backward pass, a block needs only its input, the residual after attention, and its output.
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

/// Buffers of the LM head: logits and losses.
pub struct Head<S: Storage> {
    /// (B, T, Vp), the logits; [`super::Gpt2::loss`] replaces them by their gradient.
    pub logits: Tensor<S, S::Compute>,
    /// (B, T), the loss of each row, in nats.
    pub losses: Tensor<S, S::Accum>,
    /// (1), the mean loss over the rows that are not ignored, accumulated over the micro-batches of a step.
    pub total: Tensor<S, S::Accum>,
}

impl<S: Storage> Head<S> {
    /// Allocates the buffers for (batch, time) tokens.
    ///
    /// # Errors
    /// If allocation fails.
    pub fn new(storage: &S, config: &Config, batch: usize, time: usize) -> Result<Self> {
        Ok(Head {
            logits: Tensor::zeros(storage, [batch, time, config.padded_vocab()])?,
            losses: Tensor::zeros(storage, [batch, time])?,
            total: Tensor::zeros(storage, [1])?,
        })
    }
}

/// Gradients of activations. The layers share these buffers.
pub struct ActivationGrads<S: Storage> {
    /// (B, T, C), gradient of the residual stream.
    pub dresidual: Tensor<S, S::Compute>,
    /// (B, T, C), gradient inside a branch: of its layernorm output, or of the attention output.
    pub dbranch: Tensor<S, S::Compute>,
    /// (B, T, 3C), gradient of the packed QKV.
    pub dqkv: Tensor<S, S::Compute>,
    /// (B, T, 4C), gradient of the MLP's pre-activation.
    pub dfc: Tensor<S, S::Compute>,
}

impl<S: Storage> ActivationGrads<S> {
    /// Allocates the buffers for (batch, time) tokens.
    ///
    /// # Errors
    /// If allocation fails.
    pub fn new(storage: &S, config: &Config, batch: usize, time: usize) -> Result<Self> {
        let c = config.channels;
        let zeros = |width| Tensor::zeros(storage, [batch, time, width]);
        Ok(ActivationGrads { dresidual: zeros(c)?, dbranch: zeros(c)?, dqkv: zeros(3 * c)?, dfc: zeros(4 * c)? })
    }
}
