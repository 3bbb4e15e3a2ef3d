// Launch parameters and constants of matmul: see params.h.
#ifndef IRONWARP_PARAMS_MATMUL_H
#define IRONWARP_PARAMS_MATMUL_H

#include "device_pointer.h"

/// Rows of the product that a block of `matmul_*_128x256x32` has.
constexpr uint32_t MATMUL_LARGE_BLOCK_M = 128;
/// Columns of the product that a block of `matmul_*_128x256x32` has.
constexpr uint32_t MATMUL_LARGE_BLOCK_N = 256;
/// Threads of a block of `matmul_*_128x256x32`: 8 warps, (64, 64) of the product each.
constexpr uint32_t MATMUL_LARGE_THREADS = 256;
/// Rows of the product that a block of `matmul_*_64x64x32` has.
constexpr uint32_t MATMUL_SMALL_BLOCK_M = 64;
/// Columns of the product that a block of `matmul_*_64x64x32` has.
constexpr uint32_t MATMUL_SMALL_BLOCK_N = 64;
/// Threads of a block of `matmul_*_64x64x32`: 4 warps, (32, 32) of the product each.
constexpr uint32_t MATMUL_SMALL_THREADS = 128;
/// Blocks of `matmul_*_64x64x32` that a multiprocessor must have room for: 128 registers a thread.
constexpr uint32_t MATMUL_SMALL_MIN_BLOCKS = 4;
/// Terms of the sums that a stage holds.
constexpr uint32_t MATMUL_BLOCK_K = 32;
/// Stages in shared memory: one multiplied, the others on their way.
constexpr uint32_t MATMUL_STAGES = 4;

/// Parameters of `matmul_forward_*`. The grid is a block a tile.
struct MatmulForwardParams {
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (OC, C) bf16.
    DEVICE_POINTER(const bf16) weight;
    /// (OC) bf16, or null.
    DEVICE_POINTER(const bf16) bias;
    /// (N, OC) bf16, or null.
    DEVICE_POINTER(const bf16) residual;
    /// (N, OC) bf16 `=`, or null where no GELU follows.
    DEVICE_POINTER(bf16) pre;
    /// (N, OC) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// N.
    uint32_t n;
    /// C, a multiple of 8.
    uint32_t c;
    /// OC, a multiple of 8.
    uint32_t oc;
    /// Tiles along N.
    uint32_t tiles_m;
};

/// Parameters of `matmul_dgrad_*`. The grid is a block a tile.
struct MatmulDgradParams {
    /// (N, OC) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (OC, C) bf16.
    DEVICE_POINTER(const bf16) weight;
    /// (N, C) bf16, or null where the input was no GELU's.
    DEVICE_POINTER(const bf16) pre;
    /// (N, C) bf16 `=`.
    DEVICE_POINTER(bf16) dx;
    /// N.
    uint32_t n;
    /// C, a multiple of 8.
    uint32_t c;
    /// OC, a multiple of 8.
    uint32_t oc;
    /// Tiles along N.
    uint32_t tiles_m;
};

/// Parameters of `matmul_wgrad_*`. The grid's x is a block a tile, its y a part of the N rows.
struct MatmulWgradParams {
    /// (N, OC) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (OC, C) f32; of part p at p · `split_stride`.
    DEVICE_POINTER(float) dweight;
    /// (OC) f32, or null; of part p at p · `split_stride`.
    DEVICE_POINTER(float) dbias;
    /// Elements between the sums of two parts.
    uint64_t split_stride;
    /// N.
    uint32_t n;
    /// C, a multiple of 8.
    uint32_t c;
    /// OC, a multiple of 8.
    uint32_t oc;
    /// Tiles along OC.
    uint32_t tiles_m;
    /// Rows of a part, a multiple of a stage's terms; the last may have fewer.
    uint32_t k_per_split;
    /// Whether dweight and dbias are added to.
    uint32_t accumulate;
};

/// Threads of a block of `matmul_wgrad_splitk_reduce`.
constexpr uint32_t MATMUL_SPLITK_REDUCE_THREADS = 256;

/// Parameters of `matmul_wgrad_splitk_reduce`; a thread is 4 elements.
struct MatmulSplitKReduceParams {
    /// (parts, OC·C + OC) f32: sums of dweight, then of dbias.
    DEVICE_POINTER(const float) partials;
    /// (OC·C) f32.
    DEVICE_POINTER(float) dweight;
    /// (OC) f32, or null.
    DEVICE_POINTER(float) dbias;
    /// OC·C.
    uint64_t dweight_len;
    /// OC·C, and OC with it where there is a dbias.
    uint64_t len;
    /// Elements between two parts.
    uint64_t split_stride;
    /// Parts.
    uint32_t split_k;
    /// Whether dweight and dbias are added to.
    uint32_t accumulate;
};

#endif
