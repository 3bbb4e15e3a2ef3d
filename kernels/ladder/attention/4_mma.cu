// Attention, step 4 of docs/study/ladder.md: tensor cores.  out[i] = sum_j softmax_j(q[i].k[j] * scale) * v[j], j <= i
// Change:   both products by mma, 16 queries of a warp at a time. All operands stay bf16 in shared memory, but for the weights:
//           what the first product leaves in a lane is what the second wants there, rounded. Four lanes share a row
// Shapes:   qkv (B, T, 3C), out (B, T, C) bf16; lse (B, NH, T) f32; row-major, heads (NH, HS) beside each other in C
// Writes:   out, lse "="
// Requires: HS = 64, T % 128 == 0; 16-byte-aligned pointers
// Launch:   as kernels/attention_forward_sm80.cu: a block of 4 warps a head and 128 queries
// Numerics: bf16 products with f32 sums; online softmax in base 2; weights rounded to bf16 for the second product, their sum
//           before that; one rounding at the end
// Traffic:  q, out, lse once; of k and v each block reads the rows up to its last query's
#include "../../attention.cuh"
#include "../../common/math.cuh"
#include "../../params/attention.h"

constexpr uint32_t HS = 64, STEPS = HS / 16, CHUNKS = HS / VECTOR;
constexpr uint32_t THREADS = ATTENTION_FORWARD_THREADS, QUERIES = ATTENTION_FORWARD_BLOCK_M, KEYS = ATTENTION_FORWARD_BLOCK_N;
constexpr uint32_t WARP_QUERIES = QUERIES / (THREADS / WARP);

// Where 16-byte chunk `chunk` of a row lies: all rows begin in one bank.
__device__ inline uint32_t place(uint32_t row, uint32_t chunk) { return row * CHUNKS + chunk; }

// ROWS rows of q, k or v to shared memory.
template <uint32_t ROWS>
__device__ inline void copy_tile(bf16x8 *to, const bf16 *from, uint32_t stride) {
    const uint32_t own_row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
#pragma unroll
    for (uint32_t first = 0; first < ROWS; first += THREADS / CHUNKS) {
        const uint32_t row = first + own_row;
        to[place(row, chunk)] = load_packed(from + uint64_t(row) * stride + chunk * VECTOR);
    }
}

// What a lane has of 16 queries: rows lane / 4 and 8 behind it.
struct Rows {
    Accumulator out[HS / 8];
    // Largest score, times scale, and the lane's part of the sum of 2^(score - max).
    float max[2], sum[2];
};

// Adds a tile of keys and values to 16 queries' rows, of which the first is `ahead` of the tile's first key.
__device__ inline void add(Rows &rows, uint32_t queries, uint32_t keys, uint32_t values, int32_t ahead, float scale) {
    // Which of a fragment's four matrices, 8 by 8, the lane gives a row's address for.
    const uint32_t matrix_row = lane_id() % 8, upper = lane_id() / 8 % 2, half = lane_id() / 16;
    Accumulator s[KEYS / 8] = {};
#pragma unroll
    for (uint32_t step = 0; step < STEPS; step++) {
        FragmentA q;
        ldmatrix_x4<false>(q.regs, queries + 16 * place(8 * upper + matrix_row, 2 * step + half));
#pragma unroll
        for (uint32_t j = 0; j < KEYS / 16; j++) {
            uint32_t k[4];
            ldmatrix_x4<false>(k, keys + 16 * place(16 * j + 8 * half + matrix_row, 2 * step + upper));
            mma(s[2 * j], q, {{k[0], k[1]}});
            mma(s[2 * j + 1], q, {{k[2], k[3]}});
        }
    }
#pragma unroll
    for (uint32_t low = 0; low < 2; low++) {
        const int32_t last = ahead + int32_t(lane_id() / 4 + 8 * low) - int32_t(lane_id() % 4 * 2);
        float largest = -INFINITY;
#pragma unroll
        for (uint32_t j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (uint32_t i = 0; i < 2; i++) {
                float &score = s[j].c[2 * low + i];
                if (int32_t(8 * j + i) > last) score = -INFINITY;
                largest = fmaxf(largest, score);
            }
        }
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
        const float before = rows.max[low], max = fmaxf(before, largest * scale), factor = exp2_approx(before - max);
        rows.max[low] = max;
        rows.sum[low] *= factor;
#pragma unroll
        for (uint32_t j = 0; j < KEYS / 8; j++) {
#pragma unroll
            for (uint32_t i = 0; i < 2; i++) {
                s[j].c[2 * low + i] = exp2_approx(fmaf(s[j].c[2 * low + i], scale, -max));
                rows.sum[low] += s[j].c[2 * low + i];
                rows.out[j].c[2 * low + i] *= factor;
            }
        }
    }
#pragma unroll
    for (uint32_t j = 0; j < KEYS / 16; j++) {
        const FragmentA p = pack_a_fragment(s[2 * j], s[2 * j + 1]);
#pragma unroll
        for (uint32_t step = 0; step < STEPS; step++) {
            uint32_t v[4];
            ldmatrix_x4<true>(v, values + 16 * place(16 * j + 8 * upper + matrix_row, 2 * step + half));
            mma(rows.out[2 * step], p, {{v[0], v[1]}});
            mma(rows.out[2 * step + 1], p, {{v[2], v[3]}});
        }
    }
}

// 16 rows, in pairs as mma leaves them: 8 rows of 16 bytes a request, half sectors.
__device__ inline void write(const Rows &rows, bf16 *out, float *lse, uint32_t c) {
    const uint32_t row = lane_id() / 4, column = lane_id() % 4 * 2;
#pragma unroll
    for (uint32_t low = 0; low < 2; low++) {
        float sum = rows.sum[low];
        sum += __shfl_xor_sync(ALL_LANES, sum, 1);
        sum += __shfl_xor_sync(ALL_LANES, sum, 2);
        const float inverse = 1.0f / sum;
#pragma unroll
        for (uint32_t j = 0; j < HS / 8; j++) {
            bf16 *to = out + uint64_t(8 * low + row) * c + 8 * j + column;
            const float *pair = &rows.out[j].c[2 * low];
            *reinterpret_cast<uint32_t *>(to) = pack_bf16x2(pair[0] * inverse, pair[1] * inverse);
        }
        if (column == 0) lse[8 * low + row] = (rows.max[low] + log2_approx(sum)) * LN_2;
    }
}

extern "C" __global__ void __launch_bounds__(ATTENTION_FORWARD_THREADS, ATTENTION_FORWARD_MIN_BLOCKS)
    attention_forward_hs64(const __grid_constant__ AttentionForwardParams params) {
    extern __shared__ bf16x8 shared[];
    bf16x8 *keys = shared + QUERIES * CHUNKS, *values = keys + KEYS * CHUNKS;
    const uint32_t head = blockIdx.x / params.q_tiles, query = blockIdx.x % params.q_tiles * QUERIES;
    const uint32_t c = params.nh * HS, stride = 3 * c, warp_query = warp_id() * WARP_QUERIES;
    const bf16 *sequence = params.qkv + uint64_t(head / params.nh) * params.t * stride + head % params.nh * HS;

    copy_tile<QUERIES>(shared, sequence + uint64_t(query) * stride, stride);
    Rows rows[WARP_QUERIES / 16] = {};
    for (Rows &of : rows) of.max[0] = of.max[1] = -INFINITY;
    for (uint32_t first = 0; first < query + QUERIES; first += KEYS) {
        const bf16 *from = sequence + uint64_t(first) * stride;
        copy_tile<KEYS>(keys, from + c, stride);
        copy_tile<KEYS>(values, from + 2 * c, stride);
        __syncthreads();  // warps read what others have copied
#pragma unroll
        for (uint32_t i = 0; i < WARP_QUERIES / 16; i++) {
            const uint32_t own = warp_query + 16 * i;
            add(rows[i], shared_address(shared + place(own, 0)), shared_address(keys), shared_address(values),
                int32_t(query + own - first), params.softmax_scale_log2);
        }
        __syncthreads();  // all have read before the next tile is written
    }
#pragma unroll
    for (uint32_t i = 0; i < WARP_QUERIES / 16; i++) {
        const uint64_t own = query + warp_query + 16 * i;
        bf16 *out = params.out + (uint64_t(head / params.nh) * params.t + own) * c + head % params.nh * HS;
        write(rows[i], out, params.lse + uint64_t(head) * params.t + own, c);
    }
}
