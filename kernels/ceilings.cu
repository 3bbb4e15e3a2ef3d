// What a GPU can do at most, for other kernels to be held against.
//
// ceiling_copy:  dst = src
// Shapes:   src, dst (len) vectors of 16 bytes
// Writes:   dst "="
// Requires: 16-byte-aligned pointers, no overlap
// Launch:   grid ceil(len/1024), block 256, smem 0; one thread = four vectors, a block's width apart
// Numerics: none
// Traffic:  32*len bytes; memory-bound
//
// ceiling_mma:   out = sum over a lane's elements of D, D = D0 + A*B - A*B + A*B ..., `iterations` products
// Shapes:   out (N) f32; a warp has (32, 32) D, (32, 16) A and (16, 32) B, all in registers
// Writes:   out "="
// Requires: N % 256 == 0
// Launch:   grid N/256, block 256, smem 0; 4 blocks a multiprocessor
// Numerics: bf16 products, f32 sums
// Traffic:  4*N bytes; 1024*N*iterations FLOPs, bound by the tensor cores
#include "params/ceilings.h"

#include "common/mma.cuh"

static_assert(CEILING_COPY_VECTORS_PER_BLOCK % CEILING_COPY_THREADS == 0, "as many vectors for each thread");
static_assert(CEILING_MMA_ITERS_M * CEILING_MMA_ITERS_N == CEILING_MMA_ACCUMULATORS, "a chain a tile of D");

// ---------------------------------------------------------------------------------------------------------------------
// device helpers

// Marsaglia's xorshift (2003), of period 2^32 - 1; from 0 it does not get away.
__device__ inline uint32_t next(uint32_t &state) {
    state ^= state << 13;
    state ^= state >> 17;
    state ^= state << 5;
    return state;
}

// The sum of four random bytes: close to a normal distribution, of deviation 1.15. Odd over 256, so that it is never 0.
// Multipliers draw the less current the fewer bits change, and a GPU at its power limit then clocks higher: zeros, or the
// same number everywhere, would show a peak that no matmul has.
__device__ inline float next_normal(uint32_t &state) {
    const uint32_t bits = next(state);
    const uint32_t sum = (bits & 0xff) + (bits >> 8 & 0xff) + (bits >> 16 & 0xff) + (bits >> 24);
    return (2.0f * sum - 1021.0f) / 256.0f;
}

__device__ inline uint32_t next_pair(uint32_t &state) {
    const float lower = next_normal(state), upper = next_normal(state);
    const __nv_bfloat162 pair = __floats2bfloat162_rn(lower, upper);
    return reinterpret_cast<const uint32_t &>(pair);
}

// A warp's product of as many tiles as a matmul would give it, each a chain of its own.
__device__ inline void multiply(Accumulator (&d)[CEILING_MMA_ITERS_M][CEILING_MMA_ITERS_N],
                                const FragmentA (&a)[CEILING_MMA_ITERS_M],
                                const FragmentB (&b)[CEILING_MMA_ITERS_N]) {
#pragma unroll
    for (uint32_t row = 0; row < CEILING_MMA_ITERS_M; row++) {
#pragma unroll
        for (uint32_t column = 0; column < CEILING_MMA_ITERS_N; column++) mma(d[row][column], a[row], b[column]);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// kernels

// One tile a block rather than a loop over the whole grid: blocks start in order, so that what is under way lies close
// together, a block that is late delays no other, and no number of multiprocessors has to be known. Eight blocks of four
// vectors a thread are 128 KB under way a multiprocessor, four times what HBM3's latency hides behind.
extern "C" __global__ void __launch_bounds__(CEILING_COPY_THREADS)
    ceiling_copy(const __grid_constant__ CeilingCopyParams params) {
    constexpr uint32_t VECTORS = CEILING_COPY_VECTORS_PER_BLOCK / CEILING_COPY_THREADS;
    // 64 bits: 2^32 vectors are 64 GB.
    const uint64_t tile = uint64_t(blockIdx.x) * CEILING_COPY_VECTORS_PER_BLOCK;
    const uint4 *src = params.src + tile + threadIdx.x;
    uint4 *dst = params.dst + tile + threadIdx.x;
    // .cs: what is used once is the first to leave L2.
    if (tile + CEILING_COPY_VECTORS_PER_BLOCK <= params.len) {
        uint4 vectors[VECTORS];
#pragma unroll
        for (uint32_t k = 0; k < VECTORS; k++) vectors[k] = __ldcs(src + k * CEILING_COPY_THREADS);
#pragma unroll
        for (uint32_t k = 0; k < VECTORS; k++) __stcs(dst + k * CEILING_COPY_THREADS, vectors[k]);
    } else {
        const uint32_t left = params.len - tile;
#pragma unroll 1
        for (uint32_t i = threadIdx.x; i < left; i += CEILING_COPY_THREADS) {
            __stcs(params.dst + tile + i, __ldcs(params.src + tile + i));
        }
    }
}

// 8 chains a warp and 8 warps a tensor core: 64 products that may be under way, where a latency of some 33 cycles, over
// 4 a product on Hopper and 8 on Ampere, needs 9. The signs alternate so that sums stay of the size they start with,
// whatever the number of iterations; they start with random numbers, as every other sum would be 0 otherwise.
extern "C" __global__ void __launch_bounds__(CEILING_MMA_THREADS, CEILING_MMA_MIN_BLOCKS)
    ceiling_mma(const __grid_constant__ CeilingMmaParams params) {
    const uint64_t i = uint64_t(blockIdx.x) * CEILING_MMA_THREADS + threadIdx.x;
    // Neighbours start far apart, none of them at 0.
    uint32_t state = uint32_t(i) * 0x9e3779b9u | 1;
    FragmentA a[CEILING_MMA_ITERS_M];
    FragmentB b[CEILING_MMA_ITERS_N], minus_b[CEILING_MMA_ITERS_N];
    Accumulator d[CEILING_MMA_ITERS_M][CEILING_MMA_ITERS_N];
#pragma unroll
    for (FragmentA &tile : a) {
#pragma unroll
        for (uint32_t &pair : tile.regs) pair = next_pair(state);
    }
#pragma unroll
    for (uint32_t column = 0; column < CEILING_MMA_ITERS_N; column++) {
#pragma unroll
        for (uint32_t k = 0; k < 2; k++) {
            b[column].regs[k] = next_pair(state);
            minus_b[column].regs[k] = b[column].regs[k] ^ 0x80008000u;
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
#pragma unroll 1
    for (uint32_t pairs = params.iterations / 2; pairs > 0; pairs--) {
        multiply(d, a, b);
        multiply(d, a, minus_b);
    }
    if (params.iterations % 2 != 0) multiply(d, a, b);
    float sum = 0.0f;
#pragma unroll
    for (const auto &row : d) {
#pragma unroll
        for (const Accumulator &tile : row) sum += (tile.c[0] + tile.c[1]) + (tile.c[2] + tile.c[3]);
    }
    params.out[i] = sum;
}
