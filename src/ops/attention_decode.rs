//! Attention of new tokens over a KV cache: the keys and values of the tokens before them.

use super::attention::{AttentionDims, packed_dims};
use super::check::{Rules, bytes};
use super::operation::{Compute, ComputeMut, Floor, Operation};
use crate::error::Result;
use crate::tensor::{Shape, Storage};

/// Sizes of an operation on a KV cache.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CacheDims {
    /// Batch size.
    pub b: usize,
    /// New tokens per sequence.
    pub t: usize,
    /// Number of heads.
    pub nh: usize,
    /// Head size.
    pub hs: usize,
    /// Capacity of the cache, in positions.
    pub max_t: usize,
}

/// Checks the rules of storing the keys and values of `qkv` in a cache at `position`.
fn cache_dims<S: Storage>(
    rules: &Rules,
    qkv: Shape,
    num_heads: usize,
    k_cache: Shape,
    v_cache: Shape,
    position: usize,
) -> Result<CacheDims> {
    let AttentionDims { b, t, nh, hs } = packed_dims::<S>(rules, qkv, num_heads)?;
    let max_t = k_cache.dims().get(1).copied().unwrap_or(0);
    rules.shape("k_cache", "(B, T_max, C)", k_cache, [b, max_t, nh * hs])?;
    rules.shape("v_cache", "(B, T_max, C)", v_cache, [b, max_t, nh * hs])?;
    rules.require(position.saturating_add(t) <= max_t, "position + T <= T_max", || {
        format!("position = {position}, T = {t}, T_max = {max_t}")
    })?;
    Ok(CacheDims { b, t, nh, hs, max_t })
}

/// `k_cache[:, position..position+T] = k`, `v_cache[:, position..position+T] = v`
///
/// Stores the keys and values of a prompt, which [`super::AttentionForward`] has processed, for decoding.
pub struct KvCacheStore<'a, S: Storage> {
    /// (B, T, 3C): q, k and v concatenated along the last axis.
    pub qkv: Compute<'a, S>,
    /// NH.
    pub num_heads: usize,
    /// Position of the first of the T tokens.
    pub position: usize,
    /// (B, T_max, C), rows `position..position+T` `=`.
    pub k_cache: ComputeMut<'a, S>,
    /// (B, T_max, C), rows `position..position+T` `=`.
    pub v_cache: ComputeMut<'a, S>,
}

impl<S: Storage> Operation for KvCacheStore<'_, S> {
    const NAME: &'static str = "kv_cache_store";
    type Dims = CacheDims;

    fn check(&self) -> Result<CacheDims> {
        let (k_cache, v_cache) = (self.k_cache.shape(), self.v_cache.shape());
        cache_dims::<S>(&Rules(Self::NAME), self.qkv.shape(), self.num_heads, k_cache, v_cache, self.position)
    }

    fn floor(&self) -> Floor {
        Floor { bytes: bytes::<S::Compute>(self.qkv.shape().len() / 3 * 4), flops: 0 }
    }
}

/// Attention of one new token per sequence: stores its k and v at `position`, then its q attends to positions
/// `0..=position`.
///
/// The formula is row `position` of [`super::AttentionForward`].
pub struct AttentionDecode<'a, S: Storage> {
    /// (B, 1, 3C).
    pub qkv: Compute<'a, S>,
    /// NH.
    pub num_heads: usize,
    /// Position of the token.
    pub position: usize,
    /// (B, T_max, C), row `position` `=`.
    pub k_cache: ComputeMut<'a, S>,
    /// (B, T_max, C), row `position` `=`.
    pub v_cache: ComputeMut<'a, S>,
    /// (B, 1, C) `=`.
    pub out: ComputeMut<'a, S>,
}

impl<S: Storage> Operation for AttentionDecode<'_, S> {
    const NAME: &'static str = "attention_decode";
    type Dims = CacheDims;

    fn check(&self) -> Result<CacheDims> {
        let rules = Rules(Self::NAME);
        let (k_cache, v_cache) = (self.k_cache.shape(), self.v_cache.shape());
        let dims = cache_dims::<S>(&rules, self.qkv.shape(), self.num_heads, k_cache, v_cache, self.position)?;
        rules.require(dims.t == 1, "T == 1", || format!("T = {}", dims.t))?;
        rules.shape("out", "(B, 1, C)", self.out.shape(), [dims.b, 1, dims.nh * dims.hs])?;
        Ok(dims)
    }

    fn floor(&self) -> Floor {
        // Reads q, k and v; stores k and v; reads the cache before `position`; writes out.
        let [b, c] = self.out.shape().matrix();
        let elements = 3 * b * c + 2 * b * c + 2 * b * c * self.position + b * c;
        Floor { bytes: bytes::<S::Compute>(elements), flops: 4 * (b * c * (self.position + 1)) as u64 }
    }
}
