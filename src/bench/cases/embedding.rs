//! See [`crate::ops::EmbeddingForward`].

use super::{Bound, Case, CaseShape, Data, Info, Outputs, Problem, Workload};
use crate::error::Result;
use crate::ops::{self, Backend, Floor, Operation, Write};
use crate::tensor::{Element, Storage, Tensor};

/// `v` is the number of rows of the token table, which is Vp in a model.
const SIZES: &[&str] = &["b", "t", "c", "v"];
const SMALL: &[(&[usize], &str)] = &[(&[4, 64, 768, 1024], ""), (&[1, 64, 1600, 1024], "")];
/// Several sequences, and tokens that share a row of the table.
const REFERENCE: &[(&str, usize)] = &[("b", 4), ("t", 256), ("v", 512)];

fn training(workload: &Workload) -> Vec<CaseShape> {
    let Workload { config, batch, context } = workload;
    vec![(vec![*batch, *context, config.channels, config.padded_vocab()], "")]
}

/// Number of distinct ids in a tensor.
fn distinct<B: Backend>(backend: &B, tokens: &Tensor<B, i32>) -> Result<usize> {
    let mut ids = tokens.to_vec(backend)?;
    ids.sort_unstable();
    ids.dedup();
    Ok(ids.len())
}

/// A floor with `bytes` more. The operation's own floor counts one row of the table, because the shapes do not say how
/// many distinct tokens there are.
fn add_bytes(bytes: usize, floor: Floor) -> Floor {
    Floor { bytes: floor.bytes + bytes as u64, ..floor }
}

pub struct EmbeddingForward<S: Storage> {
    tokens: Tensor<S, i32>,
    distinct: usize,
    wte: Tensor<S, S::Compute>,
    wpe: Tensor<S, S::Compute>,
    out: Tensor<S, S::Compute>,
}

impl<S: Storage> EmbeddingForward<S> {
    fn op(&mut self) -> ops::EmbeddingForward<'_, S> {
        let (wte, wpe) = (self.wte.view(), self.wpe.view());
        ops::EmbeddingForward { tokens: self.tokens.view(), wte, wpe, position: 0, out: self.out.view_mut() }
    }
}

impl<B: Backend> Case<B> for EmbeddingForward<B> {
    const INFO: Info = Info {
        op: ops::EmbeddingForward::<B>::NAME,
        stem: "",
        sizes: SIZES,
        variants: &[],
        bound: Bound::Memory,
        training,
        small: SMALL,
        reference: REFERENCE,
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [b, t, c, v] = problem.get();
        let tokens = data.ids([b, t], v)?;
        Ok(Self {
            distinct: distinct(data.backend, &tokens)?,
            tokens,
            wte: data.normal([v, c], 1.0)?,
            wpe: data.normal([t, c], 1.0)?,
            out: data.zeros([b, t, c])?,
        })
    }

    fn floor(&mut self) -> Floor {
        let row = self.wte.shape().matrix()[1] * B::Compute::BYTES;
        add_bytes((self.distinct - 1) * row, self.op().floor())
    }

    fn run(&mut self, backend: &B) -> Result<()> {
        backend.embedding_forward(self.op())
    }

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("out", &self.out)
    }
}

pub struct EmbeddingBackward<S: Storage> {
    tokens: Tensor<S, i32>,
    distinct: usize,
    dout: Tensor<S, S::Compute>,
    dwte: Tensor<S, S::Accum>,
    dwpe: Tensor<S, S::Accum>,
}

impl<S: Storage> EmbeddingBackward<S> {
    fn op(&mut self) -> ops::EmbeddingBackward<'_, S> {
        ops::EmbeddingBackward {
            tokens: self.tokens.view(),
            dout: self.dout.view(),
            dwte: self.dwte.view_mut(),
            dwpe: self.dwpe.view_mut(),
            write: Write::Overwrite,
        }
    }
}

impl<B: Backend> Case<B> for EmbeddingBackward<B> {
    const INFO: Info = Info { op: ops::EmbeddingBackward::<B>::NAME, ..<EmbeddingForward<B> as Case<B>>::INFO };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [b, t, c, v] = problem.get();
        let tokens = data.ids([b, t], v)?;
        Ok(Self {
            distinct: distinct(data.backend, &tokens)?,
            tokens,
            dout: data.normal([b, t, c], 1.0)?,
            dwte: data.normal([v, c], 1.0)?,
            dwpe: data.zeros([t, c])?,
        })
    }

    fn floor(&mut self) -> Floor {
        // Each row is read and written.
        let row = 2 * self.dwte.shape().matrix()[1] * B::Accum::BYTES;
        add_bytes((self.distinct - 1) * row, self.op().floor())
    }

    fn run(&mut self, backend: &B) -> Result<()> {
        backend.embedding_backward(self.op())
    }

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("dwte", &self.dwte)?.float("dwpe", &self.dwpe)
    }
}
