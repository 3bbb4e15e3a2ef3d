//! See [`crate::ops::GeluForward`].

use super::{Bound, Case, CaseShape, Data, Info, Outputs, Problem, Workload, through_op};
use crate::error::Result;
use crate::ops::{self, Backend, Floor, Operation};
use crate::tensor::{Storage, Tensor};

pub struct GeluForward<S: Storage> {
    x: Tensor<S, S::Compute>,
    out: Tensor<S, S::Compute>,
}

impl<S: Storage> GeluForward<S> {
    fn op(&mut self) -> ops::GeluForward<'_, S> {
        ops::GeluForward { x: self.x.view(), out: self.out.view_mut() }
    }
}

fn training(workload: &Workload) -> Vec<CaseShape> {
    vec![(vec![workload.rows(), 4 * workload.config.channels], "")]
}

impl<B: Backend> Case<B> for GeluForward<B> {
    const INFO: Info = Info {
        op: ops::GeluForward::<B>::NAME,
        stem: "",
        sizes: &["n", "c"],
        variants: &[],
        bound: Bound::Memory,
        training,
        small: &[(&[256, 3072], "")],
        reference: &[("n", 512)],
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let shape: [usize; 2] = problem.get();
        Ok(Self { x: data.normal(shape, 1.0)?, out: data.zeros(shape)? })
    }

    through_op!(gelu_forward);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("out", &self.out)
    }
}
