//! The forward pass: a straight list of operations.

use super::Gpt2;
use super::activations::{Activations, Head};
use super::generate::KvCache;
use crate::error::Result;
use crate::ops::*;

/// How a pass attends.
pub enum Attend<'a, B: Backend> {
    /// To its own tokens.
    Own,
    /// To its own tokens, which start the sequence; keys and values go into the cache.
    Prefill(&'a mut KvCache<B>),
    /// One token a sequence, to those in the cache before it and itself.
    Decode(&'a mut KvCache<B>),
}

impl<B: Backend> Attend<'_, B> {
    /// Position of the pass's first token.
    fn position(&self) -> usize {
        match self {
            Attend::Own | Attend::Prefill(_) => 0,
            Attend::Decode(cache) => cache.len,
        }
    }
}

impl<B: Backend> Gpt2<'_, B> {
    /// Tokens to the final layernorm's output, `acts.lnf_out`.
    ///
    /// # Errors
    /// Those of the operations, e.g. a token outside of the vocabulary or more tokens than the context.
    pub fn forward(&self, acts: &mut Activations<B>, tokens: Ids<'_, B>, mut attend: Attend<'_, B>) -> Result<()> {
        let Gpt2 { backend, config, params } = *self;
        let p = params.views();
        let num_heads = config.heads;
        let position = attend.position();

        let out = acts.residual.at_mut(0).view_mut();
        backend.embedding_forward(EmbeddingForward { tokens, wte: p.wte, wpe: p.wpe, position, out })?;

        for l in 0..config.layers {
            let (x, mid) = acts.residual.step(2 * l);
            backend.layernorm_forward(LayerNormForward {
                x: x.view(),
                weight: p.ln1_weight.at(l),
                bias: p.ln1_bias.at(l),
                out: acts.ln1_out.at_mut(l).view_mut(),
                mean: acts.ln1_mean.at_mut(l).view_mut(),
                rstd: acts.ln1_rstd.at_mut(l).view_mut(),
            })?;
            backend.matmul_forward(MatmulForward {
                x: acts.ln1_out.at(l).view(),
                weight: p.qkv_weight.at(l),
                epilogue: Epilogue::Bias { bias: p.qkv_bias.at(l) },
                out: acts.qkv.at_mut(l).view_mut(),
            })?;

            let qkv = acts.qkv.at(l).view();
            let out = acts.attn_out.at_mut(l).view_mut();
            match &mut attend {
                Attend::Decode(cache) => {
                    let (k_cache, v_cache) = cache.layer(l);
                    backend.attention_decode(AttentionDecode { qkv, num_heads, position, k_cache, v_cache, out })?;
                }
                Attend::Own | Attend::Prefill(_) => {
                    let lse = acts.lse.at_mut(l).view_mut();
                    backend.attention_forward(AttentionForward { qkv, num_heads, out, lse })?;
                }
            }
            if let Attend::Prefill(cache) = &mut attend {
                let (k_cache, v_cache) = cache.layer(l);
                backend.kv_cache_store(KvCacheStore { qkv, num_heads, position, k_cache, v_cache })?;
            }

            backend.matmul_forward(MatmulForward {
                x: acts.attn_out.at(l).view(),
                weight: p.attn_proj_weight.at(l),
                epilogue: Epilogue::BiasResidual { bias: p.attn_proj_bias.at(l), residual: x.view() },
                out: mid.view_mut(),
            })?;

            let (mid, out) = acts.residual.step(2 * l + 1);
            backend.layernorm_forward(LayerNormForward {
                x: mid.view(),
                weight: p.ln2_weight.at(l),
                bias: p.ln2_bias.at(l),
                out: acts.ln2_out.at_mut(l).view_mut(),
                mean: acts.ln2_mean.at_mut(l).view_mut(),
                rstd: acts.ln2_rstd.at_mut(l).view_mut(),
            })?;
            backend.matmul_forward(MatmulForward {
                x: acts.ln2_out.at(l).view(),
                weight: p.fc_weight.at(l),
                epilogue: Epilogue::BiasGelu { bias: p.fc_bias.at(l), pre: acts.fc_pre.at_mut(l).view_mut() },
                out: acts.fc_gelu.at_mut(l).view_mut(),
            })?;
            backend.matmul_forward(MatmulForward {
                x: acts.fc_gelu.at(l).view(),
                weight: p.fc_proj_weight.at(l),
                epilogue: Epilogue::BiasResidual { bias: p.fc_proj_bias.at(l), residual: mid.view() },
                out: out.view_mut(),
            })?;
        }

        if let Attend::Prefill(cache) | Attend::Decode(cache) = attend {
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

    /// The tied LM head: `logits = x · wteᵀ`, for any rows of the final layernorm's output.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn lm_head(&self, x: Compute<'_, B>, mut logits: ComputeMut<'_, B>) -> Result<()> {
        let weight = self.params.views().wte;
        self.backend.matmul_forward(MatmulForward { x, weight, epilogue: Epilogue::None, out: logits.reborrow() })
    }

    /// Forward pass and the loss of each row into `head.losses`, without anything for a backward.
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
        self.forward(acts, tokens, Attend::Own)?;
        self.lm_head(acts.lnf_out.view(), head.logits.view_mut())?;
        self.backend.cross_entropy_forward(CrossEntropyForward {
            logits: head.logits.view(),
            targets,
            vocab: self.config.vocab,
            losses: head.losses.view_mut(),
        })
    }
}
