// Launch parameters and constants of gelu: see params.h.
#ifndef IRONWARP_PARAMS_GELU_H
#define IRONWARP_PARAMS_GELU_H

#include "device_pointer.h"

/// Threads per block of `gelu_forward`.
constexpr uint32_t GELU_FORWARD_THREADS = 256;
/// Elements that a block of `gelu_forward` computes: one 16-byte vector per thread.
constexpr uint32_t GELU_FORWARD_ELEMENTS_PER_BLOCK = 8 * GELU_FORWARD_THREADS;

/// Parameters of `gelu_forward`.
struct GeluForwardParams {
    /// (N, C) bf16, row-major input.
    DEVICE_POINTER(const bf16) x;
    /// (N, C) bf16, row-major output `=`.
    DEVICE_POINTER(bf16) out;
    /// Number of elements N·C, a multiple of 8.
    uint64_t len;
};

#endif
