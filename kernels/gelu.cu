// GELU.  out = x/2 * (1 + tanh(u)), u = sqrt(2/pi) * (x + 0.044715 * x^3)
// Shapes:   x, out (N, C) bf16; row-major
// Writes:   out "="
// Requires: C % 8 == 0; 16-byte-aligned pointers
// Launch:   grid ceil(N*C/2048), block 256, smem 0; one thread = one vector of 8 elements
// Numerics: f32; computed as x * sigmoid(2u), which equals the formula and does not cancel for u < 0
// Traffic:  4*N*C bytes; memory-bound
#include "params/gelu.h"

#include "common/gelu.cuh"

static_assert(GELU_FORWARD_ELEMENTS_PER_BLOCK == VECTOR * GELU_FORWARD_THREADS, "one vector per thread");

// ---------------------------------------------------------------------------------------------------------------------
// kernels

extern "C" __global__ void __launch_bounds__(GELU_FORWARD_THREADS)
    gelu_forward(const __grid_constant__ GeluForwardParams params) {
    // 64-bit index: N*C may exceed 2^32.
    const uint64_t i = uint64_t(blockIdx.x) * GELU_FORWARD_ELEMENTS_PER_BLOCK + threadIdx.x * VECTOR;
    // len is a multiple of VECTOR, so a vector is entirely in bounds or entirely out of bounds.
    if (i >= params.len) return;
    f32x8 v = load(params.x + i);
#pragma unroll
    for (float &x : v.at) x = gelu(x);
    store(params.out + i, v);
}
