// AdamW.  g = grad * min(1, max_norm / (norm + 1e-6))
//         m = beta1*m + (1-beta1)*g,  v = beta2*v + (1-beta2)*g*g
//         master -= lr * (m/c1 / (sqrt(v/c2) + eps) + weight_decay*master),  c = 1 - beta^step
//         weight = master, rounded stochastically
// Shapes:   weight (P) bf16; master, grad, m, v (P) f32; norm, loss (1) f32
// Writes:   weight "="; master, m, v in place; nothing at all when norm or loss is not finite or above its limit
// Requires: P % 4 == 0, first_index % 4 == 0; 16-byte-aligned pointers (weight: 8)
// Launch:   grid ceil(P/1024), block 256, smem 0; one thread = four parameters = one block of Philox
// Numerics: f32, each operation rounded by itself and in the reference's order: m, v and master are bit-equal to Cpu<f32>
// Traffic:  30*P bytes; memory-bound
#include "params/adamw.h"

#include "common/philox.cuh"
#include "common/reduce.cuh"

// Four, not the eight of a 16-byte vector of weights: a warp's float4 then lie side by side, where two a thread would be 32
// bytes apart, and every access of 28 of the 30 bytes would touch twice the sectors. Weights go in pieces of 8 bytes.
constexpr uint32_t QUAD = 4;
static_assert(ADAMW_ELEMENTS_PER_BLOCK == QUAD * ADAMW_THREADS, "four parameters a thread");

// ---------------------------------------------------------------------------------------------------------------------
// device helpers

// Written so that NaN is not within.
__device__ inline bool is_within(float value, float limit) { return isfinite(value) && value <= limit; }

// The intrinsics are never contracted to FMAs. That is what makes the result the reference's to the last bit; it takes
// three divisions and a root with all their steps, about half the time that the memory leaves.
__device__ inline void update(const AdamWParams &params, float clip, float grad, float &m, float &v, float &w) {
    const float g = __fmul_rn(grad, clip);
    m = __fadd_rn(__fmul_rn(params.beta1, m), __fmul_rn(__fsub_rn(1.0f, params.beta1), g));
    v = __fadd_rn(__fmul_rn(params.beta2, v), __fmul_rn(__fmul_rn(__fsub_rn(1.0f, params.beta2), g), g));
    const float m_hat = __fdiv_rn(m, params.bias_correction1);
    const float v_hat = __fdiv_rn(v, params.bias_correction2);
    const float direction = __fdiv_rn(m_hat, __fadd_rn(__fsqrt_rn(v_hat), params.eps));
    const float change = __fadd_rn(direction, __fmul_rn(params.weight_decay, w));
    w = __fsub_rn(w, __fmul_rn(params.learning_rate, change));
}

// ---------------------------------------------------------------------------------------------------------------------
// kernels

extern "C" __global__ void __launch_bounds__(ADAMW_THREADS) adamw(const __grid_constant__ AdamWParams params) {
    // The same for all threads of the grid, so that either every parameter is updated or none. One lane asks for each: if
    // all did, that were two bytes a parameter more.
    float number = 0.0f;
    if (lane_id() < 2) number = *(lane_id() == 0 ? params.norm : params.loss);
    const float norm = __shfl_sync(ALL_LANES, number, 0), loss = __shfl_sync(ALL_LANES, number, 1);
    // 64 bits: P may pass 2^32.
    const uint64_t i = uint64_t(blockIdx.x) * ADAMW_ELEMENTS_PER_BLOCK + threadIdx.x * QUAD;
    if (i >= params.len) return;
    if (!is_within(norm, params.norm_limit) || !is_within(loss, params.loss_limit)) return;
    const float clip = fminf(__fdiv_rn(params.max_norm, __fadd_rn(norm, 1e-6f)), 1.0f);

    const float4 grad = load(params.grad + i);
    float4 m = load(params.m + i);
    float4 v = load(params.v + i);
    float4 w = load(params.master + i);
    update(params, clip, grad.x, m.x, v.x, w.x);
    update(params, clip, grad.y, m.y, v.y, w.y);
    update(params, clip, grad.z, m.z, v.z, w.z);
    update(params, clip, grad.w, m.w, v.w, w.w);
    store(params.m + i, m);
    store(params.v + i, v);
    store(params.master + i, w);

    const uint4 draws = draw4(params.seed, PURPOSE_ROUNDING, params.step, (params.first_index + i) / QUAD);
    const uint2 weights = make_uint2(upper_halves(round_to_bf16(w.x, draws.x), round_to_bf16(w.y, draws.y)),
                                     upper_halves(round_to_bf16(w.z, draws.z), round_to_bf16(w.w, draws.w)));
    *reinterpret_cast<uint2 *>(params.weight + i) = weights;
}
