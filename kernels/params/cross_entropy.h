// Launch parameters and constants of cross_entropy: see params.h.
#ifndef IRONWARP_PARAMS_CROSS_ENTROPY_H
#define IRONWARP_PARAMS_CROSS_ENTROPY_H

#include "device_pointer.h"

/// Threads per block of the cross-entropy kernels.
constexpr uint32_t CROSS_ENTROPY_THREADS = 256;
/// 16-byte vectors of logits that a thread loads in one unrolled batch.
constexpr uint32_t CROSS_ENTROPY_UNROLL = 5;
/// Rows per block of `cross_entropy_forward_warp` and `cross_entropy_backward_warp`: one per warp.
constexpr uint32_t CROSS_ENTROPY_WARP_ROWS_PER_BLOCK = CROSS_ENTROPY_THREADS / 32;
/// Largest V / 8 (full vectors of a row) of the kernels with one warp per row.
constexpr uint32_t CROSS_ENTROPY_WARP_MAX_VECTORS = 2 * CROSS_ENTROPY_UNROLL * 32;
/// Largest V / 8 of `cross_entropy_backward_20k`.
constexpr uint32_t CROSS_ENTROPY_20K_MAX_VECTORS = 2 * CROSS_ENTROPY_UNROLL * CROSS_ENTROPY_THREADS;
/// Largest V / 8 of `cross_entropy_backward_51k`.
constexpr uint32_t CROSS_ENTROPY_51K_MAX_VECTORS = 5 * CROSS_ENTROPY_UNROLL * CROSS_ENTROPY_THREADS;
/// Minimum resident blocks of `cross_entropy_backward_51k` per SM: it limits the kernel to 128 registers per thread.
constexpr uint32_t CROSS_ENTROPY_51K_MIN_BLOCKS = 2;
/// Minimum resident blocks per SM of the other cross-entropy kernels.
constexpr uint32_t CROSS_ENTROPY_MIN_BLOCKS = 4;

/// Parameters of `cross_entropy_forward_*`.
struct CrossEntropyForwardParams {
    /// (N, Vp) bf16, row-major logits.
    DEVICE_POINTER(const bf16) logits;
    /// (N) i32 target column of each row; negative: the row is ignored.
    DEVICE_POINTER(const int32_t) targets;
    /// (N) f32 output `=`: the loss of each row.
    DEVICE_POINTER(float) losses;
    /// Number of rows N.
    uint64_t n;
    /// Vocabulary size V without padding, in 1..=Vp.
    uint32_t v;
    /// Row stride Vp in elements, a multiple of 8 below 2^31.
    uint32_t vp;
};

/// Parameters of `cross_entropy_backward_*`.
struct CrossEntropyBackwardParams {
    /// (N, Vp) bf16, row-major: logits on entry, overwritten by their gradient.
    DEVICE_POINTER(bf16) logits;
    /// (N) i32 target column of each row; negative: the row is ignored.
    DEVICE_POINTER(const int32_t) targets;
    /// (N) f32 output `=`: the loss of each row.
    DEVICE_POINTER(float) losses;
    /// Number of rows N.
    uint64_t n;
    /// Row stride Vp in elements, a multiple of 8 below 2^31.
    uint64_t vp;
    /// Vocabulary size V without padding, in 1..=Vp.
    uint32_t v;
    /// Factor of the gradient, such as 1/N for the mean loss.
    float scale;
};

/// Threads of the single block of `loss_sum`.
constexpr uint32_t LOSS_SUM_THREADS = 1024;

/// Parameters of `loss_sum`.
struct LossSumParams {
    /// (N) f32 losses, 4-byte-aligned.
    DEVICE_POINTER(const float) losses;
    /// (1) f32 output, `=` or `+=` by `accumulate`.
    DEVICE_POINTER(float) total;
    /// Number of losses N.
    uint64_t n;
    /// Factor of the sum, such as 1/N for the mean loss.
    float scale;
    /// 1: total is added to; 0: it is overwritten.
    uint32_t accumulate;
};

#endif
