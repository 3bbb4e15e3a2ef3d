// Layernorm, step 1 of docs/study/ladder.md: a thread a row.  out = (x - mean) * rstd * weight + bias
// Shapes:   x, out (N, C) bf16; weight, bias (C) bf16; mean, rstd (N) f32; row-major
// Writes:   out, mean, rstd "="
// Requires: nothing of C, though the launcher takes no more than 1024 for this kernel
// Launch:   as kernels/layernorm.cu: block 256, a block for every LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK rows; blocks go on to
//           further rows. A block takes 256 rows at a time, so that most of the launcher's blocks have none
// Numerics: f32, two-pass variance
// Traffic:  12*N*C + 8*N bytes asked, two at a time, and a sector of 32 bytes moved for each: x is read for the mean, for
//           the variance and for out, weight and bias in every row
#include "../../common/types.cuh"
#include "../../params/layernorm.h"

// As src/ops/mod.rs has it.
constexpr float LAYERNORM_EPS = 1e-5f;

__device__ inline void forward(const LayernormForwardParams &params) {
    const float channels = float(params.c);
    const uint64_t step = uint64_t(gridDim.x) * LAYERNORM_THREADS;
    for (uint64_t row = uint64_t(blockIdx.x) * LAYERNORM_THREADS + threadIdx.x; row < params.n; row += step) {
        // Neighbouring lanes are at neighbouring rows, 2*C bytes apart: each access of a warp lies in 32 sectors.
        const bf16 *x = params.x + row * params.c;
        bf16 *out = params.out + row * params.c;

        float sum = 0.0f;
        for (uint32_t i = 0; i < params.c; i++) sum += __bfloat162float(x[i]);
        const float mean = sum / channels;

        float squares = 0.0f;
        for (uint32_t i = 0; i < params.c; i++) {
            const float centred = __bfloat162float(x[i]) - mean;
            squares = fmaf(centred, centred, squares);
        }
        const float rstd = 1.0f / sqrtf(squares / channels + LAYERNORM_EPS);

        for (uint32_t i = 0; i < params.c; i++) {
            const float weight = __bfloat162float(params.weight[i]), bias = __bfloat162float(params.bias[i]);
            out[i] = __float2bfloat16(fmaf((__bfloat162float(x[i]) - mean) * rstd, weight, bias));
        }
        params.mean[row] = mean;
        params.rstd[row] = rstd;
    }
}

extern "C" __global__ void __launch_bounds__(LAYERNORM_THREADS, LAYERNORM_FORWARD_MIN_BLOCKS)
    layernorm_forward_c1024(const __grid_constant__ LayernormForwardParams params) {
    forward(params);
}
