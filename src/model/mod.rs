//! GPT-2, written once over the list of operations.

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

/// A model on a device: what the passes read.
pub struct Gpt2<'a, B: Backend> {
    /// The device.
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
