// Attention, step 1 of docs/study/ladder.md: all scores in device memory.  out[i] = sum_j softmax_j(q[i].k[j] * scale) * v[j],
//           j <= i
// Shapes:   qkv (B, T, 3C), out (B, T, C) bf16; lse (B, NH, T) f32; row-major, heads (NH, HS) beside each other in C
// Writes:   out, lse "="; the scores below, which a GPU has one of: launches on two streams would share them
// Requires: HS = 64, T % 128 == 0; B*NH*T*T <= SCORES, or it traps
// Launch:   as kernels/attention_forward_sm80.cu: a block of 128 threads a head and 128 queries
// Numerics: f32 throughout, base 2; one rounding at the end
// Traffic:  652 bytes a query and key: 256 for the score, 12 to keep it and make it a weight, 384 for the values
#include "../../common/math.cuh"
#include "../../common/types.cuh"
#include "../../params/attention.h"

constexpr uint32_t HS = 64, SCORES = 1 << 18;
// (B, NH, T, T): scores, then weights. The operation has no scratch memory, as the kernel that is built needs none.
__device__ float all_scores[SCORES];

extern "C" __global__ void __launch_bounds__(ATTENTION_FORWARD_THREADS, ATTENTION_FORWARD_MIN_BLOCKS)
    attention_forward_hs64(const __grid_constant__ AttentionForwardParams params) {
    if (uint64_t(params.batch_heads) * params.t * params.t > SCORES) __trap();
    const uint32_t head = blockIdx.x / params.q_tiles;
    const uint32_t query = blockIdx.x % params.q_tiles * ATTENTION_FORWARD_BLOCK_M + threadIdx.x;
    const uint32_t c = params.nh * HS, stride = 3 * c;
    // The head's columns of its sequence.
    const bf16 *q = params.qkv + uint64_t(head / params.nh) * params.t * stride + head % params.nh * HS;
    const bf16 *k = q + c, *v = k + c;
    q += uint64_t(query) * stride;
    float *scores = all_scores + (uint64_t(head) * params.t + query) * params.t;

    float max = -INFINITY;
    for (uint32_t key = 0; key <= query; key++) {
        // Neighbouring lanes have neighbouring queries, and one key.
        float score = 0.0f;
        for (uint32_t i = 0; i < HS; i++) {
            score = fmaf(__bfloat162float(q[i]), __bfloat162float(k[uint64_t(key) * stride + i]), score);
        }
        scores[key] = score * params.softmax_scale_log2;
        max = fmaxf(max, scores[key]);
    }
    float sum = 0.0f;
    for (uint32_t key = 0; key <= query; key++) {
        scores[key] = exp2_approx(scores[key] - max);
        sum += scores[key];
    }
    bf16 *out = params.out + (uint64_t(head / params.nh) * params.t + query) * c + head % params.nh * HS;
    for (uint32_t i = 0; i < HS; i++) {
        float value = 0.0f;
        for (uint32_t key = 0; key <= query; key++) {
            value = fmaf(scores[key], __bfloat162float(v[uint64_t(key) * stride + i]), value);
        }
        out[i] = __float2bfloat16(value / sum);
    }
    params.lse[uint64_t(head) * params.t + query] = (max + log2_approx(sum)) * 0.693147181f;
}
