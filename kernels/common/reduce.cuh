// Sums and maxima over a warp and over a block, in an order that is always the same.
#pragma once

#include <stdint.h>

constexpr uint32_t WARP = 32;
constexpr uint32_t ALL_LANES = 0xffffffff;

__device__ inline uint32_t lane_id() { return threadIdx.x % WARP; }
__device__ inline uint32_t warp_id() { return threadIdx.x / WARP; }

struct Sum {
    template <typename T>
    __device__ T operator()(T a, T b) const {
        return a + b;
    }
};

// NaN is not seen, unless all values are NaN.
struct Max {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Over the warp's 32 lanes, in every lane. All lanes must take part.
template <typename Combine, typename T>
__device__ inline T warp_reduce(T value) {
#pragma unroll
    for (uint32_t distance = WARP / 2; distance > 0; distance /= 2) {
        value = Combine()(value, __shfl_xor_sync(ALL_LANES, value, distance));
    }
    return value;
}

// Over WARPS warps of a block, in every thread of them, `warp` being the thread's place among them. All must take part,
// and `partials` (shared) may be written again only after another barrier.
template <typename Combine, uint32_t WARPS, typename T>
__device__ inline T block_reduce(T value, uint32_t warp, T (&partials)[WARPS]) {
    value = warp_reduce<Combine>(value);
    if constexpr (WARPS == 1) return value;
    if (lane_id() == 0) partials[warp] = value;
    __syncthreads();  // everybody reads what each warp has written
    T all = partials[0];
#pragma unroll
    for (uint32_t i = 1; i < WARPS; i++) all = Combine()(all, partials[i]);
    return all;
}

// Of f32, or of f64 for sums of sums.
template <typename T>
__device__ inline T warp_sum(T value) {
    return warp_reduce<Sum>(value);
}

template <uint32_t WARPS, typename T>
__device__ inline T block_sum(T value, uint32_t warp, T (&partials)[WARPS]) {
    return block_reduce<Sum>(value, warp, partials);
}

template <uint32_t WARPS>
__device__ inline float block_max(float value, uint32_t warp, float (&partials)[WARPS]) {
    return block_reduce<Max>(value, warp, partials);
}
