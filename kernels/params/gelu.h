// Launch parameters and constants of gelu: see params.h.
#ifndef IRONWARP_PARAMS_GELU_H
#define IRONWARP_PARAMS_GELU_H

#include "device_pointer.h"

/// Threads of a block of `gelu_forward`.
constexpr uint32_t GELU_FORWARD_THREADS = 256;
/// Elements that a block of `gelu_forward` covers: a 16-byte vector a thread.
constexpr uint32_t GELU_FORWARD_ELEMENTS_PER_BLOCK = 8 * GELU_FORWARD_THREADS;

/// Parameters of `gelu_forward`.
struct GeluForwardParams {
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (N, C) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// N·C, a multiple of 8.
    uint64_t len;
};

#endif
