//! The gradient norm's call on any backend.

use ironwarp::ops::GradNorm;

use super::{Device, Input, Output};

/// The norm of `grad`.
pub fn norm<B: Device>(backend: &B, grad: &[f64]) -> f64 {
    let grad = Input::<B, B::Accum>::to_buffer_end(backend, [grad.len()], grad);
    let mut norm = Output::<B, B::Accum>::new(backend, [1]);
    backend.grad_norm(GradNorm { grad: grad.view(), norm: norm.view() }).unwrap();
    norm.read(backend)[0]
}
