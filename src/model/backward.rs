//! The backward pass: a straight list of operations.

use super::Gpt2;
use super::activations::{ActivationGrads, Activations, Head, Keep, Recompute};
use super::arena::Arena;
use crate::error::Result;
use crate::ops::*;

impl<B: Backend> Gpt2<'_, B> {
    /// Computes the logits of a forward pass, their loss, and the gradient of the loss with respect to the logits, which
    /// replaces them in `head.logits`.
    ///
    /// `scale` is 1 / (rows that are not ignored, over all micro-batches of the step). The mean loss of the step is
    /// accumulated in `head.total`, with the write mode `write`.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn loss(
        &self,
        acts: &Activations<B>,
        head: &mut Head<B>,
        targets: Ids<'_, B>,
        scale: f64,
        write: Write,
    ) -> Result<()> {
        let Gpt2 { backend, config, .. } = *self;
        self.lm_head(acts.lnf_out.view(), head.logits.view_mut())?;
        backend.cross_entropy_backward(CrossEntropyBackward {
            logits: head.logits.view_mut(),
            targets,
            vocab: config.vocab,
            scale,
            losses: head.losses.view_mut(),
        })?;
        backend.loss_sum(LossSum { losses: head.losses.view(), scale, total: head.total.view_mut(), write })
    }

    /// Computes the gradients of all parameters from the gradient of the logits, and overwrites or accumulates `grads`
    /// according to `write`.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn backward(
        &self,
        acts: &mut Activations<B>,
        head: &Head<B>,
        tokens: Ids<'_, B>,
        d: &mut ActivationGrads<B>,
        grads: &mut Arena<B, B::Accum>,
        write: Write,
    ) -> Result<()> {
        let Gpt2 { backend, config, params } = *self;
        let p = params.views();
        let mut g = grads.views_mut();
        let recompute = match acts.keep {
            Keep::Backward(recompute) => recompute,
            Keep::Forward => return Err(crate::Error::invalid("backward: the forward pass kept no activations")),
        };

        backend.matmul_dgrad(MatmulDgrad {
            dout: head.logits.view(),
            weight: p.wte,
            epilogue: DgradEpilogue::None,
            dx: d.dbranch.view_mut(),
        })?;
        backend.matmul_wgrad(MatmulWgrad {
            dout: head.logits.view(),
            x: acts.lnf_out.view(),
            dweight: g.wte.reborrow(),
            dbias: None,
            write,
        })?;
        backend.layernorm_backward(LayerNormBackward {
            dout: d.dbranch.view(),
            x: acts.residual.at(2 * config.layers).view(),
            weight: p.lnf_weight,
            mean: acts.lnf_mean.view(),
            rstd: acts.lnf_rstd.view(),
            dx: d.dresidual.view_mut(),
            dx_write: Write::Overwrite,
            dweight: g.lnf_weight.reborrow(),
            dbias: g.lnf_bias.reborrow(),
            write,
        })?;

        for l in (0..config.layers).rev() {
            if recompute == Recompute::Layernorm {
                self.ln2(&p, acts, l)?;
            }
            if recompute != Recompute::None {
                let out = acts.fc_gelu.at_mut(l).view_mut();
                backend.gelu_forward(GeluForward { x: acts.fc_pre.at(l).view(), out })?;
            }

            backend.matmul_wgrad(MatmulWgrad {
                dout: d.dresidual.view(),
                x: acts.fc_gelu.at(l).view(),
                dweight: g.fc_proj_weight.reborrow().into_at(l),
                dbias: Some(g.fc_proj_bias.reborrow().into_at(l)),
                write,
            })?;
            backend.matmul_dgrad(MatmulDgrad {
                dout: d.dresidual.view(),
                weight: p.fc_proj_weight.at(l),
                epilogue: DgradEpilogue::DGelu { pre: acts.fc_pre.at(l).view() },
                dx: d.dfc.view_mut(),
            })?;
            backend.matmul_wgrad(MatmulWgrad {
                dout: d.dfc.view(),
                x: acts.ln2_out.at(l).view(),
                dweight: g.fc_weight.reborrow().into_at(l),
                dbias: Some(g.fc_bias.reborrow().into_at(l)),
                write,
            })?;
            backend.matmul_dgrad(MatmulDgrad {
                dout: d.dfc.view(),
                weight: p.fc_weight.at(l),
                epilogue: DgradEpilogue::None,
                dx: d.dbranch.view_mut(),
            })?;
            backend.layernorm_backward(LayerNormBackward {
                dout: d.dbranch.view(),
                x: acts.residual.at(2 * l + 1).view(),
                weight: p.ln2_weight.at(l),
                mean: acts.ln2_mean.at(l).view(),
                rstd: acts.ln2_rstd.at(l).view(),
                dx: d.dresidual.view_mut(),
                dx_write: Write::Accumulate,
                dweight: g.ln2_weight.reborrow().into_at(l),
                dbias: g.ln2_bias.reborrow().into_at(l),
                write,
            })?;

            backend.matmul_wgrad(MatmulWgrad {
                dout: d.dresidual.view(),
                x: acts.attn_out.at(l).view(),
                dweight: g.attn_proj_weight.reborrow().into_at(l),
                dbias: Some(g.attn_proj_bias.reborrow().into_at(l)),
                write,
            })?;
            backend.matmul_dgrad(MatmulDgrad {
                dout: d.dresidual.view(),
                weight: p.attn_proj_weight.at(l),
                epilogue: DgradEpilogue::None,
                dx: d.dbranch.view_mut(),
            })?;
            backend.attention_backward(AttentionBackward {
                dout: d.dbranch.view(),
                qkv: Qkv::Packed { qkv: acts.qkv.at(l).view(), num_heads: config.heads },
                causal: true,
                out: acts.attn_out.at(l).view(),
                lse: acts.lse.at(l).view(),
                dqkv: QkvMut::Packed(d.dqkv.view_mut()),
            })?;
            if recompute == Recompute::Layernorm {
                self.ln1(&p, acts, l)?;
            }
            backend.matmul_wgrad(MatmulWgrad {
                dout: d.dqkv.view(),
                x: acts.ln1_out.at(l).view(),
                dweight: g.qkv_weight.reborrow().into_at(l),
                dbias: Some(g.qkv_bias.reborrow().into_at(l)),
                write,
            })?;
            backend.matmul_dgrad(MatmulDgrad {
                dout: d.dqkv.view(),
                weight: p.qkv_weight.at(l),
                epilogue: DgradEpilogue::None,
                dx: d.dbranch.view_mut(),
            })?;
            backend.layernorm_backward(LayerNormBackward {
                dout: d.dbranch.view(),
                x: acts.residual.at(2 * l).view(),
                weight: p.ln1_weight.at(l),
                mean: acts.ln1_mean.at(l).view(),
                rstd: acts.ln1_rstd.at(l).view(),
                dx: d.dresidual.view_mut(),
                dx_write: Write::Accumulate,
                dweight: g.ln1_weight.reborrow().into_at(l),
                dbias: g.ln1_bias.reborrow().into_at(l),
                write,
            })?;
        }

        // Must follow the LM head's wgrad, which writes `dwte` first: the embedding's gradient accumulates onto it.
        backend.embedding_backward(EmbeddingBackward {
            tokens,
            dout: d.dresidual.view(),
            dwte: g.wte.reborrow(),
            dwpe: g.wpe.reborrow(),
            write,
        })
    }
}
