//! See [`crate::ops::AdamW`].

use super::grad_norm::parameters;
use super::{Bound, Case, Data, Info, Outputs, Problem, through_op};
use crate::error::Result;
use crate::ops::{self, Backend, Floor, Operation};
use crate::tensor::{Storage, Tensor};

pub struct AdamW<S: Storage> {
    weight: Tensor<S, S::Compute>,
    master: Option<Tensor<S, S::Accum>>,
    grad: Tensor<S, S::Accum>,
    m: Tensor<S, S::Accum>,
    v: Tensor<S, S::Accum>,
    norm: Tensor<S, S::Accum>,
    loss: Tensor<S, S::Accum>,
}

impl<S: Storage> AdamW<S> {
    fn op(&mut self) -> ops::AdamW<'_, S> {
        ops::AdamW {
            weight: self.weight.view_mut(),
            master: self.master.as_mut().map(Tensor::view_mut),
            grad: self.grad.view(),
            m: self.m.view_mut(),
            v: self.v.view_mut(),
            guard: ops::UpdateGuard {
                norm: self.norm.view(),
                loss: self.loss.view(),
                norm_limit: f32::INFINITY,
                loss_limit: f32::INFINITY,
            },
            settings: ops::AdamWSettings {
                learning_rate: 6e-4,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                step: 100,
                max_norm: 1.0,
                seed: 1,
                first_index: 0,
            },
        }
    }
}

impl<B: Backend> Case<B> for AdamW<B> {
    const INFO: Info = Info {
        op: ops::AdamW::<B>::NAME,
        stem: "",
        sizes: &["p"],
        variants: &[],
        bound: Bound::Memory,
        training: parameters,
        small: &[(&[1 << 18], "")],
        reference: &[("p", 1 << 20)],
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [p] = problem.get();
        let (weight, master) = data.normal_in_both([p], 0.0625)?;
        Ok(Self {
            weight,
            master: ops::needs_master::<B>().then_some(master),
            grad: data.normal([p], 0.0625)?,
            m: data.normal([p], 0.0625)?,
            v: data.positive([p])?,
            norm: data.positive([1])?,
            loss: data.positive([1])?,
        })
    }

    through_op!(adamw);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        let outputs = match &self.master {
            Some(master) => outputs.float("master", master)?,
            None => outputs.float("master", &self.weight)?,
        };
        outputs.float("m", &self.m)?.float("v", &self.v)
    }
}
