// Launch parameters and constants of layernorm: see params.h.
#ifndef IRONWARP_PARAMS_LAYERNORM_H
#define IRONWARP_PARAMS_LAYERNORM_H

#include "device_pointer.h"

/// Threads of a block of every layernorm kernel.
constexpr uint32_t LAYERNORM_THREADS = 256;
/// Blocks of the forward that a multiprocessor holds at least: 64 registers a thread.
constexpr uint32_t LAYERNORM_FORWARD_MIN_BLOCKS = 4;
/// As `LAYERNORM_FORWARD_MIN_BLOCKS`, where a thread has 8 vectors of a row: 128 registers.
constexpr uint32_t LAYERNORM_FORWARD_C2048_MIN_BLOCKS = 2;
/// As `LAYERNORM_FORWARD_MIN_BLOCKS`, where a thread has 6 vectors of x and of the residual: 80 registers.
constexpr uint32_t LAYERNORM_RESIDUAL_C12288_MIN_BLOCKS = 3;
/// Rows that a block of a layernorm kernel takes before there are more blocks: fewer would read the weights, or write
/// partial sums, too often.
constexpr uint32_t LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK = 32;
/// As `LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK`, for the backward.
constexpr uint32_t LAYERNORM_BACKWARD_MIN_ROWS_PER_BLOCK = 64;
/// The most blocks of the backward, on every GPU: the number decides the order of sums.
constexpr uint32_t LAYERNORM_BACKWARD_MAX_BLOCKS = 256;
/// Columns of 4 that a block of `layernorm_backward_reduce` adds up.
constexpr uint32_t LAYERNORM_REDUCE_VECTORS = 32;
/// The largest C.
constexpr uint32_t LAYERNORM_MAX_C = 12288;

/// Parameters of `layernorm_forward` and `residual_layernorm_forward`.
struct LayernormForwardParams {
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (N, C) bf16, or null.
    DEVICE_POINTER(const bf16) residual;
    /// (C) bf16.
    DEVICE_POINTER(const bf16) weight;
    /// (C) bf16.
    DEVICE_POINTER(const bf16) bias;
    /// (N, C) bf16 `=`, or null.
    DEVICE_POINTER(bf16) sum;
    /// (N, C) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// (N) f32 `=`.
    DEVICE_POINTER(float) mean;
    /// (N) f32 `=`.
    DEVICE_POINTER(float) rstd;
    /// N.
    uint64_t n;
    /// C.
    uint64_t c;
};

/// Parameters of `layernorm_backward` and `layernorm_backward_reduce`.
struct LayernormBackwardParams {
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (C) bf16.
    DEVICE_POINTER(const bf16) weight;
    /// (N) f32.
    DEVICE_POINTER(const float) mean;
    /// (N) f32.
    DEVICE_POINTER(const float) rstd;
    /// (N, C) bf16.
    DEVICE_POINTER(bf16) dx;
    /// (C) f32.
    DEVICE_POINTER(float) dweight;
    /// (C) f32.
    DEVICE_POINTER(float) dbias;
    /// (blocks, 4, C/8) of 4 f32: the halves of dweight's vectors, then of dbias's.
    DEVICE_POINTER(float4) partials;
    /// N.
    uint64_t n;
    /// C.
    uint32_t c;
    /// Blocks of `layernorm_backward`.
    uint32_t blocks;
    /// Whether dx is added to.
    uint32_t accumulate_dx;
    /// Whether dweight and dbias are added to.
    uint32_t accumulate;
};

#endif
