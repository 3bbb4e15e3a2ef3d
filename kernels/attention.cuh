// Shared by the attention kernels: tiles of a head's rows in shared memory, their mma fragments, and the order of CTAs.
#pragma once

#include "common/cp_async.cuh"
#include "common/ldmatrix.cuh"
#include "common/mma.cuh"
#include "common/reduce.cuh"
#include "common/swizzle.cuh"
#include "common/types.cuh"

constexpr float LOG2_E = 1.44269504f, LN_2 = 0.693147181f;

// Rounds two values to bf16 and packs them, `first` at the lower address.
__device__ inline uint32_t pack_bf16x2(float first, float second) {
    const __nv_bfloat162 pair = __floats2bfloat162_rn(first, second);
    return reinterpret_cast<const uint32_t &>(pair);
}

// Converts two adjacent 16 x 8 accumulators to the 16 x 16 A fragment of a following MMA. Each lane already holds the
// elements that it needs, so P and dS never go through shared memory.
__device__ inline FragmentA pack_a_fragment(const Accumulator &left, const Accumulator &right) {
    return {{pack_bf16x2(left.c[0], left.c[1]), pack_bf16x2(left.c[2], left.c[3]), pack_bf16x2(right.c[0], right.c[1]),
             pack_bf16x2(right.c[2], right.c[3])}};
}

// Issues the cp.async copies of a ROWS x HS tile to shared memory, swizzled. Rows of `src` are `stride` elements apart,
// all offsets within 2^32. Rows from `rows_left` on are zero-filled. With TENSORS > 1, copies the same rows of tensors
// that are `tensor_stride` elements apart (K and V) to consecutive tiles.
template <uint32_t HS, uint32_t ROWS, uint32_t THREADS, uint32_t TENSORS = 1, bool UNROLL = true>
__device__ inline void copy_tile_async(uint32_t dst, const bf16 *src, uint32_t stride, int32_t rows_left,
                                       uint32_t tensor_stride = 0) {
    constexpr uint32_t CHUNKS = HS / VECTOR, PASSES = ROWS * CHUNKS / THREADS;
    constexpr bool WHOLE_PASSES = ROWS * CHUNKS % THREADS == 0;
    static_assert(ROWS * CHUNKS >= THREADS, "at least one chunk per thread");
    uint32_t i = 0;
    // Unroll only if all chunks of a thread are in one column. Otherwise ptxas would keep the addresses of all of them
    // in registers, which are scarce.
    constexpr bool ONE_COLUMN = WHOLE_PASSES && THREADS % CHUNKS == 0;
    constexpr uint32_t UNROLL_FACTOR = UNROLL && ONE_COLUMN ? PASSES : 1;
#pragma unroll(UNROLL_FACTOR)
    do {
        const uint32_t chunk = i * THREADS + threadIdx.x, row = chunk / CHUNKS, column = chunk % CHUNKS;
        const bf16 *first = src + (row * stride + column * VECTOR);
#pragma unroll
        for (uint32_t j = 0; j < TENSORS; j++) {
            cp_async_16(dst + j * ROWS * HS * sizeof(bf16) + swizzled_offset<CHUNKS>(row, column),
                        first + j * tensor_stride, int32_t(row) < rows_left);
        }
        i++;
    } while (WHOLE_PASSES ? i < PASSES : i * THREADS + threadIdx.x < ROWS * CHUNKS);
}

// Loads 16 x 16 fragments of a tile from shared memory to registers with ldmatrix. Holds the offset of the row whose
// address this lane passes: `lower` and `right` say in which of the fragment's four 8 x 8 matrices it is.
template <uint32_t HS>
struct SharedToRegister {
    static constexpr uint32_t CHUNKS = HS / VECTOR;
    uint32_t row_offset, column_offset;

    __device__ SharedToRegister(uint32_t lower, uint32_t right) {
        const uint32_t row = 8 * lower + lane_id() % 8;
        row_offset = row * CHUNKS * 16;
        column_offset = (right ^ swizzle_xor<CHUNKS>(row)) * 16;
    }

    // Loads the fragment whose first row is `first_row`, a multiple of 16, and whose first column is 16 * `step`. Rows
    // that are 16 apart have the same swizzle.
    template <bool TRANSPOSED>
    __device__ void load(uint32_t (&regs)[4], uint32_t tile, uint32_t first_row, uint32_t step) const {
        ldmatrix_x4<TRANSPOSED>(regs, tile + row_offset + (column_offset ^ step * 32) + first_row * CHUNKS * 16);
    }
};

// The head (an index into B*NH) and the tile of its rows that a CTA works on.
struct CtaCoord {
    uint32_t head, tile;
};

// Order of CTAs: groups of `heads_per_group` heads; within a group the first tiles of all its heads, then the second
// tiles. CTAs that run at the same time then share the rows of few heads, which fit in L2.
__device__ inline CtaCoord cta_coord(uint32_t heads, uint32_t heads_per_group, uint32_t tiles) {
    const uint32_t group_ctas = heads_per_group * tiles, first_head = blockIdx.x / group_ctas * heads_per_group;
    const uint32_t within_group = blockIdx.x % group_ctas, group_heads = min(heads_per_group, heads - first_head);
    return {first_head + within_group % group_heads, within_group / group_heads};
}

// Stores a warp's ROWS x HS tile from shared memory `staging` to global memory as whole 16-byte vectors; the pairs of
// an accumulator would fill only parts of sectors. Rows of `to` are `stride` elements apart; rows from `rows_left` on
// are out of bounds.
template <uint32_t HS, uint32_t ROWS, bool UNROLL>
__device__ inline void store_tile(bf16 *to, uint32_t stride, const uint4 *staging, int32_t rows_left) {
    constexpr uint32_t CHUNKS = HS / VECTOR;
    constexpr uint32_t UNROLL_FACTOR = UNROLL && WARP % CHUNKS == 0 ? CHUNKS : 1;
#pragma unroll(UNROLL_FACTOR)
    for (uint32_t i = lane_id(); i < ROWS * CHUNKS; i += WARP) {
        const uint32_t row = i / CHUNKS, chunk = i % CHUNKS;
        if (int32_t(row) >= rows_left) break;
        store_packed(to + (uint64_t(row) * stride + chunk * VECTOR), staging[swizzled_offset<CHUNKS>(row, chunk) / 16]);
    }
}
