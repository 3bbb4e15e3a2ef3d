//! See [`crate::ops::CrossEntropyForward`].

use super::{Bound, Case, CaseShape, Data, Info, Outputs, Problem, Workload, through_op};
use crate::error::Result;
use crate::model::config::VOCAB_MULTIPLE;
use crate::ops::{self, Backend, Floor, Operation, Write};
use crate::tensor::{Storage, Tensor};

/// `v` is V; Vp is V rounded up.
const SIZES: &[&str] = &["n", "v"];
const SMALL: &[(&[usize], &str)] = &[(&[16, 50257], ""), (&[256, 257], "")];
const REFERENCE: &[(&str, usize)] = &[("n", 64)];

fn training(workload: &Workload) -> Vec<CaseShape> {
    vec![(vec![workload.rows(), workload.config.vocab], "")]
}

pub struct CrossEntropyForward<S: Storage> {
    logits: Tensor<S, S::Compute>,
    targets: Tensor<S, i32>,
    losses: Tensor<S, S::Accum>,
    vocab: usize,
}

impl<S: Storage> CrossEntropyForward<S> {
    fn op(&mut self) -> ops::CrossEntropyForward<'_, S> {
        ops::CrossEntropyForward {
            logits: self.logits.view(),
            targets: self.targets.view(),
            vocab: self.vocab,
            losses: self.losses.view_mut(),
        }
    }
}

impl<B: Backend> Case<B> for CrossEntropyForward<B> {
    const INFO: Info = Info {
        op: ops::CrossEntropyForward::<B>::NAME,
        stem: "",
        sizes: SIZES,
        variants: &[],
        bound: Bound::Memory,
        training,
        small: SMALL,
        reference: REFERENCE,
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [n, vocab] = problem.get();
        Ok(Self {
            logits: data.normal([n, vocab.next_multiple_of(VOCAB_MULTIPLE)], 2.0)?,
            targets: data.ids([n], vocab)?,
            losses: data.zeros([n])?,
            vocab,
        })
    }

    through_op!(cross_entropy_forward);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("losses", &self.losses)
    }
}

/// The same operands as the forward; the logits are replaced by their gradients in place.
pub struct CrossEntropyBackward<S: Storage>(CrossEntropyForward<S>);

impl<S: Storage> CrossEntropyBackward<S> {
    fn op(&mut self) -> ops::CrossEntropyBackward<'_, S> {
        let CrossEntropyForward { logits, targets, losses, vocab } = &mut self.0;
        ops::CrossEntropyBackward {
            logits: logits.view_mut(),
            targets: targets.view(),
            vocab: *vocab,
            // A power of two near 1 / N of a training step.
            scale: 2f64.powi(-16),
            losses: losses.view_mut(),
        }
    }
}

impl<B: Backend> Case<B> for CrossEntropyBackward<B> {
    const INFO: Info = Info { op: ops::CrossEntropyBackward::<B>::NAME, ..<CrossEntropyForward<B> as Case<B>>::INFO };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        Case::new(data, problem).map(Self)
    }

    through_op!(cross_entropy_backward);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("losses", &self.0.losses)?.float("dlogits", &self.0.logits)
    }
}

pub struct LossSum<S: Storage> {
    losses: Tensor<S, S::Accum>,
    total: Tensor<S, S::Accum>,
}

impl<S: Storage> LossSum<S> {
    fn op(&mut self) -> ops::LossSum<'_, S> {
        let losses = self.losses.view();
        let scale = 1.0 / losses.shape().len() as f64;
        ops::LossSum { losses, scale, total: self.total.view_mut(), write: Write::Overwrite }
    }
}

impl<B: Backend> Case<B> for LossSum<B> {
    const INFO: Info = Info {
        op: ops::LossSum::<B>::NAME,
        stem: "",
        sizes: &["n"],
        variants: &[],
        bound: Bound::Memory,
        training: |workload| vec![(vec![workload.rows()], "")],
        small: &[(&[65536], "")],
        reference: &[("n", 65536)],
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [n] = problem.get();
        Ok(Self { losses: data.positive([n])?, total: data.zeros([1])? })
    }

    through_op!(loss_sum);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("total", &self.total)
    }
}
