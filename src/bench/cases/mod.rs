//! The benchmark cases: every operation with its operands, its shapes in GPT-2 and its outputs, and a whole training
//! step.
//!
//! There is one file for each file of `src/ops`. A new case is added only to the list at the end of this file:
//! benchmarks, criterion's groups, profiles and their checks iterate over that list.

mod adamw;
mod attention;
mod attention_decode;
mod cross_entropy;
mod embedding;
mod gelu;
mod grad_norm;
mod layernorm;
pub(super) mod matmul;
mod sampling;
mod training_step;

use super::ceilings::Bound;
use super::data::Data;
use super::problem::{Problem, Workload};
use crate::cpu::Cpu;
use crate::error::{Error, Result};
use crate::ops::{Backend, Floor};
use crate::tensor::{FloatElement, Tensor};

/// Sizes in the order of [`Info::sizes`], and a variant.
type CaseShape = (Vec<usize>, &'static str);

/// A case without its operands.
pub struct Info {
    /// [`crate::ops::Operation::NAME`], or `training_step`.
    pub op: &'static str,
    /// The file of `src/ops`, without `.rs`.
    pub stem: &'static str,
    /// Names of the sizes, such as `n` and `c`.
    pub sizes: &'static [&'static str],
    /// Variants of the operation; empty for an operation without variants.
    pub variants: &'static [&'static str],
    /// Whether memory or arithmetic limits it at GPT-2's sizes.
    pub bound: Bound,
    /// The shapes of a training step.
    pub(super) training: fn(&Workload) -> Vec<CaseShape>,
    /// Shapes that are small enough for the emulator and show what a kernel does: GPT-2's sizes where the kernel
    /// depends on them, few rows where it does not.
    pub(super) small: &'static [(&'static [usize], &'static str)],
    /// Upper bounds of the sizes that the reference is computed for, by name. Beyond these
    /// bounds, sizes must not change the code path of a kernel.
    pub(super) reference: &'static [(&'static str, usize)],
}

impl Info {
    /// The problems of a training step.
    pub fn training(&self, workload: &Workload) -> Vec<Problem> {
        (self.training)(workload).into_iter().map(|(sizes, variant)| Problem::new(self, sizes, variant)).collect()
    }

    /// The problems of a profile.
    pub fn small(&self) -> Vec<Problem> {
        self.small.iter().map(|(sizes, variant)| Problem::new(self, sizes.to_vec(), variant)).collect()
    }

    /// The problem that the reference is computed for.
    pub(super) fn for_reference(&self, problem: &Problem) -> Problem {
        problem.capped(self.reference)
    }
}

/// An output of an operation.
pub struct Output {
    /// The operand's name.
    pub name: &'static str,
    /// Its values.
    pub values: Vec<f32>,
    /// Its precision, which determines the tolerance.
    pub precision: Precision,
}

/// The precision of an [`Output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Rounded to bf16.
    Bf16,
    /// Computed in f32.
    F32,
    /// Exact: token ids.
    Exact,
}

/// Downloads the outputs of a case.
pub(super) struct Outputs<'a, B> {
    backend: &'a B,
    list: Vec<Output>,
}

impl<B: Backend> Outputs<'_, B> {
    fn float<E: FloatElement>(mut self, name: &'static str, tensor: &Tensor<B, E>) -> Result<Self> {
        let values = tensor.to_vec(self.backend)?.into_iter().map(E::to_f32).collect();
        let precision = if E::BYTES == 2 { Precision::Bf16 } else { Precision::F32 };
        self.list.push(Output { name, values, precision });
        Ok(self)
    }

    fn ids(mut self, name: &'static str, tensor: &Tensor<B, i32>) -> Result<Self> {
        // Ids are below 2^24, so f32 represents them exactly.
        let values = tensor.to_vec(self.backend)?.into_iter().map(|id| id as f32).collect();
        self.list.push(Output { name, values, precision: Precision::Exact });
        Ok(self)
    }
}

/// An operation with its operands on a backend.
pub(super) trait Case<B: Backend>: Sized {
    /// The case's description, without the stem, which the list at the end of this file adds.
    const INFO: Info;

    /// Creates the operands of a problem of this operation.
    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self>;
    fn floor(&mut self) -> Floor;
    fn run(&mut self, backend: &B) -> Result<()>;
    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>>;
}

/// Implements [`Case::floor`] and [`Case::run`] with the method `op` of the case, which borrows the operands.
macro_rules! through_op {
    ($method:ident) => {
        fn floor(&mut self) -> Floor {
            self.op().floor()
        }

        fn run(&mut self, backend: &B) -> Result<()> {
            backend.$method(self.op())
        }
    };
}
use through_op;

/// An operation with its operands, ready to run.
pub trait Prepared<B> {
    /// Minimum bytes and FLOPs.
    fn floor(&mut self) -> Floor;

    /// Starts the operation, and may return before it has completed. It can be run repeatedly; operands that it updates
    /// in place keep their values between runs.
    ///
    /// # Errors
    /// Those of the operation.
    fn run(&mut self, backend: &B) -> Result<()>;

    /// Downloads the outputs.
    ///
    /// # Errors
    /// Those of a download.
    fn outputs(&self, backend: &B) -> Result<Vec<Output>>;
}

impl<B: Backend, C: Case<B>> Prepared<B> for C {
    fn floor(&mut self) -> Floor {
        Case::floor(self)
    }

    fn run(&mut self, backend: &B) -> Result<()> {
        Case::run(self, backend)
    }

    fn outputs(&self, backend: &B) -> Result<Vec<Output>> {
        Ok(Case::outputs(self, Outputs { backend, list: Vec::new() })?.list)
    }
}

macro_rules! cases {
    ($($stem:ident::$case:ident,)*) => {
        /// Every case, the operations in the order of a training step.
        pub static ALL: &[Info] =
            &[$(Info { stem: stringify!($stem), ..<$stem::$case<Cpu<f32>> as Case<Cpu<f32>>>::INFO }),*];

        /// Creates the operands of a problem: the same numbers on every backend for the same seed.
        ///
        /// # Errors
        /// When an allocation fails; [`Error::Invalid`] for an unknown operation.
        pub fn prepare<B: Backend + Clone + 'static>(
            backend: &B,
            problem: &Problem,
            seed: u64,
        ) -> Result<Box<dyn Prepared<B>>> {
            let mut data = Data::new(backend, seed);
            $(if problem.op == <$stem::$case<B> as Case<B>>::INFO.op {
                return Ok(Box::new(<$stem::$case<B> as Case<B>>::new(&mut data, problem)?));
            })*
            Err(Error::invalid(format!("unknown operation '{}'", problem.op)))
        }
    };
}

cases! {
    embedding::EmbeddingForward,
    layernorm::LayerNormForward,
    layernorm::ResidualLayerNormForward,
    matmul::MatmulForward,
    gelu::GeluForward,
    attention::AttentionForward,
    cross_entropy::CrossEntropyForward,
    cross_entropy::CrossEntropyBackward,
    cross_entropy::LossSum,
    matmul::MatmulDgrad,
    matmul::MatmulWgrad,
    attention::AttentionBackward,
    layernorm::LayerNormBackward,
    embedding::EmbeddingBackward,
    grad_norm::GradNorm,
    adamw::AdamW,
    attention_decode::KvCacheStore,
    attention_decode::AttentionDecode,
    sampling::Sample,
    training_step::TrainingStep,
}

/// The cases that the words name, each an operation or a family (stem); every case if there are no words.
///
/// # Errors
/// [`Error::Invalid`] for a word that is neither.
pub fn select(words: &[String]) -> Result<Vec<&'static Info>> {
    for word in words {
        if !ALL.iter().any(|info| info.op == word || info.stem == word) {
            let names: Vec<&str> = ALL.iter().map(|info| info.op).collect();
            return Err(Error::invalid(format!("unknown operation '{word}'; expected one of: {}", names.join(", "))));
        }
    }
    let named = |info: &&Info| words.is_empty() || words.iter().any(|word| info.op == word || info.stem == word);
    Ok(ALL.iter().filter(named).collect())
}
