// Launch parameters, and the constants that a launch must agree with its kernel on.
//
// The one definition of both: kernels include it, and `make params` has bindgen make src/cuda/params.rs of it. Every
// struct is passed by value as a kernel's only parameter. Members are 8-byte ones first, so that there is no padding.
#ifndef IRONWARP_PARAMS_H
#define IRONWARP_PARAMS_H

#include <stdint.h>

// A pointer into device memory: typed in a kernel, an address on the host, which cannot follow it.
#ifdef __CUDACC__
#include "common/types.cuh"
#define DEVICE_POINTER(T) T *
#else
#define DEVICE_POINTER(T) uint64_t
#endif

// ---------------------------------------------------------------------------------------------------------------------
// embedding

// ---------------------------------------------------------------------------------------------------------------------
// layernorm

// ---------------------------------------------------------------------------------------------------------------------
// gelu

/// Threads of a block of `gelu_forward`.
constexpr uint32_t GELU_FORWARD_THREADS = 256;
/// Elements that a block of `gelu_forward` covers: a 16-byte vector a thread.
constexpr uint32_t GELU_FORWARD_BLOCK = 8 * GELU_FORWARD_THREADS;

/// Parameters of `gelu_forward`.
struct GeluForwardParams {
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (N, C) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// N·C, a multiple of 8.
    uint64_t len;
};

// ---------------------------------------------------------------------------------------------------------------------
// cross_entropy

/// Threads of a block of the cross-entropy kernels.
constexpr uint32_t CROSS_ENTROPY_THREADS = 256;
/// Vectors of 8 columns that a thread loads together.
constexpr uint32_t CROSS_ENTROPY_GROUP = 5;
/// Rows of a block of `cross_entropy_forward_warp` and `cross_entropy_backward_warp`.
constexpr uint32_t CROSS_ENTROPY_WARP_ROWS = CROSS_ENTROPY_THREADS / 32;
/// Most vectors of a row, of those wholly inside of V, for a warp.
constexpr uint32_t CROSS_ENTROPY_WARP_VECTORS = 2 * CROSS_ENTROPY_GROUP * 32;
/// The same for `cross_entropy_backward_20k`.
constexpr uint32_t CROSS_ENTROPY_20K_VECTORS = 2 * CROSS_ENTROPY_GROUP * CROSS_ENTROPY_THREADS;
/// The same for `cross_entropy_backward_51k`.
constexpr uint32_t CROSS_ENTROPY_51K_VECTORS = 5 * CROSS_ENTROPY_GROUP * CROSS_ENTROPY_THREADS;
/// Blocks of `cross_entropy_backward_51k` that a multiprocessor has room for: half of its registers each.
constexpr uint32_t CROSS_ENTROPY_51K_BLOCKS = 2;
/// The same for the other cross-entropy kernels.
constexpr uint32_t CROSS_ENTROPY_SHARED_BLOCKS = 4;

/// Parameters of `cross_entropy_forward_*`.
struct CrossEntropyForwardParams {
    /// (N, Vp) bf16.
    DEVICE_POINTER(const bf16) logits;
    /// (N).
    DEVICE_POINTER(const int32_t) targets;
    /// (N) `=`.
    DEVICE_POINTER(float) losses;
    /// N.
    uint64_t n;
    /// V, from 1 to Vp.
    uint32_t v;
    /// Vp, a multiple of 8 below 2^31.
    uint32_t vp;
};

/// Parameters of `cross_entropy_backward_*`.
struct CrossEntropyBackwardParams {
    /// (N, Vp) bf16, logits in and gradient out.
    DEVICE_POINTER(bf16) logits;
    /// (N).
    DEVICE_POINTER(const int32_t) targets;
    /// (N) `=`.
    DEVICE_POINTER(float) losses;
    /// N.
    uint64_t n;
    /// Vp, a multiple of 8 below 2^31.
    uint64_t vp;
    /// V, from 1 to Vp.
    uint32_t v;
    /// What the gradient is multiplied by.
    float scale;
};

/// Threads of the one block of `loss_sum`.
constexpr uint32_t LOSS_SUM_THREADS = 1024;

/// Parameters of `loss_sum`.
struct LossSumParams {
    /// (N), aligned to 4 bytes.
    DEVICE_POINTER(const float) losses;
    /// (1) as `accumulate` says.
    DEVICE_POINTER(float) total;
    /// N.
    uint64_t n;
    /// What the sum is multiplied by.
    float scale;
    /// 1 to add to what is there, 0 to overwrite it.
    uint32_t accumulate;
};

// ---------------------------------------------------------------------------------------------------------------------
// grad_norm

// ---------------------------------------------------------------------------------------------------------------------
// adamw

#endif
