// Launch parameters and constants of attention: see params.h.
#ifndef IRONWARP_PARAMS_ATTENTION_H
#define IRONWARP_PARAMS_ATTENTION_H

#include "device_pointer.h"

/// Threads of a block of `attention_forward`.
constexpr uint32_t ATTENTION_FORWARD_THREADS = 128;
/// Queries of a block of `attention_forward`, 32 a warp.
constexpr uint32_t ATTENTION_FORWARD_BLOCK_M = 128;
/// Keys that `attention_forward` has in each of two stages of shared memory.
constexpr uint32_t ATTENTION_FORWARD_BLOCK_N = 64;
/// Blocks of `attention_forward` that a multiprocessor has registers for.
constexpr uint32_t ATTENTION_FORWARD_MIN_BLOCKS = 2;

/// Parameters of `attention_forward`.
struct AttentionForwardParams {
    /// (B, T, 3C) bf16.
    DEVICE_POINTER(const bf16) qkv;
    /// (B, T, C) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// (B, NH, T) f32 `=`.
    DEVICE_POINTER(float) lse;
    /// T, less than 2^31.
    uint32_t t;
    /// NH.
    uint32_t nh;
    /// B·NH.
    uint32_t batch_heads;
    /// Blocks that a head's queries take.
    uint32_t q_tiles;
    /// Heads whose blocks run together.
    uint32_t heads_per_group;
    /// log2(e) / sqrt(HS).
    float softmax_scale_log2;
};

/// Threads of a block of `attention_backward_*`.
constexpr uint32_t ATTENTION_BACKWARD_THREADS = 128;
/// Blocks of `attention_backward_*` that a multiprocessor has registers for.
constexpr uint32_t ATTENTION_BACKWARD_MIN_BLOCKS = 2;
/// The largest head size at which a warp of `attention_backward_dkdv_*` has 32 keys and all kernels take 64 rows at a time;
/// beyond, it has 16 and they take 32.
constexpr uint32_t ATTENTION_BACKWARD_MAX_SMALL_HS = 64;
/// Queries of a block of `attention_backward_dq_*`, 32 a warp, and keys of one of `attention_backward_dkdv_*` where it
/// is narrow; beyond, it has half as many.
constexpr uint32_t ATTENTION_BACKWARD_RESIDENT_ROWS = 128;
/// Rows of the other side in each of two stages of shared memory; beyond the narrow ones half as many.
constexpr uint32_t ATTENTION_BACKWARD_STREAMED_ROWS = 64;

/// Parameters of `attention_backward_*`.
struct AttentionBackwardParams {
    /// (B, T, C) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (B, T, 3C) bf16.
    DEVICE_POINTER(const bf16) qkv;
    /// (B, T, C) bf16.
    DEVICE_POINTER(const bf16) out;
    /// (B, NH, T) f32.
    DEVICE_POINTER(const float) lse;
    /// (B, T, 3C) bf16 `=`: dq by the queries' kernel, dk and dv by the keys'.
    DEVICE_POINTER(bf16) dqkv;
    /// (2, B, NH, T) f32: -lse·log2(e), then -delta, which the queries' kernel writes and the keys' reads.
    DEVICE_POINTER(float) stats;
    /// T, less than 2^31.
    uint32_t t;
    /// NH.
    uint32_t nh;
    /// B·NH.
    uint32_t batch_heads;
    /// Blocks that a head's queries take.
    uint32_t q_tiles;
    /// Blocks that a head's keys take.
    uint32_t kv_tiles;
    /// Heads whose blocks run together.
    uint32_t heads_per_group;
    /// 1 / sqrt(HS).
    float softmax_scale;
    /// log2(e) / sqrt(HS).
    float softmax_scale_log2;
};

#endif
