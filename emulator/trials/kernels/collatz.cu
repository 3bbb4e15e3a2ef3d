// Collatz.  steps[i] = number of steps n -> n / 2 (n even) or n -> 3 * n + 1 (n odd) from start[i] to 1
// Shapes:   start (N) u64, each at least 1; steps (N) u32
// Writes:   steps "="
// Launch:   grid ceil(N/64), block 64, smem 0; one thread = one number, so lanes leave the loop at different times
// Numerics: exact
// Traffic:  12*N bytes; bound by divergence
#include <stdint.h>

// Two functions, so that lanes of a warp are in different calls at the same time.
__device__ __noinline__ uint64_t half(uint64_t n) { return n / 2; }
__device__ __noinline__ uint64_t triple(uint64_t n) { return 3 * n + 1; }

extern "C" __global__ void collatz(const uint64_t *start, uint32_t *steps, uint32_t len) {
    const uint32_t i = blockIdx.x * blockDim.x + threadIdx.x;
    if (i >= len) return;
    uint64_t n = start[i];
    uint32_t count = 0;
    while (n > 1) {
        n = n % 2 == 0 ? half(n) : triple(n);
        count++;
    }
    steps[i] = count;
}
