// Warp and block sums.
#pragma once

constexpr unsigned WARP = 32;
constexpr unsigned ALL = 0xffffffff;

// The sum of `value` over the warp, in every lane.
__device__ inline float warp_sum(float value) {
#pragma unroll
    for (unsigned distance = WARP / 2; distance > 0; distance /= 2) {
        value += __shfl_xor_sync(ALL, value, distance);
    }
    return value;
}

// The sum of `value` over the block, in every thread. `partials` (32) may be written again after a barrier.
__device__ inline float block_sum(float value, float *partials) {
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    value = warp_sum(value);
    if (lane == 0) partials[warp] = value;
    __syncthreads();  // the sums of all warps are visible
    return warp_sum(lane < blockDim.x / WARP ? partials[lane] : 0.0f);
}
