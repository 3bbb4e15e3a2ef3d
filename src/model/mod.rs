//! GPT-2, implemented once in terms of the list of operations.

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
mod mutate;
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
