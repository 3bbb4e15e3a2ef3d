// Causal attention, step 3 of docs/study/ladder/attention.md: online softmax
// Formula:  out = softmax(Q * K^T * scale) * V
// Change:   P is 2^(S - row_max) with the largest score so far. When a larger one comes, row_sum and O are rescaled by
//           2^(old_max - row_max): one pass over the keys, whose scores stay in registers, SUB_TILE_N at a time
// Shapes:   qkv (B, T, 3C) at q.data, out (B, T, C) bf16; lse (B, NH, T) f32; row-major, C = (NH, HS)
// Writes:   out, lse "="
// Requires: HS = 64, T % 128 == 0; 16-byte-aligned pointers
// Launch:   as kernels/attention_forward_sm80.cu: one CTA of 128 threads per head and BLOCK_M = 128 queries
// Numerics: f32 throughout, online softmax in base 2; one rounding at the end
// Traffic:  q, out and lse once; each CTA reads k and v up to the row of its last query
#include "../../common/math.cuh"
#include "../../common/types.cuh"
#include "../../params/attention.h"

constexpr uint32_t HS = 64, CHUNKS = HS / VECTOR, SUB_TILE_N = 8;
constexpr uint32_t THREADS = ATTENTION_FORWARD_THREADS;
constexpr uint32_t BLOCK_M = ATTENTION_FORWARD_BLOCK_M, BLOCK_N = ATTENTION_FORWARD_BLOCK_N;

// A row of K or V as f32: the first halves of its vectors, then the second halves, so that lanes write adjacent float4.
using Row = float4[2][CHUNKS];

__device__ inline f32x8 vector(const Row &row, uint32_t chunk) {
    // All lanes read the same address.
    const float4 a = row[0][chunk], b = row[1][chunk];
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

// Copies a BLOCK_N x HS tile of K or V to shared memory.
__device__ inline void copy_tile(Row *to, const bf16 *from, uint32_t stride) {
    const uint32_t thread_row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
#pragma unroll
    for (uint32_t first = 0; first < BLOCK_N; first += THREADS / CHUNKS) {
        const uint32_t row = first + thread_row;
        const f32x8 values = load(from + uint64_t(row) * stride + chunk * VECTOR);
        const float (&at)[VECTOR] = values.at;
        to[row][0][chunk] = make_float4(at[0], at[1], at[2], at[3]);
        to[row][1][chunk] = make_float4(at[4], at[5], at[6], at[7]);
    }
}

extern "C" __global__ void __launch_bounds__(ATTENTION_FORWARD_THREADS, ATTENTION_FORWARD_MIN_BLOCKS)
    attention_forward_hs64(const __grid_constant__ AttentionForwardParams params) {
    extern __shared__ Row shared[];
    Row *k_tile = shared, *v_tile = shared + BLOCK_N;
    const uint32_t q_tiles = params.t / BLOCK_M;
    const uint32_t head = blockIdx.x / q_tiles, first_query = blockIdx.x % q_tiles * BLOCK_M;
    const uint32_t query = first_query + threadIdx.x, c = params.nh * HS, stride = 3 * c;
    const bf16 *sequence = params.q.data + uint64_t(head / params.nh) * params.t * stride + head % params.nh * HS;

    f32x8 q[CHUNKS], acc_o[CHUNKS] = {};
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) q[i] = load(sequence + uint64_t(query) * stride + i * VECTOR);
    float row_max = -INFINITY, row_sum = 0.0f;
    for (uint32_t first = 0; first < first_query + BLOCK_M; first += BLOCK_N) {
        const bf16 *from = sequence + uint64_t(first) * stride;
        copy_tile(k_tile, from + c, stride);
        copy_tile(v_tile, from + 2 * c, stride);
        __syncthreads();  // RAW: threads read what others have copied
#pragma unroll 1
        for (uint32_t sub_tile = 0; sub_tile < BLOCK_N; sub_tile += SUB_TILE_N) {
            // S = Q * K^T
            float s[SUB_TILE_N] = {};
#pragma unroll
            for (uint32_t i = 0; i < CHUNKS; i++) {
#pragma unroll
                for (uint32_t key = 0; key < SUB_TILE_N; key++) {
                    const f32x8 k = vector(k_tile[sub_tile + key], i);
#pragma unroll
                    for (uint32_t j = 0; j < VECTOR; j++) s[key] = fmaf(q[i].at[j], k.at[j], s[key]);
                }
            }
            // causal mask and row_max
            const float old_max = row_max;
#pragma unroll
            for (uint32_t key = 0; key < SUB_TILE_N; key++) {
                s[key] = first + sub_tile + key <= query ? s[key] * params.softmax_scale_log2 : -INFINITY;
                row_max = fmaxf(row_max, s[key]);
            }
            // The first key is visible to all queries, so row_max is finite from then on. The first rescale is 0:
            // nothing has been accumulated.
            const float rescale = exp2_approx(old_max - row_max);
            row_sum *= rescale;
#pragma unroll
            for (uint32_t i = 0; i < CHUNKS; i++) {
#pragma unroll
                for (float &value : acc_o[i].at) value *= rescale;
            }
            // P, row_sum and O += P * V
#pragma unroll
            for (uint32_t key = 0; key < SUB_TILE_N; key++) {
                const float p = exp2_approx(s[key] - row_max);
                row_sum += p;
#pragma unroll
                for (uint32_t i = 0; i < CHUNKS; i++) {
                    const f32x8 v = vector(v_tile[sub_tile + key], i);
#pragma unroll
                    for (uint32_t j = 0; j < VECTOR; j++) acc_o[i].at[j] = fmaf(p, v.at[j], acc_o[i].at[j]);
                }
            }
        }
        __syncthreads();  // WAR: all threads have read the tiles before the next ones are copied
    }
    const float inverse = 1.0f / row_sum;
    bf16 *to = params.out + (uint64_t(head / params.nh) * params.t + query) * c + head % params.nh * HS;
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) {
#pragma unroll
        for (float &value : acc_o[i].at) value *= inverse;
        store(to + i * VECTOR, acc_o[i]);
    }
    params.lse[uint64_t(head) * params.t + query] = (row_max + log2_approx(row_sum)) * 0.693147181f;
}
