// Where the 16-byte chunks of a tile in shared memory lie, so that ldmatrix and copies meet no bank twice.
#pragma once

#include <stdint.h>

// What the number of a chunk is XORed with in row `row` of a tile of CHUNKS chunks a row. Eight rows at one column lie in
// all 32 banks, and so do eight chunks that follow each other: chunks are permuted within groups as large as the power of
// two in CHUNKS, up to the eight that fill the banks, and by as many rows as it takes to come back to the same banks.
template <uint32_t CHUNKS>
__device__ inline uint32_t swizzle(uint32_t row) {
    constexpr uint32_t GROUP = CHUNKS % 8 == 0 ? 8 : CHUNKS % 4 == 0 ? 4 : 2;
    static_assert(CHUNKS % GROUP == 0, "whole groups");
    return row / (8 / GROUP) % GROUP;
}

// Byte of chunk `chunk` of row `row`.
template <uint32_t CHUNKS>
__device__ inline uint32_t swizzled_offset(uint32_t row, uint32_t chunk) {
    return (row * CHUNKS + (chunk ^ swizzle<CHUNKS>(row))) * 16;
}
