//! Causal attention: host values of its inputs, and calls of the forward and the backward on any backend.

use ironwarp::Result;
use ironwarp::ops::{AttentionBackward, AttentionForward};

use super::{Device, Draws, Input, Output, assert_same_bits};

/// A factor of the queries that makes scores reach beyond ±1e4.
pub const LARGE: f64 = 131_072.0;

/// Packed q, k and v.
#[derive(Clone)]
pub struct Inputs {
    /// B, T, NH, HS.
    pub sizes: [usize; 4],
    /// (B, T, 3, NH, HS)
    pub qkv: Vec<f64>,
}

impl Inputs {
    /// Random values in [-1, 1), exact in f32; the queries are multiplied by `factor`.
    pub fn new(sizes @ [b, t, nh, hs]: [usize; 4], factor: f64) -> Self {
        let c = nh * hs;
        let mut qkv = Draws::new(1).numbers(b * t * 3 * c);
        qkv.chunks_mut(3 * c).for_each(|token| token[..c].iter_mut().for_each(|q| *q *= factor));
        Inputs { sizes, qkv }
    }

    /// Index in `qkv` of element `x` of a head's q, k or v: `part` 0, 1 or 2 of token `i`.
    pub fn index(&self, [b, i, part, head, x]: [usize; 5]) -> usize {
        let [_, t, nh, hs] = self.sizes;
        (((b * t + i) * 3 + part) * nh + head) * hs + x
    }

    /// A head's q, k or v of a token: HS values.
    pub fn vector(&self, [b, i, part, head]: [usize; 4]) -> &[f64] {
        &self.qkv[self.index([b, i, part, head, 0])..][..self.sizes[3]]
    }

    /// Every (sequence, query, head).
    pub fn queries(&self) -> impl Iterator<Item = [usize; 3]> + use<> {
        let [b, t, nh, _] = self.sizes;
        (0..b * t * nh).map(move |n| [n / nh / t, n / nh % t, n % nh])
    }

    /// `out` and `lse`.
    pub fn forward<B: Device>(&self, backend: &B) -> [Vec<f64>; 2] {
        self.forward_by(backend, B::attention_forward)
    }

    /// [`Inputs::forward`] by `run`.
    pub fn forward_by<B: Device>(
        &self,
        backend: &B,
        run: impl FnOnce(&B, AttentionForward<'_, B>) -> Result<()>,
    ) -> [Vec<f64>; 2] {
        let [b, t, nh, hs] = self.sizes;
        let qkv = Input::<B, B::Compute>::to_buffer_end(backend, [b, t, 3 * nh * hs], &self.qkv);
        let mut out = Output::<B, B::Compute>::new(backend, [b, t, nh * hs]);
        let mut lse = Output::<B, B::Accum>::new(backend, [b, nh, t]);
        let op = AttentionForward { qkv: qkv.view(), num_heads: nh, out: out.view(), lse: lse.view() };
        run(backend, op).unwrap();
        [out.read(backend), lse.read(backend)]
    }

    /// Replaces the tokens from `cut` on, for each of `cuts`: no bit of the rows before may change.
    pub fn assert_causal<B: Device>(&self, backend: &B, other: &[f64], cuts: &[usize]) {
        let [b, t, nh, hs] = self.sizes;
        let (c, [out, lse]) = (nh * hs, self.forward(backend));
        for &cut in cuts {
            let mut changed = self.clone();
            for sequence in 0..b {
                let future = (sequence * t + cut) * 3 * c..(sequence + 1) * t * 3 * c;
                changed.qkv[future.clone()].copy_from_slice(&other[future]);
            }
            let [new_out, new_lse] = changed.forward(backend);
            let kept = |values: &[f64], width: usize| -> Vec<f64> {
                values.chunks(t * width).flat_map(|sequence| &sequence[..cut * width]).copied().collect()
            };
            assert_same_bits(&format!("out before {cut}"), &kept(&new_out, c), &kept(&out, c));
            assert_same_bits(&format!("lse before {cut}"), &kept(&new_lse, 1), &kept(&lse, 1));
            assert_ne!(new_out, out, "changing tokens from {cut} on");
        }
    }
}

/// Inputs of the backward.
#[derive(Clone)]
pub struct Backward {
    pub forward: Inputs,
    /// (B, T, NH, HS)
    pub dout: Vec<f64>,
    /// (B, T, NH, HS)
    pub out: Vec<f64>,
    /// (B, NH, T)
    pub lse: Vec<f64>,
}

impl Backward {
    /// Random `dout`, with the results of a forward.
    pub fn new(forward: Inputs, [out, lse]: [Vec<f64>; 2]) -> Self {
        let dout = Draws::new(2).numbers(out.len());
        Backward { forward, dout, out, lse }
    }

    /// `dqkv`.
    pub fn run<B: Device>(&self, backend: &B) -> Vec<f64> {
        self.run_by(backend, B::attention_backward)
    }

    /// [`Backward::run`] by `run`.
    pub fn run_by<B: Device>(
        &self,
        backend: &B,
        run: impl FnOnce(&B, AttentionBackward<'_, B>) -> Result<()>,
    ) -> Vec<f64> {
        let [b, t, nh, hs] = self.forward.sizes;
        let qkv = Input::<B, B::Compute>::to_buffer_end(backend, [b, t, 3 * nh * hs], &self.forward.qkv);
        let [dout, out] =
            [&self.dout, &self.out].map(|v| Input::<B, B::Compute>::to_buffer_end(backend, [b, t, nh * hs], v));
        let lse = Input::<B, B::Accum>::to_buffer_end(backend, [b, nh, t], &self.lse);
        let mut dqkv = Output::<B, B::Compute>::new(backend, [b, t, 3 * nh * hs]);
        let op = AttentionBackward {
            dout: dout.view(),
            qkv: qkv.view(),
            num_heads: nh,
            out: out.view(),
            lse: lse.view(),
            dqkv: dqkv.view(),
        };
        run(backend, op).unwrap();
        dqkv.read(backend)
    }
}
