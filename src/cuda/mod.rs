//! The CUDA backend: hand-written kernels on an NVIDIA GPU, or on the emulated one.
//!
//! Feature `cuda`. Building needs nvcc and no GPU (`docs/building-kernels.md`); running needs the driver, and nothing else
//! of CUDA. Activations and weights are bf16, everything else f32; the same inputs give the same bits on every run on one
//! kind of GPU.
//!
//! - [`launch`] holds what a launch needs apart from a device: the contract between a kernel and its launcher, the
//!   parameter structs, and the compiled kernels that the program embeds.
//! - [`runtime`] holds the device: driver, streams, memory, host-to-device transfers, CUDA graphs, loaded modules,
//!   timing, and the controls of the emulated driver.
//! - Every other file is the launcher of one kernel family. It has the stem of `src/ops` and `kernels`, and does the same
//!   four things: check, addresses, grid, launch.
//! - [`matmul`] and [`attention`] let the caller choose the kernel configuration, to tune and to test.
//! - [`workspace`] says how much memory operations need besides their operands.
//! - [`ceilings`] launches kernels that are no operations: they measure the highest rates that the GPU reaches.
//!
//! [`Cuda`] is the handle. Operations are enqueued in the order of the calls and return before they have run; reading a
//! tensor waits for them. This example runs on the emulated GPU, on which a race or an access out of bounds is an error:
//!
//! ```
//! use ironwarp::cuda::Cuda;
//! use ironwarp::ops::{Backend, GradNorm};
//! use ironwarp::tensor::Tensor;
//!
//! let gpu = Cuda::emulated()?; // Cuda::new(0) is the first real GPU
//! let grad = Tensor::from_vec(&gpu, [8], vec![3f32, 4.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0])?;
//! let mut norm = Tensor::zeros(&gpu, [1])?;
//! gpu.grad_norm(GradNorm { grad: grad.view(), norm: norm.view_mut() })?;
//! assert_eq!(norm.to_vec(&gpu)?, [5.0]);
//! # Ok::<(), ironwarp::Error>(())
//! ```

pub mod attention;
pub mod ceilings;
pub mod launch;
pub mod matmul;
pub mod runtime;
pub mod workspace;

mod adamw;
mod attention_decode;
mod cross_entropy;
mod embedding;
mod gelu;
mod grad_norm;
mod layernorm;
mod sampling;

pub use launch::device_ptr::DevPtr;
#[cfg(feature = "bench")]
pub(crate) use runtime::Operand;
pub use runtime::{Buffer, Cuda, Event, Graph, SliceMut};

use self::launch::spec::Spec;
use crate::error::Result;
use crate::ops::*;

/// Every kernel that the backend launches.
pub fn kernels() -> impl Iterator<Item = &'static Spec> {
    let families = [
        adamw::KERNELS,
        attention::KERNELS,
        attention_decode::KERNELS,
        ceilings::KERNELS,
        cross_entropy::KERNELS,
        embedding::KERNELS,
        gelu::KERNELS,
        grad_norm::KERNELS,
        layernorm::KERNELS,
        matmul::KERNELS,
        sampling::KERNELS,
    ];
    families.into_iter().flatten()
}

impl Backend for Cuda {
    type Graph = Graph;

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Graph>> {
        self.device().capture(work)
    }

    fn replay(&self, graph: &Graph) -> Result<()> {
        self.device().replay(graph)
    }

    fn workspace_bytes(sizes: StepSizes) -> u64 {
        workspace::training_step(sizes) as u64
    }
    fn embedding_forward(&self, op: EmbeddingForward<'_, Self>) -> Result<()> {
        embedding::forward(self, op)
    }
    fn embedding_backward(&self, op: EmbeddingBackward<'_, Self>) -> Result<()> {
        embedding::backward(self, op)
    }
    fn layernorm_forward(&self, op: LayerNormForward<'_, Self>) -> Result<()> {
        layernorm::forward(self, op)
    }
    fn residual_layernorm_forward(&self, op: ResidualLayerNormForward<'_, Self>) -> Result<()> {
        layernorm::residual_forward(self, op)
    }
    fn layernorm_backward(&self, op: LayerNormBackward<'_, Self>) -> Result<()> {
        layernorm::backward(self, op)
    }
    fn matmul_forward(&self, op: MatmulForward<'_, Self>) -> Result<()> {
        matmul::forward(self, op, None)
    }
    fn matmul_dgrad(&self, op: MatmulDgrad<'_, Self>) -> Result<()> {
        matmul::dgrad(self, op, None)
    }
    fn matmul_wgrad(&self, op: MatmulWgrad<'_, Self>) -> Result<()> {
        matmul::wgrad(self, op, None)
    }
    fn gelu_forward(&self, op: GeluForward<'_, Self>) -> Result<()> {
        gelu::forward(self, op)
    }
    fn attention_forward(&self, op: AttentionForward<'_, Self>) -> Result<()> {
        attention::forward(self, op, None)
    }
    fn attention_backward(&self, op: AttentionBackward<'_, Self>) -> Result<()> {
        attention::backward(self, op, None)
    }
    fn kv_cache_store(&self, op: KvCacheStore<'_, Self>) -> Result<()> {
        attention_decode::store(self, op)
    }
    fn attention_decode(&self, op: AttentionDecode<'_, Self>) -> Result<()> {
        attention_decode::decode(self, op)
    }
    fn cross_entropy_forward(&self, op: CrossEntropyForward<'_, Self>) -> Result<()> {
        cross_entropy::forward(self, op)
    }
    fn cross_entropy_backward(&self, op: CrossEntropyBackward<'_, Self>) -> Result<()> {
        cross_entropy::backward(self, op)
    }
    fn loss_sum(&self, op: LossSum<'_, Self>) -> Result<()> {
        cross_entropy::sum_losses(self, op)
    }
    fn grad_norm(&self, op: GradNorm<'_, Self>) -> Result<()> {
        grad_norm::norm(self, op)
    }
    fn adamw(&self, op: AdamW<'_, Self>) -> Result<()> {
        adamw::update(self, op)
    }
    fn sample(&self, op: Sample<'_, Self>) -> Result<()> {
        sampling::sample(self, op)
    }
}
