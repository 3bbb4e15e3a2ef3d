// Causal attention, step 1 of docs/study/ladder/attention.md: all scores in device memory
// Formula:  out = softmax(Q * K^T * scale) * V
// Shapes:   qkv (B, T, 3C) at q.data, out (B, T, C) bf16; lse (B, NH, T) f32; row-major, C = (NH, HS)
// Writes:   out, lse "="; all_scores below, of which there is one per GPU: launches on two streams would share it
// Requires: HS = 64, T % 128 == 0; B*NH*T*T <= SCORES, or the kernel traps
// Launch:   as kernels/attention_forward_sm80.cu: one CTA of 128 threads per head and BLOCK_M = 128 queries
// Numerics: f32 throughout, base 2; one rounding at the end
// Traffic:  652 bytes per query and key: 256 for the score, 12 to store it and turn it into a weight, 384 for P * V
#include "../../common/math.cuh"
#include "../../common/types.cuh"
#include "../../params/attention.h"

constexpr uint32_t HS = 64, SCORES = 1 << 18;
// (B, NH, T, T): S, then P. The operation has no scratch buffer, because the production kernel needs none.
__device__ float all_scores[SCORES];

extern "C" __global__ void __launch_bounds__(ATTENTION_FORWARD_THREADS, ATTENTION_FORWARD_MIN_BLOCKS)
    attention_forward_hs64(const __grid_constant__ AttentionForwardParams params) {
    if (uint64_t(params.batch_heads) * params.t * params.t > SCORES) __trap();
    const uint32_t q_tiles = params.t / ATTENTION_FORWARD_BLOCK_M;
    const uint32_t head = blockIdx.x / q_tiles;
    const uint32_t query = blockIdx.x % q_tiles * ATTENTION_FORWARD_BLOCK_M + threadIdx.x;
    const uint32_t c = params.nh * HS, stride = 3 * c;
    // The head's columns of its sequence.
    const bf16 *q = params.q.data + uint64_t(head / params.nh) * params.t * stride + head % params.nh * HS;
    const bf16 *k = q + c, *v = k + c;
    q += uint64_t(query) * stride;
    float *scores = all_scores + (uint64_t(head) * params.t + query) * params.t;

    // S = Q * K^T and row_max
    float row_max = -INFINITY;
    for (uint32_t key = 0; key <= query; key++) {
        // Neighbouring lanes have neighbouring queries and the same key.
        float score = 0.0f;
        for (uint32_t i = 0; i < HS; i++) {
            score = fmaf(__bfloat162float(q[i]), __bfloat162float(k[uint64_t(key) * stride + i]), score);
        }
        scores[key] = score * params.softmax_scale_log2;
        row_max = fmaxf(row_max, scores[key]);
    }
    // P = 2^(S - row_max) and row_sum
    float row_sum = 0.0f;
    for (uint32_t key = 0; key <= query; key++) {
        scores[key] = exp2_approx(scores[key] - row_max);
        row_sum += scores[key];
    }
    // O = P * V / row_sum
    bf16 *out = params.out + (uint64_t(head / params.nh) * params.t + query) * c + head % params.nh * HS;
    for (uint32_t i = 0; i < HS; i++) {
        float acc_o = 0.0f;
        for (uint32_t key = 0; key <= query; key++) {
            acc_o = fmaf(scores[key], __bfloat162float(v[uint64_t(key) * stride + i]), acc_o);
        }
        out[i] = __float2bfloat16(acc_o / row_sum);
    }
    params.lse[uint64_t(head) * params.t + query] = (row_max + log2_approx(row_sum)) * 0.693147181f;
}
