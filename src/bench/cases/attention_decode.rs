//! See [`crate::ops::AttentionDecode`].

use super::attention::AttentionForward;
use super::{Bound, Case, Data, Info, Outputs, Problem, through_op};
use crate::error::Result;
use crate::ops::{self, Backend, Floor, Operation};
use crate::tensor::{Storage, Tensor};

/// Stores K and V of a prompt of T tokens in a cache of T positions.
pub struct KvCacheStore<S: Storage> {
    qkv: Tensor<S, S::Compute>,
    num_heads: usize,
    k_cache: Tensor<S, S::Compute>,
    v_cache: Tensor<S, S::Compute>,
}

impl<S: Storage> KvCacheStore<S> {
    fn op(&mut self) -> ops::KvCacheStore<'_, S> {
        ops::KvCacheStore {
            qkv: self.qkv.view(),
            num_heads: self.num_heads,
            position: 0,
            k_cache: self.k_cache.view_mut(),
            v_cache: self.v_cache.view_mut(),
        }
    }
}

impl<B: Backend> Case<B> for KvCacheStore<B> {
    const INFO: Info = Info {
        op: ops::KvCacheStore::<B>::NAME,
        bound: Bound::Memory,
        small: &[(&[1, 64, 12, 64], "")],
        reference: &[("b", 2), ("t", 256)],
        ..<AttentionForward<B> as Case<B>>::INFO
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [b, t, num_heads, hs] = problem.get();
        let c = num_heads * hs;
        Ok(Self {
            qkv: data.normal([b, t, 3 * c], 1.0)?,
            num_heads,
            k_cache: data.zeros([b, t, c])?,
            v_cache: data.zeros([b, t, c])?,
        })
    }

    through_op!(kv_cache_store);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("k_cache", &self.k_cache)?.float("v_cache", &self.v_cache)
    }
}

/// Attention of the last of T tokens over a cache of the tokens before it.
pub struct AttentionDecode<S: Storage> {
    qkv: Tensor<S, S::Compute>,
    num_heads: usize,
    position: usize,
    k_cache: Tensor<S, S::Compute>,
    v_cache: Tensor<S, S::Compute>,
    out: Tensor<S, S::Compute>,
}

impl<S: Storage> AttentionDecode<S> {
    fn op(&mut self) -> ops::AttentionDecode<'_, S> {
        ops::AttentionDecode {
            qkv: self.qkv.view(),
            num_heads: self.num_heads,
            position: self.position,
            k_cache: self.k_cache.view_mut(),
            v_cache: self.v_cache.view_mut(),
            out: self.out.view_mut(),
        }
    }
}

impl<B: Backend> Case<B> for AttentionDecode<B> {
    const INFO: Info = Info {
        op: ops::AttentionDecode::<B>::NAME,
        small: &[(&[2, 256, 12, 64], "")],
        reference: &[("b", 4)],
        ..<KvCacheStore<B> as Case<B>>::INFO
    };

    fn new(data: &mut Data<'_, B>, problem: &Problem) -> Result<Self> {
        let [b, t, num_heads, hs] = problem.get();
        let c = num_heads * hs;
        Ok(Self {
            qkv: data.normal([b, 1, 3 * c], 1.0)?,
            num_heads,
            position: t - 1,
            k_cache: data.normal([b, t, c], 1.0)?,
            v_cache: data.normal([b, t, c], 1.0)?,
            out: data.zeros([b, 1, c])?,
        })
    }

    through_op!(attention_decode);

    fn outputs<'a>(&self, outputs: Outputs<'a, B>) -> Result<Outputs<'a, B>> {
        outputs.float("out", &self.out)
    }
}
