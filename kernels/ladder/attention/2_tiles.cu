// Causal attention, step 2 of docs/study/ladder/attention.md: tiles in shared memory
// Formula:  out = softmax(Q * K^T * scale) * V
// Change:   a CTA reads k and v only once for its 128 queries, BLOCK_N = 64 rows at a time. A thread keeps its query,
//           and in the second pass its row of O, in registers, so that each score is computed and used once. The scores
//           are transposed, so that those of a warp are adjacent
// Shapes:   qkv (B, T, 3C) at q.data, out (B, T, C) bf16; lse (B, NH, T) f32; row-major, C = (NH, HS)
// Writes:   out, lse "="; all_scores below, of which there is one per GPU: launches on two streams would share it
// Requires: HS = 64, T % 128 == 0; B*NH*T*T <= SCORES, or the kernel traps; 16-byte-aligned pointers
// Launch:   as kernels/attention_forward_sm80.cu: one CTA of 128 threads per head and BLOCK_M = 128 queries
// Numerics: f32 throughout, base 2; one rounding at the end
// Traffic:  q, out and lse once; each CTA reads k and v up to the row of its last query, and 8 bytes of scores for each
//           query and each of those rows
#include "../../common/math.cuh"
#include "../../common/types.cuh"
#include "../../params/attention.h"

constexpr uint32_t HS = 64, CHUNKS = HS / VECTOR, SCORES = 1 << 18;
constexpr uint32_t THREADS = ATTENTION_FORWARD_THREADS;
constexpr uint32_t BLOCK_M = ATTENTION_FORWARD_BLOCK_M, BLOCK_N = ATTENTION_FORWARD_BLOCK_N;
// (B, NH, T keys, T queries): S.
__device__ float all_scores[SCORES];

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
    if (uint64_t(params.batch_heads) * params.t * params.t > SCORES) __trap();
    extern __shared__ Row tile[];
    const uint32_t q_tiles = params.t / BLOCK_M;
    const uint32_t head = blockIdx.x / q_tiles, first_query = blockIdx.x % q_tiles * BLOCK_M;
    const uint32_t query = first_query + threadIdx.x, c = params.nh * HS, stride = 3 * c;
    const bf16 *sequence = params.q.data + uint64_t(head / params.nh) * params.t * stride + head % params.nh * HS;
    float *scores = all_scores + uint64_t(head) * params.t * params.t + query;

    f32x8 q[CHUNKS];
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) q[i] = load(sequence + uint64_t(query) * stride + i * VECTOR);
    // First pass: S = Q * K^T and row_max
    float row_max = -INFINITY;
    for (uint32_t first = 0; first < first_query + BLOCK_M; first += BLOCK_N) {
        copy_tile(tile, sequence + uint64_t(first) * stride + c, stride);
        __syncthreads();  // RAW: threads read what others have copied
#pragma unroll 2
        for (uint32_t key = 0; key < BLOCK_N; key++) {
            float score = 0.0f;
#pragma unroll
            for (uint32_t i = 0; i < CHUNKS; i++) {
                const f32x8 k = vector(tile[key], i);
#pragma unroll
                for (uint32_t j = 0; j < VECTOR; j++) score = fmaf(q[i].at[j], k.at[j], score);
            }
            score = first + key <= query ? score * params.softmax_scale_log2 : -INFINITY;
            scores[uint64_t(first + key) * params.t] = score;
            row_max = fmaxf(row_max, score);
        }
        __syncthreads();  // WAR: all threads have read the tile before the next one is copied
    }

    // Second pass: P = 2^(S - row_max), row_sum and O = P * V
    f32x8 acc_o[CHUNKS] = {};
    float row_sum = 0.0f;
    for (uint32_t first = 0; first < first_query + BLOCK_M; first += BLOCK_N) {
        copy_tile(tile, sequence + uint64_t(first) * stride + 2 * c, stride);
        __syncthreads();  // RAW: threads read what others have copied
#pragma unroll 2
        for (uint32_t key = 0; key < BLOCK_N; key++) {
            const float p = exp2_approx(scores[uint64_t(first + key) * params.t] - row_max);
            row_sum += p;
#pragma unroll
            for (uint32_t i = 0; i < CHUNKS; i++) {
                const f32x8 v = vector(tile[key], i);
#pragma unroll
                for (uint32_t j = 0; j < VECTOR; j++) acc_o[i].at[j] = fmaf(p, v.at[j], acc_o[i].at[j]);
            }
        }
        __syncthreads();  // WAR: all threads have read the tile before the next one is copied
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
