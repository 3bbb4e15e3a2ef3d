// Sums and maxima over a warp and over a block, in an order that is always the same.
#pragma once

#include <stdint.h>

constexpr uint32_t WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffff;

__device__ inline uint32_t lane_id() { return threadIdx.x % WARP; }
__device__ inline uint32_t warp_id() { return threadIdx.x / WARP; }

// Over the warp's 32 lanes, in every lane. All lanes must take part.
__device__ inline float warp_sum(float value) {
#pragma unroll
    for (uint32_t distance = WARP / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, distance);
    }
    return value;
}

// As above, for sums of sums.
__device__ inline double warp_sum(double value) {
#pragma unroll
    for (uint32_t distance = WARP / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(ALL_LANES, value, distance);
    }
    return value;
}

// As warp_sum. NaN is not seen, unless all values are NaN.
__device__ inline float warp_max(float value) {
#pragma unroll
    for (uint32_t distance = WARP / 2; distance > 0; distance /= 2) {
        value = fmaxf(value, __shfl_xor_sync(ALL_LANES, value, distance));
    }
    return value;
}

// Over WARPS warps of a block, in every thread of them, `warp` being the thread's place among them. All must take part,
// and `partials` (shared) may be written again only after another barrier.
template <uint32_t WARPS>
__device__ inline float block_sum(float value, uint32_t warp, float (&partials)[WARPS]) {
    value = warp_sum(value);
    if constexpr (WARPS == 1) return value;
    if (lane_id() == 0) partials[warp] = value;
    __syncthreads();  // everybody reads what each warp has written
    float sum = partials[0];
#pragma unroll
    for (uint32_t i = 1; i < WARPS; i++) sum += partials[i];
    return sum;
}

// As above.
template <uint32_t WARPS>
__device__ inline double block_sum(double value, uint32_t warp, double (&partials)[WARPS]) {
    value = warp_sum(value);
    if constexpr (WARPS == 1) return value;
    if (lane_id() == 0) partials[warp] = value;
    __syncthreads();  // everybody reads what each warp has written
    double sum = partials[0];
#pragma unroll
    for (uint32_t i = 1; i < WARPS; i++) sum += partials[i];
    return sum;
}

// As block_sum.
template <uint32_t WARPS>
__device__ inline float block_max(float value, uint32_t warp, float (&partials)[WARPS]) {
    value = warp_max(value);
    if constexpr (WARPS == 1) return value;
    if (lane_id() == 0) partials[warp] = value;
    __syncthreads();  // everybody reads what each warp has written
    float max = partials[0];
#pragma unroll
    for (uint32_t i = 1; i < WARPS; i++) max = fmaxf(max, partials[i]);
    return max;
}
