// Warp and block reductions. The order of the operations is fixed, so results are deterministic.
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

// Ignores NaN unless all values are NaN (fmaxf).
struct Max {
    __device__ float operator()(float a, float b) const { return fmaxf(a, b); }
};

// Reduces over the 32 lanes of a warp; every lane gets the result. All lanes must execute it.
template <typename Combine, typename T>
__device__ inline T warp_reduce(T value) {
#pragma unroll
    for (uint32_t distance = WARP / 2; distance > 0; distance /= 2) {
        value = Combine()(value, __shfl_xor_sync(ALL_LANES, value, distance));
    }
    return value;
}

// Reduces over WARPS warps of a block; every thread of them gets the result. `warp` is the index of the thread's warp
// among them. All threads of the block must execute it, and the caller must place a barrier before `partials` (shared)
// is written again.
template <typename Combine, uint32_t WARPS, typename T>
__device__ inline T block_reduce(T value, uint32_t warp, T (&partials)[WARPS]) {
    value = warp_reduce<Combine>(value);
    if constexpr (WARPS == 1) return value;
    if (lane_id() == 0) partials[warp] = value;
    __syncthreads();  // RAW: every thread reads the partial results of all warps
    T all = partials[0];
#pragma unroll
    for (uint32_t i = 1; i < WARPS; i++) all = Combine()(all, partials[i]);
    return all;
}

// T is f32, or f64 where partial sums are added up.
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
