//! LayerNorm: host values of its inputs, and calls of the three operations on any backend.

use half::bf16;
use ironwarp::ops::{LayerNormBackward, LayerNormForward, ResidualLayerNormForward, Write};

use super::{Device, Draws, Input, Output, rounded};

/// Inputs of all three operations.
#[derive(Clone)]
pub struct Inputs {
    pub n: usize,
    pub c: usize,
    /// (N, C)
    pub x: Vec<f64>,
    /// (N, C)
    pub residual: Vec<f64>,
    /// (C)
    pub weight: Vec<f64>,
    /// (C)
    pub bias: Vec<f64>,
    /// (N, C)
    pub dout: Vec<f64>,
    /// (N), for the backward: empty until the test sets it.
    pub mean: Vec<f64>,
    /// (N), for the backward: empty until the test sets it.
    pub rstd: Vec<f64>,
}

/// `out`, `mean` and `rstd`.
pub type Normalised = [Vec<f64>; 3];

impl Inputs {
    /// Random values in [-1, 1), exact in f32.
    pub fn new(n: usize, c: usize) -> Self {
        let mut draws = Draws::new(1);
        let [x, residual, dout] = [(); 3].map(|()| draws.numbers(n * c));
        let [weight, bias] = [(); 2].map(|()| draws.numbers(c));
        Inputs { n, c, x, residual, weight, bias, dout, mean: vec![], rstd: vec![] }
    }

    /// Calls `layernorm_forward`.
    pub fn forward<B: Device>(&self, backend: &B) -> Normalised {
        let Inputs { n, c, .. } = *self;
        let x = Input::<B, B::Compute>::to_buffer_end(backend, [n, c], &self.x);
        let [weight, bias] = [&self.weight, &self.bias].map(|v| Input::<B, B::Compute>::to_buffer_end(backend, [c], v));
        let mut out = Output::new(backend, [n, c]);
        let [mut mean, mut rstd] = [(); 2].map(|()| Output::new(backend, [n]));
        let (x, weight, bias) = (x.view(), weight.view(), bias.view());
        let op = LayerNormForward { x, weight, bias, out: out.view(), mean: mean.view(), rstd: rstd.view() };
        backend.layernorm_forward(op).unwrap();
        [out.read(backend), mean.read(backend), rstd.read(backend)]
    }

    /// Calls `residual_layernorm_forward`: `sum`, and what LayerNorm makes of it.
    pub fn residual_forward<B: Device>(&self, backend: &B) -> (Vec<f64>, Normalised) {
        let Inputs { n, c, .. } = *self;
        let [x, residual] =
            [&self.x, &self.residual].map(|v| Input::<B, B::Compute>::to_buffer_end(backend, [n, c], v));
        let [weight, bias] = [&self.weight, &self.bias].map(|v| Input::<B, B::Compute>::to_buffer_end(backend, [c], v));
        let [mut sum, mut out] = [(); 2].map(|()| Output::new(backend, [n, c]));
        let [mut mean, mut rstd] = [(); 2].map(|()| Output::new(backend, [n]));
        let op = ResidualLayerNormForward {
            x: x.view(),
            residual: residual.view(),
            weight: weight.view(),
            bias: bias.view(),
            sum: sum.view(),
            out: out.view(),
            mean: mean.view(),
            rstd: rstd.view(),
        };
        backend.residual_layernorm_forward(op).unwrap();
        (sum.read(backend), [out.read(backend), mean.read(backend), rstd.read(backend)])
    }

    /// Calls `layernorm_backward` with the statistics in `mean` and `rstd`. Accumulated gradients start nonzero.
    pub fn backward<B: Device>(&self, backend: &B, dx_write: Write, write: Write) -> Gradients<B> {
        let Inputs { n, c, .. } = *self;
        let [dout, x] = [&self.dout, &self.x].map(|v| Input::<B, B::Compute>::to_buffer_end(backend, [n, c], v));
        let weight = Input::<B, B::Compute>::to_buffer_end(backend, [c], &self.weight);
        let [mean, rstd] = [&self.mean, &self.rstd].map(|v| Input::<B, B::Accum>::to_buffer_end(backend, [n], v));
        let mut dx = match dx_write {
            Write::Overwrite => Output::new(backend, [n, c]),
            // Rounded to bf16, so that every backend starts from the same values.
            Write::Accumulate => Output::with(backend, [n, c], &rounded::<bf16>(Draws::new(7).numbers(n * c))),
        };
        let [mut dweight, mut dbias] = [(); 2].map(|()| Output::to(backend, [c], write));
        let op = LayerNormBackward {
            dout: dout.view(),
            x: x.view(),
            weight: weight.view(),
            mean: mean.view(),
            rstd: rstd.view(),
            dx: dx.view(),
            dx_write,
            dweight: dweight.view(),
            dbias: dbias.view(),
            write,
        };
        backend.layernorm_backward(op).unwrap();
        Gradients { dx, dweight, dbias }
    }
}

/// What `layernorm_backward` writes.
pub struct Gradients<B: Device> {
    dx: Output<B, B::Compute>,
    dweight: Output<B, B::Accum>,
    dbias: Output<B, B::Accum>,
}

impl<B: Device> Gradients<B> {
    /// `dx`, `dweight` and `dbias`.
    pub fn read(&self, backend: &B) -> [Vec<f64>; 3] {
        [self.dx.read(backend), self.dweight.read(backend), self.dbias.read(backend)]
    }

    /// The contents before the operation, in the same order.
    pub fn before(&self) -> [&[f64]; 3] {
        [&self.dx.before, &self.dweight.before, &self.dbias.before]
    }
}
