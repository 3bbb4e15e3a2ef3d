// Launch parameters and constants of attention: see params.h.
#ifndef IRONWARP_PARAMS_ATTENTION_H
#define IRONWARP_PARAMS_ATTENTION_H

#include "device_pointer.h"

/// Q, K or V: a (B, T, NH, HS) bf16 tensor. Strides are in elements; the HS elements of a row are contiguous.
struct AttentionInput {
    /// Element (0, 0, 0, 0), 16-byte aligned.
    DEVICE_POINTER(const bf16) data;
    /// Elements between sequences.
    uint64_t batch_stride;
    /// Elements between the tokens of a sequence, less than 2^25, so that offsets within a tile have 32 bits.
    uint32_t token_stride;
    /// Elements between the heads of a token.
    uint32_t head_stride;
};

/// dQ, dK or dV: as `AttentionInput`, to write.
struct AttentionOutput {
    /// Element (0, 0, 0, 0), 16-byte aligned.
    DEVICE_POINTER(bf16) data;
    /// Elements between sequences.
    uint64_t batch_stride;
    /// Elements between the tokens of a sequence.
    uint32_t token_stride;
    /// Elements between the heads of a token.
    uint32_t head_stride;
};

/// Threads of a CTA of `attention_forward_*`.
constexpr uint32_t ATTENTION_FORWARD_THREADS = 128;
/// Queries of a Q tile, 32 per warp (BLOCK_M).
constexpr uint32_t ATTENTION_FORWARD_BLOCK_M = 128;
/// Keys of a K/V tile, of which shared memory holds two (BLOCK_N).
constexpr uint32_t ATTENTION_FORWARD_BLOCK_N = 64;
/// minBlocks of `attention_forward_*`: CTAs that an SM must be able to hold, which limits the registers of a thread.
constexpr uint32_t ATTENTION_FORWARD_MIN_BLOCKS = 2;

/// Parameters of `attention_forward_*`. The grid has one CTA per head and Q tile.
struct AttentionForwardParams {
    /// Q.
    AttentionInput q;
    /// K.
    AttentionInput k;
    /// V.
    AttentionInput v;
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
    /// Heads whose CTAs are adjacent in the grid, so that they run at the same time and their rows fit in L2.
    uint32_t heads_per_group;
    /// log2(e) / sqrt(HS).
    float softmax_scale_log2;
    /// 1: query i sees the keys j <= i. 0: it sees all.
    uint32_t causal;
};

/// Threads of a CTA of `attention_backward_*`.
constexpr uint32_t ATTENTION_BACKWARD_THREADS = 128;
/// minBlocks of `attention_backward_*`: CTAs that an SM must be able to hold, which limits the registers of a thread.
constexpr uint32_t ATTENTION_BACKWARD_MIN_BLOCKS = 2;
/// minBlocks of `attention_backward_dq_*` up to HS = 32.
constexpr uint32_t ATTENTION_BACKWARD_DQ_SMALL_MIN_BLOCKS = 3;
/// Largest head size with `ATTENTION_BACKWARD_DQ_SMALL_MIN_BLOCKS`.
constexpr uint32_t ATTENTION_BACKWARD_DQ_MAX_SMALL_HS = 32;
/// Largest head size for which the dKdV kernel's resident tiles have all rows; beyond, they have half of them.
constexpr uint32_t ATTENTION_BACKWARD_MAX_SMALL_HS = 64;
/// Largest head size for which streamed tiles have all rows; beyond, they have half of them. With all, two CTAs of HS = 64
/// would not fit on an SM with 100 KiB of shared memory (compute capability 8.6, 8.9, 12.0).
constexpr uint32_t ATTENTION_BACKWARD_STREAMED_MAX_SMALL_HS = 48;
/// Rows of a resident tile, 32 per warp: queries in the dQ kernel, keys in the dKdV kernel.
constexpr uint32_t ATTENTION_BACKWARD_RESIDENT_ROWS = 128;
/// Rows of a streamed tile, of which shared memory holds two: keys in the dQ kernel, queries in the dKdV kernel.
constexpr uint32_t ATTENTION_BACKWARD_STREAMED_ROWS = 64;

/// Parameters of `attention_backward_*`. The grid has one CTA per head and resident tile.
struct AttentionBackwardParams {
    /// Q.
    AttentionInput q;
    /// K.
    AttentionInput k;
    /// V.
    AttentionInput v;
    /// dQ `=`, written by the dQ kernel.
    AttentionOutput dq;
    /// dK `=`, written by the dKdV kernel.
    AttentionOutput dk;
    /// dV `=`, written by the dKdV kernel.
    AttentionOutput dv;
    /// (B, T, C) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (B, T, C) bf16, C less than 2^25.
    DEVICE_POINTER(const bf16) out;
    /// (B, NH, T) f32.
    DEVICE_POINTER(const float) lse;
    /// (2, B, NH, T) f32: -lse·log2(e), then -delta. The dQ kernel writes them and the dKdV kernel reads them.
    DEVICE_POINTER(float) stats;
    /// T, less than 2^31.
    uint32_t t;
    /// NH.
    uint32_t nh;
    /// B·NH.
    uint32_t batch_heads;
    /// Resident tiles per head: of queries in the dQ kernel, of keys in the dKdV kernel.
    uint32_t resident_tiles;
    /// Heads whose CTAs are adjacent in the grid, so that they run at the same time and their rows fit in L2.
    uint32_t heads_per_group;
    /// 1 / sqrt(HS).
    float softmax_scale;
    /// log2(e) / sqrt(HS).
    float softmax_scale_log2;
    /// As in `AttentionForwardParams`.
    uint32_t causal;
};

#endif
