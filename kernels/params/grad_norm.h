// Launch parameters and constants of grad_norm: see params.h.
#ifndef IRONWARP_PARAMS_GRAD_NORM_H
#define IRONWARP_PARAMS_GRAD_NORM_H

#include "device_pointer.h"

/// Threads per block of `grad_norm_partials` and `grad_norm_reduce`.
constexpr uint32_t GRAD_NORM_THREADS = 256;
/// minBlocks of `grad_norm_partials`: 1,536 threads, the most that an SM of compute capability 8.6, 8.9 or 12.0 holds.
constexpr uint32_t GRAD_NORM_MIN_BLOCKS = 6;
/// Elements that a block of `grad_norm_partials` loads per iteration: four 16-byte vectors per thread.
constexpr uint32_t GRAD_NORM_TILE = 16 * GRAD_NORM_THREADS;
/// Maximum number of blocks of `grad_norm_partials`: two waves of eight blocks on each of 132 SMs. It is the same on
/// every GPU, as the summation order depends on it.
constexpr uint32_t GRAD_NORM_MAX_BLOCKS = 2048;

/// Parameters of `grad_norm_partials`.
struct GradNormPartialsParams {
    /// (P) f32 gradients, 16-byte-aligned.
    DEVICE_POINTER(const float) grad;
    /// (number of blocks) f32 output `=`: each block's sum of squares.
    DEVICE_POINTER(float) partials;
    /// Number of elements P, a multiple of 4.
    uint64_t len;
};

/// Parameters of `grad_norm_reduce`.
struct GradNormReduceParams {
    /// (num_partials) f32 sums of squares from `grad_norm_partials`.
    DEVICE_POINTER(const float) partials;
    /// (1) f32 output `=`: the square root of their sum.
    DEVICE_POINTER(float) norm;
    /// Number of blocks of `grad_norm_partials`, at most `GRAD_NORM_MAX_BLOCKS`.
    uint64_t num_partials;
};

#endif
