// Relay: each block takes what the block before has summed, adds its own and hands it on.  out[b] = x[0] + ... + x[b]
// Shapes:   x, out (gridDim, 32) u32; ready (gridDim) u32; ticket (1) u32
// Writes:   out "="; ready becomes 1; ticket += gridDim
// Requires: ready and ticket are 0
// Launch:   grid any, block 32, smem 0; one warp = one row
// Numerics: exact; wraps at 2^32
// Traffic:  384 bytes and some a block
#include <stdint.h>

constexpr unsigned ALL = 0xffffffff;
constexpr unsigned ROW = 32;

extern "C" __global__ void __launch_bounds__(ROW)
    relay(const uint32_t *x, uint32_t *out, volatile uint32_t *ready, uint32_t *ticket) {
    const unsigned lane = threadIdx.x;
    // In order of starting, so that nobody waits for a block that cannot start before this one ends.
    uint32_t block = 0;
    if (lane == 0) block = atomicAdd(ticket, 1);
    block = __shfl_sync(ALL, block, 0);
    const size_t at = size_t(block) * ROW + lane;
    uint32_t sum = x[at];
    if (block > 0) {
        while (ready[block - 1] == 0) {}
        __threadfence();  // who has seen the flag sees the row
        sum += out[at - ROW];
    }
    out[at] = sum;
    __syncwarp();  // the row is complete
    if (lane == 0) {
        // Behind the __syncwarp, so that it covers the other lanes' elements.
        __threadfence();
        ready[block] = 1;
    }
}
