// XOR swizzle of the 16-byte chunks of a tile in shared memory: neither ldmatrix nor cp.async has bank conflicts.
#pragma once

#include <stdint.h>

// Returns the number that chunk indices are XORed with in row `row` of a tile of CHUNKS chunks per row. Eight rows of
// one column then cover all 32 banks, and so do eight consecutive chunks of the tile. Chunks are permuted within groups
// of GROUP: the largest power of two that divides CHUNKS, at most the eight chunks that fill the 32 banks. The value
// changes every 8 / GROUP rows, the number of rows after which a row begins in the same bank again.
template <uint32_t CHUNKS>
__device__ inline uint32_t swizzle_xor(uint32_t row) {
    constexpr uint32_t GROUP = CHUNKS % 8 == 0 ? 8 : CHUNKS % 4 == 0 ? 4 : 2;
    static_assert(CHUNKS % GROUP == 0, "a row must be whole groups");
    return row / (8 / GROUP) % GROUP;
}

// Byte offset of 16-byte chunk `chunk` of row `row` within the tile.
template <uint32_t CHUNKS>
__device__ inline uint32_t swizzled_offset(uint32_t row, uint32_t chunk) {
    return (row * CHUNKS + (chunk ^ swizzle_xor<CHUNKS>(row))) * 16;
}
