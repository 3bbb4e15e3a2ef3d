//! Attention: see [`crate::ops::AttentionForward`].
//!
//! Each head is processed in blocks of queries. The scores of a block against all keys, with a causal mask those up to
//! its last query, are one matrix product, so scratch memory grows with T, not with T².

use rayon::prelude::*;

use super::gemm::{Mat, gemm};
use super::real::{max, sum};
use super::simd::vectorised;
use super::{Cpu, Real};
use crate::error::Result;
use crate::ops::{AttentionBackward, AttentionDims, AttentionForward, HeadsMut, Operation, Qkv, QkvMut};

/// Queries per block.
const BLOCK: usize = 64;

/// The rows of one head of q, k or v.
#[derive(Clone, Copy)]
struct Rows<'a, R> {
    data: &'a [R],
    /// Elements between consecutive tokens.
    stride: usize,
    hs: usize,
}

impl<'a, R: Real> Rows<'a, R> {
    /// Tokens `from..to`.
    fn range(self, from: usize, to: usize) -> Mat<'a, R> {
        Mat::strided(&self.data[from * self.stride..], to - from, self.hs, self.stride)
    }
}

/// The q, k and v of one head of one sequence.
struct Head<'a, R> {
    q: Rows<'a, R>,
    k: Rows<'a, R>,
    v: Rows<'a, R>,
    causal: bool,
    t: usize,
    hs: usize,
}

impl<'a, R: Real> Head<'a, R> {
    /// Head `head` of `B·NH`.
    fn new(qkv: &Qkv<'a, Cpu<R>>, causal: bool, dims: AttentionDims, head: usize) -> Self {
        let AttentionDims { t, nh, hs, .. } = dims;
        let [q, k, v] = qkv.tensors(dims).map(|(_, data, strides)| {
            let first = head / nh * strides.batch + head % nh * strides.head;
            Rows { data: &data.as_slice()[first..], stride: strides.token, hs }
        });
        Head { q, k, v, causal, t, hs }
    }

    /// The number of keys that the queries before `to` see.
    fn keys(&self, to: usize) -> usize {
        if self.causal { to } else { self.t }
    }

    /// Computes `scores = q·kᵀ / √HS` for queries `from..to` and all keys that they see.
    fn scores(&self, from: usize, to: usize, scores: &mut [R]) {
        let (q, k) = (self.q.range(from, to), self.k.range(0, self.keys(to)));
        gemm(self.scale(), q, k.t(), R::zero(), scores);
    }

    fn scale(&self) -> R {
        R::one() / R::of(self.hs as f64).sqrt()
    }

    /// The blocks of queries, as half-open ranges (from, to).
    fn blocks(&self) -> impl Iterator<Item = (usize, usize)> + use<R> {
        let t = self.t;
        (0..t).step_by(BLOCK).map(move |from| (from, (from + BLOCK).min(t)))
    }
}

vectorised! {
    /// Softmax of the first `keys` scores of a row, in place. The remaining scores belong to future keys and become 0.
    /// Returns the log-sum-exp.
    pub(super) fn softmax<R: Real>(row: &mut [R], keys: usize) -> R {
        let (past, future) = row.split_at_mut(keys);
        future.fill(R::zero());
        let max = max(past);
        for s in past.iter_mut() {
            *s = (*s - max).fast_exp();
        }
        let total = sum(past.len(), |j| past[j]);
        for p in past.iter_mut() {
            *p /= total;
        }
        max + total.ln()
    }

    /// Recomputes the softmax of the first `keys` scores of a row from its log-sum-exp.
    fn softmax_again<R: Real>(row: &mut [R], keys: usize, lse: R) {
        let (past, future) = row.split_at_mut(keys);
        for s in past.iter_mut() {
            *s = (*s - lse).fast_exp();
        }
        future.fill(R::zero());
    }

    /// `ds = p · (dp - delta)` with `delta = dout · out`, in place of dp.
    fn ds_row<R: Real>(dp: &mut [R], p: &[R], dout: &[R], out: &[R]) {
        let out = &out[..dout.len()];
        let delta = sum(dout.len(), |i| dout[i] * out[i]);
        for (dp, &p) in dp.iter_mut().zip(p) {
            *dp = p * (*dp - delta);
        }
    }
}

fn head_forward<R: Real>(head: &Head<'_, R>) -> (Vec<R>, Vec<R>) {
    let mut out = vec![R::zero(); head.t * head.hs];
    let mut lse = vec![R::zero(); head.t];
    let mut scratch = vec![R::zero(); BLOCK.min(head.t) * head.t];
    for (from, to) in head.blocks() {
        let keys = head.keys(to);
        let scores = &mut scratch[..(to - from) * keys];
        head.scores(from, to, scores);
        for (row, query) in scores.chunks_mut(keys).zip(from..) {
            lse[query] = softmax(row, head.keys(query + 1));
        }
        let p = Mat::new(scores, to - from, keys);
        gemm(R::one(), p, head.v.range(0, keys), R::zero(), &mut out[from * head.hs..to * head.hs]);
    }
    (out, lse)
}

pub(super) fn forward<R: Real>(op: AttentionForward<'_, Cpu<R>>) -> Result<()> {
    let dims @ AttentionDims { b, t, nh, hs } = op.check()?;
    let head = |head| Head::new(&op.qkv, op.causal, dims, head);
    let heads: Vec<_> = (0..b * nh).into_par_iter().map(|index| head_forward(&head(index))).collect();
    for (lse, (_, head_lse)) in op.lse.into_slice().chunks_mut(t).zip(&heads) {
        lse.copy_from_slice(head_lse);
    }
    op.out.into_slice().par_chunks_mut(nh * hs).enumerate().for_each(|(token, out)| {
        for (head, out) in out.chunks_mut(hs).enumerate() {
            let (values, _) = &heads[token / t * nh + head];
            out.copy_from_slice(&values[token % t * hs..][..hs]);
        }
    });
    Ok(())
}

/// The output of one head, its gradient and its log-sum-exp; rows of (B, T, C) and (B, NH, T) tensors.
struct HeadOut<'a, R> {
    out: &'a [R],
    dout: &'a [R],
    lse: &'a [R],
    /// Elements between consecutive tokens: C.
    stride: usize,
}

/// Computes dq, dk and dv of one head, each (T, HS).
fn head_backward<R: Real>(head: &Head<'_, R>, side: &HeadOut<'_, R>) -> [Vec<R>; 3] {
    let Head { t, hs, .. } = *head;
    let [mut dq, mut dk, mut dv] = [(); 3].map(|()| vec![R::zero(); t * hs]);
    let [mut p_scratch, mut dp_scratch] = [(); 2].map(|()| vec![R::zero(); BLOCK.min(t) * t]);
    for (from, to) in head.blocks() {
        let (rows, keys, start) = (to - from, head.keys(to), from * side.stride);
        let dout = Mat::strided(&side.dout[start..], rows, hs, side.stride);

        let p = &mut p_scratch[..rows * keys];
        head.scores(from, to, p);
        for (row, query) in p.chunks_mut(keys).zip(from..) {
            softmax_again(row, head.keys(query + 1), side.lse[query]);
        }
        gemm(R::one(), Mat::new(p, rows, keys).t(), dout, R::one(), &mut dv[..keys * hs]);

        // ds replaces dp in place. For future keys p is 0, and so is ds.
        let dp = &mut dp_scratch[..rows * keys];
        gemm(R::one(), dout, head.v.range(0, keys).t(), R::zero(), dp);
        for ((dp, p), query) in dp.chunks_mut(keys).zip(p.chunks(keys)).zip(from..) {
            let (dout, out) = (&side.dout[query * side.stride..][..hs], &side.out[query * side.stride..][..hs]);
            ds_row(dp, p, dout, out);
        }
        let ds = Mat::new(dp, rows, keys);
        gemm(head.scale(), ds, head.k.range(0, keys), R::zero(), &mut dq[from * hs..to * hs]);
        gemm(head.scale(), ds.t(), head.q.range(from, to), R::one(), &mut dk[..keys * hs]);
    }
    [dq, dk, dv]
}

pub(super) fn backward<R: Real>(op: AttentionBackward<'_, Cpu<R>>) -> Result<()> {
    let dims @ AttentionDims { b, t, nh, hs } = op.check()?;
    let (out, dout, lse) = (op.out.as_slice(), op.dout.as_slice(), op.lse.as_slice());
    let c = nh * hs;
    let heads: Vec<_> = (0..b * nh)
        .into_par_iter()
        .map(|head| {
            let start = head / nh * t * c + head % nh * hs;
            let side = HeadOut { out: &out[start..], dout: &dout[start..], lse: &lse[head * t..][..t], stride: c };
            head_backward(&Head::new(&op.qkv, op.causal, dims, head), &side)
        })
        .collect();
    let strides = op.dqkv.strides(dims);
    match op.dqkv {
        QkvMut::Packed(dqkv) => dqkv.into_slice().par_chunks_mut(3 * c).enumerate().for_each(|(token, dqkv)| {
            for (index, row) in dqkv.chunks_mut(hs).enumerate() {
                let (tensor, head) = (index / nh, index % nh);
                row.copy_from_slice(&heads[token / t * nh + head][tensor][token % t * hs..][..hs]);
            }
        }),
        QkvMut::Separate { dq, dk, dv } => {
            [dq, dk, dv].into_par_iter().enumerate().for_each(|(tensor, HeadsMut { data, .. })| {
                let (to, strides) = (data.into_slice(), strides[tensor]);
                for (head, tensors) in heads.iter().enumerate() {
                    let first = head / nh * strides.batch + head % nh * strides.head;
                    for (token, row) in tensors[tensor].chunks(hs).enumerate() {
                        to[first + token * strides.token..][..hs].copy_from_slice(row);
                    }
                }
            });
        }
    }
    Ok(())
}
