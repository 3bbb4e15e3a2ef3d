// Launch parameters and constants of grad_norm: see params.h.
#ifndef IRONWARP_PARAMS_GRAD_NORM_H
#define IRONWARP_PARAMS_GRAD_NORM_H

#include "device_pointer.h"

/// Threads of a block of `grad_norm_partials` and of `grad_norm_reduce`.
constexpr uint32_t GRAD_NORM_THREADS = 256;
/// Elements that a block of `grad_norm_partials` takes at a time: four 16-byte vectors a thread.
constexpr uint32_t GRAD_NORM_TILE = 16 * GRAD_NORM_THREADS;
/// Most blocks of `grad_norm_partials`. Constant, as the order of the sum depends on it: two waves of 132
/// multiprocessors with eight blocks each.
constexpr uint32_t GRAD_NORM_MAX_BLOCKS = 2048;

/// Parameters of `grad_norm_partials`.
struct GradNormPartialsParams {
    /// (P) f32.
    DEVICE_POINTER(const float) grad;
    /// (blocks of the grid) f32 `=`.
    DEVICE_POINTER(float) partials;
    /// P, a multiple of 4.
    uint64_t len;
};

/// Parameters of `grad_norm_reduce`.
struct GradNormReduceParams {
    /// (num_partials) f32.
    DEVICE_POINTER(const float) partials;
    /// (1) f32 `=`.
    DEVICE_POINTER(float) norm;
    /// Blocks of `grad_norm_partials`, at most `GRAD_NORM_MAX_BLOCKS`.
    uint64_t num_partials;
};

#endif
