// Launch parameters and constants of adamw: see params.h.
#ifndef IRONWARP_PARAMS_ADAMW_H
#define IRONWARP_PARAMS_ADAMW_H

#include "device_pointer.h"

/// Threads per block of `adamw`.
constexpr uint32_t ADAMW_THREADS = 256;
/// Parameters that a block of `adamw` updates: four per thread.
constexpr uint32_t ADAMW_ELEMENTS_PER_BLOCK = 4 * ADAMW_THREADS;

/// Parameters of `adamw`.
struct AdamWParams {
    /// (P) bf16 output `=`: the master weights, rounded stochastically.
    DEVICE_POINTER(bf16) weight;
    /// (P) f32 master weights, updated in place.
    DEVICE_POINTER(float) master;
    /// (P) f32 gradients.
    DEVICE_POINTER(const float) grad;
    /// (P) f32 first moments, updated in place.
    DEVICE_POINTER(float) m;
    /// (P) f32 second moments, updated in place.
    DEVICE_POINTER(float) v;
    /// (1) f32 global gradient norm.
    DEVICE_POINTER(const float) norm;
    /// (1) f32 loss.
    DEVICE_POINTER(const float) loss;
    /// Number of parameters P, a multiple of 4.
    uint64_t len;
    /// Philox key of stochastic rounding.
    uint64_t seed;
    /// Philox counter of stochastic rounding: the optimizer step.
    uint64_t step;
    /// Index of the first parameter's draw, a multiple of 4: parameter i is rounded by draw `first_index + i`.
    uint64_t first_index;
    /// Learning rate of this step.
    float learning_rate;
    /// Decay rate of the first moment.
    float beta1;
    /// Decay rate of the second moment.
    float beta2;
    /// Epsilon, added to the square root of the second moment.
    float eps;
    /// Decoupled weight decay; the update multiplies it by the learning rate.
    float weight_decay;
    /// `1 - beta1^step`. The host computes it in f64, as the difference cancels in f32.
    float bias_correction1;
    /// `1 - beta2^step`, computed in f64 like `bias_correction1`.
    float bias_correction2;
    /// Maximum gradient norm: larger gradients are scaled down to it (clipping by global norm).
    float max_norm;
    /// The update is skipped if the norm is above this limit.
    float norm_limit;
    /// The update is skipped if the loss is above this limit.
    float loss_limit;
};

#endif
