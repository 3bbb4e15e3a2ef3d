//! Text generation: prefill of the prompt in one pass, then decoding one token at a time with a KV cache.

use super::Gpt2;
use super::activations::{Activations, Keep};
use super::forward::AttentionMode;
use super::kv_cache::KvCache;
use crate::error::{Error, Result};
use crate::ops::{Backend, Sample};
use crate::tensor::Tensor;

/// Sampling parameters: see [`Sample`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// Sampling temperature; 0 selects the most likely token.
    pub temperature: f32,
    /// Number of candidate tokens; `usize::MAX` for all.
    pub top_k: usize,
    /// Probability mass of the nucleus; 1 for all tokens.
    pub top_p: f32,
    /// RNG seed.
    pub seed: u64,
}

/// A sequence that is being generated.
///
/// When the context is full, generation continues from the last half of it, so the model sees between T/2 and T tokens.
pub struct Generator<'a, B: Backend> {
    model: Gpt2<'a, B>,
    /// All tokens so far, starting with the prompt.
    tokens: Vec<i32>,
    cache: KvCache<B>,
    /// Activations of a decoding step, for one token.
    acts: Activations<B>,
    /// (1, Vp), logits of the newest token.
    logits: Tensor<B, B::Compute>,
    /// (1, 1), the newest token.
    token: Tensor<B, i32>,
}

impl<'a, B: Backend> Generator<'a, B> {
    /// Starts a sequence with a prompt.
    ///
    /// # Errors
    /// [`Error::Invalid`] for a prompt that is empty or longer than the context; otherwise those of the operations.
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

    /// Refills the cache from the last `t` tokens.
    fn prefill(&mut self, t: usize) -> Result<()> {
        let Gpt2 { backend, config, .. } = self.model;
        let last = self.tokens[self.tokens.len() - t..].to_vec();
        let tokens = Tensor::from_vec(backend, [1, t], last)?;
        let mut acts = Activations::new(backend, config, 1, t, Keep::Forward)?;
        self.model.forward(&mut acts, tokens.view(), AttentionMode::Prefill(&mut self.cache))?;
        let c = config.channels;
        self.model.lm_head(acts.lnf_out.view().part((t - 1) * c, [1, c]), self.logits.view_mut())
    }

    /// Number of tokens so far, including the prompt.
    pub fn num_tokens(&self) -> usize {
        self.tokens.len()
    }

    /// The logits of the next token, (V).
    ///
    /// # Errors
    /// As [`Storage::download`](crate::tensor::Storage::download).
    pub fn logits(&self) -> Result<Vec<B::Compute>> {
        let mut logits = self.logits.to_vec(self.model.backend)?;
        logits.truncate(self.model.config.vocab);
        Ok(logits)
    }

    /// Samples the next token.
    ///
    /// # Errors
    /// Sampling parameters that [`Sample`] rejects.
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
        self.model.forward(&mut self.acts, self.token.view(), AttentionMode::Decode(&mut self.cache))?;
        self.model.lm_head(self.acts.lnf_out.view(), self.logits.view_mut())?;
        self.tokens.push(token);
        Ok(())
    }
}
