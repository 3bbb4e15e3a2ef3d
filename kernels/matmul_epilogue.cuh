// What becomes of a warp's part of a product: by way of shared memory to whole vectors side by side, a function of them,
// and device memory.
//
// As mma leaves a product, a lane has pairs of 8 columns apart, and its stores would fill half sectors. So 16 rows at a time
// go through shared memory, a slab a warp: no other warp has to be waited for.
#pragma once

#include "common/mma.cuh"
#include "common/reduce.cuh"
#include "common/types.cuh"

// 16 rows of f32. The 8 columns behind each row shift the next by 8 banks, so that what half a warp writes together (4 rows
// of 4 pairs) lies in different banks.
template <uint32_t COLUMNS>
struct Slab {
    static constexpr uint32_t ROWS = 16;
    float at[ROWS][COLUMNS + 8];

    __device__ void put(const Accumulator (&tiles)[COLUMNS / 8]) {
        const uint32_t row = lane_id() / 4, column = lane_id() % 4 * 2;
#pragma unroll
        for (uint32_t j = 0; j < COLUMNS / 8; j++) {
            const Accumulator &tile = tiles[j];
            *reinterpret_cast<float2 *>(&at[row][8 * j + column]) = make_float2(tile.c[0], tile.c[1]);
            *reinterpret_cast<float2 *>(&at[row + 8][8 * j + column]) = make_float2(tile.c[2], tile.c[3]);
        }
    }

    // Of 8 lanes that read together, four begin with the second half: the first halves of all lie in the same 16 banks.
    __device__ void get(f32x8 &to, uint32_t row, uint32_t column) const {
        const bool swapped = lane_id() / 4 % 2 != 0;
        const float4 a = load(&at[row][column + 4 * swapped]), b = load(&at[row][column + 4 * !swapped]);
        const float4 low = swapped ? b : a, high = swapped ? a : b;
        to = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    }

    __device__ void get(float4 &to, uint32_t row, uint32_t column) const { to = load(&at[row][column]); }
};

// Where a warp's part of a product lies.
struct Part {
    // Its first element in the product.
    uint32_t row, column;
    // The whole product's.
    uint32_t rows, columns;
};

// Gives a warp's part to `f`, a vector of f.COLUMNS columns a call: `f.start(column)` once, as all of a lane's vectors are in
// the same columns; `f.fetch(i)` asks for what f needs of device memory at element i of the product, for all rows of a slab
// at once and before the slab is there; `f.write(i, values, fetched)` ends it. `slab` is the warp's own.
template <uint32_t TILES, uint32_t COLUMNS, typename F>
__device__ inline void for_each_vector(const Accumulator (&d)[TILES][COLUMNS / 8], Slab<COLUMNS> &slab, const Part &part,
                                       F &f) {
    constexpr uint32_t LANES = COLUMNS / F::COLUMNS, ROWS = WARP / LANES, PASSES = Slab<COLUMNS>::ROWS / ROWS;
    const uint32_t lane_row = lane_id() / LANES, lane_column = lane_id() % LANES * F::COLUMNS;
    const uint32_t column = part.column + lane_column;
    if (column < part.columns) f.start(column);
#pragma unroll
    for (uint32_t tile = 0; tile < TILES; tile++) {
        const uint32_t first = part.row + tile * Slab<COLUMNS>::ROWS + lane_row;
        const auto inside = [&](uint32_t pass) { return first + pass * ROWS < part.rows && column < part.columns; };
        // 64 bits: the product may have more than 2^32 elements.
        const auto at = [&](uint32_t pass) { return uint64_t(first + pass * ROWS) * part.columns + column; };
        typename F::Fetched fetched[PASSES] = {};
#pragma unroll
        for (uint32_t pass = 0; pass < PASSES; pass++) {
            if (inside(pass)) fetched[pass] = f.fetch(at(pass));
        }
        if (tile > 0) __syncwarp();  // all lanes have read the slab before
        slab.put(d[tile]);
        __syncwarp();  // lanes read what others have written
#pragma unroll
        for (uint32_t pass = 0; pass < PASSES; pass++) {
            if (!inside(pass)) continue;
            typename F::Values values;
            slab.get(values, pass * ROWS + lane_row, lane_column);
            f.write(at(pass), values, fetched[pass]);
        }
    }
}
