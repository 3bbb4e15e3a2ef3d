// Attention, step 3 of docs/study/ladder.md: no scores in memory.  out[i] = sum_j softmax_j(q[i].k[j] * scale) * v[j], j <= i
// Change:   weights are 2^(score - largest so far). When a larger one comes, what is summed is multiplied by 2^(before - now):
//           one pass over the keys, whose scores live in registers, 8 at a time
// Shapes:   qkv (B, T, 3C), out (B, T, C) bf16; lse (B, NH, T) f32; row-major, heads (NH, HS) beside each other in C
// Writes:   out, lse "="
// Requires: HS = 64, T % 128 == 0; 16-byte-aligned pointers
// Launch:   as kernels/attention_forward_sm80.cu: a block of 128 threads a head and 128 queries
// Numerics: f32 throughout, online softmax in base 2; one rounding at the end
// Traffic:  q, out, lse once; of k and v each block reads the rows up to its last query's
#include "../../common/math.cuh"
#include "../../common/types.cuh"
#include "../../params/attention.h"

constexpr uint32_t HS = 64, CHUNKS = HS / VECTOR, PORTION = 8;
constexpr uint32_t THREADS = ATTENTION_FORWARD_THREADS, QUERIES = ATTENTION_FORWARD_BLOCK_M, KEYS = ATTENTION_FORWARD_BLOCK_N;

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
    extern __shared__ Row shared[];
    Row *keys = shared, *values = shared + KEYS;
    const uint32_t head = blockIdx.x / params.q_tiles, first_query = blockIdx.x % params.q_tiles * QUERIES;
    const uint32_t query = first_query + threadIdx.x, c = params.nh * HS, stride = 3 * c;
    const bf16 *sequence = params.qkv + uint64_t(head / params.nh) * params.t * stride + head % params.nh * HS;

    f32x8 q[CHUNKS], out[CHUNKS] = {};
#pragma unroll
    for (uint32_t i = 0; i < CHUNKS; i++) q[i] = load(sequence + uint64_t(query) * stride + i * VECTOR);
    float max = -INFINITY, sum = 0.0f;
    for (uint32_t first = 0; first < first_query + QUERIES; first += KEYS) {
        const bf16 *from = sequence + uint64_t(first) * stride;
        copy_tile(keys, from + c, stride);
        copy_tile(values, from + 2 * c, stride);
        __syncthreads();  // threads read what others have copied
#pragma unroll 1
        for (uint32_t portion = 0; portion < KEYS; portion += PORTION) {
            float s[PORTION] = {};
#pragma unroll
            for (uint32_t i = 0; i < CHUNKS; i++) {
#pragma unroll
                for (uint32_t key = 0; key < PORTION; key++) {
                    const f32x8 k = vector(keys[portion + key], i);
#pragma unroll
                    for (uint32_t j = 0; j < VECTOR; j++) s[key] = fmaf(q[i].at[j], k.at[j], s[key]);
                }
            }
            const float before = max;
#pragma unroll
            for (uint32_t key = 0; key < PORTION; key++) {
                s[key] = first + portion + key <= query ? s[key] * params.softmax_scale_log2 : -INFINITY;
                max = fmaxf(max, s[key]);
            }
            // The first key is for all queries: from then on max is a number. 0 the first time, when nothing is summed.
            const float factor = exp2_approx(before - max);
            sum *= factor;
#pragma unroll
            for (uint32_t i = 0; i < CHUNKS; i++) {
#pragma unroll
                for (float &value : out[i].at) value *= factor;
            }
#pragma unroll
            for (uint32_t key = 0; key < PORTION; key++) {
                const float weight = exp2_approx(s[key] - max);
                sum += weight;
#pragma unroll
                for (uint32_t i = 0; i < CHUNKS; i++) {
                    const f32x8 v = vector(values[portion + key], i);
#pragma unroll
                    for (uint32_t j = 0; j < VECTOR; j++) out[i].at[j] = fmaf(weight, v.at[j], out[i].at[j]);
                }
            }
        }
        __syncthreads();  // all have read before the next tile is written
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
