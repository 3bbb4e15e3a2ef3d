//! Embedding: its sizes and ids, and calls of the forward and the backward on any backend.

use ironwarp::ops::{EmbeddingBackward, EmbeddingForward, Write};

use super::{Device, Input, Output, ids};

/// Sizes, and the ids of all B·T tokens.
#[derive(Clone)]
pub struct Case {
    /// Why the case is tested.
    pub why: &'static str,
    pub b: usize,
    pub t: usize,
    pub c: usize,
    pub vp: usize,
    pub max_t: usize,
    /// Position of each sequence's first token.
    pub position: usize,
    /// (B, T)
    pub tokens: Vec<i32>,
}

impl Case {
    /// `out` of the tables `wte` (Vp, C) and `wpe` (T_max, C).
    pub fn forward_of<B: Device>(&self, backend: &B, wte: &[f64], wpe: &[f64]) -> Vec<f64> {
        let &Case { b, t, c, vp, max_t, position, .. } = self;
        let wte: Input<B, B::Compute> = Input::new(backend, [vp, c], wte);
        let wpe: Input<B, B::Compute> = Input::new(backend, [max_t, c], wpe);
        let tokens = ids(backend, [b, t], &self.tokens);
        let mut out = Output::new(backend, [b, t, c]);
        let op =
            EmbeddingForward { tokens: tokens.view(), wte: wte.view(), wpe: wpe.view(), position, out: out.view() };
        backend.embedding_forward(op).unwrap();
        out.read(backend)
    }

    /// `dwte` and `dwpe` of `dout` (B, T, C). `dwte` is always accumulated, onto nonzero values.
    pub fn backward_of<B: Device>(&self, backend: &B, dout: &[f64], write: Write) -> [Output<B, B::Accum>; 2] {
        let &Case { b, t, c, vp, max_t, .. } = self;
        let dout: Input<B, B::Compute> = Input::new(backend, [b, t, c], dout);
        let tokens = ids(backend, [b, t], &self.tokens);
        let mut dwte = Output::to(backend, [vp, c], Write::Accumulate);
        let mut dwpe = Output::to(backend, [max_t, c], write);
        let op =
            EmbeddingBackward { tokens: tokens.view(), dout: dout.view(), dwte: dwte.view(), dwpe: dwpe.view(), write };
        backend.embedding_backward(op).unwrap();
        [dwte, dwpe]
    }
}
