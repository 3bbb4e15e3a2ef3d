//! Attention: host values of its inputs, and calls of the forward and the backward on any backend.

use std::ops::Range;

use ironwarp::Result;
use ironwarp::ops::{
    AttentionBackward, AttentionDims, AttentionForward, HeadStrides, Heads, HeadsLayout, HeadsMut, Qkv, QkvMut,
};

use super::{Device, Draws, Input, Output, assert_same_bits};

/// A factor of the queries that makes scores reach beyond ±1e4.
pub const LARGE: f64 = 131_072.0;

/// How q, k and v, or their gradients, lie in the memory of the backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layout {
    /// One (B, T, 3C) tensor.
    Packed,
    /// (B, T, NH, HS) tensors.
    TokenMajor,
    /// (B, NH, T, HS) tensors.
    HeadMajor,
    /// A different order of the axes for each tensor, and different gaps between the rows: (B, T, NH, HS), (B, NH, T, HS)
    /// and (T, B, NH, HS).
    Gaps,
}

impl Layout {
    /// All layouts that are not packed.
    pub const SEPARATE: [Layout; 3] = [Layout::TokenMajor, Layout::HeadMajor, Layout::Gaps];

    /// Distances of the rows of q, k or v, `part` 0, 1 or 2, and the length of the memory.
    fn rows(self, [b, t, nh, hs]: [usize; 4], part: usize) -> (HeadStrides, usize) {
        let gap = if self == Layout::Gaps { 8 * (part + 1) } else { 0 };
        // The axes from the innermost on, as indices of (batch, token, head).
        let order = match (self, part) {
            (Layout::HeadMajor, _) | (Layout::Gaps, 1) => [1, 2, 0],
            (Layout::Gaps, 2) => [2, 0, 1],
            _ => [2, 1, 0],
        };
        let (mut strides, mut len) = ([0; 3], hs);
        for axis in order {
            strides[axis] = len + gap;
            len += ([b, t, nh][axis] - 1) * strides[axis];
        }
        let [batch, token, head] = strides;
        (HeadStrides { batch, token, head }, len)
    }

    /// The shape of the memory of q, k or v, and their layout as an operand.
    fn operand(self, sizes @ [b, t, nh, hs]: [usize; 4], part: usize) -> (Vec<usize>, HeadsLayout) {
        match self {
            Layout::Packed => unreachable!("one tensor"),
            Layout::TokenMajor => (vec![b, t, nh, hs], HeadsLayout::TokenMajor),
            Layout::HeadMajor => (vec![b, nh, t, hs], HeadsLayout::HeadMajor),
            Layout::Gaps => {
                let (strides, len) = self.rows(sizes, part);
                (vec![len], HeadsLayout::Strided { dims: AttentionDims { b, t, nh, hs }, strides })
            }
        }
    }

    /// The elements of a row of the memory of q, k or v: of sequence, token and head.
    fn row(self, sizes: [usize; 4], part: usize, [b, i, head]: [usize; 3]) -> Range<usize> {
        let (HeadStrides { batch, token, head: of_head }, _) = self.rows(sizes, part);
        let first = b * batch + i * token + head * of_head;
        first..first + sizes[3]
    }
}

/// A value in the gaps of an output.
const GAP: f64 = -5.0;

/// q, k and v.
#[derive(Clone)]
pub struct Inputs {
    /// B, T, NH, HS.
    pub sizes: [usize; 4],
    /// (B, T, 3, NH, HS)
    pub qkv: Vec<f64>,
    pub causal: bool,
    /// Of q, k and v, and of their gradients.
    pub layout: Layout,
}

/// q, k and v on a backend.
struct Operands<B: Device> {
    sizes: [usize; 4],
    layout: Layout,
    /// One tensor if packed, else three.
    tensors: Vec<Input<B, B::Compute>>,
}

impl<B: Device> Operands<B> {
    fn qkv(&self) -> Qkv<'_, B> {
        let heads =
            |part: usize| Heads { data: self.tensors[part].view(), layout: self.layout.operand(self.sizes, part).1 };
        match self.layout {
            Layout::Packed => Qkv::Packed { qkv: self.tensors[0].view(), num_heads: self.sizes[2] },
            _ => Qkv::Separate { q: heads(0), k: heads(1), v: heads(2) },
        }
    }
}

impl Inputs {
    /// Random values in [-1, 1), exact in f32; the queries are multiplied by `factor`.
    pub fn new(sizes @ [b, t, nh, hs]: [usize; 4], factor: f64) -> Self {
        let c = nh * hs;
        let mut qkv = Draws::new(1).numbers(b * t * 3 * c);
        qkv.chunks_mut(3 * c).for_each(|token| token[..c].iter_mut().for_each(|q| *q *= factor));
        Inputs { sizes, qkv, causal: true, layout: Layout::Packed }
    }

    /// The keys that a query sees.
    pub fn keys(&self, query: usize) -> Range<usize> {
        0..if self.causal { query + 1 } else { self.sizes[1] }
    }

    /// The queries that see a key.
    pub fn queries_of(&self, key: usize) -> Range<usize> {
        if self.causal { key..self.sizes[1] } else { 0..self.sizes[1] }
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

    fn operands<B: Device>(&self, backend: &B) -> Operands<B> {
        let (sizes @ [b, t, nh, hs], layout) = (self.sizes, self.layout);
        let tensors = match layout {
            Layout::Packed => vec![Input::to_buffer_end(backend, [b, t, 3 * nh * hs], &self.qkv)],
            _ => (0..3)
                .map(|part| {
                    let mut memory = vec![f64::NAN; layout.rows(sizes, part).1];
                    for row @ [b, i, head] in self.queries() {
                        memory[layout.row(sizes, part, row)].copy_from_slice(self.vector([b, i, part, head]));
                    }
                    Input::to_buffer_end(backend, &layout.operand(sizes, part).0[..], &memory)
                })
                .collect(),
        };
        Operands { sizes, layout, tensors }
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
        let qkv = self.operands(backend);
        let mut out = Output::<B, B::Compute>::new(backend, [b, t, nh * hs]);
        let mut lse = Output::<B, B::Accum>::new(backend, [b, nh, t]);
        let op = AttentionForward { qkv: qkv.qkv(), causal: self.causal, out: out.view(), lse: lse.view() };
        run(backend, op).unwrap();
        [out.read(backend), lse.read(backend)]
    }

    /// Tensors for the gradients: NaN in the rows, [`GAP`] between them.
    fn gradients<B: Device>(&self, backend: &B) -> Vec<Output<B, B::Compute>> {
        let (sizes @ [b, t, nh, hs], layout) = (self.sizes, self.layout);
        if layout == Layout::Packed {
            return vec![Output::new(backend, [b, t, 3 * nh * hs])];
        }
        let tensor = |part| {
            let mut memory = vec![GAP; layout.rows(sizes, part).1];
            self.queries().for_each(|row| memory[layout.row(sizes, part, row)].fill(f64::NAN));
            Output::with(backend, &layout.operand(sizes, part).0[..], &memory)
        };
        (0..3).map(tensor).collect()
    }

    /// The rows of gradients in this layout as (B, T, 3, NH, HS). The gaps between them must be intact.
    fn packed(&self, tensors: &[Vec<f64>]) -> Vec<f64> {
        if let [packed] = tensors {
            return packed.clone();
        }
        let mut values = vec![0.0; self.qkv.len()];
        for (part, tensor) in tensors.iter().enumerate() {
            let mut gaps = tensor.clone();
            for row @ [b, i, head] in self.queries() {
                let range = self.layout.row(self.sizes, part, row);
                let to = self.index([b, i, part, head, 0]);
                values[to..][..self.sizes[3]].copy_from_slice(&tensor[range.clone()]);
                gaps[range].fill(GAP);
            }
            assert_same_bits(&format!("gaps of gradient {part}, {:?}", self.layout), &gaps, &vec![GAP; gaps.len()]);
        }
        values
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
        let qkv = self.forward.operands(backend);
        let [dout, out] =
            [&self.dout, &self.out].map(|v| Input::<B, B::Compute>::to_buffer_end(backend, [b, t, nh * hs], v));
        let lse = Input::<B, B::Accum>::to_buffer_end(backend, [b, nh, t], &self.lse);
        let mut gradients = self.forward.gradients(backend);
        let dqkv = match (&mut gradients[..], self.forward.layout) {
            ([dqkv], _) => QkvMut::Packed(dqkv.view()),
            ([dq, dk, dv], layout) => {
                let of = |part| layout.operand(self.forward.sizes, part).1;
                QkvMut::Separate {
                    dq: HeadsMut { data: dq.view(), layout: of(0) },
                    dk: HeadsMut { data: dk.view(), layout: of(1) },
                    dv: HeadsMut { data: dv.view(), layout: of(2) },
                }
            }
            _ => unreachable!("one tensor or three"),
        };
        let op = AttentionBackward {
            dout: dout.view(),
            qkv: qkv.qkv(),
            causal: self.forward.causal,
            out: out.view(),
            lse: lse.view(),
            dqkv,
        };
        run(backend, op).unwrap();
        self.forward.packed(&gradients.iter().map(|tensor| tensor.read(backend)).collect::<Vec<_>>())
    }
}
