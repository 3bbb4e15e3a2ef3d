// Building blocks of a stable radix-sort pass: the rank of a key within its warp, and an exclusive prefix sum over a
// block.
//
// All arithmetic is on integers and every key has exactly one destination, so the order in which warps and blocks run
// does not matter.
#pragma once

#include "reduce.cuh"

// Returns how many keys of this warp with the same digit precede this one: those of earlier calls and of lower lanes.
// All lanes must execute it; lanes without a key pass `has_key` = false. `counts` (shared, one array per warp) must
// start as zeros and ends as the warp's histogram of digits.
template <uint32_t DIGITS>
__device__ inline uint32_t rank_in_warp(uint32_t (&counts)[DIGITS], uint32_t digit, bool has_key) {
    const uint32_t peers = __match_any_sync(ALL_LANES, has_key ? digit : DIGITS);
    const uint32_t lower_peers = __popc(peers & ((1u << lane_id()) - 1));
    const uint32_t earlier = has_key ? counts[digit] : 0;
    __syncwarp();  // WAR: all lanes have read `counts` before the first peer of each digit updates it
    if (has_key && lower_peers == 0) counts[digit] = earlier + __popc(peers);
    __syncwarp();  // RAW: the next call reads what other lanes wrote
    return earlier + lower_peers;
}

// Returns the sum of `value` over all threads of the block with a lower index (exclusive prefix sum). All threads of
// the block's WARPS warps must execute it, and the caller must place a barrier before `partials` (shared) is written
// again.
template <uint32_t WARPS>
__device__ inline uint32_t block_exclusive_sum(uint32_t value, uint32_t (&partials)[WARPS]) {
    uint32_t sum = value;
#pragma unroll
    for (uint32_t distance = 1; distance < WARP; distance *= 2) {
        const uint32_t lower = __shfl_up_sync(ALL_LANES, sum, distance);
        if (lane_id() >= distance) sum += lower;
    }
    if (lane_id() == WARP - 1) partials[warp_id()] = sum;
    __syncthreads();  // RAW: every thread reads the sums of the warps before its own
    for (uint32_t warp = 0; warp < warp_id(); warp++) sum += partials[warp];
    return sum - value;
}
