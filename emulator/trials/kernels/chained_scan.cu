// Prefix sum in one launch; each block waits for the sum of all blocks before it.  out[i] = x[0] + ... + x[i]
// Shapes:   x, out (N) u32; totals, ready (gridDim) u32; ticket (1) u32
// Writes:   out, totals "="; ready becomes 1; ticket += gridDim
// Requires: ready and ticket are 0
// Launch:   grid ceil(N/128), block 128, smem 0; one thread = one element
// Numerics: exact; wraps at 2^32
// Traffic:  8*N bytes and 16 per block
#include "ptx.cuh"

constexpr unsigned ALL = 0xffffffff;
constexpr unsigned THREADS = 128;

// The inclusive prefix sum over a warp.
__device__ inline uint32_t warp_scan(uint32_t value, unsigned lane) {
#pragma unroll
    for (unsigned distance = 1; distance < 32; distance *= 2) {
        const uint32_t before = __shfl_up_sync(ALL, value, distance);
        if (lane >= distance) value += before;
    }
    return value;
}

extern "C" __global__ void __launch_bounds__(THREADS)
    chained_scan(const uint32_t *x, uint32_t *out, uint32_t *totals, uint32_t *ready, uint32_t *ticket, uint32_t len) {
    __shared__ uint32_t block, before_block, warp_sums[THREADS / 32];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    // Blocks are numbered in the order in which they start, so a block waits only for blocks that have started.
    if (threadIdx.x == 0) block = atomicAdd(ticket, 1);
    __syncthreads();  // `block` is visible to all threads
    const uint32_t i = block * THREADS + threadIdx.x;
    uint32_t sum = warp_scan(i < len ? x[i] : 0, lane);
    if (lane == 31) warp_sums[warp] = sum;
    __syncthreads();  // warp_sums is visible to all threads
#pragma unroll 1
    for (unsigned before = 0; before < warp; before++) sum += warp_sums[before];
    if (threadIdx.x == THREADS - 1) {
        uint32_t before = 0;
        if (block > 0) {
            while (load_acquire(&ready[block - 1]) == 0) {
            }  // the acquire makes the total visible
            before = totals[block - 1];
        }
        totals[block] = before + sum;
        store_release(&ready[block], 1);  // publishes the total
        before_block = before;
    }
    __syncthreads();  // `before_block` is visible to all threads
    if (i < len) out[i] = before_block + sum;
}
