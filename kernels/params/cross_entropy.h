// Launch parameters and constants of cross_entropy: see params.h.
#ifndef IRONWARP_PARAMS_CROSS_ENTROPY_H
#define IRONWARP_PARAMS_CROSS_ENTROPY_H

#include "device_pointer.h"

/// Threads of a block of the cross-entropy kernels.
constexpr uint32_t CROSS_ENTROPY_THREADS = 256;
/// Vectors of 8 columns that a thread loads together.
constexpr uint32_t CROSS_ENTROPY_UNROLL = 5;
/// Rows of a block of `cross_entropy_forward_warp` and `cross_entropy_backward_warp`.
constexpr uint32_t CROSS_ENTROPY_WARP_ROWS_PER_BLOCK = CROSS_ENTROPY_THREADS / 32;
/// Most vectors of a row, of those wholly inside of V, for a warp.
constexpr uint32_t CROSS_ENTROPY_WARP_MAX_VECTORS = 2 * CROSS_ENTROPY_UNROLL * 32;
/// The same for `cross_entropy_backward_20k`.
constexpr uint32_t CROSS_ENTROPY_20K_MAX_VECTORS = 2 * CROSS_ENTROPY_UNROLL * CROSS_ENTROPY_THREADS;
/// The same for `cross_entropy_backward_51k`.
constexpr uint32_t CROSS_ENTROPY_51K_MAX_VECTORS = 5 * CROSS_ENTROPY_UNROLL * CROSS_ENTROPY_THREADS;
/// Blocks of `cross_entropy_backward_51k` that a multiprocessor has room for: half of its registers each.
constexpr uint32_t CROSS_ENTROPY_51K_MIN_BLOCKS = 2;
/// The same for the other cross-entropy kernels.
constexpr uint32_t CROSS_ENTROPY_MIN_BLOCKS = 4;

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

#endif
