//! See [`crate::ops::AttentionForward`].

use super::{Bound, Case, CaseShape, Data, Info, Outputs, Problem, Workload, through_op};
use crate::error::Result;
use crate::ops::{self, Backend, Floor, Operation, Qkv, QkvMut};
use crate::tensor::{Storage, Tensor};

const SMALL: &[(&[usize], &str)] = &[(&[1, 256, 2, 64], ""), (&[1, 256, 1, 128], "")];
/// Several key tiles, and several heads.
const REFERENCE: &[(&str, usize)] = &[("b", 2), ("t", 512), ("nh", 3)];

fn training(workload: &Workload) -> Vec<CaseShape> {
    let Workload { config, batch, context } = workload;
    vec![(vec![*batch, *context, config.heads, config.channels / config.heads], "")]
}

pub struct AttentionForward<S: Storage> {
    qkv: Tensor<S, S::Compute>,
    num_heads: usize,
    out: Tensor<S, S::Compute>,
    lse: Tensor<S, S::Accum>,
}

impl<S: Storage> AttentionForward<S> {
    fn op(&mut self) -> ops::AttentionForward<'_, S> {
        ops::AttentionForward {
            qkv: Qkv::Packed { qkv: self.qkv.view(), num_heads: self.num_heads },
            causal: true,
            out: self.out.view_mut(),
            lse: self.lse.view_mut(),
        }
    }
}

impl<B: Backend> Case<B> for AttentionForward<B> {
    const INFO: Info = Info {
        op: ops::AttentionForward::<B>::NAME,
        stem: "",
        sizes: &["b", "t", "nh", "hs"],
        variants: &[],
        bound: Bound::Compute,
        training,
        small: SMALL,
        reference: REFERENCE,
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [b, t, num_heads, hs] = problem.get();
        let c = num_heads * hs;
        Ok(Self {
            qkv: data.normal([b, t, 3 * c], 1.0)?,
            num_heads,
            out: data.zeros([b, t, c])?,
            lse: data.zeros([b, num_heads, t])?,
        })
    }

    through_op!(attention_forward);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("out", &self.out)?.float("lse", &self.lse)
    }
}

pub struct AttentionBackward<S: Storage> {
    /// The operands of the forward, which has run.
    forward: AttentionForward<S>,
    dout: Tensor<S, S::Compute>,
    dqkv: Tensor<S, S::Compute>,
}

impl<S: Storage> AttentionBackward<S> {
    fn op(&mut self) -> ops::AttentionBackward<'_, S> {
        let AttentionForward { qkv, num_heads, out, lse } = &self.forward;
        ops::AttentionBackward {
            dout: self.dout.view(),
            qkv: Qkv::Packed { qkv: qkv.view(), num_heads: *num_heads },
            causal: true,
            out: out.view(),
            lse: lse.view(),
            dqkv: QkvMut::Packed(self.dqkv.view_mut()),
        }
    }
}

impl<B: Backend> Case<B> for AttentionBackward<B> {
    const INFO: Info = Info { op: ops::AttentionBackward::<B>::NAME, ..<AttentionForward<B> as Case<B>>::INFO };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [b, t, num_heads, hs] = problem.get();
        let c = num_heads * hs;
        let mut forward = <AttentionForward<B> as Case<B>>::new(data, problem)?;
        Case::run(&mut forward, data.backend)?;
        Ok(Self { forward, dout: data.normal([b, t, c], 1.0)?, dqkv: data.zeros([b, t, 3 * c])? })
    }

    through_op!(attention_backward);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("dqkv", &self.dqkv)
    }
}
