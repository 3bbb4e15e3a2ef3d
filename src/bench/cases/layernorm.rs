//! See [`crate::ops::LayerNormForward`].

use super::{Bound, Case, Data, Info, Outputs, Problem, Workload, through_op};
use crate::error::Result;
use crate::ops::{self, Backend, Floor, Operation, Write};
use crate::tensor::{Storage, Tensor};

const SIZES: &[&str] = &["n", "c"];
/// Rows are independent; 512 of them are enough for several thread blocks.
const REFERENCE: &[(&str, usize)] = &[("n", 512)];

fn rows(workload: &Workload) -> Vec<usize> {
    vec![workload.rows(), workload.config.channels]
}

pub struct LayerNormForward<S: Storage> {
    x: Tensor<S, S::Compute>,
    weight: Tensor<S, S::Compute>,
    bias: Tensor<S, S::Compute>,
    out: Tensor<S, S::Compute>,
    mean: Tensor<S, S::Accum>,
    rstd: Tensor<S, S::Accum>,
}

impl<S: Storage> LayerNormForward<S> {
    fn op(&mut self) -> ops::LayerNormForward<'_, S> {
        ops::LayerNormForward {
            x: self.x.view(),
            weight: self.weight.view(),
            bias: self.bias.view(),
            out: self.out.view_mut(),
            mean: self.mean.view_mut(),
            rstd: self.rstd.view_mut(),
        }
    }
}

impl<B: Backend> Case<B> for LayerNormForward<B> {
    const INFO: Info = Info {
        op: ops::LayerNormForward::<B>::NAME,
        stem: "",
        sizes: SIZES,
        variants: &[],
        bound: Bound::Memory,
        training: |workload| vec![(rows(workload), "")],
        small: &[(&[256, 768], ""), (&[64, 1600], "")],
        reference: REFERENCE,
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [n, c] = problem.get();
        Ok(Self {
            x: data.normal([n, c], 1.0)?,
            weight: data.positive([c])?,
            bias: data.normal([c], 0.25)?,
            out: data.zeros([n, c])?,
            mean: data.zeros([n])?,
            rstd: data.zeros([n])?,
        })
    }

    through_op!(layernorm_forward);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        // `mean` is not compared: the mean of normal values is close to 0, so its relative error is meaningless.
        outputs.float("out", &self.out)?.float("rstd", &self.rstd)
    }
}

pub struct ResidualLayerNormForward<S: Storage> {
    residual: Tensor<S, S::Compute>,
    sum: Tensor<S, S::Compute>,
    /// The remaining operands.
    norm: LayerNormForward<S>,
}

impl<S: Storage> ResidualLayerNormForward<S> {
    fn op(&mut self) -> ops::ResidualLayerNormForward<'_, S> {
        let ops::LayerNormForward { x, weight, bias, out, mean, rstd } = self.norm.op();
        let (residual, sum) = (self.residual.view(), self.sum.view_mut());
        ops::ResidualLayerNormForward { x, residual, weight, bias, sum, out, mean, rstd }
    }
}

impl<B: Backend> Case<B> for ResidualLayerNormForward<B> {
    const INFO: Info = Info { op: ops::ResidualLayerNormForward::<B>::NAME, ..<LayerNormForward<B> as Case<B>>::INFO };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let shape: [usize; 2] = problem.get();
        Ok(Self { residual: data.normal(shape, 1.0)?, sum: data.zeros(shape)?, norm: Case::new(data, problem)? })
    }

    through_op!(residual_layernorm_forward);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        // The statistics are not compared: they are those of the rounded sum, which the reference does not round.
        outputs.float("sum", &self.sum)?.float("out", &self.norm.out)
    }
}

pub struct LayerNormBackward<S: Storage> {
    dout: Tensor<S, S::Compute>,
    x: Tensor<S, S::Compute>,
    weight: Tensor<S, S::Compute>,
    mean: Tensor<S, S::Accum>,
    rstd: Tensor<S, S::Accum>,
    dx: Tensor<S, S::Compute>,
    dweight: Tensor<S, S::Accum>,
    dbias: Tensor<S, S::Accum>,
    dx_write: Write,
}

impl<S: Storage> LayerNormBackward<S> {
    fn op(&mut self) -> ops::LayerNormBackward<'_, S> {
        ops::LayerNormBackward {
            dout: self.dout.view(),
            x: self.x.view(),
            weight: self.weight.view(),
            mean: self.mean.view(),
            rstd: self.rstd.view(),
            dx: self.dx.view_mut(),
            dx_write: self.dx_write,
            dweight: self.dweight.view_mut(),
            dbias: self.dbias.view_mut(),
            write: Write::Overwrite,
        }
    }
}

impl<B: Backend> Case<B> for LayerNormBackward<B> {
    const INFO: Info = Info {
        op: ops::LayerNormBackward::<B>::NAME,
        stem: "",
        sizes: SIZES,
        // How dx is written: the final layernorm overwrites it, the others add to the residual's gradient.
        variants: &["overwrite", "accumulate"],
        bound: Bound::Memory,
        training: |workload| vec![(rows(workload), "overwrite"), (rows(workload), "accumulate")],
        small: &[(&[256, 768], "overwrite"), (&[256, 768], "accumulate"), (&[64, 1600], "accumulate")],
        reference: REFERENCE,
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [n, c] = problem.get();
        Ok(Self {
            dout: data.normal([n, c], 1.0)?,
            x: data.normal([n, c], 1.0)?,
            weight: data.positive([c])?,
            mean: data.normal([n], 0.0625)?,
            rstd: data.positive([n])?,
            dx: data.normal([n, c], 1.0)?,
            dweight: data.zeros([c])?,
            dbias: data.zeros([c])?,
            dx_write: if problem.variant == "accumulate" { Write::Accumulate } else { Write::Overwrite },
        })
    }

    through_op!(layernorm_backward);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("dx", &self.dx)?.float("dweight", &self.dweight)?.float("dbias", &self.dbias)
    }
}
