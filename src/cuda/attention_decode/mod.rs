//! Attention over a KV cache: see [`crate::ops::KvCacheStore`], [`crate::ops::AttentionDecode`] and
//! `kernels/attention_decode.cu`.

mod config;

use config::KvSplits;

use super::launch::device_ptr::{DevPtr, float4};
use super::launch::params::*;
use super::launch::spec::{Grid, Kernel, Spec};
use super::runtime::{Cuda, Operand};
use crate::error::{Error, Result};
use crate::ops::{AttentionDecode, CacheDims, KvCacheStore, Operation};
use crate::tensor::Storage;

const STEM: &str = "attention_decode";
const STORE: Kernel<KvCacheStoreParams> = Kernel::new(STEM, "kv_cache_store", KV_CACHE_STORE_THREADS);

type Decode = Kernel<AttentionDecodeParams>;

const fn decode_kernel(name: &'static str) -> Decode {
    Kernel::new(STEM, name, ATTENTION_DECODE_THREADS).min_blocks(ATTENTION_DECODE_MIN_BLOCKS)
}

const DECODE_64: Decode = decode_kernel("attention_decode_hs64");
const DECODE_128: Decode = decode_kernel("attention_decode_hs128");
const DECODE_256: Decode = decode_kernel("attention_decode_hs256");
const COMBINE: Decode = Kernel::new(STEM, "attention_decode_combine", ATTENTION_DECODE_THREADS);

pub(super) const KERNELS: &[Spec] = &[STORE.spec, DECODE_64.spec, DECODE_128.spec, DECODE_256.spec, COMBINE.spec];

const VECTOR: usize = <Cuda as Storage>::VECTOR;
/// A size in 32 bits, below `limit`.
fn below(operation: &'static str, rule: &str, size: usize, limit: u64) -> Result<u32> {
    match u32::try_from(size) {
        Ok(small) if u64::from(small) < limit => Ok(small),
        _ => Err(Error::Precondition { operation, rule: rule.into(), found: format!("{size}") }),
    }
}

pub(super) fn store(cuda: &Cuda, op: KvCacheStore<'_, Cuda>) -> Result<()> {
    const NAME: &str = KvCacheStore::<Cuda>::NAME;
    let CacheDims { b, t, nh, hs, max_t } = op.check()?;
    let c = nh * hs;
    let len = below(NAME, "B·T·C/8 < 2^32", b * t * (c / VECTOR), 1 << 32)?;
    let params = KvCacheStoreParams {
        qkv: op.qkv.aligned(NAME, "qkv")?,
        k_cache: op.k_cache.aligned(NAME, "k_cache")?,
        v_cache: op.v_cache.aligned(NAME, "v_cache")?,
        max_t: max_t as u64,
        position: op.position as u64,
        len: len.into(),
        t: below(NAME, "T < 2^31", t, 1 << 31)?,
        c: below(NAME, "C < 2^31", c, 1 << 31)?,
    };
    let sizes = [("B", b), ("T", t), ("NH", nh), ("HS", hs), ("position", op.position)];
    cuda.device().launch(&STORE, Grid::of((len as usize).div_ceil(KV_CACHE_STORE_THREADS as usize)), sizes, &params)
}

pub(super) fn decode(cuda: &Cuda, op: AttentionDecode<'_, Cuda>) -> Result<()> {
    const NAME: &str = AttentionDecode::<Cuda>::NAME;
    let CacheDims { b, nh, hs, max_t, .. } = op.check()?;
    let (c, heads) = (nh * hs, b * nh);
    let hs_32 = below(NAME, "HS <= 256", hs, u64::from(ATTENTION_DECODE_MAX_HS) + 1)?;
    let position = below(NAME, "position < 2^31", op.position, 1 << 31)?;
    let len = below(NAME, "B·C/8 < 2^31", b * (c / VECTOR), 1 << 31)?;
    let splits = KvSplits::new(heads, op.position + 1);
    // The outputs of all splits come first, as vector accesses need their alignment; row_max and row_sum follow.
    let partials_bytes = heads * splits.count * hs * size_of::<f32>();
    let stats_bytes = heads * splits.count * 2 * size_of::<f32>();
    let is_split = splits.count > 1;
    let workspace = if is_split { Some(cuda.device().workspace(partials_bytes + stats_bytes)?) } else { None };
    let partials: DevPtr<float4> = workspace.as_ref().map_or(DevPtr::NULL, |workspace| workspace.ptr());
    let params = AttentionDecodeParams {
        qkv: op.qkv.aligned(NAME, "qkv")?,
        k_cache: op.k_cache.aligned(NAME, "k_cache")?,
        v_cache: op.v_cache.aligned(NAME, "v_cache")?,
        out: op.out.aligned(NAME, "out")?,
        partials,
        stats: partials.byte_offset(partials_bytes).cast(),
        max_t: max_t as u64,
        position,
        num_splits: splits.count as u32,
        positions_per_split: splits.positions as u32,
        c: c as u32,
        nh: nh as u32,
        hs: hs_32,
        len,
        softmax_scale_log2: (std::f64::consts::LOG2_E / (hs as f64).sqrt()) as f32,
    };
    let kernel = match hs {
        ..=64 => &DECODE_64,
        65..=128 => &DECODE_128,
        _ => &DECODE_256,
    };
    let sizes = [("B", b), ("NH", nh), ("HS", hs), ("position", op.position), ("splits", splits.count)];
    cuda.device().launch(kernel, Grid::of(heads * splits.count), sizes, &params)?;
    if !is_split {
        return Ok(());
    }
    let combine_grid = Grid::of((len as usize).div_ceil(ATTENTION_DECODE_THREADS as usize));
    cuda.device().launch(&COMBINE, combine_grid, sizes, &params)
}
