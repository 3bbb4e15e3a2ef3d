// Layernorm, step 3 of docs/study/ladder/layernorm.md: 16 bytes per lane.  out = (x - mean) * rstd * weight + bias
// Change:   eight elements per access instead of one: an eighth of the requests, each of 16 sectors, and eight times as
//           many bytes in flight per warp while it waits
// Shapes:   x, out (N, C) bf16; weight, bias (C) bf16; mean, rstd (N) f32; row-major
// Writes:   out, mean, rstd "="
// Requires: C % 8 == 0; 16-byte-aligned pointers except mean and rstd
// Launch:   as kernels/layernorm.cu: block 256, one block per LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK rows, grid-stride
//           loop over rows, 8 at a time
// Numerics: f32, two-pass variance
// Traffic:  12*N*C + 8*N bytes requested, 16 bytes per access
#include "../../common/reduce.cuh"
#include "../../common/types.cuh"
#include "../../params/layernorm.h"

constexpr uint32_t WARPS = LAYERNORM_THREADS / WARP;
// The same value as in src/ops/mod.rs.
constexpr float LAYERNORM_EPS = 1e-5f;

__device__ inline void forward(const LayernormForwardParams &params) {
    const uint32_t vectors = uint32_t(params.c) / VECTOR;
    const float channels = float(params.c);
    const uint64_t grid_stride = uint64_t(gridDim.x) * WARPS;
    for (uint64_t row = uint64_t(blockIdx.x) * WARPS + warp_id(); row < params.n; row += grid_stride) {
        const bf16 *x = params.x + row * params.c;
        bf16 *out = params.out + row * params.c;

        // mean
        float sum = 0.0f;
        for (uint32_t v = lane_id(); v < vectors; v += WARP) {
            const f32x8 value = load(x + v * VECTOR);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) sum += value.at[k];
        }
        const float mean = warp_sum(sum) / channels;

        // rstd
        float squares = 0.0f;
        for (uint32_t v = lane_id(); v < vectors; v += WARP) {
            const f32x8 value = load(x + v * VECTOR);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) squares = fmaf(value.at[k] - mean, value.at[k] - mean, squares);
        }
        const float rstd = 1.0f / sqrtf(warp_sum(squares) / channels + LAYERNORM_EPS);

        // out; not unrolled, as the compiler would split the last 16-byte store into four stores of 4 bytes
#pragma unroll 1
        for (uint32_t v = lane_id(); v < vectors; v += WARP) {
            f32x8 value = load(x + v * VECTOR);
            const f32x8 w = load(params.weight + v * VECTOR), b = load(params.bias + v * VECTOR);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) value.at[k] = fmaf((value.at[k] - mean) * rstd, w.at[k], b.at[k]);
            store(out + v * VECTOR, value);
        }
        if (lane_id() == 0) {
            params.mean[row] = mean;
            params.rstd[row] = rstd;
        }
    }
}

extern "C" __global__ void __launch_bounds__(LAYERNORM_THREADS, LAYERNORM_FORWARD_MIN_BLOCKS)
    layernorm_forward_c1024(const __grid_constant__ LayernormForwardParams params) {
    forward(params);
}
