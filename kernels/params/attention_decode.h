// Launch parameters and constants of attention_decode: see params.h.
#ifndef IRONWARP_PARAMS_ATTENTION_DECODE_H
#define IRONWARP_PARAMS_ATTENTION_DECODE_H

#include "device_pointer.h"

/// Threads of a block of `kv_cache_store`: a 16-byte vector of k and one of v each.
constexpr uint32_t KV_CACHE_STORE_THREADS = 256;

/// Parameters of `kv_cache_store`.
struct KvCacheStoreParams {
    /// (B, T, 3C) bf16.
    DEVICE_POINTER(const bf16) qkv;
    /// (B, T_max, C) bf16, rows `position..position+T` `=`.
    DEVICE_POINTER(bf16) k_cache;
    /// (B, T_max, C) bf16, rows `position..position+T` `=`.
    DEVICE_POINTER(bf16) v_cache;
    /// Positions that a sequence's cache has room for.
    uint64_t max_t;
    /// Of the first token.
    uint64_t position;
    /// Vectors of k: B·T·C/8, below 2^32.
    uint64_t len;
    /// Tokens a sequence.
    uint32_t t;
    /// Channels, a multiple of 8.
    uint32_t c;
};

/// Threads of a block of `attention_decode_*`.
constexpr uint32_t ATTENTION_DECODE_THREADS = 128;
/// Blocks of `attention_decode_hs*` that a multiprocessor must have room for: 128 registers a thread.
constexpr uint32_t ATTENTION_DECODE_MIN_BLOCKS = 4;
/// The largest head size.
constexpr uint32_t ATTENTION_DECODE_MAX_HS = 256;

/// Parameters of `attention_decode_*`.
struct AttentionDecodeParams {
    /// (B, 1, 3C) bf16.
    DEVICE_POINTER(const bf16) qkv;
    /// (B, T_max, C) bf16, row `position` `=`.
    DEVICE_POINTER(bf16) k_cache;
    /// (B, T_max, C) bf16, row `position` `=`.
    DEVICE_POINTER(bf16) v_cache;
    /// (B, 1, C) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// (B, NH, splits, 2, HS/8) of 4 f32: the halves of each vector's sum. Not used where there is one split.
    DEVICE_POINTER(float4) partials;
    /// (B, NH, splits) f32: the largest score, the sum of exponentials. Not used where there is one split.
    DEVICE_POINTER(float2) stats;
    /// Positions that a sequence's cache has room for.
    uint64_t max_t;
    /// Of the token; below 2^31.
    uint32_t position;
    /// Parts that the positions are cut into.
    uint32_t num_splits;
    /// Positions of each part but the last, which may have fewer.
    uint32_t positions_per_split;
    /// Channels, a multiple of 8.
    uint32_t c;
    /// Heads.
    uint32_t nh;
    /// Head size, a multiple of 8.
    uint32_t hs;
    /// Vectors of `out`: B·C/8.
    uint32_t len;
    /// log2(e) / √HS.
    float softmax_scale_log2;
};

#endif
