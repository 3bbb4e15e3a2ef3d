// Histogram.  counts[v] += number of elements of data equal to v
// Shapes:   data (N) u8; counts (256) u32
// Writes:   counts "+="
// Launch:   grid any, block any, smem 0
// Numerics: exact; wraps at 2^32
// Traffic:  N bytes and 2 KiB per block
#include <stdint.h>

constexpr unsigned BINS = 256;

extern "C" __global__ void histogram(const uint8_t *data, uint32_t *counts, uint32_t len) {
    __shared__ uint32_t bins[BINS];
#pragma unroll 1
    for (unsigned bin = threadIdx.x; bin < BINS; bin += blockDim.x) bins[bin] = 0;
    __syncthreads();  // all bins are 0 before a thread counts
#pragma unroll 1
    for (unsigned i = blockIdx.x * blockDim.x + threadIdx.x; i < len; i += gridDim.x * blockDim.x) {
        atomicAdd(&bins[data[i]], 1);
    }
    __syncthreads();  // all threads have counted
#pragma unroll 1
    for (unsigned bin = threadIdx.x; bin < BINS; bin += blockDim.x) atomicAdd(&counts[bin], bins[bin]);
}
