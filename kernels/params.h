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

// ---------------------------------------------------------------------------------------------------------------------
// grad_norm

/// Threads of a block of `grad_norm_partials` and of `grad_norm_total`.
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

/// Parameters of `grad_norm_total`.
struct GradNormTotalParams {
    /// (num_partials) f32.
    DEVICE_POINTER(const float) partials;
    /// (1) f32 `=`.
    DEVICE_POINTER(float) norm;
    /// Blocks of `grad_norm_partials`, at most `GRAD_NORM_MAX_BLOCKS`.
    uint64_t num_partials;
};

// ---------------------------------------------------------------------------------------------------------------------
// adamw

/// Threads of a block of `adamw`.
constexpr uint32_t ADAMW_THREADS = 256;
/// Parameters that a block of `adamw` updates: four a thread.
constexpr uint32_t ADAMW_BLOCK = 4 * ADAMW_THREADS;

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
    float learning_rate;
    float beta1;
    float beta2;
    float eps;
    float weight_decay;
    /// `1 - beta1^step`, which cancels unless it is computed in f64.
    float correction1;
    /// `1 - beta2^step`.
    float correction2;
    /// Gradients are scaled down to this norm.
    float max_norm;
    /// No update when the norm is above it.
    float norm_limit;
    /// No update when the loss is above it.
    float loss_limit;
};

#endif
