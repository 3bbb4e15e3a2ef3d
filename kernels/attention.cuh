// Shared by the attention kernels: tiles of a head's rows in shared memory, their mma fragments, and the order of CTAs.
#pragma once

#include "common/cp_async.cuh"
#include "common/ldmatrix.cuh"
#include "common/mma.cuh"
#include "common/reduce.cuh"
#include "common/swizzle.cuh"
#include "common/types.cuh"
#include "params/attention.h"

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

// The keys of a tile whose scores are set to -infinity.
enum class Mask {
    NONE,
    // Causal mask: the keys after their query.
    DIAGONAL,
    // The keys past the end of the sequence.
    END,
};

// The rows of one head of a (B, T, NH, HS) tensor: the first one, and the elements between two. T is bf16, or const
// bf16 for a tensor to read.
template <class T>
struct HeadRows {
    T *first;
    uint32_t stride;

    // 64 bits: a tensor may have more than 2^32 elements.
    __device__ HeadRows from(uint32_t row) const { return {first + uint64_t(row) * stride, stride}; }
};

// The rows of head `head` (an index into B*NH) of a tensor with strides.
__device__ inline HeadRows<const bf16> rows_of_head(const AttentionInput &tensor, uint32_t head, uint32_t nh) {
    const uint64_t offset = head / nh * tensor.batch_stride + uint64_t(head % nh) * tensor.head_stride;
    return {tensor.data + offset, tensor.token_stride};
}
__device__ inline HeadRows<bf16> rows_of_head(const AttentionOutput &tensor, uint32_t head, uint32_t nh) {
    const uint64_t offset = head / nh * tensor.batch_stride + uint64_t(head % nh) * tensor.head_stride;
    return {tensor.data + offset, tensor.token_stride};
}

// The same of a (B, T, NH * HS) tensor without gaps.
template <uint32_t HS, class T>
__device__ inline HeadRows<T> rows_of_head(T *tensor, uint32_t head, uint32_t nh, uint32_t t) {
    const uint32_t channels = nh * HS;
    return {tensor + (uint64_t(head / nh) * t * channels + head % nh * HS), channels};
}

// How the passes of a copy loop are unrolled, in which each thread copies a chunk per pass.
enum class Unroll {
    // Not at all.
    NONE,
    // The offsets of all passes are computed once and stay in registers.
    OFFSETS,
    // A pointer is advanced from pass to pass.
    POINTERS,
};

// Issues the cp.async copies of the first ROWS rows of each tensor to consecutive ROWS x HS tiles of shared memory,
// swizzled. All offsets within a tile are within 2^32. Rows from `rows_left` on are zero-filled.
template <uint32_t HS, uint32_t ROWS, uint32_t THREADS, Unroll UNROLL, uint32_t TENSORS>
__device__ inline void copy_tiles_async(uint32_t dst, const HeadRows<const bf16> (&tensors)[TENSORS],
                                        int32_t rows_left) {
    constexpr uint32_t CHUNKS = HS / VECTOR, PASSES = ROWS * CHUNKS / THREADS, PASS_ROWS = THREADS / CHUNKS;
    static_assert(ROWS * CHUNKS >= THREADS, "at least one chunk per thread");
    // If all chunks of a thread are in one column, only the row changes from pass to pass. Otherwise ptxas would keep
    // the addresses of all of them in registers, which are scarce.
    constexpr bool ONE_COLUMN = ROWS * CHUNKS % THREADS == 0 && THREADS % CHUNKS == 0;
    constexpr uint32_t UNROLL_FACTOR = ONE_COLUMN && UNROLL != Unroll::NONE ? PASSES : 1;
    constexpr bool ADVANCE = ONE_COLUMN && UNROLL == Unroll::POINTERS;
    const bf16 *src[TENSORS];
#pragma unroll
    for (uint32_t j = 0; j < TENSORS; j++) {
        src[j] = tensors[j].first;
        if (ADVANCE) src[j] += threadIdx.x / CHUNKS * tensors[j].stride + threadIdx.x % CHUNKS * VECTOR;
    }
    // Every thread has a first pass. But without the check before it, ptxas spills on sm_90a (dKdV kernel, HS = 112).
#pragma unroll(UNROLL_FACTOR)
    for (uint32_t i = 0; ONE_COLUMN ? i < PASSES : i * THREADS + threadIdx.x < ROWS * CHUNKS; i++) {
        const uint32_t chunk = i * THREADS + threadIdx.x, row = chunk / CHUNKS, column = chunk % CHUNKS;
#pragma unroll
        for (uint32_t j = 0; j < TENSORS; j++) {
            cp_async_16(dst + j * ROWS * HS * sizeof(bf16) + swizzled_offset<CHUNKS>(row, column),
                        ADVANCE ? src[j] : src[j] + (row * tensors[j].stride + column * VECTOR),
                        int32_t(row) < rows_left);
            if (ADVANCE) src[j] += PASS_ROWS * tensors[j].stride;
        }
    }
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
// an accumulator would fill only parts of sectors. Rows from `rows_left` on are out of bounds.
template <uint32_t HS, uint32_t ROWS, bool UNROLL>
__device__ inline void store_tile(const HeadRows<bf16> &to, const uint4 *staging, int32_t rows_left) {
    constexpr uint32_t CHUNKS = HS / VECTOR;
    constexpr uint32_t UNROLL_FACTOR = UNROLL && WARP % CHUNKS == 0 ? CHUNKS : 1;
#pragma unroll(UNROLL_FACTOR)
    for (uint32_t i = lane_id(); i < ROWS * CHUNKS; i += WARP) {
        const uint32_t row = i / CHUNKS, chunk = i % CHUNKS;
        if (int32_t(row) >= rows_left) break;
        store_packed(to.first + (uint64_t(row) * to.stride + chunk * VECTOR),
                     staging[swizzled_offset<CHUNKS>(row, chunk) / 16]);
    }
}
