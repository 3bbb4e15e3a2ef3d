// Measures the peak copy bandwidth and the peak MMA rate of a GPU, the ceilings that other kernels are compared with.
//
// ceiling_copy:  dst = src
// Shapes:   src, dst (len) vectors of 16 bytes
// Writes:   dst "="
// Requires: 16-byte-aligned pointers, no overlap
// Launch:   grid ceil(len/1024), block 256, smem 0; one thread = four vectors with a stride of 256
// Numerics: none
// Traffic:  32*len bytes; memory-bound
//
// ceiling_mma:   out = sum of the lane's elements of D, where D = D0 + A*B - A*B + A*B ... has `iterations` products
// Shapes:   out (N) f32; each warp has D (32, 32), A (32, 16) and B (16, 32), all in registers
// Writes:   out "="
// Requires: N % 256 == 0
// Launch:   grid N/256, block 256, smem 0; 4 blocks per SM
// Numerics: bf16 products, f32 accumulation
// Traffic:  4*N bytes; 1024*N*iterations FLOPs; bound by the tensor cores
#include "params/ceilings.h"

#include "common/mma.cuh"

static_assert(CEILING_COPY_VECTORS_PER_BLOCK % CEILING_COPY_THREADS == 0, "the same number of vectors for each thread");
static_assert(CEILING_MMA_ITERS_M * CEILING_MMA_ITERS_N == CEILING_MMA_ACCUMULATORS, "one chain per tile of D");

// ---------------------------------------------------------------------------------------------------------------------
// device helpers

// Marsaglia's xorshift generator (2003), of period 2^32 - 1. The state must not be 0, which is a fixed point.
__device__ inline uint32_t xorshift32(uint32_t &state) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

// The sum of four random bytes, scaled: close to a normal distribution with standard deviation 1.15. It is an odd
// number divided by 256, so it is never 0. Multipliers draw less current the fewer bits toggle, and a GPU at its power
// limit then clocks higher: zeros, or the same number everywhere, would show a peak that no matmul reaches.
__device__ inline float next_normal(uint32_t &state) {
    const uint32_t bits = xorshift32(state);
    const uint32_t sum = (bits & 0xff) + (bits >> 8 & 0xff) + (bits >> 16 & 0xff) + (bits >> 24);
    return (2.0f * sum - 1021.0f) / 256.0f;
}

__device__ inline uint32_t next_normal_bf16x2(uint32_t &state) {
    const float lower = next_normal(state), upper = next_normal(state);
    const __nv_bfloat162 pair = __floats2bfloat162_rn(lower, upper);
    return reinterpret_cast<const uint32_t &>(pair);
}

// d += a * b for all tiles of a warp, as many as in a matmul. Each tile of d is a dependency chain of its own.
__device__ inline void mma_tiles(Accumulator (&d)[CEILING_MMA_ITERS_M][CEILING_MMA_ITERS_N],
                                 const FragmentA (&a)[CEILING_MMA_ITERS_M], const FragmentB (&b)[CEILING_MMA_ITERS_N]) {
#pragma unroll
    for (uint32_t m = 0; m < CEILING_MMA_ITERS_M; m++) {
#pragma unroll
        for (uint32_t n = 0; n < CEILING_MMA_ITERS_N; n++) mma(d[m][n], a[m], b[n]);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// kernels

// One tile per block rather than a grid-stride loop: blocks start in order, so the accesses in flight are close
// together in memory, a slow block delays no other, and the launcher does not need the number of SMs. Eight blocks per
// SM with four vectors per thread have 128 KB in flight per SM, four times what hides the latency of HBM3.
extern "C" __global__ void __launch_bounds__(CEILING_COPY_THREADS)
    ceiling_copy(const __grid_constant__ CeilingCopyParams params) {
    constexpr uint32_t VECTORS_PER_THREAD = CEILING_COPY_VECTORS_PER_BLOCK / CEILING_COPY_THREADS;
    // 64-bit index: 2^32 vectors are 64 GB.
    const uint64_t tile = uint64_t(blockIdx.x) * CEILING_COPY_VECTORS_PER_BLOCK;
    const uint4 *src = params.src + tile + threadIdx.x;
    uint4 *dst = params.dst + tile + threadIdx.x;
    // Loads and stores are streaming (.cs): each vector is used once, so L2 evicts it first.
    if (tile + CEILING_COPY_VECTORS_PER_BLOCK <= params.len) {
        uint4 vectors[VECTORS_PER_THREAD];
#pragma unroll
        for (uint32_t k = 0; k < VECTORS_PER_THREAD; k++) vectors[k] = __ldcs(src + k * CEILING_COPY_THREADS);
#pragma unroll
        for (uint32_t k = 0; k < VECTORS_PER_THREAD; k++) __stcs(dst + k * CEILING_COPY_THREADS, vectors[k]);
    } else {
        const uint32_t tail = params.len - tile;
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < tail; i += CEILING_COPY_THREADS) {
            __stcs(params.dst + tile + i, __ldcs(params.src + tile + i));
        }
    }
}

// 8 chains per warp and 8 warps per tensor core: 64 MMAs that can be in flight. 9 are needed to hide a latency of about
// 33 cycles at one MMA per 4 cycles on Hopper (8 on Ampere). The sign of B alternates so that the accumulators keep the
// magnitude of their initial values for any number of iterations. The initial values are random, as otherwise the
// accumulators would be 0 after every second product.
extern "C" __global__ void __launch_bounds__(CEILING_MMA_THREADS, CEILING_MMA_MIN_BLOCKS)
    ceiling_mma(const __grid_constant__ CeilingMmaParams params) {
    const uint64_t i = uint64_t(blockIdx.x) * CEILING_MMA_THREADS + threadIdx.x;

    // random operands; the seeds of neighbouring threads are far apart, and none is 0
    uint32_t state = uint32_t(i) * 0x9e3779b9u | 1;
    FragmentA a[CEILING_MMA_ITERS_M];
    FragmentB b[CEILING_MMA_ITERS_N], minus_b[CEILING_MMA_ITERS_N];
    Accumulator d[CEILING_MMA_ITERS_M][CEILING_MMA_ITERS_N];
#pragma unroll
    for (FragmentA &tile : a) {
#pragma unroll
        for (uint32_t &reg : tile.regs) reg = next_normal_bf16x2(state);
    }
#pragma unroll
    for (uint32_t n = 0; n < CEILING_MMA_ITERS_N; n++) {
#pragma unroll
        for (uint32_t k = 0; k < 2; k++) {
            b[n].regs[k] = next_normal_bf16x2(state);
            minus_b[n].regs[k] = b[n].regs[k] ^ 0x80008000u;
        }
    }
#pragma unroll
    for (auto &row : d) {
#pragma unroll
        for (Accumulator &tile : row) {
#pragma unroll
            for (float &element : tile.c) element = next_normal(state);
        }
    }

    // mainloop: two MMAs of opposite sign per iteration
#pragma unroll 1
    for (uint32_t iteration = params.iterations / 2; iteration > 0; iteration--) {
        mma_tiles(d, a, b);
        mma_tiles(d, a, minus_b);
    }
    if (params.iterations % 2 != 0) mma_tiles(d, a, b);

    // one output per lane keeps the products from being optimised away
    float sum = 0.0f;
#pragma unroll
    for (const auto &row : d) {
#pragma unroll
        for (const Accumulator &tile : row) sum += (tile.c[0] + tile.c[1]) + (tile.c[2] + tile.c[3]);
    }
    params.out[i] = sum;
}
