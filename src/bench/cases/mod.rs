//! Every operation as a case: its operands, the shapes that GPT-2 has of it, and what it computes; and the whole step.
//!
//! A file a stem of `src/ops`. The list at the end of this file is the one place to add a case to: benchmarks, criterion's
//! groups, profiles and their checks go over it.

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
type Form = (Vec<usize>, &'static str);

/// What is known of a case without its operands.
pub struct Info {
    /// [`crate::ops::Operation::NAME`], or `training_step`.
    pub op: &'static str,
    /// The file of `src/ops`, and of the kernels.
    pub stem: &'static str,
    /// Names of the sizes.
    pub sizes: &'static [&'static str],
    /// Forms of the operation; empty where there is one.
    pub variants: &'static [&'static str],
    /// What limits it at GPT-2's sizes.
    pub bound: Bound,
    /// The problems of a training step.
    pub(super) training: fn(&Workload) -> Vec<Form>,
    /// Problems small enough for the emulator, that show what a kernel does: sizes of GPT-2 where the kernel depends on
    /// them, few rows where it does not.
    pub(super) small: &'static [(&'static [usize], &'static str)],
    /// Sizes that the reference is not asked for more of. What a kernel does must not depend on them.
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

/// What an operation has computed.
pub struct Output {
    /// Its name among the operands.
    pub name: &'static str,
    /// What it holds.
    pub values: Vec<f32>,
    /// How exact it can be.
    pub precision: Precision,
}

/// The type of an [`Output`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Precision {
    /// Rounded to bf16.
    Half,
    /// Computed in f32.
    Single,
    /// Exact: ids.
    Exact,
}

/// Reads outputs.
pub(super) struct Outputs<'a, B> {
    backend: &'a B,
    list: Vec<Output>,
}

impl<B: Backend> Outputs<'_, B> {
    fn float<E: FloatElement>(mut self, name: &'static str, tensor: &Tensor<B, E>) -> Result<Self> {
        let values = tensor.to_vec(self.backend)?.into_iter().map(E::to_f32).collect();
        let precision = if E::BYTES == 2 { Precision::Half } else { Precision::Single };
        self.list.push(Output { name, values, precision });
        Ok(self)
    }

    fn ids(mut self, name: &'static str, tensor: &Tensor<B, i32>) -> Result<Self> {
        // Ids are below 2^24, which f32 holds.
        let values = tensor.to_vec(self.backend)?.into_iter().map(|id| id as f32).collect();
        self.list.push(Output { name, values, precision: Precision::Exact });
        Ok(self)
    }
}

/// An operation with its operands on a backend.
pub(super) trait Case<B: Backend>: Sized {
    /// Without the stem, which the list at the end adds.
    const INFO: Info;

    /// Operands for a problem of this operation.
    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self>;
    fn floor(&mut self) -> Floor;
    fn run(&mut self, backend: &B) -> Result<()>;
    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>>;
}

/// [`Case::floor`] and [`Case::run`] through the method `op` of the case, which borrows the operands.
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
    /// Fewest bytes and FLOPs.
    fn floor(&mut self) -> Floor;

    /// Runs it; may return before it has ended. Runs again as well: what it updates in place goes on from there.
    ///
    /// # Errors
    /// As the operation.
    fn run(&mut self, backend: &B) -> Result<()>;

    /// What it has computed.
    ///
    /// # Errors
    /// As a download.
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

        /// Operands for a problem, the same numbers on every backend for the same seed.
        ///
        /// # Errors
        /// When the memory cannot be had.
        pub fn prepare<B: Backend + Clone + 'static>(backend: &B, problem: &Problem, seed: u64) -> Result<Box<dyn Prepared<B>>> {
            let mut data = Data::new(backend, seed);
            $(if problem.op == <$stem::$case<B> as Case<B>>::INFO.op {
                return Ok(Box::new(<$stem::$case<B> as Case<B>>::new(&mut data, problem)?));
            })*
            Err(Error::invalid(format!("no operation is named '{}'", problem.op)))
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

/// The cases that the words name, each an operation or a stem; all without a word.
///
/// # Errors
/// [`Error::Invalid`] for a word that names none.
pub fn select(words: &[String]) -> Result<Vec<&'static Info>> {
    for word in words {
        if !ALL.iter().any(|info| info.op == word || info.stem == word) {
            let names: Vec<&str> = ALL.iter().map(|info| info.op).collect();
            return Err(Error::invalid(format!("no operation is named '{word}'; there are {}", names.join(", "))));
        }
    }
    let named = |info: &&Info| words.is_empty() || words.iter().any(|word| info.op == word || info.stem == word);
    Ok(ALL.iter().filter(named).collect())
}
