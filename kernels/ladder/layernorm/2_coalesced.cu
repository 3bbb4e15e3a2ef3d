// Layernorm, step 2 of docs/study/ladder/layernorm.md: one warp per row.  out = (x - mean) * rstd * weight + bias
// Change:   a row belongs to a warp instead of a thread. Neighbouring lanes read neighbouring elements, so a request of
//           64 bytes touches 2 sectors instead of 32; a warp reduction adds the lanes' sums by shuffles
// Shapes:   x, out (N, C) bf16; weight, bias (C) bf16; mean, rstd (N) f32; row-major
// Writes:   out, mean, rstd "="
// Requires: any C, though the launcher uses this kernel only up to C = 1024
// Launch:   as kernels/layernorm.cu: block 256, one block per LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK rows, grid-stride
//           loop over rows, 8 at a time
// Numerics: f32, two-pass variance
// Traffic:  12*N*C + 8*N bytes requested, 2 bytes per access
#include "../../common/reduce.cuh"
#include "../../common/types.cuh"
#include "../../params/layernorm.h"

constexpr uint32_t WARPS = LAYERNORM_THREADS / WARP;
// The same value as in src/ops/mod.rs.
constexpr float LAYERNORM_EPS = 1e-5f;

__device__ inline void forward(const LayernormForwardParams &params) {
    const float channels = float(params.c);
    const uint64_t grid_stride = uint64_t(gridDim.x) * WARPS;
    for (uint64_t row = uint64_t(blockIdx.x) * WARPS + warp_id(); row < params.n; row += grid_stride) {
        const bf16 *x = params.x + row * params.c;
        bf16 *out = params.out + row * params.c;

        // mean
        float sum = 0.0f;
        for (uint32_t i = lane_id(); i < params.c; i += WARP) sum += __bfloat162float(x[i]);
        const float mean = warp_sum(sum) / channels;

        // rstd
        float squares = 0.0f;
        for (uint32_t i = lane_id(); i < params.c; i += WARP) {
            const float centred = __bfloat162float(x[i]) - mean;
            squares = fmaf(centred, centred, squares);
        }
        const float rstd = 1.0f / sqrtf(warp_sum(squares) / channels + LAYERNORM_EPS);

        // out
        for (uint32_t i = lane_id(); i < params.c; i += WARP) {
            const float weight = __bfloat162float(params.weight[i]), bias = __bfloat162float(params.bias[i]);
            out[i] = __float2bfloat16(fmaf((__bfloat162float(x[i]) - mean) * rstd, weight, bias));
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
