// Launch parameters and constants of matmul: see params.h.
#ifndef IRONWARP_PARAMS_MATMUL_H
#define IRONWARP_PARAMS_MATMUL_H

#include "device_pointer.h"

/// Rows of an output tile (BLOCK_M) of `matmul_*_128x256x32`.
constexpr uint32_t MATMUL_LARGE_BLOCK_M = 128;
/// Columns of an output tile (BLOCK_N) of `matmul_*_128x256x32`.
constexpr uint32_t MATMUL_LARGE_BLOCK_N = 256;
/// Threads of a CTA of `matmul_*_128x256x32`: 8 warps with a warp tile of 64 x 64 each.
constexpr uint32_t MATMUL_LARGE_THREADS = 256;
/// Rows of an output tile (BLOCK_M) of `matmul_*_64x64x32`.
constexpr uint32_t MATMUL_SMALL_BLOCK_M = 64;
/// Columns of an output tile (BLOCK_N) of `matmul_*_64x64x32`.
constexpr uint32_t MATMUL_SMALL_BLOCK_N = 64;
/// Threads of a CTA of `matmul_*_64x64x32`: 4 warps with a warp tile of 32 x 32 each.
constexpr uint32_t MATMUL_SMALL_THREADS = 128;
/// minBlocks of `matmul_*_64x64x32`: CTAs that an SM must be able to hold, which limits a thread to 128 registers.
constexpr uint32_t MATMUL_SMALL_MIN_BLOCKS = 4;
/// K of a pipeline stage (BLOCK_K).
constexpr uint32_t MATMUL_BLOCK_K = 32;
/// Pipeline stages in shared memory: the MMAs consume one while the copies of the others are in flight.
constexpr uint32_t MATMUL_STAGES = 4;

/// Parameters of `matmul_forward_*`. The grid has one CTA per output tile.
struct MatmulForwardParams {
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (OC, C) bf16.
    DEVICE_POINTER(const bf16) weight;
    /// (OC) bf16, or null.
    DEVICE_POINTER(const bf16) bias;
    /// (N, OC) bf16, or null.
    DEVICE_POINTER(const bf16) residual;
    /// Pre-activation (N, OC) bf16 `=`, or null without GELU.
    DEVICE_POINTER(bf16) pre;
    /// (N, OC) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// N.
    uint32_t n;
    /// C, a multiple of 8.
    uint32_t c;
    /// OC, a multiple of 8.
    uint32_t oc;
    /// Output tiles along N, the M of the GEMM.
    uint32_t tiles_m;
};

/// Parameters of `matmul_dgrad_*`. The grid has one CTA per output tile.
struct MatmulDgradParams {
    /// (N, OC) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (OC, C) bf16.
    DEVICE_POINTER(const bf16) weight;
    /// Pre-activation of the input's GELU (N, C) bf16, or null if the input is not the output of a GELU.
    DEVICE_POINTER(const bf16) pre;
    /// (N, C) bf16 `=`.
    DEVICE_POINTER(bf16) dx;
    /// N.
    uint32_t n;
    /// C, a multiple of 8.
    uint32_t c;
    /// OC, a multiple of 8.
    uint32_t oc;
    /// Output tiles along N, the M of the GEMM.
    uint32_t tiles_m;
};

/// Parameters of `matmul_wgrad_*`. The grid has one CTA per output tile in x, and `split_k` splits of the N rows in y.
struct MatmulWgradParams {
    /// (N, OC) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (OC, C) f32; that of split s at offset s · `split_stride`.
    DEVICE_POINTER(float) dweight;
    /// (OC) f32, or null; that of split s at offset s · `split_stride`.
    DEVICE_POINTER(float) dbias;
    /// Elements between the partial sums of two splits.
    uint64_t split_stride;
    /// N.
    uint32_t n;
    /// C, a multiple of 8.
    uint32_t c;
    /// OC, a multiple of 8.
    uint32_t oc;
    /// Output tiles along OC, the M of the GEMM.
    uint32_t tiles_m;
    /// Rows of a split, a multiple of BLOCK_K; the last split may have fewer.
    uint32_t k_per_split;
    /// Whether dweight and dbias are accumulated into (`+=`) rather than overwritten.
    uint32_t accumulate;
};

/// Threads of a CTA of `matmul_wgrad_splitk_reduce`.
constexpr uint32_t MATMUL_SPLITK_REDUCE_THREADS = 256;

/// Parameters of `matmul_wgrad_splitk_reduce`. Each thread reduces 4 elements.
struct MatmulSplitKReduceParams {
    /// (split_k, OC·C + OC) f32: partial sums of dweight, then of dbias.
    DEVICE_POINTER(const float) partials;
    /// (OC·C) f32.
    DEVICE_POINTER(float) dweight;
    /// (OC) f32, or null.
    DEVICE_POINTER(float) dbias;
    /// OC·C.
    uint64_t dweight_len;
    /// Elements to reduce: OC·C, or OC·C + OC with a dbias.
    uint64_t len;
    /// Elements between the partial sums of two splits.
    uint64_t split_stride;
    /// Splits of K.
    uint32_t split_k;
    /// Whether dweight and dbias are accumulated into (`+=`) rather than overwritten.
    uint32_t accumulate;
};

#endif
