// Relay: each block adds its row to the sum of the block before and passes it on.  out[b] = x[0] + ... + x[b]
// Shapes:   x, out (gridDim, 32) u32; ready (gridDim) u32; ticket (1) u32
// Writes:   out "="; ready becomes 1; ticket += gridDim
// Requires: ready and ticket are 0
// Launch:   grid any, block 32, smem 0; one warp = one row
// Numerics: exact; wraps at 2^32
// Traffic:  about 384 bytes per block
#include <stdint.h>

constexpr unsigned ALL = 0xffffffff;
constexpr unsigned ROW = 32;

extern "C" __global__ void __launch_bounds__(ROW)
    relay(const uint32_t *x, uint32_t *out, volatile uint32_t *ready, uint32_t *ticket) {
    const unsigned lane = threadIdx.x;
    // Blocks are numbered in the order in which they start, so a block waits only for blocks that have started.
    uint32_t block = 0;
    if (lane == 0) block = atomicAdd(ticket, 1);
    block = __shfl_sync(ALL, block, 0);
    const size_t at = size_t(block) * ROW + lane;
    uint32_t sum = x[at];
    if (block > 0) {
        while (ready[block - 1] == 0) {
        }
        __threadfence();  // a thread that has seen the flag also sees the row
        sum += out[at - ROW];
    }
    out[at] = sum;
    __syncwarp();  // the row is complete
    if (lane == 0) {
        // After the __syncwarp, so that the fence also covers the elements of the other lanes.
        __threadfence();
        ready[block] = 1;
    }
}
