// Histogram.  counts[v] += how often v occurs in data
// Shapes:   data (N) u8; counts (256) u32
// Writes:   counts "+="
// Launch:   grid any, block any, smem 0
// Numerics: exact; wraps at 2^32
// Traffic:  N + 2 KiB a block
#include <stdint.h>

constexpr unsigned BINS = 256;

extern "C" __global__ void histogram(const uint8_t *data, uint32_t *counts, uint32_t len) {
    __shared__ uint32_t bins[BINS];
#pragma unroll 1
    for (unsigned bin = threadIdx.x; bin < BINS; bin += blockDim.x) bins[bin] = 0;
    __syncthreads();  // any thread counts in any bin
#pragma unroll 1
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < len; i += gridDim.x * blockDim.x) {
        atomicAdd(&bins[data[i]], 1);
    }
    __syncthreads();  // all have counted
#pragma unroll 1
    for (unsigned bin = threadIdx.x; bin < BINS; bin += blockDim.x) atomicAdd(&counts[bin], bins[bin]);
}
