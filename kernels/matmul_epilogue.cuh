// Matmul epilogue: rearranges a warp's accumulators into 16-byte vectors by way of a staging buffer in shared memory,
// applies an elementwise function (bias, residual, GELU, accumulation) and stores the result to global memory.
//
// In the mma layout, four neighbouring lanes hold four pairs of columns, 16 bytes of bf16, and the next pair of a lane
// is 8 columns away: direct stores would fill only half of each 32-byte sector. Therefore MMA_M = 16 rows at a time go
// through shared memory. Each warp has its own staging buffer, so no block-wide barrier is needed.
#pragma once

#include "common/mma.cuh"
#include "common/reduce.cuh"
#include "common/types.cuh"

// Staging buffer of one warp: MMA_M rows of WARP_N f32. Each row is padded by 8 columns, which shifts the next row by
// 8 banks: the pairs that a half-warp writes together (4 rows of 4 pairs) then fall into different banks.
template <uint32_t WARP_N>
struct EpilogueStaging {
    float at[MMA_M][WARP_N + 8];

    // Writes one MMA_M x WARP_N strip of accumulators.
    __device__ void write(const Accumulator (&acc)[WARP_N / MMA_N]) {
        const uint32_t row = lane_id() / 4, column = lane_id() % 4 * 2;
#pragma unroll
        for (uint32_t j = 0; j < WARP_N / MMA_N; j++) {
            const Accumulator &d = acc[j];
            *reinterpret_cast<float2 *>(&at[row][MMA_N * j + column]) = make_float2(d.c[0], d.c[1]);
            *reinterpret_cast<float2 *>(&at[row + 8][MMA_N * j + column]) = make_float2(d.c[2], d.c[3]);
        }
    }

    // Reads eight columns as two 16-byte loads. Shared memory serves 8 lanes of such a load at a time. Four of them
    // load their second half first, because the first halves of all eight are in the same 16 banks.
    __device__ void read(f32x8 &to, uint32_t row, uint32_t column) const {
        const bool swapped = lane_id() / 4 % 2 != 0;
        const float4 a = load(&at[row][column + 4 * swapped]), b = load(&at[row][column + 4 * !swapped]);
        const float4 low = swapped ? b : a, high = swapped ? a : b;
        to = {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
    }

    __device__ void read(float4 &to, uint32_t row, uint32_t column) const { to = load(&at[row][column]); }
};

// Coordinates of a warp's tile in the output matrix.
struct WarpTile {
    // First row and column of the tile.
    uint32_t m, n;
    // Rows and columns of the whole output.
    uint32_t extent_m, extent_n;
};

// Passes a warp's accumulators to `op`, one vector of Op::COLUMNS columns per call:
//   op.begin(n)                  once, because all vectors of a lane are in the same columns
//   op.load_source(i)            loads what op needs from global memory for output element i, an Op::Source. Called for
//                                all rows of a strip before the strip is staged, so that these loads overlap
//   op.apply(i, values, source)  computes the results from the accumulators `values` and stores them
template <uint32_t MMA_ITERS_M, uint32_t WARP_N, typename Op>
__device__ inline void apply_epilogue(const Accumulator (&acc)[MMA_ITERS_M][WARP_N / MMA_N],
                                      EpilogueStaging<WARP_N> &staging, const WarpTile &tile, Op &op) {
    // The warp covers ROWS rows of a strip per pass.
    constexpr uint32_t LANES_PER_ROW = WARP_N / Op::COLUMNS, ROWS = WARP / LANES_PER_ROW, PASSES = MMA_M / ROWS;
    const uint32_t lane_row = lane_id() / LANES_PER_ROW, lane_column = lane_id() % LANES_PER_ROW * Op::COLUMNS;
    const uint32_t n = tile.n + lane_column;
    if (n < tile.extent_n) op.begin(n);
#pragma unroll
    for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
        const uint32_t m = tile.m + i * MMA_M + lane_row;
        const auto in_bounds = [&](uint32_t pass) { return m + pass * ROWS < tile.extent_m && n < tile.extent_n; };
        // 64 bits: the output may have more than 2^32 elements.
        const auto index = [&](uint32_t pass) { return uint64_t(m + pass * ROWS) * tile.extent_n + n; };
        typename Op::Source source[PASSES] = {};
#pragma unroll
        for (uint32_t pass = 0; pass < PASSES; pass++) {
            if (in_bounds(pass)) source[pass] = op.load_source(index(pass));
        }
        if (i > 0) __syncwarp();  // WAR: all lanes have read the previous strip from the staging buffer
        staging.write(acc[i]);
        __syncwarp();  // RAW: lanes read what other lanes wrote
#pragma unroll
        for (uint32_t pass = 0; pass < PASSES; pass++) {
            if (!in_bounds(pass)) continue;
            typename Op::Values values;
            staging.read(values, pass * ROWS + lane_row, lane_column);
            op.apply(index(pass), values, source[pass]);
        }
    }
}
