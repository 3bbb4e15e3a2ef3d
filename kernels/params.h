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

// ---------------------------------------------------------------------------------------------------------------------
// adamw

#endif
