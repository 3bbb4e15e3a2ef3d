//! Generating text: a prompt in one pass, then a token at a time over a KV cache.

use super::Gpt2;
use super::activations::{Activations, Keep, Stack};
use super::config::Config;
use super::forward::Attend;
use crate::error::{Error, Result};
use crate::ops::{Backend, ComputeMut, Sample};
use crate::tensor::{Storage, Tensor};

/// Keys and values of the tokens so far, for every layer.
pub struct KvCache<S: Storage> {
    /// (B, T_max, C) a layer.
    k: Stack<S, S::Compute>,
    /// (B, T_max, C) a layer.
    v: Stack<S, S::Compute>,
    /// Positions filled.
    pub len: usize,
}

impl<S: Storage> KvCache<S> {
    /// Room for `max_t` tokens in each of `batch` sequences.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn new(storage: &S, config: &Config, batch: usize, max_t: usize) -> Result<Self> {
        let stack = || Stack::zeros(storage, config.layers, [batch, max_t, config.channels]);
        Ok(KvCache { k: stack()?, v: stack()?, len: 0 })
    }

    /// The caches of layer `l`.
    pub fn layer(&mut self, l: usize) -> (ComputeMut<'_, S>, ComputeMut<'_, S>) {
        (self.k.at_mut(l).view_mut(), self.v.at_mut(l).view_mut())
    }
}

/// How tokens are drawn: see [`Sample`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 takes the most likely token.
    pub temperature: f32,
    /// Tokens that are considered; `usize::MAX` for all.
    pub top_k: usize,
    /// Share of the probability that is considered.
    pub top_p: f32,
    /// Key of the draws.
    pub seed: u64,
}

/// One sequence being generated.
///
/// When the context is full, the sequence goes on from its last half: the model then sees between T/2 and T tokens.
pub struct Generator<'a, B: Backend> {
    model: Gpt2<'a, B>,
    /// All tokens, the prompt's first.
    tokens: Vec<i32>,
    cache: KvCache<B>,
    /// Activations of one token.
    acts: Activations<B>,
    /// (1, Vp), of the newest token.
    logits: Tensor<B, B::Compute>,
    /// (1, 1).
    token: Tensor<B, i32>,
}

impl<'a, B: Backend> Generator<'a, B> {
    /// Takes the prompt in.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a prompt that is empty or longer than the context; else those of
    /// the operations.
    pub fn new(model: Gpt2<'a, B>, prompt: &[i32]) -> Result<Self> {
        let Gpt2 { backend, config, .. } = model;
        let t = prompt.len();
        if t == 0 {
            return Err(Error::invalid("the prompt has no tokens; give at least one"));
        }
        if t > config.context {
            let context = config.context;
            return Err(Error::invalid(format!(
                "the prompt has {t} tokens, more than the model's context of {context}"
            )));
        }
        let mut generator = Generator {
            model,
            tokens: prompt.to_vec(),
            cache: KvCache::new(backend, config, 1, config.context)?,
            acts: Activations::new(backend, config, 1, 1, Keep::Forward)?,
            logits: Tensor::zeros(backend, [1, config.padded_vocab()])?,
            token: Tensor::zeros(backend, [1, 1])?,
        };
        generator.prefill(t)?;
        Ok(generator)
    }

    /// Fills the cache anew with the last `t` tokens.
    fn prefill(&mut self, t: usize) -> Result<()> {
        let Gpt2 { backend, config, .. } = self.model;
        let last = self.tokens[self.tokens.len() - t..].to_vec();
        let tokens = Tensor::from_vec(backend, [1, t], last)?;
        let mut acts = Activations::new(backend, config, 1, t, Keep::Forward)?;
        self.model.forward(&mut acts, tokens.view(), Attend::Prefill(&mut self.cache))?;
        let c = config.channels;
        self.model.lm_head(acts.lnf_out.view().part((t - 1) * c, [1, c]), self.logits.view_mut())
    }

    /// Tokens so far, the prompt's included.
    pub fn num_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// Logits of the next token, (V).
    ///
    /// # Errors
    /// As [`Storage::download`].
    pub fn logits(&self) -> Result<Vec<B::Compute>> {
        let mut logits = self.logits.to_vec(self.model.backend)?;
        logits.truncate(self.model.config.vocab);
        Ok(logits)
    }

    /// Draws the next token.
    ///
    /// # Errors
    /// Settings that [`Sample`] refuses.
    pub fn sample(&mut self, sampling: Sampling) -> Result<i32> {
        self.model.backend.sample(Sample {
            logits: self.logits.view(),
            vocab: self.model.config.vocab,
            temperature: sampling.temperature,
            top_k: sampling.top_k,
            top_p: sampling.top_p,
            seed: sampling.seed,
            draw: self.tokens.len() as u64,
            tokens: self.token.view_mut(),
        })?;
        Ok(self.token.to_vec(self.model.backend)?[0])
    }

    /// Appends a token and computes the logits of the one after it.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn push(&mut self, token: i32) -> Result<()> {
        let context = self.model.config.context;
        if self.cache.len == context {
            self.tokens.push(token);
            let restarted = self.prefill(context.div_ceil(2));
            if restarted.is_err() {
                self.tokens.pop();
            }
            return restarted;
        }
        self.model.backend.upload(&[token], self.token.view_mut())?;
        self.model.forward(&mut self.acts, self.token.view(), Attend::Decode(&mut self.cache))?;
        self.model.lm_head(self.acts.lnf_out.view(), self.logits.view_mut())?;
        self.tokens.push(token);
        Ok(())
    }
}
