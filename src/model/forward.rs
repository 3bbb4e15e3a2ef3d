//! The forward pass: a straight list of operations.

use super::Gpt2;
use super::activations::{Activations, Head};
use super::kv_cache::KvCache;
use super::params::Gpt;
use crate::error::Result;
use crate::ops::*;

/// The tokens that attention reads keys and values of.
pub enum AttentionMode<'a, B: Backend> {
    /// The tokens of this pass; no KV cache is used.
    Uncached,
    /// The tokens of this pass, which start the sequence. Their keys and values are stored in the cache.
    Prefill(&'a mut KvCache<B>),
    /// The pass has one token per sequence, which attends to the cached tokens and to itself.
    Decode(&'a mut KvCache<B>),
}

impl<B: Backend> AttentionMode<'_, B> {
    /// Position of the first token of the pass.
    fn position(&self) -> usize {
        match self {
            AttentionMode::Uncached | AttentionMode::Prefill(_) => 0,
            AttentionMode::Decode(cache) => cache.len,
        }
    }
}

impl<B: Backend> Gpt2<'_, B> {
    /// Computes the output of the final layernorm, `acts.lnf_out`, from token ids.
    ///
    /// # Errors
    /// Those of the operations, e.g. a token outside the vocabulary or more tokens than the context.
    pub fn forward(&self, acts: &mut Activations<B>, tokens: Ids<'_, B>, mut mode: AttentionMode<'_, B>) -> Result<()> {
        let Gpt2 { backend, config, params } = *self;
        let p = params.views();
        let num_heads = config.heads;
        let position = mode.position();

        let out = acts.residual.at_mut(0).view_mut();
        backend.embedding_forward(EmbeddingForward { tokens, wte: p.wte, wpe: p.wpe, position, out })?;

        for l in 0..config.layers {
            self.ln1(&p, acts, l)?;
            backend.matmul_forward(MatmulForward {
                x: acts.ln1_out.at(l).view(),
                weight: p.qkv_weight.at(l),
                epilogue: Epilogue::Bias { bias: p.qkv_bias.at(l) },
                out: acts.qkv.at_mut(l).view_mut(),
            })?;

            let qkv = acts.qkv.at(l).view();
            let out = acts.attn_out.at_mut(l).view_mut();
            match &mut mode {
                AttentionMode::Decode(cache) => {
                    let (k_cache, v_cache) = cache.layer(l);
                    backend.attention_decode(AttentionDecode { qkv, num_heads, position, k_cache, v_cache, out })?;
                }
                AttentionMode::Uncached | AttentionMode::Prefill(_) => {
                    let lse = acts.lse.at_mut(l).view_mut();
                    let qkv = Qkv::Packed { qkv, num_heads };
                    backend.attention_forward(AttentionForward { qkv, causal: true, out, lse })?;
                }
            }
            if let AttentionMode::Prefill(cache) = &mut mode {
                let (k_cache, v_cache) = cache.layer(l);
                backend.kv_cache_store(KvCacheStore { qkv, num_heads, position, k_cache, v_cache })?;
            }

            let (x, mid) = acts.residual.step(2 * l);
            backend.matmul_forward(MatmulForward {
                x: acts.attn_out.at(l).view(),
                weight: p.attn_proj_weight.at(l),
                epilogue: Epilogue::BiasResidual { bias: p.attn_proj_bias.at(l), residual: x.view() },
                out: mid.view_mut(),
            })?;

            self.ln2(&p, acts, l)?;
            backend.matmul_forward(MatmulForward {
                x: acts.ln2_out.at(l).view(),
                weight: p.fc_weight.at(l),
                epilogue: Epilogue::BiasGelu { bias: p.fc_bias.at(l), pre: acts.fc_pre.at_mut(l).view_mut() },
                out: acts.fc_gelu.at_mut(l).view_mut(),
            })?;
            let (mid, out) = acts.residual.step(2 * l + 1);
            backend.matmul_forward(MatmulForward {
                x: acts.fc_gelu.at(l).view(),
                weight: p.fc_proj_weight.at(l),
                epilogue: Epilogue::BiasResidual { bias: p.fc_proj_bias.at(l), residual: mid.view() },
                out: out.view_mut(),
            })?;
        }

        if let AttentionMode::Prefill(cache) | AttentionMode::Decode(cache) = mode {
            cache.len = position + acts.time;
        }
        backend.layernorm_forward(LayerNormForward {
            x: acts.residual.at(2 * config.layers).view(),
            weight: p.lnf_weight,
            bias: p.lnf_bias,
            out: acts.lnf_out.view_mut(),
            mean: acts.lnf_mean.view_mut(),
            rstd: acts.lnf_rstd.view_mut(),
        })
    }

    /// The layernorm before the attention of block `l`.
    pub(super) fn ln1(&self, p: &Gpt<Compute<'_, B>>, acts: &mut Activations<B>, l: usize) -> Result<()> {
        self.backend.layernorm_forward(LayerNormForward {
            x: acts.residual.at(2 * l).view(),
            weight: p.ln1_weight.at(l),
            bias: p.ln1_bias.at(l),
            out: acts.ln1_out.at_mut(l).view_mut(),
            mean: acts.ln1_mean.at_mut(l).view_mut(),
            rstd: acts.ln1_rstd.at_mut(l).view_mut(),
        })
    }

    /// The layernorm before the MLP of block `l`.
    pub(super) fn ln2(&self, p: &Gpt<Compute<'_, B>>, acts: &mut Activations<B>, l: usize) -> Result<()> {
        self.backend.layernorm_forward(LayerNormForward {
            x: acts.residual.at(2 * l + 1).view(),
            weight: p.ln2_weight.at(l),
            bias: p.ln2_bias.at(l),
            out: acts.ln2_out.at_mut(l).view_mut(),
            mean: acts.ln2_mean.at_mut(l).view_mut(),
            rstd: acts.ln2_rstd.at_mut(l).view_mut(),
        })
    }

    /// The tied LM head: `logits = x · wteᵀ`, for any number of rows of the final layernorm's output.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn lm_head(&self, x: Compute<'_, B>, mut logits: ComputeMut<'_, B>) -> Result<()> {
        let weight = self.params.views().wte;
        self.backend.matmul_forward(MatmulForward { x, weight, epilogue: Epilogue::None, out: logits.reborrow() })
    }

    /// Forward pass for evaluation: writes the loss of each row to `head.losses`. A backward pass cannot follow.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn evaluate(
        &self,
        acts: &mut Activations<B>,
        head: &mut Head<B>,
        tokens: Ids<'_, B>,
        targets: Ids<'_, B>,
    ) -> Result<()> {
        self.forward(acts, tokens, AttentionMode::Uncached)?;
        self.lm_head(acts.lnf_out.view(), head.logits.view_mut())?;
        self.backend.cross_entropy_forward(CrossEntropyForward {
            logits: head.logits.view(),
            targets,
            vocab: self.config.vocab,
            losses: head.losses.view_mut(),
        })
    }
}
