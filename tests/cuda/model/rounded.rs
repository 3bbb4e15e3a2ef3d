//! Baseline for the model tests: the CPU reference computes in f32, and every operation's result is rounded once to the
//! element type that the GPU stores.

use std::convert::Infallible;

use ironwarp::Result;
use ironwarp::cpu::Cpu;
use ironwarp::ops::philox::narrow_weights;
use ironwarp::ops::*;
use ironwarp::tensor::{FloatElement, Tensor, View, ViewMut};

use super::narrow::Narrow;

type Wide = Tensor<Cpu<f32>, f32>;

const CPU: fn() -> Cpu<f32> = Cpu::new;

fn wide<E: FloatElement>(view: View<'_, Narrow, E>) -> Wide {
    Tensor::from_vec(&CPU(), view.shape(), view.as_slice().iter().map(|x| x.to_f32()).collect()).unwrap()
}

fn ids(view: View<'_, Narrow, i32>) -> Tensor<Cpu<f32>, i32> {
    Tensor::from_vec(&CPU(), view.shape(), view.as_slice().to_vec()).unwrap()
}

/// An output in f32. Dropping it rounds the values to the element type of `to` and stores them there.
struct Rounded<'a, E: FloatElement> {
    to: &'a mut [E],
    wide: Wide,
}

impl<'a, E: FloatElement> Rounded<'a, E> {
    fn new(view: ViewMut<'a, Narrow, E>) -> Self {
        let shape = view.shape();
        let to = view.into_slice();
        let wide = Tensor::from_vec(&CPU(), shape, to.iter().map(|x| x.to_f32()).collect()).unwrap();
        Rounded { to, wide }
    }

    fn view(&mut self) -> ViewMut<'_, Cpu<f32>, f32> {
        self.wide.view_mut()
    }
}

impl<E: FloatElement> Drop for Rounded<'_, E> {
    fn drop(&mut self) {
        let wide = self.wide.view();
        self.to.iter_mut().zip(wide.as_slice()).for_each(|(to, &wide)| *to = E::from_f32(wide));
    }
}

impl Backend for Narrow {
    type Graph = Infallible;

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Infallible>> {
        work().map(|()| None)
    }
    fn replay(&self, recording: &Infallible) -> Result<()> {
        match *recording {}
    }
    fn embedding_forward(&self, op: EmbeddingForward<'_, Self>) -> Result<()> {
        let (tokens, wte, wpe, mut out) = (ids(op.tokens), wide(op.wte), wide(op.wpe), Rounded::new(op.out));
        CPU().embedding_forward(EmbeddingForward {
            tokens: tokens.view(),
            wte: wte.view(),
            wpe: wpe.view(),
            position: op.position,
            out: out.view(),
        })
    }
    fn embedding_backward(&self, op: EmbeddingBackward<'_, Self>) -> Result<()> {
        let (tokens, dout) = (ids(op.tokens), wide(op.dout));
        let (mut dwte, mut dwpe) = (Rounded::new(op.dwte), Rounded::new(op.dwpe));
        CPU().embedding_backward(EmbeddingBackward {
            tokens: tokens.view(),
            dout: dout.view(),
            dwte: dwte.view(),
            dwpe: dwpe.view(),
            write: op.write,
        })
    }
    fn layernorm_forward(&self, op: LayerNormForward<'_, Self>) -> Result<()> {
        let (x, weight, bias) = (wide(op.x), wide(op.weight), wide(op.bias));
        let (mut out, mut mean, mut rstd) = (Rounded::new(op.out), Rounded::new(op.mean), Rounded::new(op.rstd));
        CPU().layernorm_forward(LayerNormForward {
            x: x.view(),
            weight: weight.view(),
            bias: bias.view(),
            out: out.view(),
            mean: mean.view(),
            rstd: rstd.view(),
        })
    }
    fn residual_layernorm_forward(&self, _: ResidualLayerNormForward<'_, Self>) -> Result<()> {
        unreachable!("not used by the model")
    }
    fn layernorm_backward(&self, op: LayerNormBackward<'_, Self>) -> Result<()> {
        let (dout, x, weight, mean, rstd) = (wide(op.dout), wide(op.x), wide(op.weight), wide(op.mean), wide(op.rstd));
        let (mut dx, mut dweight, mut dbias) = (Rounded::new(op.dx), Rounded::new(op.dweight), Rounded::new(op.dbias));
        CPU().layernorm_backward(LayerNormBackward {
            dout: dout.view(),
            x: x.view(),
            weight: weight.view(),
            mean: mean.view(),
            rstd: rstd.view(),
            dx: dx.view(),
            dx_write: op.dx_write,
            dweight: dweight.view(),
            dbias: dbias.view(),
            write: op.write,
        })
    }
    fn matmul_forward(&self, op: MatmulForward<'_, Self>) -> Result<()> {
        let (x, weight, mut out) = (wide(op.x), wide(op.weight), Rounded::new(op.out));
        let (bias, other, mut pre) = match op.epilogue {
            Epilogue::None => (None, None, None),
            Epilogue::Bias { bias } => (Some(wide(bias)), None, None),
            Epilogue::BiasGelu { bias, pre } => (Some(wide(bias)), None, Some(Rounded::new(pre))),
            Epilogue::BiasResidual { bias, residual } => (Some(wide(bias)), Some(wide(residual)), None),
        };
        let epilogue = match (&bias, &other, &mut pre) {
            (Some(bias), None, None) => Epilogue::Bias { bias: bias.view() },
            (Some(bias), None, Some(pre)) => Epilogue::BiasGelu { bias: bias.view(), pre: pre.view() },
            (Some(bias), Some(other), _) => Epilogue::BiasResidual { bias: bias.view(), residual: other.view() },
            (None, ..) => Epilogue::None,
        };
        CPU().matmul_forward(MatmulForward { x: x.view(), weight: weight.view(), epilogue, out: out.view() })
    }
    fn matmul_dgrad(&self, op: MatmulDgrad<'_, Self>) -> Result<()> {
        let (dout, weight, mut dx) = (wide(op.dout), wide(op.weight), Rounded::new(op.dx));
        let pre = match op.epilogue {
            DgradEpilogue::None => None,
            DgradEpilogue::DGelu { pre } => Some(wide(pre)),
        };
        let epilogue = pre.as_ref().map_or(DgradEpilogue::None, |pre| DgradEpilogue::DGelu { pre: pre.view() });
        CPU().matmul_dgrad(MatmulDgrad { dout: dout.view(), weight: weight.view(), epilogue, dx: dx.view() })
    }
    fn matmul_wgrad(&self, op: MatmulWgrad<'_, Self>) -> Result<()> {
        let (dout, x, mut dweight) = (wide(op.dout), wide(op.x), Rounded::new(op.dweight));
        let mut dbias = op.dbias.map(Rounded::new);
        CPU().matmul_wgrad(MatmulWgrad {
            dout: dout.view(),
            x: x.view(),
            dweight: dweight.view(),
            dbias: dbias.as_mut().map(Rounded::view),
            write: op.write,
        })
    }
    fn gelu_forward(&self, op: GeluForward<'_, Self>) -> Result<()> {
        let (x, mut out) = (wide(op.x), Rounded::new(op.out));
        CPU().gelu_forward(GeluForward { x: x.view(), out: out.view() })
    }
    fn attention_forward(&self, op: AttentionForward<'_, Self>) -> Result<()> {
        let Qkv::Packed { qkv, num_heads } = op.qkv else { unreachable!("GPT-2's QKV is packed") };
        let (qkv, mut out, mut lse) = (wide(qkv), Rounded::new(op.out), Rounded::new(op.lse));
        CPU().attention_forward(AttentionForward {
            qkv: Qkv::Packed { qkv: qkv.view(), num_heads },
            causal: op.causal,
            out: out.view(),
            lse: lse.view(),
        })
    }
    fn attention_backward(&self, op: AttentionBackward<'_, Self>) -> Result<()> {
        let (Qkv::Packed { qkv, num_heads }, QkvMut::Packed(dqkv)) = (op.qkv, op.dqkv) else {
            unreachable!("GPT-2's QKV is packed")
        };
        let (dout, qkv, out, lse) = (wide(op.dout), wide(qkv), wide(op.out), wide(op.lse));
        let mut dqkv = Rounded::new(dqkv);
        CPU().attention_backward(AttentionBackward {
            dout: dout.view(),
            qkv: Qkv::Packed { qkv: qkv.view(), num_heads },
            causal: op.causal,
            out: out.view(),
            lse: lse.view(),
            dqkv: QkvMut::Packed(dqkv.view()),
        })
    }
    fn kv_cache_store(&self, _: KvCacheStore<'_, Self>) -> Result<()> {
        unreachable!("not used in a training step")
    }
    fn attention_decode(&self, _: AttentionDecode<'_, Self>) -> Result<()> {
        unreachable!("not used in a training step")
    }
    fn cross_entropy_forward(&self, op: CrossEntropyForward<'_, Self>) -> Result<()> {
        let (logits, targets, mut losses) = (wide(op.logits), ids(op.targets), Rounded::new(op.losses));
        CPU().cross_entropy_forward(CrossEntropyForward {
            logits: logits.view(),
            targets: targets.view(),
            vocab: op.vocab,
            losses: losses.view(),
        })
    }
    fn cross_entropy_backward(&self, op: CrossEntropyBackward<'_, Self>) -> Result<()> {
        let (mut logits, targets, mut losses) = (Rounded::new(op.logits), ids(op.targets), Rounded::new(op.losses));
        CPU().cross_entropy_backward(CrossEntropyBackward {
            logits: logits.view(),
            targets: targets.view(),
            vocab: op.vocab,
            scale: op.scale,
            losses: losses.view(),
        })
    }
    fn loss_sum(&self, op: LossSum<'_, Self>) -> Result<()> {
        let (losses, mut total) = (wide(op.losses), Rounded::new(op.total));
        CPU().loss_sum(LossSum { losses: losses.view(), scale: op.scale, total: total.view(), write: op.write })
    }
    fn grad_norm(&self, op: GradNorm<'_, Self>) -> Result<()> {
        let (grad, mut norm) = (wide(op.grad), Rounded::new(op.norm));
        CPU().grad_norm(GradNorm { grad: grad.view(), norm: norm.view() })
    }
    fn adamw(&self, op: AdamW<'_, Self>) -> Result<()> {
        let (grad, norm, loss) = (wide(op.grad), wide(op.guard.norm), wide(op.guard.loss));
        let (mut m, mut v) = (Rounded::new(op.m), Rounded::new(op.v));
        let mut master = Rounded::new(op.master.expect("weights are narrow"));
        CPU().adamw(AdamW {
            weight: master.view(),
            master: None,
            grad: grad.view(),
            m: m.view(),
            v: v.view(),
            guard: UpdateGuard {
                norm: norm.view(),
                loss: loss.view(),
                norm_limit: op.guard.norm_limit,
                loss_limit: op.guard.loss_limit,
            },
            settings: op.settings,
        })?;
        let AdamWSettings { seed, step, first_index, .. } = op.settings;
        // Element i uses draw `first_index + i`, so the elements before this range are padded with zeros.
        let first = first_index as usize;
        let mut all = vec![0.0; first];
        all.extend(master.wide.view().as_slice());
        op.weight.into_slice().copy_from_slice(&narrow_weights(&all, seed, step)[first..]);
        Ok(())
    }
    fn sample(&self, _: Sample<'_, Self>) -> Result<()> {
        unreachable!("not used in a training step")
    }
}
