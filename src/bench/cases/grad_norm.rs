//! See [`crate::ops::GradNorm`].

use super::{Bound, Case, CaseShape, Data, Info, Outputs, Problem, Workload, through_op};
use crate::error::Result;
use crate::ops::{self, Backend, Floor, Operation};
use crate::tensor::{Storage, Tensor};

pub struct GradNorm<S: Storage> {
    grad: Tensor<S, S::Accum>,
    norm: Tensor<S, S::Accum>,
}

impl<S: Storage> GradNorm<S> {
    fn op(&mut self) -> ops::GradNorm<'_, S> {
        ops::GradNorm { grad: self.grad.view(), norm: self.norm.view_mut() }
    }
}

/// All parameters of the model, including those of padding tokens.
pub(super) fn parameters(workload: &Workload) -> Vec<CaseShape> {
    let config = &workload.config;
    let padding = (config.padded_vocab() - config.vocab) * config.channels;
    vec![(vec![(config.parameters() + padding).next_multiple_of(8)], "")]
}

impl<B: Backend> Case<B> for GradNorm<B> {
    const INFO: Info = Info {
        op: ops::GradNorm::<B>::NAME,
        stem: "",
        sizes: &["p"],
        variants: &[],
        bound: Bound::Memory,
        training: parameters,
        small: &[(&[1 << 20], "")],
        reference: &[("p", 1 << 20)],
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [p] = problem.get();
        Ok(Self { grad: data.normal([p], 1.0)?, norm: data.zeros([1])? })
    }

    through_op!(grad_norm);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("norm", &self.norm)
    }
}
