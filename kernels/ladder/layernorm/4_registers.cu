// Layernorm, step 4 of docs/study/ladder/layernorm.md: each row is read once.  out = (x - mean) * rstd * weight + bias
// Change:   the row stays in registers between the three passes. Their loops now have a trip count that the compiler
//           knows and are unrolled: an array with a dynamic index would be in local memory
// Shapes:   x, out (N, C) bf16; weight, bias (C) bf16; mean, rstd (N) f32; row-major
// Writes:   out, mean, rstd "="
// Requires: C % 8 == 0, C <= 1024; 16-byte-aligned pointers except mean and rstd
// Launch:   as kernels/layernorm.cu: block 256, one block per LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK rows, grid-stride
//           loop over rows, 8 at a time
// Numerics: f32, two-pass variance of the row in registers
// Traffic:  8*N*C + 8*N bytes requested: 4*N*C of them are weight and bias, which are read again for every row
#include "../../common/reduce.cuh"
#include "../../common/types.cuh"
#include "../../params/layernorm.h"

constexpr uint32_t WARPS = LAYERNORM_THREADS / WARP;
// Vectors of a row that a lane holds at most.
constexpr uint32_t VECTORS = 1024 / VECTOR / WARP;
// The same value as in src/ops/mod.rs.
constexpr float LAYERNORM_EPS = 1e-5f;

// Calls f(i, v) for each of the lane's vectors: v is its index in the row, i its index in the lane's registers.
template <typename F>
__device__ inline void for_each_vector(uint32_t vectors, F f) {
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        const uint32_t v = lane_id() + i * WARP;
        if (v < vectors) f(i, v);
    }
}

__device__ inline void forward(const LayernormForwardParams &params) {
    const uint32_t vectors = uint32_t(params.c) / VECTOR;
    const float channels = float(params.c);
    const uint64_t grid_stride = uint64_t(gridDim.x) * WARPS;
    for (uint64_t row = uint64_t(blockIdx.x) * WARPS + warp_id(); row < params.n; row += grid_stride) {
        // Packed bf16, as in memory: half as many registers as f32 values.
        bf16x8 x[VECTORS];
        for_each_vector(vectors,
                        [&](uint32_t i, uint32_t v) { x[i] = load_packed(params.x + row * params.c + v * VECTOR); });

        // mean
        float sum = 0.0f;
        for_each_vector(vectors, [&](uint32_t i, uint32_t) {
            const f32x8 value = unpack(x[i]);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) sum += value.at[k];
        });
        const float mean = warp_sum(sum) / channels;

        // rstd
        float squares = 0.0f;
        for_each_vector(vectors, [&](uint32_t i, uint32_t) {
            const f32x8 value = unpack(x[i]);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) squares = fmaf(value.at[k] - mean, value.at[k] - mean, squares);
        });
        const float rstd = 1.0f / sqrtf(warp_sum(squares) / channels + LAYERNORM_EPS);

        // out
        for_each_vector(vectors, [&](uint32_t i, uint32_t v) {
            f32x8 value = unpack(x[i]);
            const f32x8 w = load(params.weight + v * VECTOR), b = load(params.bias + v * VECTOR);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) value.at[k] = fmaf((value.at[k] - mean) * rstd, w.at[k], b.at[k]);
            store(params.out + row * params.c + v * VECTOR, value);
        });
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
