// Gradient norm.  norm = sqrt(sum of grad^2)
// Shapes:   grad (P) f32; partials (min(ceil(P/4096), 2048)) f32; norm (1) f32
// Writes:   partials, norm "="
// Requires: P % 4 == 0; 16-byte-aligned grad
// Launch:   grad_norm_partials: grid the partials, block 256; a block takes every grid-th tile of 4096
//           grad_norm_reduce: grid 1, block 256
// Numerics: squares and partials in f32, their sum and its root in f64, as the reference. The order of the sum follows
//           from P alone, so that every device gives the same bits. Not finite when an element is not, or when its
//           square or a block's partial passes f32's range; finite when the whole sum is within it
// Traffic:  4*P + 8*partials bytes; memory-bound
#include "params/grad_norm.h"

#include "common/reduce.cuh"

// Loads that a thread has under way at once: with eight blocks on a multiprocessor 128 KiB, some four times what
// bandwidth times latency asks for, so that a last wave of few blocks is no slower a byte.
constexpr uint32_t LOADS = 4;
constexpr uint32_t QUAD = 4;
static_assert(GRAD_NORM_TILE == QUAD * LOADS * GRAD_NORM_THREADS, "four vectors a thread");

// ---------------------------------------------------------------------------------------------------------------------
// device helpers

__device__ inline void add_squares(float4 &sum, const float4 &x) {
    sum.x = fmaf(x.x, x.x, sum.x);
    sum.y = fmaf(x.y, x.y, sum.y);
    sum.z = fmaf(x.z, x.z, sum.z);
    sum.w = fmaf(x.w, x.w, sum.w);
}

// ---------------------------------------------------------------------------------------------------------------------
// kernels

extern "C" __global__ void __launch_bounds__(GRAD_NORM_THREADS, 8)
    grad_norm_partials(const __grid_constant__ GradNormPartialsParams params) {
    __shared__ float warps[GRAD_NORM_THREADS / WARP];
    constexpr uint32_t ROW = QUAD * GRAD_NORM_THREADS;
    const uint64_t stride = uint64_t(gridDim.x) * GRAD_NORM_TILE;
    // Four sums: short chains, for their rounding and their latency.
    float4 sum = make_float4(0, 0, 0, 0);
    // 64 bits: P may pass 2^32.
    uint64_t tile = uint64_t(blockIdx.x) * GRAD_NORM_TILE;
    // Whole tiles by themselves: with an address and a comparison a load, no registers were left for the fourth.
    for (; tile + GRAD_NORM_TILE <= params.len; tile += stride) {
        const float *from = params.grad + tile + threadIdx.x * QUAD;
        float4 x[LOADS];
#pragma unroll
        for (uint32_t k = 0; k < LOADS; k++) x[k] = load(from + k * ROW);
#pragma unroll
        for (uint32_t k = 0; k < LOADS; k++) add_squares(sum, x[k]);
    }
    for (uint64_t i = tile + threadIdx.x * QUAD; i < params.len; i += ROW) add_squares(sum, load(params.grad + i));
    const float partial = block_sum((sum.x + sum.y) + (sum.z + sum.w), warp_id(), warps);
    if (threadIdx.x == 0) params.partials[blockIdx.x] = partial;
}

// A launch of its own rather than the work of the block that ends last: that one is found by a counter, which somebody
// has to reset, for a microsecond less.
extern "C" __global__ void __launch_bounds__(GRAD_NORM_THREADS)
    grad_norm_reduce(const __grid_constant__ GradNormReduceParams params) {
    __shared__ double warps[GRAD_NORM_THREADS / WARP];
    constexpr uint32_t LOADS = GRAD_NORM_MAX_BLOCKS / GRAD_NORM_THREADS;
    float partials[LOADS];
#pragma unroll
    for (uint32_t k = 0; k < LOADS; k++) {
        const uint32_t i = k * GRAD_NORM_THREADS + threadIdx.x;
        partials[k] = i < params.num_partials ? params.partials[i] : 0.0f;
    }
    double sum = 0;
#pragma unroll
    for (uint32_t k = 0; k < LOADS; k++) sum += partials[k];
    sum = block_sum(sum, warp_id(), warps);
    if (threadIdx.x == 0) *params.norm = float(sqrt(sum));
}
