// Sum of everything in one launch: the block that finishes last adds the blocks' sums.
// Shapes:   x (N) f32; partials (gridDim) f32; ticket (1) u32; out (1) f32
// Writes:   out, partials "="; ticket stays 0
// Requires: ticket is 0
// Launch:   grid any, block 128, smem 0
// Numerics: f32; the blocks' sums are added in a fixed order, whichever block does it
// Traffic:  4*N + 8*gridDim bytes
#include "reduce.cuh"

constexpr unsigned THREADS = 128;

extern "C" __global__ void __launch_bounds__(THREADS)
    grid_sum(const float *x, float *partials, unsigned *ticket, float *out, unsigned len) {
    __shared__ float of_warps[32];
    __shared__ bool last;
    float sum = 0.0f;
#pragma unroll 1
    for (unsigned i = blockIdx.x * THREADS + threadIdx.x; i < len; i += gridDim.x * THREADS) sum += x[i];
    sum = block_sum(sum, of_warps);
    if (threadIdx.x == 0) {
        partials[blockIdx.x] = sum;
        __threadfence();  // who sees the ticket sees the sum
        // Wraps to 0 for the next launch.
        last = atomicInc(ticket, gridDim.x - 1) == gridDim.x - 1;
        __threadfence();  // who has seen all tickets sees all sums
    }
    __syncthreads();  // `last` is known; all are done with of_warps
    if (!last) return;
    sum = 0.0f;
#pragma unroll 1
    for (unsigned i = threadIdx.x; i < gridDim.x; i += THREADS) sum += partials[i];
    sum = block_sum(sum, of_warps);
    if (threadIdx.x == 0) *out = sum;
}
