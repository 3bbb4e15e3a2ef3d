// Gradient norm.  norm = sqrt(sum of grad^2)
// Shapes:   grad (P) f32; partials (min(ceil(P/4096), 2048)) f32; norm (1) f32
// Writes:   partials, norm "="
// Requires: P % 4 == 0; grad 16-byte-aligned
// Launch:   grad_norm_partials: grid = number of partials, block 256; grid-stride loop over tiles of 4096 elements
//           grad_norm_reduce: grid 1, block 256
// Numerics: squares and partials in f32; the sum of the partials and its square root in f64, as in the reference. The
//           summation order depends on P alone, so every device gives the same bits. The norm is not finite if an
//           element is not, or if its square or a block's partial overflows f32; if the whole sum is within f32's range
//           the norm is finite
// Traffic:  4*P + 8*partials bytes; memory-bound
#include "params/grad_norm.h"

#include "common/reduce.cuh"

// 16-byte loads that a thread has in flight at once. With eight blocks per SM that is 128 KiB in flight per SM, about
// four times bandwidth x latency, so a last wave of few blocks is as fast per byte.
constexpr uint32_t UNROLL = 4;
// Elements of a float4.
constexpr uint32_t VEC_SIZE = 4;
static_assert(GRAD_NORM_TILE == VEC_SIZE * UNROLL * GRAD_NORM_THREADS, "four vectors per thread");

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

extern "C" __global__ void __launch_bounds__(GRAD_NORM_THREADS, GRAD_NORM_MIN_BLOCKS)
    grad_norm_partials(const __grid_constant__ GradNormPartialsParams params) {
    __shared__ float warp_sums[GRAD_NORM_THREADS / WARP];
    constexpr uint32_t BLOCK_STRIDE = VEC_SIZE * GRAD_NORM_THREADS;
    const uint64_t grid_stride = uint64_t(gridDim.x) * GRAD_NORM_TILE;
    // Four accumulators per thread: shorter dependency chains have less rounding error and less latency.
    float4 sum = make_float4(0, 0, 0, 0);
    // 64-bit index: P may exceed 2^32.
    uint64_t tile = uint64_t(blockIdx.x) * GRAD_NORM_TILE;
    // Full tiles, without bounds checks: an address and a comparison per load left no registers for the fourth load.
    for (; tile + GRAD_NORM_TILE <= params.len; tile += grid_stride) {
        const float *from = params.grad + tile + threadIdx.x * VEC_SIZE;
        float4 x[UNROLL];
#pragma unroll
        for (uint32_t k = 0; k < UNROLL; k++) x[k] = load(from + k * BLOCK_STRIDE);
#pragma unroll
        for (uint32_t k = 0; k < UNROLL; k++) add_squares(sum, x[k]);
    }
    // The partial tile at the end, for the one block that has it.
    for (uint64_t i = tile + threadIdx.x * VEC_SIZE; i < params.len; i += BLOCK_STRIDE) {
        add_squares(sum, load(params.grad + i));
    }
    const float partial = block_sum((sum.x + sum.y) + (sum.z + sum.w), warp_id(), warp_sums);
    if (threadIdx.x == 0) params.partials[blockIdx.x] = partial;
}

// A separate launch. Doing this work in the block that finishes last would save about a microsecond, but would need an
// atomic counter that must be reset for every launch.
extern "C" __global__ void __launch_bounds__(GRAD_NORM_THREADS)
    grad_norm_reduce(const __grid_constant__ GradNormReduceParams params) {
    __shared__ double warp_sums[GRAD_NORM_THREADS / WARP];
    constexpr uint32_t PARTIALS_PER_THREAD = GRAD_NORM_MAX_BLOCKS / GRAD_NORM_THREADS;
    float partials[PARTIALS_PER_THREAD];
#pragma unroll
    for (uint32_t k = 0; k < PARTIALS_PER_THREAD; k++) {
        const uint32_t i = k * GRAD_NORM_THREADS + threadIdx.x;
        partials[k] = i < params.num_partials ? params.partials[i] : 0.0f;
    }
    double sum = 0;
#pragma unroll
    for (uint32_t k = 0; k < PARTIALS_PER_THREAD; k++) sum += partials[k];
    sum = block_sum(sum, warp_id(), warp_sums);
    if (threadIdx.x == 0) *params.norm = float(sqrt(sum));
}
