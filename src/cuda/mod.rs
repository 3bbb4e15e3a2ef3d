//! The CUDA backend: hand-written kernels on an NVIDIA GPU, or on the emulated one.
//!
//! Feature `cuda`. Building needs nvcc and no GPU (`docs/building-kernels.md`); running needs the driver, and nothing else
//! of CUDA. Activations and weights are bf16, everything else f32; the same inputs give the same bits on every run on one
//! kind of GPU.
//!
//! - [`driver`] finds the driver or loads the emulated one; [`device`] has the context, the stream and the one launch;
//!   `memory` the buffers, `modules` the loaded kernels.
//! - [`images`] are the compiled kernels, [`params`] what a launch passes to them, [`spec`] what both sides agree on.
//! - [`timing`] takes times on a GPU, [`emulation`] counts on the emulated one.
//! - The launchers have the stems of `src/ops` and `kernels`: check, addresses, grid, launch.
//! - [`matmul`] and [`attention`] let their caller choose how work is cut, to tune and to test.
//! - [`ceilings`] launches what is no operation: kernels that measure what the GPU can do at most.

pub mod attention;
pub mod ceilings;
pub mod device;
pub mod driver;
pub mod emulation;
pub mod images;
pub mod matmul;
#[rustfmt::skip] // As bindgen writes it.
pub mod params;
pub mod spec;
pub mod timing;

mod adamw;
mod attention_decode;
mod cross_entropy;
mod embedding;
mod fault;
mod gelu;
mod grad_norm;
mod layernorm;
mod memory;
mod modules;
mod recording;
mod sampling;
mod staging;

use std::sync::Arc;

use cudarc::driver::CudaContext;
pub(crate) use memory::Operand;
pub use memory::{Buffer, SliceMut};
pub use recording::Recording;
pub use staging::Mark;

use self::device::Device;
use self::spec::Spec;
use crate::error::{Error, Result};
use crate::ops::*;

/// An NVIDIA GPU of compute capability 8.0 or newer, or the emulated one. Clones are the same device.
#[derive(Clone)]
pub struct Cuda {
    device: Arc<Device>,
}

impl Cuda {
    /// GPU `ordinal` of the CUDA driver.
    ///
    /// # Errors
    /// [`Error::Unavailable`], one line that says what was found and what is needed.
    pub fn new(ordinal: usize) -> Result<Self> {
        Ok(Cuda { device: Arc::new(Device::open(ordinal)?) })
    }

    /// The emulated GPU. The first CUDA function that a process calls decides which driver it has: this must be it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no emulator, or a real driver was used before.
    pub fn emulated() -> Result<Self> {
        driver::emulate(&driver::find_emulator()?)?;
        let cuda = Self::new(0)?;
        if !cuda.device.properties().is_emulated() {
            return Err(Error::Unavailable(format!(
                "no emulated GPU: this process has used {} before",
                cuda.device.properties().name
            )));
        }
        Ok(cuda)
    }

    /// In a context of the caller's.
    ///
    /// # Errors
    /// As [`Cuda::new`].
    pub fn with_context(context: &Arc<CudaContext>) -> Result<Self> {
        Ok(Cuda { device: Arc::new(Device::with_context(context)?) })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }
}

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
    type Recording = Recording;

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Recording>> {
        self.device().record(work)
    }

    fn replay(&self, recording: &Recording) -> Result<()> {
        self.device().replay(recording)
    }

    fn scratch(sizes: StepSizes) -> u64 {
        let StepSizes { b, t, nh, c, vp, parameters } = sizes;
        let n = b * t;
        let products = [(c, 3 * c), (c, c), (c, 4 * c), (4 * c, c), (c, vp)];
        let wgrads = products.map(|(c, oc)| matmul::wgrad_scratch(MatmulDims { n, c, oc }));
        let others = [
            layernorm::backward_scratch(RowDims { n, c }),
            embedding::backward_scratch(n, c, vp),
            attention::backward_scratch(AttentionDims { b, t, nh, hs: c / nh }),
            grad_norm::scratch(parameters),
        ];
        wgrads.into_iter().chain(others).fold(0, usize::max) as u64
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
