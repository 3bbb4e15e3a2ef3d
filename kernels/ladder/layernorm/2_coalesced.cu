// Layernorm, step 2 of docs/study/ladder.md: a warp a row.  out = (x - mean) * rstd * weight + bias
// Change:   a row is a warp's and no longer a thread's. Neighbouring lanes read neighbouring elements, so that a request of
//           64 bytes lies in 2 sectors and not in 32; the lanes' sums become the row's by shuffles
// Shapes:   x, out (N, C) bf16; weight, bias (C) bf16; mean, rstd (N) f32; row-major
// Writes:   out, mean, rstd "="
// Requires: nothing of C, though the launcher takes no more than 1024 for this kernel
// Launch:   as kernels/layernorm.cu: block 256, a block for every LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK rows; blocks go on to
//           further rows, 8 at a time
// Numerics: f32, two-pass variance
// Traffic:  12*N*C + 8*N bytes asked, two at a time
#include "../../common/reduce.cuh"
#include "../../common/types.cuh"
#include "../../params/layernorm.h"

constexpr uint32_t WARPS = LAYERNORM_THREADS / WARP;
// As src/ops/mod.rs has it.
constexpr float LAYERNORM_EPS = 1e-5f;

__device__ inline void forward(const LayernormForwardParams &params) {
    const float channels = float(params.c);
    const uint64_t step = uint64_t(gridDim.x) * WARPS;
    for (uint64_t row = uint64_t(blockIdx.x) * WARPS + warp_id(); row < params.n; row += step) {
        const bf16 *x = params.x + row * params.c;
        bf16 *out = params.out + row * params.c;

        float sum = 0.0f;
        for (uint32_t i = lane_id(); i < params.c; i += WARP) sum += __bfloat162float(x[i]);
        const float mean = warp_sum(sum) / channels;

        float squares = 0.0f;
        for (uint32_t i = lane_id(); i < params.c; i += WARP) {
            const float centred = __bfloat162float(x[i]) - mean;
            squares = fmaf(centred, centred, squares);
        }
        const float rstd = 1.0f / sqrtf(warp_sum(squares) / channels + LAYERNORM_EPS);

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
