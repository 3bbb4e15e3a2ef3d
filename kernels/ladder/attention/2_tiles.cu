// Attention, step 2 of docs/study/ladder.md: tiles in shared memory.  out[i] = sum_j softmax_j(q[i].k[j] * scale) * v[j], j <= i
// Change:   a block fetches keys and values once for its 128 queries, 64 at a time. A thread has its query, and then its sums,
//           in registers, so that a score is computed and used once. Scores lie the other way round, a warp's beside each other
// Shapes:   qkv (B, T, 3C), out (B, T, C) bf16; lse (B, NH, T) f32; row-major, heads (NH, HS) beside each other in C
// Writes:   out, lse "="; the scores below, which a GPU has one of: launches on two streams would share them
// Requires: HS = 64, T % 128 == 0; B*NH*T*T <= SCORES, or it traps; 16-byte-aligned pointers
// Launch:   as kernels/attention_forward_sm80.cu: a block of 128 threads a head and 128 queries
// Numerics: f32 throughout, base 2; one rounding at the end
// Traffic:  q, out, lse once; of k and v each block reads the rows up to its last query's, and 8 bytes of scores for each
//           query and each of those rows
#include "../../common/math.cuh"
#include "../../common/types.cuh"
#include "../../params/attention.h"

constexpr uint32_t HS = 64, CHUNKS = HS / VECTOR, SCORES = 1 << 18;
constexpr uint32_t THREADS = ATTENTION_FORWARD_THREADS, QUERIES = ATTENTION_FORWARD_BLOCK_M, KEYS = ATTENTION_FORWARD_BLOCK_N;
// (B, NH, T keys, T queries).
__device__ float all_scores[SCORES];

// A row of keys or values as f32: the first halves of its vectors, then the second, so that lanes write side
// by side.
using Row = float4[2][CHUNKS];

__device__ inline f32x8 vector(const Row &row, uint32_t chunk) {
    // All lanes read one address.
    const float4 a = row[0][chunk], b = row[1][chunk];
    return {{a.x, a.y, a.z, a.w, b.x, b.y, b.z, b.w}};
}

__device__ inline void copy_tile(Row *to, const bf16 *from, uint32_t stride) {
    const uint32_t own_row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
#pragma unroll
    for (uint32_t first = 0; first < KEYS; first += THREADS / CHUNKS) {
        const uint32_t row = first + own_row;
        const f32x8 values = load(from + uint64_t(row) * stride + chunk * VECTOR);
        const float(&at)[VECTOR] = values.at;
        to[row][0][chunk] = make_float4(at[0], at[1], at[2], at[3]);
        to[row][1][chunk] = make_float4(at[4], at[5], at[6], at[7]);
    }
}

extern "C" __global__ void __launch_bounds__(ATTENTION_FORWARD_THREADS, ATTENTION_FORWARD_MIN_BLOCKS)
    attention_forward_hs64(const __grid_constant__ AttentionForwardParams params) {
    if (uint64_t(params.batch_heads) * params.t * params.t > SCORES) __trap();
    extern __shared__ Row tile[];
    const uint32_t head = blockIdx.x / params.q_tiles, first_query = blockIdx.x % params.q_tiles * QUERIES;
    const uint32_t query = first_query + threadIdx.x, c = params.nh * HS, stride = 3 * c;
    const bf16 *sequence = params.qkv + uint64_t(head / params.nh) * params.t * stride + head % params.nh * HS;
    float *scores = all_scores + uint64_t(head) * params.t * params.t + query;

    f32x8 q[CHUNKS];
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) q[i] = load(sequence + uint64_t(query) * stride + i * VECTOR);
    float max = -INFINITY;
    for (uint32_t first = 0; first < first_query + QUERIES; first += KEYS) {
        copy_tile(tile, sequence + uint64_t(first) * stride + c, stride);
        __syncthreads();  // threads read what others have copied
#pragma unroll 2
        for (uint32_t key = 0; key < KEYS; key++) {
            float score = 0.0f;
#pragma unroll
            for (uint32_t i = 0; i < CHUNKS; i++) {
                const f32x8 k = vector(tile[key], i);
#pragma unroll
                for (uint32_t j = 0; j < VECTOR; j++) score = fmaf(q[i].at[j], k.at[j], score);
            }
            score = first + key <= query ? score * params.softmax_scale_log2 : -INFINITY;
            scores[uint64_t(first + key) * params.t] = score;
            max = fmaxf(max, score);
        }
        __syncthreads();  // all have read before the next keys are written
    }

    f32x8 out[CHUNKS] = {};
    float sum = 0.0f;
    for (uint32_t first = 0; first < first_query + QUERIES; first += KEYS) {
        copy_tile(tile, sequence + uint64_t(first) * stride + 2 * c, stride);
        __syncthreads();  // threads read what others have copied
#pragma unroll 2
        for (uint32_t key = 0; key < KEYS; key++) {
            const float weight = exp2_approx(scores[uint64_t(first + key) * params.t] - max);
            sum += weight;
#pragma unroll
            for (uint32_t i = 0; i < CHUNKS; i++) {
                const f32x8 v = vector(tile[key], i);
#pragma unroll
                for (uint32_t j = 0; j < VECTOR; j++) out[i].at[j] = fmaf(weight, v.at[j], out[i].at[j]);
            }
        }
        __syncthreads();  // all have read before the next values are written
    }
    const float inverse = 1.0f / sum;
    bf16 *to = params.out + (uint64_t(head / params.nh) * params.t + query) * c + head % params.nh * HS;
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) {
#pragma unroll
        for (float &value : out[i].at) value *= inverse;
        store(to + i * VECTOR, out[i]);
    }
    params.lse[uint64_t(head) * params.t + query] = (max + log2_approx(sum)) * 0.693147181f;
}
