//! The list of operations.
//!
//! Every operation stands here once: a struct with named fields, its formula and shapes, one [`Operation::check`] that
//! every backend calls first, and the [`Floor`] of bytes and FLOPs below which no implementation can go. [`Backend`]
//! has one method an operation, so a backend that lacks one does not compile.
//!
//! Conventions: row-major; `B` batch, `T` sequence, `C` channels, `NH` heads, `HS = C/NH`, `L` layers, `V` vocabulary,
//! `Vp` padded vocabulary, `N = B·T` rows. Weights are (out, in). A leading `d` is a gradient. Where a shape reads
//! (N, C), any tensor whose last axis is C and whose other axes make N is taken. `=` overwrites, `+=` accumulates.

mod adamw;
mod attention;
mod attention_decode;
mod check;
mod cross_entropy;
mod embedding;
mod gelu;
mod grad_norm;
mod layernorm;
mod matmul;
pub mod philox;
mod sampling;

pub(crate) use adamw::needs_master;
pub use adamw::{AdamW, AdamWSettings, UpdateGuard};
pub use attention::{AttentionBackward, AttentionDims, AttentionForward};
pub use attention_decode::{AttentionDecode, CacheDims, KvCacheStore};
pub use cross_entropy::{CrossEntropyBackward, CrossEntropyForward, LossDims, LossSum};
pub use embedding::{EmbeddingBackward, EmbeddingDims, EmbeddingForward};
pub use gelu::GeluForward;
pub use grad_norm::GradNorm;
pub use layernorm::{LayerNormBackward, LayerNormForward, ResidualLayerNormForward, RowDims};
pub use matmul::{DgradEpilogue, Epilogue, MatmulDgrad, MatmulDims, MatmulForward, MatmulWgrad};
pub use sampling::{Sample, SampleDims};

use crate::error::Result;
use crate::tensor::{Storage, View, ViewMut};

/// Activations or weights, to read.
pub type Compute<'a, S> = View<'a, S, <S as Storage>::Compute>;
/// Activations or weights, to write.
pub type ComputeMut<'a, S> = ViewMut<'a, S, <S as Storage>::Compute>;
/// Statistics, weight gradients or optimizer state, to read.
pub type Accum<'a, S> = View<'a, S, <S as Storage>::Accum>;
/// Statistics, weight gradients or optimizer state, to write.
pub type AccumMut<'a, S> = ViewMut<'a, S, <S as Storage>::Accum>;
/// Token ids, to read.
pub type Ids<'a, S> = View<'a, S, i32>;
/// Token ids, to write.
pub type IdsMut<'a, S> = ViewMut<'a, S, i32>;

/// ε of layernorm, as GPT-2 has it.
pub const LAYERNORM_EPS: f64 = 1e-5;

/// Whether an output replaces what was there or is added to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Write {
    /// `=`: what was there is not read.
    Overwrite,
    /// `+=`.
    Accumulate,
}

impl Write {
    /// Memory accesses that an output element takes at least.
    fn accesses(self) -> usize {
        match self {
            Write::Overwrite => 1,
            Write::Accumulate => 2,
        }
    }
}

/// The least that an operation must do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Floor {
    /// Bytes to and from memory when every input is read once and every output written once.
    pub bytes: u64,
    /// Floating-point operations, a multiply-add counted as two. Zero where memory alone is the limit.
    pub flops: u64,
}

/// Sizes of a training step's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSizes {
    /// B of a micro-batch.
    pub b: usize,
    /// T.
    pub t: usize,
    /// NH.
    pub nh: usize,
    /// C.
    pub c: usize,
    /// Vp.
    pub vp: usize,
    /// All parameters, padding included.
    pub parameters: usize,
}

/// An operation with its operands.
pub trait Operation {
    /// Name in messages, tables and benchmarks; also the stem of its kernels' names.
    const NAME: &'static str;
    /// The sizes that the operands agree on.
    type Dims;

    /// Reads the sizes off the operands and holds them against the operation's rules.
    ///
    /// # Errors
    /// [`crate::Error::Precondition`] with the first rule that fails and the numbers that break it.
    fn check(&self) -> Result<Self::Dims>;

    /// Fewest bytes and FLOPs for these operands.
    fn floor(&self) -> Floor;
}

/// A device that runs every operation of the list.
///
/// Each method calls [`Operation::check`] before it touches memory. Results are deterministic: the same inputs give the
/// same bits, however the work was spread.
pub trait Backend: Storage {
    /// Operations that can be queued again at once.
    type Recording: Send;

    /// Does `work`, which must be nothing but operations on tensors that exist already; and where the device can queue
    /// them again at less cost than one by one, keeps them for [`Backend::replay`]. It may have to do `work` twice before
    /// anything of it has run.
    ///
    /// # Errors
    /// Those of `work`, and where it is something else.
    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self::Recording>>;

    /// Queues recorded operations again, on the same tensors and with the same numbers.
    ///
    /// # Errors
    /// When the device is lost.
    fn replay(&self, recording: &Self::Recording) -> Result<()>;

    /// Bytes that the operations of a training step need beside their operands, all of them taking turns with it.
    fn scratch(_: StepSizes) -> u64 {
        0
    }

    /// See [`EmbeddingForward`].
    ///
    /// # Errors
    /// A failed check, or an id outside of the table where the backend can see it.
    fn embedding_forward(&self, op: EmbeddingForward<'_, Self>) -> Result<()>;
    /// See [`EmbeddingBackward`].
    ///
    /// # Errors
    /// As [`Backend::embedding_forward`].
    fn embedding_backward(&self, op: EmbeddingBackward<'_, Self>) -> Result<()>;
    /// See [`LayerNormForward`].
    ///
    /// # Errors
    /// A failed check.
    fn layernorm_forward(&self, op: LayerNormForward<'_, Self>) -> Result<()>;
    /// See [`ResidualLayerNormForward`].
    ///
    /// # Errors
    /// A failed check.
    fn residual_layernorm_forward(&self, op: ResidualLayerNormForward<'_, Self>) -> Result<()>;
    /// See [`LayerNormBackward`].
    ///
    /// # Errors
    /// A failed check.
    fn layernorm_backward(&self, op: LayerNormBackward<'_, Self>) -> Result<()>;
    /// See [`MatmulForward`].
    ///
    /// # Errors
    /// A failed check.
    fn matmul_forward(&self, op: MatmulForward<'_, Self>) -> Result<()>;
    /// See [`MatmulDgrad`].
    ///
    /// # Errors
    /// A failed check.
    fn matmul_dgrad(&self, op: MatmulDgrad<'_, Self>) -> Result<()>;
    /// See [`MatmulWgrad`].
    ///
    /// # Errors
    /// A failed check.
    fn matmul_wgrad(&self, op: MatmulWgrad<'_, Self>) -> Result<()>;
    /// See [`GeluForward`].
    ///
    /// # Errors
    /// A failed check.
    fn gelu_forward(&self, op: GeluForward<'_, Self>) -> Result<()>;
    /// See [`AttentionForward`].
    ///
    /// # Errors
    /// A failed check.
    fn attention_forward(&self, op: AttentionForward<'_, Self>) -> Result<()>;
    /// See [`AttentionBackward`].
    ///
    /// # Errors
    /// A failed check.
    fn attention_backward(&self, op: AttentionBackward<'_, Self>) -> Result<()>;
    /// See [`KvCacheStore`].
    ///
    /// # Errors
    /// A failed check.
    fn kv_cache_store(&self, op: KvCacheStore<'_, Self>) -> Result<()>;
    /// See [`AttentionDecode`].
    ///
    /// # Errors
    /// A failed check.
    fn attention_decode(&self, op: AttentionDecode<'_, Self>) -> Result<()>;
    /// See [`CrossEntropyForward`].
    ///
    /// # Errors
    /// A failed check, or a target outside of the vocabulary where the backend can see it.
    fn cross_entropy_forward(&self, op: CrossEntropyForward<'_, Self>) -> Result<()>;
    /// See [`CrossEntropyBackward`].
    ///
    /// # Errors
    /// As [`Backend::cross_entropy_forward`].
    fn cross_entropy_backward(&self, op: CrossEntropyBackward<'_, Self>) -> Result<()>;
    /// See [`LossSum`].
    ///
    /// # Errors
    /// A failed check.
    fn loss_sum(&self, op: LossSum<'_, Self>) -> Result<()>;
    /// See [`GradNorm`].
    ///
    /// # Errors
    /// A failed check.
    fn grad_norm(&self, op: GradNorm<'_, Self>) -> Result<()>;
    /// See [`AdamW`].
    ///
    /// # Errors
    /// A failed check.
    fn adamw(&self, op: AdamW<'_, Self>) -> Result<()>;
    /// See [`Sample`].
    ///
    /// # Errors
    /// A failed check.
    fn sample(&self, op: Sample<'_, Self>) -> Result<()>;
}
