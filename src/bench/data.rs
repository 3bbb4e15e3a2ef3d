//! Random operands for measurements: the same numbers on every backend, whatever its types.

use std::sync::OnceLock;

use half::bf16;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use crate::error::Result;
use crate::ops::Backend;
use crate::tensor::{Element, FloatElement, Shape, Tensor};

/// Number of values in the pool that large tensors repeat: a prime, so that no row length divides it.
const POOL: usize = 1_048_573;

/// Standard normal values that bf16 represents exactly.
fn pool() -> &'static [f32] {
    static VALUES: OnceLock<Vec<f32>> = OnceLock::new();
    VALUES.get_or_init(|| {
        let mut random = ChaCha8Rng::seed_from_u64(0);
        let mut value = || -> f32 { StandardNormal.sample(&mut random) };
        (0..POOL).map(|_| bf16::from_f32(value()).to_f32()).collect()
    })
}

/// Creates the operands of a case.
pub struct Data<'a, B> {
    /// The backend that allocates the operands.
    pub backend: &'a B,
    random: ChaCha8Rng,
}

impl<'a, B: Backend> Data<'a, B> {
    /// Operands from the random sequence of a seed.
    pub fn new(backend: &'a B, seed: u64) -> Self {
        Data { backend, random: ChaCha8Rng::seed_from_u64(seed) }
    }

    /// Normal values. The standard deviation must be a power of two, so that bf16 represents the values exactly.
    pub fn normal<E: FloatElement>(&mut self, shape: impl Into<Shape>, deviation: f32) -> Result<Tensor<B, E>> {
        self.mapped(shape, |value| deviation * value)
    }

    /// Positive values around 1.
    pub fn positive<E: FloatElement>(&mut self, shape: impl Into<Shape>) -> Result<Tensor<B, E>> {
        self.mapped(shape, |value| value.abs().mul_add(0.5, 0.5))
    }

    /// The same normal values in two types, as weights and their master copy are.
    pub fn normal_in_both<E: FloatElement, F: FloatElement>(
        &mut self,
        shape: impl Into<Shape>,
        deviation: f32,
    ) -> Result<(Tensor<B, E>, Tensor<B, F>)> {
        let (shape, start) = (shape.into(), self.random.random_range(0..POOL));
        let value = |value| deviation * value;
        Ok((self.pool_slice(start, shape, value)?, self.pool_slice(start, shape, value)?))
    }

    fn mapped<E: FloatElement>(&mut self, shape: impl Into<Shape>, value: impl Fn(f32) -> f32) -> Result<Tensor<B, E>> {
        let start = self.random.random_range(0..POOL);
        self.pool_slice(start, shape, value)
    }

    /// `value` applied to the pool's values from index `start` on.
    fn pool_slice<E: FloatElement>(
        &self,
        start: usize,
        shape: impl Into<Shape>,
        value: impl Fn(f32) -> f32,
    ) -> Result<Tensor<B, E>> {
        let values = pool()[start..].iter().chain(&pool()[..start]);
        self.repeat(shape, values.map(|&x| E::from_f32(bf16::from_f32(value(x)).to_f32())))
    }

    /// Token ids in `0..below`.
    pub fn ids(&mut self, shape: impl Into<Shape>, below: usize) -> Result<Tensor<B, i32>> {
        let shape = shape.into();
        let ids: Vec<i32> =
            (0..shape.len().min(POOL)).map(|_| self.random.random_range(0..below.max(1)) as i32).collect();
        self.repeat(shape, ids.into_iter())
    }

    /// Zeros, for outputs.
    pub fn zeros<E: Element>(&self, shape: impl Into<Shape>) -> Result<Tensor<B, E>> {
        Tensor::zeros(self.backend, shape)
    }

    /// A tensor that repeats `values`, uploaded in blocks, so that host memory holds at most one pool.
    fn repeat<E: Element>(&self, shape: impl Into<Shape>, values: impl Iterator<Item = E>) -> Result<Tensor<B, E>> {
        let shape = shape.into();
        let block: Vec<E> = values.take(shape.len()).collect();
        let mut tensor = self.zeros(shape)?;
        for start in (0..shape.len()).step_by(block.len().max(1)) {
            let len = block.len().min(shape.len() - start);
            self.backend.upload(&block[..len], tensor.view_mut().into_part(start, [len]))?;
        }
        Ok(tensor)
    }
}
