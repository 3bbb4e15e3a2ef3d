//! The reference backend: every operation in plain Rust on host memory, in f32 or f64.
//!
//! Written to be read. Matrix products go to the `matrixmultiply` crate; everything else is loops over slices, rows spread
//! over threads by rayon. Each output element is computed by one thread in a fixed order, so results have the same bits
//! for any number of threads.

mod adamw;
mod attention;
mod attention_decode;
mod cross_entropy;
mod embedding;
mod gelu;
mod gemm;
mod grad_norm;
mod layernorm;
mod matmul;
mod real;
mod sampling;

use std::convert::Infallible;
use std::marker::PhantomData;

pub use real::Real;

use crate::error::{Error, Result};
use crate::ops::*;
use crate::tensor::{Element, Storage, View, ViewMut};

/// The host CPU, computing in `R` throughout: `Cpu<f64>` is the oracle, `Cpu<f32>` what runs where there is no GPU.
#[derive(Debug, Clone, Copy, Default)]
pub struct Cpu<R: Real> {
    real: PhantomData<R>,
}

impl<R: Real> Cpu<R> {
    /// The host CPU.
    pub fn new() -> Self {
        Cpu { real: PhantomData }
    }
}

impl<R: Real> Storage for Cpu<R> {
    type Compute = R;
    type Accum = R;
    const VECTOR: usize = 1;
    type Buffer<E: Element> = Vec<E>;
    type SliceMut<'a, E: Element> = &'a mut [E];

    fn zeros<E: Element>(&self, len: usize) -> Result<Vec<E>> {
        // Not `vec![0; len]`, which aborts the process when there is no memory.
        bytemuck::allocation::try_zeroed_vec(len).map_err(|()| {
            let bytes = len.saturating_mul(size_of::<E>());
            Error::Unavailable(format!("out of host memory: {len} × {} = {bytes} bytes were asked for", E::NAME))
        })
    }

    fn adopt<E: Element>(&self, data: Vec<E>) -> Result<Vec<E>> {
        Ok(data)
    }

    fn slice_mut<E: Element>(buffer: &mut Vec<E>) -> &mut [E] {
        buffer
    }

    fn split_at_mut<'a, E: Element>(
        slice: Self::SliceMut<'a, E>,
        mid: usize,
    ) -> (Self::SliceMut<'a, E>, Self::SliceMut<'a, E>) {
        slice.split_at_mut(mid)
    }

    fn reborrow<'b, E: Element>(slice: &'b mut &mut [E]) -> &'b mut [E] {
        slice
    }

    fn upload<E: Element>(&self, src: &[E], dst: ViewMut<'_, Self, E>) -> Result<()> {
        dst.into_slice().copy_from_slice(src);
        Ok(())
    }

    /// Everything has been done when a call returns.
    type Mark = ();

    fn mark(&self) -> Result<()> {
        Ok(())
    }

    fn upload_after<E: Element>(&self, (): &(), src: &[E], dst: ViewMut<'_, Self, E>) -> Result<()> {
        self.upload(src, dst)
    }

    fn wait_for(&self, (): &()) -> Result<()> {
        Ok(())
    }

    fn download<E: Element>(&self, src: View<'_, Self, E>, dst: &mut [E]) -> Result<()> {
        dst.copy_from_slice(src.as_slice());
        Ok(())
    }
}

impl<'a, R: Real, E: Element> View<'a, Cpu<R>, E> {
    /// The elements.
    pub fn as_slice(&self) -> &'a [E] {
        &self.buffer()[self.offset()..][..self.shape().len()]
    }
}

impl<R: Real> Backend for Cpu<R> {
    type Recording = Infallible;

    fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Infallible>> {
        work().map(|()| None)
    }

    fn replay(&self, recording: &Infallible) -> Result<()> {
        match *recording {}
    }

    fn embedding_forward(&self, op: EmbeddingForward<'_, Self>) -> Result<()> {
        embedding::forward(op)
    }
    fn embedding_backward(&self, op: EmbeddingBackward<'_, Self>) -> Result<()> {
        embedding::backward(op)
    }
    fn layernorm_forward(&self, op: LayerNormForward<'_, Self>) -> Result<()> {
        layernorm::forward(op)
    }
    fn residual_layernorm_forward(&self, op: ResidualLayerNormForward<'_, Self>) -> Result<()> {
        layernorm::residual_forward(op)
    }
    fn layernorm_backward(&self, op: LayerNormBackward<'_, Self>) -> Result<()> {
        layernorm::backward(op)
    }
    fn matmul_forward(&self, op: MatmulForward<'_, Self>) -> Result<()> {
        matmul::forward(op)
    }
    fn matmul_dgrad(&self, op: MatmulDgrad<'_, Self>) -> Result<()> {
        matmul::dgrad(op)
    }
    fn matmul_wgrad(&self, op: MatmulWgrad<'_, Self>) -> Result<()> {
        matmul::wgrad(op)
    }
    fn gelu_forward(&self, op: GeluForward<'_, Self>) -> Result<()> {
        gelu::forward(op)
    }
    fn attention_forward(&self, op: AttentionForward<'_, Self>) -> Result<()> {
        attention::forward(op)
    }
    fn attention_backward(&self, op: AttentionBackward<'_, Self>) -> Result<()> {
        attention::backward(op)
    }
    fn kv_cache_store(&self, op: KvCacheStore<'_, Self>) -> Result<()> {
        attention_decode::store(op)
    }
    fn attention_decode(&self, op: AttentionDecode<'_, Self>) -> Result<()> {
        attention_decode::decode(op)
    }
    fn cross_entropy_forward(&self, op: CrossEntropyForward<'_, Self>) -> Result<()> {
        cross_entropy::forward(op)
    }
    fn cross_entropy_backward(&self, op: CrossEntropyBackward<'_, Self>) -> Result<()> {
        cross_entropy::backward(op)
    }
    fn loss_sum(&self, op: LossSum<'_, Self>) -> Result<()> {
        cross_entropy::sum_losses(op)
    }
    fn grad_norm(&self, op: GradNorm<'_, Self>) -> Result<()> {
        grad_norm::norm(op)
    }
    fn adamw(&self, op: AdamW<'_, Self>) -> Result<()> {
        adamw::update(op)
    }
    fn sample(&self, op: Sample<'_, Self>) -> Result<()> {
        sampling::sample(op)
    }
}
