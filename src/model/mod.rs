//! GPT-2, implemented once in terms of the list of operations.
//!
//! - [`config`]: sizes and presets. [`params`]: the parameters and their order in memory. [`arena`]: all of them in one
//!   buffer of a backend. [`init`]: random initial weights.
//! - [`activations`] and [`kv_cache`]: what the passes keep. [`forward`], [`backward`]: straight lists of operations.
//!   [`generate`]: one token at a time.
//! - [`hugging_face`] reads and writes folders of Hugging Face's GPT-2; [`safetensors`] is the format of their weights.
//! - [`plan`]: the memory that a training step needs.
//!
//! ```
//! use ironwarp::cpu::Cpu;
//! use ironwarp::model::activations::{Activations, Keep};
//! use ironwarp::model::arena::Arena;
//! use ironwarp::model::config::Config;
//! use ironwarp::model::forward::AttentionMode;
//! use ironwarp::model::{Gpt2, init};
//! use ironwarp::tensor::Tensor;
//!
//! let cpu = Cpu::<f64>::new();
//! let config = Config { context: 4, vocab: 10, layers: 2, heads: 2, channels: 8 };
//! let weights = init::random(config, 1)?;
//! let params = Arena::from_f32(&cpu, &weights.layout, weights.data)?;
//! let model = Gpt2 { backend: &cpu, config: &config, params: &params };
//!
//! let (batch, time) = (1, 3);
//! let tokens = Tensor::from_vec(&cpu, [batch, time], vec![5, 0, 9])?;
//! let mut acts = Activations::new(&cpu, &config, batch, time, Keep::Forward)?;
//! model.forward(&mut acts, tokens.view(), AttentionMode::Uncached)?;
//! let mut logits = Tensor::zeros(&cpu, [batch, time, config.padded_vocab()])?;
//! model.lm_head(acts.lnf_out.view(), logits.view_mut())?;
//! assert!(logits.to_vec(&cpu)?.iter().all(|logit| logit.is_finite()));
//! # Ok::<(), ironwarp::Error>(())
//! ```

pub mod activations;
pub mod arena;
pub mod backward;
pub mod config;
pub mod forward;
pub mod generate;
pub mod hugging_face;
pub mod init;
pub(crate) mod json;
pub mod kv_cache;
#[cfg(test)]
pub(crate) mod mutate;
pub mod params;
pub mod plan;
pub mod safetensors;

use arena::Arena;
use config::Config;

use crate::ops::Backend;

/// A model on a device: the inputs of the forward and backward passes.
pub struct Gpt2<'a, B: Backend> {
    /// The backend.
    pub backend: &'a B,
    /// The sizes.
    pub config: &'a Config,
    /// The weights.
    pub params: &'a Arena<B, B::Compute>,
}

impl<B: Backend> Clone for Gpt2<'_, B> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<B: Backend> Copy for Gpt2<'_, B> {}
