// Sum in one launch: the block that finishes last adds the partial sums of all blocks.  out = sum of x
// Shapes:   x (N) f32; partials (gridDim) f32; ticket (1) u32; out (1) f32
// Writes:   out, partials "="; ticket stays 0
// Requires: ticket is 0
// Launch:   grid any, block 128, smem 0
// Numerics: f32; the partial sums are added in a fixed order, which does not depend on the block that adds them
// Traffic:  4*N + 8*gridDim bytes
#include "reduce.cuh"

constexpr unsigned THREADS = 128;

extern "C" __global__ void __launch_bounds__(THREADS)
    grid_sum(const float *x, float *partials, unsigned *ticket, float *out, unsigned len) {
    __shared__ float warp_sums[32];
    __shared__ bool last;
    float sum = 0.0f;
#pragma unroll 1
    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < len; i += gridDim.x * THREADS) sum += x[i];
    sum = block_sum(sum, warp_sums);
    if (threadIdx.x == 0) {
        partials[blockIdx.x] = sum;
        __threadfence();  // a thread that sees the new ticket also sees the partial sum
        // The ticket wraps to 0, so that the next launch can use it.
        last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
        __threadfence();  // the last block sees the partial sums of all blocks
    }
    __syncthreads();  // `last` is visible to all threads, and all have read warp_sums
    if (!last) return;
    sum = 0.0f;
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < gridDim.x; i += THREADS) sum += partials[i];
    sum = block_sum(sum, warp_sums);
    if (threadIdx.x == 0) *out = sum;
}
