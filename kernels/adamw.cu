// AdamW.  g = grad * min(1, max_norm / (norm + 1e-6))
//         m = beta1*m + (1-beta1)*g,  v = beta2*v + (1-beta2)*g*g
//         m_hat = m / (1 - beta1^step),  v_hat = v / (1 - beta2^step)
//         master -= lr * (m_hat / (sqrt(v_hat) + eps) + weight_decay*master)
//         weight = bf16(master), stochastic rounding
// Shapes:   weight (P) bf16; master, grad, m, v (P) f32; norm, loss (1) f32
// Writes:   weight "="; master, m, v in place; nothing at all if norm or loss is not finite or above its limit
// Requires: P % 4 == 0, first_index % 4 == 0; 16-byte-aligned pointers (weight: 8)
// Launch:   grid ceil(P/1024), block 256, smem 0; one thread = four parameters = one Philox block of four draws
// Numerics: f32; every operation is rounded separately and in the reference's order, so m, v and master are bit-equal
//           to Cpu<f32>
// Traffic:  30*P bytes; memory-bound
#include "params/adamw.h"

#include "common/philox.cuh"
#include "common/reduce.cuh"

// Parameters per thread: one float4. With eight, a 16-byte vector of bf16 weights, a warp's float4 accesses would be 32
// bytes apart, and each access of 28 of the 30 bytes per parameter would touch twice as many sectors. The weights are
// stored as 8 bytes per thread instead.
constexpr uint32_t VEC_SIZE = 4;
static_assert(ADAMW_ELEMENTS_PER_BLOCK == VEC_SIZE * ADAMW_THREADS, "four parameters per thread");

// ---------------------------------------------------------------------------------------------------------------------
// device helpers

// False for NaN and infinity.
__device__ inline bool is_within(float value, float limit) { return isfinite(value) && value <= limit; }

// Updates one parameter: w is its master weight. The intrinsics are never contracted to FMAs, which makes the result
// bit-equal to the reference. Its three exact divisions and the exact square root take about half of the time that the
// memory traffic takes.
__device__ inline void update(const AdamWParams &params, float grad_scale, float grad, float &m, float &v, float &w) {
    const float g = __fmul_rn(grad, grad_scale);
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
    // Guard: norm and loss are the same for all threads of the grid, so either every parameter is updated or none is.
    // Lane 0 loads norm and lane 1 loads loss; loads by all lanes would request two more bytes per parameter.
    float scalar = 0.0f;
    if (lane_id() < 2) scalar = *(lane_id() == 0 ? params.norm : params.loss);
    const float norm = __shfl_sync(ALL_LANES, scalar, 0), loss = __shfl_sync(ALL_LANES, scalar, 1);
    // 64-bit index: P may exceed 2^32.
    const uint64_t i = uint64_t(blockIdx.x) * ADAMW_ELEMENTS_PER_BLOCK + threadIdx.x * VEC_SIZE;
    if (i >= params.len) return;
    if (!is_within(norm, params.norm_limit) || !is_within(loss, params.loss_limit)) return;

    // clip by global norm
    const float grad_scale = fminf(__fdiv_rn(params.max_norm, __fadd_rn(norm, 1e-6f)), 1.0f);

    // moments and master weights
    const float4 grad = load(params.grad + i);
    float4 m = load(params.m + i);
    float4 v = load(params.v + i);
    float4 w = load(params.master + i);
    update(params, grad_scale, grad.x, m.x, v.x, w.x);
    update(params, grad_scale, grad.y, m.y, v.y, w.y);
    update(params, grad_scale, grad.z, m.z, v.z, w.z);
    update(params, grad_scale, grad.w, m.w, v.w, w.w);
    store(params.m + i, m);
    store(params.v + i, v);
    store(params.master + i, w);

    // bf16 weights, rounded stochastically: the draws depend on the parameter's index and the step alone
    const uint4 draws = draw4(params.seed, PURPOSE_ROUNDING, params.step, (params.first_index + i) / VEC_SIZE);
    const uint2 weights = make_uint2(upper_halves(round_to_bf16(w.x, draws.x), round_to_bf16(w.y, draws.y)),
                                     upper_halves(round_to_bf16(w.z, draws.z), round_to_bf16(w.w, draws.w)));
    *reinterpret_cast<uint2 *>(params.weight + i) = weights;
}
