//! See [`crate::ops::Sample`].

use super::{Bound, Case, CaseShape, Data, Info, Outputs, Problem, Workload, through_op};
use crate::error::Result;
use crate::model::config::VOCAB_MULTIPLE;
use crate::ops::{self, Backend, Floor, Operation};
use crate::tensor::{Storage, Tensor};

pub struct Sample<S: Storage> {
    logits: Tensor<S, S::Compute>,
    tokens: Tensor<S, i32>,
    vocab: usize,
}

impl<S: Storage> Sample<S> {
    fn op(&mut self) -> ops::Sample<'_, S> {
        ops::Sample {
            logits: self.logits.view(),
            vocab: self.vocab,
            temperature: 0.8,
            top_k: 50,
            top_p: 0.95,
            seed: 1,
            draw: 0,
            tokens: self.tokens.view_mut(),
        }
    }
}

fn training(workload: &Workload) -> Vec<CaseShape> {
    vec![(vec![workload.batch, workload.config.vocab], "")]
}

impl<B: Backend> Case<B> for Sample<B> {
    const INFO: Info = Info {
        op: ops::Sample::<B>::NAME,
        stem: "",
        sizes: &["b", "v"],
        variants: &[],
        bound: Bound::Memory,
        training,
        small: &[(&[4, 50257], "")],
        reference: &[("b", 64)],
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [b, vocab] = problem.get();
        let logits = data.normal([b, vocab.next_multiple_of(VOCAB_MULTIPLE)], 2.0)?;
        Ok(Self { logits, tokens: data.zeros([b])?, vocab })
    }

    through_op!(sample);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.ids("tokens", &self.tokens)
    }
}
