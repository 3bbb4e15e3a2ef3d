// A pass of a stable radix sort: ranks within a warp, and sums over the threads of a block before each.
//
// Integers only, and each key has one place that it can go to: the order of warps and blocks does not matter.
#pragma once

#include "reduce.cuh"

// How many keys of the warp with the same digit come before this one: those of earlier calls and of lower lanes. All
// lanes must take part, those without a key with `has_key` false. `counts` (shared, the warp's own) starts as zeros and
// is left as the number of keys of each digit.
template <uint32_t DIGITS>
__device__ inline uint32_t rank_in_warp(uint32_t (&counts)[DIGITS], uint32_t digit, bool has_key) {
    const uint32_t same = __match_any_sync(ALL_LANES, has_key ? digit : DIGITS);
    const uint32_t below = __popc(same & ((1u << lane_id()) - 1));
    const uint32_t before = has_key ? counts[digit] : 0;
    __syncwarp();  // all have read before one of them writes
    if (has_key && below == 0) counts[digit] = before + __popc(same);
    __syncwarp();  // the next call reads what other lanes wrote
    return before + below;
}

// The sum of the values of all threads before this one. All of the block's WARPS warps must take part, and `partials`
// (shared) may be written again only after another barrier.
template <uint32_t WARPS>
__device__ inline uint32_t block_exclusive_sum(uint32_t value, uint32_t (&partials)[WARPS]) {
    uint32_t sum = value;
#pragma unroll
    for (uint32_t distance = 1; distance < WARP; distance *= 2) {
        const uint32_t lower = __shfl_up_sync(ALL_LANES, sum, distance);
        if (lane_id() >= distance) sum += lower;
    }
    if (lane_id() == WARP - 1) partials[warp_id()] = sum;
    __syncthreads();  // everybody reads the sums of the warps before
    for (uint32_t warp = 0; warp < warp_id(); warp++) sum += partials[warp];
    return sum - value;
}
