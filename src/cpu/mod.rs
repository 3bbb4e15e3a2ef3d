//! The reference backend: every operation in plain Rust on host memory, in f32 or f64.
//!
//! The code is written for readability. Matrix products use the `matrixmultiply` crate; everything else is loops over
//! slices, parallelised over rows by rayon. One thread computes each output element in a fixed order, so results have the
//! same bits for any number of threads. The loops are compiled for several levels of vector instructions, with the same
//! bits.
//!
//! A program that calls many small operations should call them inside `rayon::scope` or [`rayon::ThreadPool::install`]: a
//! thread outside the pool hands every loop over to it and waits, which takes longer than a small loop.
//!
//! ```
//! use ironwarp::cpu::Cpu;
//! use ironwarp::ops::{Backend, GeluForward};
//! use ironwarp::tensor::Tensor;
//!
//! let cpu = Cpu::<f64>::new();
//! let x = Tensor::from_vec(&cpu, [1, 3], vec![-1.0, 0.0, 1.0])?;
//! let mut out = Tensor::zeros(&cpu, [1, 3])?;
//! cpu.gelu_forward(GeluForward { x: x.view(), out: out.view_mut() })?;
//! let gelu = out.to_vec(&cpu)?;
//! assert!((gelu[2] - 0.8411919906).abs() < 1e-9);
//! assert!((gelu[2] - gelu[0] - 1.0).abs() < 1e-9); // gelu(x) - gelu(-x) = x
//! # Ok::<(), ironwarp::Error>(())
//! ```

mod adamw;
mod attention;
mod attention_decode;
mod cross_entropy;
mod embedding;
mod gelu;
mod gemm;
mod grad_norm;
mod host;
mod layernorm;
mod matmul;
mod real;
mod sampling;
mod simd;

use std::convert::Infallible;
use std::marker::PhantomData;

pub use host::HostStorage;
pub use real::Real;

use crate::error::Result;
use crate::ops::*;

/// The host CPU, computing in `R` throughout. `Cpu<f64>` is the oracle of the tests; `Cpu<f32>` runs on machines without a
/// GPU.
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

impl<R: Real> HostStorage for Cpu<R> {
    type Compute = R;
    type Accum = R;
    const VECTOR: usize = 1;
}

impl<R: Real> Backend for Cpu<R> {
    type Graph = Infallible;

    fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Infallible>> {
        work().map(|()| None)
    }

    fn replay(&self, graph: &Infallible) -> Result<()> {
        match *graph {}
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
