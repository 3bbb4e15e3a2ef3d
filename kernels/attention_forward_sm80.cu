// Causal attention, forward.  out[i] = sum_j exp(s[i,j] - lse[i]) * v[j], s[i,j] = q[i].k[j] / sqrt(HS) for j <= i
// Shapes:   qkv (B, T, 3C), out (B, T, C) bf16; lse (B, NH, T) f32; row-major, heads (NH, HS) beside each other in C
// Writes:   out, lse "="
// Requires: HS as the suffix says; T < 2^31; 16-byte-aligned pointers
// Launch:   a block of 4 warps a head and 128 queries, those with the most keys first, in groups of heads whose keys and
//           values fit in L2; 768 * HS bytes of shared memory
// Numerics: bf16 products with f32 sums; online softmax in base 2; weights rounded to bf16 for the second product, their sum
//           before that; one rounding at the end
// Traffic:  q, out, lse once; of k and v each block reads the rows up to its last query's, which L2 has
#include "attention.cuh"
#include "params/attention.h"

#include "common/math.cuh"

constexpr uint32_t THREADS = ATTENTION_FORWARD_THREADS, QUERIES = ATTENTION_FORWARD_BLOCK_M, KEYS = ATTENTION_FORWARD_BLOCK_N;
// A warp's queries, 16 an mma: two read shared memory half as often as one, which alone would be bound by it.
constexpr uint32_t WARP_QUERIES = QUERIES / (THREADS / WARP), A = WARP_QUERIES / 16;
static_assert(KEYS == 2 * WARP_QUERIES, "the keys up to a warp's last query end in the middle of a tile, or with it");

// What a warp has of its queries: row lane / 4 + 8 * half of each of the A.
template <uint32_t HS>
struct Rows {
    Accumulator out[A][HS / 8];
    // Largest score, times scale, and the lane's part of the sum of 2^(score - max).
    float max[A][2], sum[A][2];
};

// Where a warp's operands are.
template <uint32_t HS>
struct Warp {
    // Up to 48 columns, queries stay in registers; beyond, the sums need them: with 64, ptxas spills on sm_90a.
    static constexpr bool HELD = HS <= 48;
    static constexpr uint32_t STEPS = HS / 16;
    // Keys whose scores are there at a time, and steps whose loads ptxas may mix. It spills where it may mix more.
    static constexpr uint32_t PORTION = HS == 112 ? KEYS / 2 : KEYS, UNROLLED = HELD ? STEPS : HS == 112 ? 1 : 4;
    FragmentA held[HELD ? STEPS : 1][A];
    Fragments<HS> of_queries, of_keys, of_values;
    uint32_t queries;
    float scale;

    __device__ Warp(uint32_t queries, float scale)
        : of_queries(lane_id() / 8 % 2, lane_id() / 16),
          of_keys(lane_id() / 16, lane_id() / 8 % 2),
          of_values(lane_id() / 8 % 2, lane_id() / 16),
          queries(queries),
          scale(scale) {
        if constexpr (HELD) {
#pragma unroll
            for (uint32_t step = 0; step < STEPS; step++) load_queries(held[step], step);
        }
    }

    __device__ void load_queries(FragmentA (&to)[A], uint32_t step) const {
#pragma unroll
        for (uint32_t i = 0; i < A; i++) of_queries.template load<false>(to[i].regs, queries, 16 * i, step);
    }

    // Queries by COUNT keys.
    template <uint32_t COUNT>
    __device__ void scores(Accumulator (&s)[A][COUNT / 8], uint32_t keys) const {
#pragma unroll(UNROLLED)
        for (uint32_t step = 0; step < STEPS; step++) {
            FragmentA loaded[A];
            if constexpr (!HELD) load_queries(loaded, step);
            const FragmentA *q = HELD ? held[HELD ? step : 0] : loaded;
#pragma unroll
            for (uint32_t j = 0; j < COUNT / 16; j++) {
                uint32_t k[4];
                of_keys.template load<false>(k, keys, 16 * j, step);
#pragma unroll
                for (uint32_t i = 0; i < A; i++) {
                    mma(s[i][2 * j], q[i], {{k[0], k[1]}});
                    mma(s[i][2 * j + 1], q[i], {{k[2], k[3]}});
                }
            }
        }
    }

    // Scores to weights, and what was summed before to the new maximum.
    template <uint32_t COUNT>
    __device__ void weigh(Accumulator (&s)[A][COUNT / 8], Rows<HS> &rows) const {
#pragma unroll
        for (uint32_t i = 0; i < A; i++) {
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                float largest = fmaxf(s[i][0].c[2 * half], s[i][0].c[2 * half + 1]);
#pragma unroll
                for (uint32_t j = 1; j < COUNT / 8; j++) {
                    largest = fmaxf(largest, fmaxf(s[i][j].c[2 * half], s[i][j].c[2 * half + 1]));
                }
                // Four lanes share a row.
                largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
                largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
                const float before = rows.max[i][half], max = fmaxf(before, largest * scale);
                const float factor = exp2_approx(before - max);
                rows.max[i][half] = max;
                float sum = rows.sum[i][half] * factor;
#pragma unroll
                for (uint32_t j = 0; j < COUNT / 8; j++) {
#pragma unroll
                    for (uint32_t k = 2 * half; k < 2 * half + 2; k++) {
                        // Fused: the difference of large numbers is rounded once, and after it.
                        s[i][j].c[k] = exp2_approx(fmaf(s[i][j].c[k], scale, -max));
                        sum += s[i][j].c[k];
                    }
                }
                rows.sum[i][half] = sum;
#pragma unroll
                for (Accumulator &out : rows.out[i]) {
                    out.c[2 * half] *= factor;
                    out.c[2 * half + 1] *= factor;
                }
            }
        }
    }

    // Adds COUNT keys' weights and values to the rows. On the DIAGONAL, key j is for query j of the warp and those after it.
    template <uint32_t COUNT, bool DIAGONAL>
    __device__ void add(Rows<HS> &rows, uint32_t keys, uint32_t values) const {
        Accumulator s[A][COUNT / 8] = {};
        scores<COUNT>(s, keys);
        if constexpr (DIAGONAL) {
            // The lane's first query less its first key.
            const int32_t ahead = int32_t(lane_id() / 4) - int32_t(lane_id() % 4 * 2);
#pragma unroll
            for (uint32_t i = 0; i < A; i++) {
#pragma unroll
                for (uint32_t j = 0; j < COUNT / 8; j++) {
#pragma unroll
                    for (uint32_t k = 0; k < 4; k++) {
                        const int32_t key = 8 * j + k % 2, query = 16 * i + k / 2 * 8;
                        // `ahead` is from -6 to 7: beyond, a tile of 8 keys is for all of a tile of 8 queries or none.
                        if (key - query >= 8 || (key - query >= -5 && key - query > ahead)) s[i][j].c[k] = -INFINITY;
                    }
                }
            }
        }
        weigh<COUNT>(s, rows);
#pragma unroll
        for (uint32_t j = 0; j < COUNT / 16; j++) {
            FragmentA p[A];
#pragma unroll
            for (uint32_t i = 0; i < A; i++) p[i] = pack_tiles(s[i][2 * j], s[i][2 * j + 1]);
#pragma unroll
            for (uint32_t step = 0; step < STEPS; step++) {
                uint32_t v[4];
                of_values.template load<true>(v, values, 16 * j, step);
#pragma unroll
                for (uint32_t i = 0; i < A; i++) {
                    mma(rows.out[i][2 * step], p[i], {{v[0], v[1]}});
                    mma(rows.out[i][2 * step + 1], p[i], {{v[2], v[3]}});
                }
            }
        }
    }
};

// Divides by the sums, and writes the warp's rows by way of shared memory, where its queries were, which all lanes have read.
template <uint32_t HS>
__device__ inline void finish(const AttentionForwardParams &params, const Rows<HS> &rows, uint4 *slab, uint32_t head,
                              uint32_t query) {
    constexpr uint32_t CHUNKS = HS / VECTOR;
    const uint32_t lane_row = lane_id() / 4;
#pragma unroll
    for (uint32_t i = 0; i < A; i++) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            float sum = rows.sum[i][half];
            sum += __shfl_xor_sync(ALL_LANES, sum, 1);
            sum += __shfl_xor_sync(ALL_LANES, sum, 2);
            const float inverse = 1.0f / sum;
            const uint32_t row = 16 * i + 8 * half + lane_row;
#pragma unroll
            for (uint32_t j = 0; j < HS / 8; j++) {
                const Accumulator &out = rows.out[i][j];
                reinterpret_cast<uint32_t *>(slab)[swizzled_offset<CHUNKS>(row, j) / 4 + lane_id() % 4] =
                    pack_pair(out.c[2 * half] * inverse, out.c[2 * half + 1] * inverse);
            }
            if (lane_id() % 4 == 0 && query + row < params.t) {
                params.lse[uint64_t(head) * params.t + query + row] = (rows.max[i][half] + log2_approx(sum)) * LN_2;
            }
        }
    }
    __syncwarp();  // lanes read what others have written
    // 64 bits: B*T*C may pass 2^32.
    const uint64_t token = uint64_t(head / params.nh) * params.t + query;
    bf16 *out = params.out + (token * params.nh + head % params.nh) * HS;
    store_rows<HS, WARP_QUERIES, true>(out, params.nh * HS, slab, params.t - query);
}

template <uint32_t HS>
__device__ inline void forward(const AttentionForwardParams &params) {
    constexpr uint32_t ROW = HS * sizeof(bf16), TILE = KEYS * ROW, PORTION = Warp<HS>::PORTION;
    extern __shared__ uint4 shared[];
    const Place at = place(params.batch_heads, params.heads_per_group, params.q_tiles);
    // Those with the most keys first.
    const uint32_t query = (params.q_tiles - 1 - at.tile) * QUERIES;
    const uint32_t stride = 3 * params.nh * HS, queries = shared_address(shared), stages = queries + QUERIES * ROW;
    const bf16 *sequence = params.qkv + uint64_t(at.head / params.nh) * params.t * stride + at.head % params.nh * HS;
    const uint32_t tiles = (min(query + QUERIES, params.t) + KEYS - 1) / KEYS;

    const auto fetch = [&](uint32_t tile) {
        const uint32_t first = tile * KEYS, to = stages + tile % 2 * 2 * TILE, c = params.nh * HS;
        fetch_rows<HS, KEYS, THREADS, 2>(to, sequence + (uint64_t(first) * stride + c), stride, params.t - first, c);
        cp_async_commit();
    };
    fetch_rows<HS, QUERIES, THREADS>(queries, sequence + uint64_t(query) * stride, stride, params.t - query);
    fetch(0);
    cp_async_wait<0>();
    __syncthreads();  // what all threads copied is there

    const uint32_t warp_query = warp_id() * WARP_QUERIES, diagonal = (query + warp_query) / KEYS;
    const Warp<HS> warp(queries + warp_query * ROW, params.softmax_scale_log2);
    Rows<HS> rows = {};
#pragma unroll
    for (uint32_t i = 0; i < A; i++) rows.max[i][0] = rows.max[i][1] = -INFINITY;
    uint32_t tile = 0;
#pragma unroll 1
    do {
        if (tile + 1 < tiles) fetch(tile + 1);
        const uint32_t keys = stages + tile % 2 * 2 * TILE, values = keys + TILE;
        if (tile < diagonal) {
#pragma unroll
            for (uint32_t i = 0; i < TILE; i += PORTION * ROW) warp.template add<PORTION, false>(rows, keys + i, values + i);
        }
        if (tile == diagonal) {
            // The warp's own queries are the first half of the tile's keys, or the second.
            const uint32_t own = warp_query % KEYS * ROW;
            if (own) warp.template add<KEYS / 2, false>(rows, keys, values);
            warp.template add<KEYS / 2, true>(rows, keys + own, values + own);
        }
        cp_async_wait<0>();
        __syncthreads();  // the next tile is there, and nobody reads this one any more
    } while (++tile < tiles);
    finish<HS>(params, rows, shared + warp_query * ROW / 16, at.head, query + warp_query);
}

#define KERNEL(HS)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(ATTENTION_FORWARD_THREADS, ATTENTION_FORWARD_MIN_BLOCKS)              \
        attention_forward_hs##HS(const __grid_constant__ AttentionForwardParams params) {                              \
        forward<HS>(params);                                                                                           \
    }

KERNEL(16)
KERNEL(32)
KERNEL(48)
KERNEL(64)
KERNEL(80)
KERNEL(96)
KERNEL(112)
KERNEL(128)
