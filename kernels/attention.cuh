// What the kernels of attention share: a head's rows as tiles in shared memory, and the fragments that mma takes of them.
#pragma once

#include "common/cp_async.cuh"
#include "common/ldmatrix.cuh"
#include "common/mma.cuh"
#include "common/reduce.cuh"
#include "common/swizzle.cuh"
#include "common/types.cuh"

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

// Two values rounded to bf16, `first` at the lower address.
__device__ inline uint32_t pack_pair(float first, float second) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return reinterpret_cast<const uint32_t &>(pair);
}

// Two tiles of 16 x 8 as an mma left them, side by side, to the A of another: the lanes hold them alike.
__device__ inline FragmentA pack_tiles(const Accumulator &left, const Accumulator &right) {
    return {{pack_pair(left.c[0], left.c[1]), pack_pair(left.c[2], left.c[3]), pack_pair(right.c[0], right.c[1]),
             pack_pair(right.c[2], right.c[3])}};
}

// Asks for ROWS rows of HS columns, `stride` elements apart, all within 2^32: of PARTS matrices `part` elements apart, to
// tiles one behind the other. From row `rows` on there are zeros.
template <uint32_t HS, uint32_t ROWS, uint32_t THREADS, uint32_t PARTS = 1, bool UNROLLED = true>
__device__ inline void fetch_rows(uint32_t to, const bf16 *from, uint32_t stride, int32_t rows, uint32_t part = 0) {
    constexpr uint32_t CHUNKS = HS / VECTOR, PASSES = ROWS * CHUNKS / THREADS;
    constexpr bool WHOLE = ROWS * CHUNKS % THREADS == 0;
    static_assert(ROWS * CHUNKS >= THREADS, "a chunk a thread");
    uint32_t i = 0;
    // Unless a thread's chunks lie in one column, places of all of them would be kept in registers, which are short.
#pragma unroll(UNROLLED && WHOLE && THREADS % CHUNKS == 0 ? PASSES : 1)
    do {
        const uint32_t chunk = i * THREADS + threadIdx.x, row = chunk / CHUNKS, column = chunk % CHUNKS;
        const bf16 *first = from + (row * stride + column * VECTOR);
#pragma unroll
        for (uint32_t j = 0; j < PARTS; j++) {
            cp_async_16(to + j * ROWS * HS * sizeof(bf16) + swizzled_offset<CHUNKS>(row, column), first + j * part, int32_t(row) < rows);
        }
        i++;
    } while (WHOLE ? i < PASSES : i * THREADS + threadIdx.x < ROWS * CHUNKS);
}

// A lane's place in fragments of 16 rows and 16 columns of a tile: it gives the address of a row of one of four matrices of
// 8 x 8, `lower` and `right` saying which.
template <uint32_t HS>
struct Fragments {
    static constexpr uint32_t CHUNKS = HS / VECTOR;
    uint32_t row, column;

    __device__ Fragments(uint32_t lower, uint32_t right) {
        const uint32_t of_tile = 8 * lower + lane_id() % 8;
        row = of_tile * CHUNKS * 16;
        column = (right ^ swizzle_xor<CHUNKS>(of_tile)) * 16;
    }

    // The fragment of rows `first` on, a multiple of 16, and columns 16 * `step` on. Rows 16 apart are permuted alike.
    template <bool TRANSPOSED>
    __device__ void load(uint32_t (&to)[4], uint32_t tile, uint32_t first, uint32_t step) const {
        ldmatrix_x4<TRANSPOSED>(to, tile + row + (column ^ step * 32) + first * CHUNKS * 16);
    }
};

// Which head a block has, and which of its tiles: blocks go through groups of heads, within a group through the heads' first
// tiles, then their second.
struct Place {
    uint32_t head, tile;
};

__device__ inline Place place(uint32_t heads, uint32_t group, uint32_t tiles) {
    const uint32_t blocks = group * tiles, first = blockIdx.x / blocks * group, within = blockIdx.x % blocks;
    const uint32_t together = min(group, heads - first);
    return {first + within % together, within / together};
}

// Writes ROWS rows of HS columns of a warp, `stride` elements apart, out of shared memory: a lane's pairs of an mma would
// fill parts of sectors. Up to row `rows`.
template <uint32_t HS, uint32_t ROWS, bool UNROLLED>
__device__ inline void store_rows(bf16 *to, uint32_t stride, const uint4 *slab, int32_t rows) {
    constexpr uint32_t CHUNKS = HS / VECTOR;
#pragma unroll(UNROLLED && WARP % CHUNKS == 0 ? CHUNKS : 1)
    for (uint32_t i = lane_id(); i < ROWS * CHUNKS; i += WARP) {
        const uint32_t row = i / CHUNKS, chunk = i % CHUNKS;
        if (int32_t(row) >= rows) break;
        store_packed(to + (uint64_t(row) * stride + chunk * VECTOR), slab[swizzled_offset<CHUNKS>(row, chunk) / 16]);
    }
}
