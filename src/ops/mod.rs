//! The list of operations.
//!
//! Every operation is defined here once: a struct with named operands, its formula and shapes, one [`Operation::check`]
//! that every backend calls first, and its [`Floor`], the bytes and FLOPs that no implementation can go below. [`Backend`]
//! has one method per operation, so a backend that lacks an operation does not compile.
//!
//! Conventions: row-major; `B` batch, `T` sequence, `C` channels, `NH` heads, `HS = C/NH`, `L` layers, `V` vocabulary,
//! `Vp` padded vocabulary, `N = B·T` rows. Weights are (out, in). A leading `d` marks a gradient. A shape (N, C) accepts
//! any tensor whose last axis is C and whose other axes have the product N. `=` overwrites, `+=` accumulates, and `(+)=`
//! does either, depending on the [`Write`] mode.
//!
//! ```
//! use ironwarp::cpu::Cpu;
//! use ironwarp::ops::{GradNorm, Operation};
//! use ironwarp::tensor::Tensor;
//!
//! let cpu = Cpu::<f32>::new();
//! let grad = Tensor::from_vec(&cpu, [4], vec![3.0, 4.0, 0.0, 0.0])?;
//! let mut norm = Tensor::zeros(&cpu, [1])?;
//! let op = GradNorm { grad: grad.view(), norm: norm.view_mut() };
//! op.check()?;
//! // Four f32 are read and one is written.
//! assert_eq!(op.floor().bytes, 20);
//! # Ok::<(), ironwarp::Error>(())
//! ```

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
mod operation;
pub mod philox;
mod qkv;
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
pub use operation::{Accum, AccumMut, Compute, ComputeMut, Floor, Ids, IdsMut, LAYERNORM_EPS, Operation, Write};
pub use qkv::{HeadStrides, Heads, HeadsLayout, HeadsMut, Qkv, QkvMut};
pub use sampling::{Sample, SampleDims};

use crate::error::Result;
use crate::tensor::Storage;

/// Sizes of a training step's operations.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StepSizes {
    /// B: sequences in a micro-batch.
    pub b: usize,
    /// T: tokens per sequence.
    pub t: usize,
    /// NH: attention heads.
    pub nh: usize,
    /// C: channels.
    pub c: usize,
    /// Vp: padded vocabulary size.
    pub vp: usize,
    /// Number of parameters, including the padding rows of the vocabulary.
    pub parameters: usize,
}

/// A device that runs every operation of the list.
///
/// Each method calls [`Operation::check`] before it accesses memory. Results are deterministic: the same inputs give the
/// same bits, however the work is distributed over threads or thread blocks.
pub trait Backend: Storage {
    /// A captured sequence of operations that can be enqueued again with one call: a CUDA graph.
    type Graph: Send;

    /// Runs `work`, which must consist of operations on existing tensors only. If the device can enqueue them again at a
    /// lower cost than one by one, this also captures them for [`Backend::replay`]. `work` may be called twice before any
    /// of its operations has run.
    ///
    /// # Errors
    /// The errors of `work`, and an error if `work` does anything that cannot be captured.
    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Self::Graph>>;

    /// Enqueues captured operations again, on the same tensors and with the same scalars.
    ///
    /// # Errors
    /// If the device is lost.
    fn replay(&self, graph: &Self::Graph) -> Result<()>;

    /// Bytes of workspace that the operations of a training step need in addition to their operands. The operations share
    /// one workspace.
    fn workspace_bytes(_: StepSizes) -> u64 {
        0
    }

    /// See [`EmbeddingForward`].
    ///
    /// # Errors
    /// A failed check, or an id outside the table if the backend can detect it.
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
    /// A failed check, or a target outside the vocabulary if the backend can detect it.
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
