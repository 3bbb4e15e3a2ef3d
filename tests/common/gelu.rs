//! GELU's call on any backend.

use ironwarp::ops::GeluForward;
use ironwarp::tensor::Shape;

use super::{Device, Input, Output};

/// `gelu(x)`.
pub fn forward<B: Device>(backend: &B, shape: impl Into<Shape>, x: &[f64]) -> Vec<f64> {
    let shape = shape.into();
    let x: Input<B, B::Compute> = Input::new(backend, shape, x);
    let mut out = Output::new(backend, shape);
    backend.gelu_forward(GeluForward { x: x.view(), out: out.view() }).unwrap();
    out.read(backend)
}
