//! The KV cache of generation.

use super::activations::Stack;
use super::config::Config;
use crate::error::Result;
use crate::ops::ComputeMut;
use crate::tensor::Storage;

/// Keys and values of the tokens so far, for every layer.
pub struct KvCache<S: Storage> {
    /// (B, T_max, C) per layer.
    k: Stack<S, S::Compute>,
    /// (B, T_max, C) per layer.
    v: Stack<S, S::Compute>,
    /// Number of positions filled.
    pub len: usize,
}

impl<S: Storage> KvCache<S> {
    /// Allocates a cache for `max_t` tokens in each of `batch` sequences.
    ///
    /// # Errors
    /// If allocation fails.
    pub fn new(storage: &S, config: &Config, batch: usize, max_t: usize) -> Result<Self> {
        let stack = || Stack::zeros(storage, config.layers, [batch, max_t, config.channels]);
        Ok(KvCache { k: stack()?, v: stack()?, len: 0 })
    }

    /// The keys and values of layer `l`.
    pub fn layer(&mut self, l: usize) -> (ComputeMut<'_, S>, ComputeMut<'_, S>) {
        (self.k.at_mut(l).view_mut(), self.v.at_mut(l).view_mut())
    }
}
