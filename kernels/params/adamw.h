// Launch parameters and constants of adamw: see params.h.
#ifndef IRONWARP_PARAMS_ADAMW_H
#define IRONWARP_PARAMS_ADAMW_H

#include "device_pointer.h"

/// Threads of a block of `adamw`.
constexpr uint32_t ADAMW_THREADS = 256;
/// Parameters that a block of `adamw` updates: four a thread.
constexpr uint32_t ADAMW_ELEMENTS_PER_BLOCK = 4 * ADAMW_THREADS;

/// Parameters of `adamw`.
struct AdamWParams {
    /// (P) bf16 `=`.
    DEVICE_POINTER(bf16) weight;
    /// (P) f32, in place.
    DEVICE_POINTER(float) master;
    /// (P) f32.
    DEVICE_POINTER(const float) grad;
    /// (P) f32, in place.
    DEVICE_POINTER(float) m;
    /// (P) f32, in place.
    DEVICE_POINTER(float) v;
    /// (1) f32.
    DEVICE_POINTER(const float) norm;
    /// (1) f32.
    DEVICE_POINTER(const float) loss;
    /// P, a multiple of 4.
    uint64_t len;
    /// Key of the draws.
    uint64_t seed;
    /// Counter of the draws.
    uint64_t step;
    /// Index of the first draw, a multiple of 4.
    uint64_t first_index;
    /// Of this step.
    float learning_rate;
    /// Decay of the first moment.
    float beta1;
    /// Decay of the second moment.
    float beta2;
    /// Added to the root of the second moment.
    float eps;
    /// Multiplied by the learning rate.
    float weight_decay;
    /// `1 - beta1^step`, which cancels unless it is computed in f64.
    float bias_correction1;
    /// `1 - beta2^step`.
    float bias_correction2;
    /// Gradients are scaled down to this norm.
    float max_norm;
    /// No update when the norm is above it.
    float norm_limit;
    /// No update when the loss is above it.
    float loss_limit;
};

#endif
