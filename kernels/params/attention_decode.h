// Launch parameters and constants of attention_decode: see params.h.
#ifndef IRONWARP_PARAMS_ATTENTION_DECODE_H
#define IRONWARP_PARAMS_ATTENTION_DECODE_H

#include "device_pointer.h"

/// Threads of a CTA of `kv_cache_store`. Each copies one 16-byte vector of k and one of v.
constexpr uint32_t KV_CACHE_STORE_THREADS = 256;

/// Parameters of `kv_cache_store`.
struct KvCacheStoreParams {
    /// (B, T, 3C) bf16.
    DEVICE_POINTER(const bf16) qkv;
    /// (B, T_max, C) bf16, rows `position..position+T` `=`.
    DEVICE_POINTER(bf16) k_cache;
    /// (B, T_max, C) bf16, rows `position..position+T` `=`.
    DEVICE_POINTER(bf16) v_cache;
    /// T_max, the capacity of a sequence's cache in positions.
    uint64_t max_t;
    /// Position of the first token.
    uint64_t position;
    /// 16-byte vectors of k: B·T·C/8, below 2^32.
    uint64_t len;
    /// T, tokens per sequence.
    uint32_t t;
    /// C, channels; a multiple of 8.
    uint32_t c;
};

/// Threads of a CTA of `attention_decode_*`.
constexpr uint32_t ATTENTION_DECODE_THREADS = 128;
/// minBlocks of `attention_decode_hs*`: CTAs that an SM must be able to hold, which limits a thread to 128 registers.
constexpr uint32_t ATTENTION_DECODE_MIN_BLOCKS = 4;
/// Largest supported head size.
constexpr uint32_t ATTENTION_DECODE_MAX_HS = 256;

/// Parameters of `attention_decode_*`. The grid has one CTA per sequence, split and head.
struct AttentionDecodeParams {
    /// (B, 1, 3C) bf16.
    DEVICE_POINTER(const bf16) qkv;
    /// (B, T_max, C) bf16, row `position` `=`.
    DEVICE_POINTER(bf16) k_cache;
    /// (B, T_max, C) bf16, row `position` `=`.
    DEVICE_POINTER(bf16) v_cache;
    /// (B, 1, C) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// (B, NH, num_splits, 2, HS/8) of 4 f32: unnormalized outputs, the low halves of 8-element vectors, then the high.
    DEVICE_POINTER(float4) partials;
    /// (B, NH, num_splits) of 2 f32: each split's row_max and row_sum. Unused if `num_splits` is 1.
    DEVICE_POINTER(float2) stats;
    /// T_max, the capacity of a sequence's cache in positions.
    uint64_t max_t;
    /// Position of the new token; below 2^31.
    uint32_t position;
    /// Splits of the cached positions (split-KV).
    uint32_t num_splits;
    /// Positions per split; the last split may have fewer.
    uint32_t positions_per_split;
    /// C, channels; a multiple of 8.
    uint32_t c;
    /// NH, heads.
    uint32_t nh;
    /// HS, head size; a multiple of 8.
    uint32_t hs;
    /// 16-byte vectors of `out`: B·C/8.
    uint32_t len;
    /// log2(e) / √HS.
    float softmax_scale_log2;
};

#endif
