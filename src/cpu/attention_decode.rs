//! Attention over a KV cache: see [`crate::ops::AttentionDecode`].

use rayon::prelude::*;

use super::attention::softmax;
use super::gemm::{Mat, gemm};
use super::{Cpu, Real};
use crate::error::Result;
use crate::ops::{AttentionDecode, CacheDims, KvCacheStore, Operation};

pub(super) fn store<R: Real>(op: KvCacheStore<'_, Cpu<R>>) -> Result<()> {
    let dims = op.check()?;
    append(op.qkv.as_slice(), op.k_cache.into_slice(), op.v_cache.into_slice(), op.position, dims);
    Ok(())
}

/// Copies k and v of the new tokens to their positions in the KV caches.
fn append<R: Real>(qkv: &[R], k_cache: &mut [R], v_cache: &mut [R], position: usize, dims: CacheDims) {
    let CacheDims { t, nh, hs, max_t, .. } = dims;
    let c = nh * hs;
    for (token, qkv) in qkv.chunks(3 * c).enumerate() {
        let row = (token / t * max_t + position + token % t) * c;
        k_cache[row..row + c].copy_from_slice(&qkv[c..2 * c]);
        v_cache[row..row + c].copy_from_slice(&qkv[2 * c..]);
    }
}

pub(super) fn decode<R: Real>(op: AttentionDecode<'_, Cpu<R>>) -> Result<()> {
    let dims @ CacheDims { nh, hs, max_t, .. } = op.check()?;
    let c = nh * hs;
    let (qkv, keys) = (op.qkv.as_slice(), op.position + 1);
    let (k_cache, v_cache) = (op.k_cache.into_slice(), op.v_cache.into_slice());
    append(qkv, k_cache, v_cache, op.position, dims);

    let (k_cache, v_cache) = (&*k_cache, &*v_cache);
    let scale = R::one() / R::of(hs as f64).sqrt();
    op.out.into_slice().par_chunks_mut(hs).enumerate().for_each(|(index, out)| {
        let (sequence, column) = (index / nh, index % nh * hs);
        let q = Mat::new(&qkv[sequence * 3 * c + column..], 1, hs);
        let start = sequence * max_t * c + column;
        let (k, v) = (Mat::strided(&k_cache[start..], keys, hs, c), Mat::strided(&v_cache[start..], keys, hs, c));
        let mut p = vec![R::zero(); keys];
        gemm(scale, q, k.t(), R::zero(), &mut p);
        softmax(&mut p, keys);
        gemm(R::one(), Mat::new(&p, 1, keys), v, R::zero(), out);
    });
    Ok(())
}
