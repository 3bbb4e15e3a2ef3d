// Layernorm, step 1 of docs/study/ladder/layernorm.md: one thread per row.  out = (x - mean) * rstd * weight + bias
// Shapes:   x, out (N, C) bf16; weight, bias (C) bf16; mean, rstd (N) f32; row-major
// Writes:   out, mean, rstd "="
// Requires: any C, though the launcher uses this kernel only up to C = 1024
// Launch:   as kernels/layernorm.cu: block 256, one block per LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK rows, grid-stride
//           loop over rows. A block computes 256 rows at a time, so most of the launcher's blocks have none
// Numerics: f32, two-pass variance
// Traffic:  12*N*C + 8*N bytes requested, 2 bytes per access, each of which moves a sector of 32 bytes: x is read for
//           the mean, for the variance and for out; weight and bias are read for every row
#include "../../common/types.cuh"
#include "../../params/layernorm.h"

// The same value as in src/ops/mod.rs.
constexpr float LAYERNORM_EPS = 1e-5f;

__device__ inline void forward(const LayernormForwardParams &params) {
    const float channels = float(params.c);
    const uint64_t grid_stride = uint64_t(gridDim.x) * LAYERNORM_THREADS;
    for (uint64_t row = uint64_t(blockIdx.x) * LAYERNORM_THREADS + threadIdx.x; row < params.n; row += grid_stride) {
        // Neighbouring lanes have neighbouring rows, 2*C bytes apart: each access of a warp touches 32 sectors.
        const bf16 *x = params.x + row * params.c;
        bf16 *out = params.out + row * params.c;

        // mean
        float sum = 0.0f;
        for (uint32_t i = 0; i < params.c; i++) sum += __bfloat162float(x[i]);
        const float mean = sum / channels;

        // rstd
        float squares = 0.0f;
        for (uint32_t i = 0; i < params.c; i++) {
            const float centred = __bfloat162float(x[i]) - mean;
            squares = fmaf(centred, centred, squares);
        }
        const float rstd = 1.0f / sqrtf(squares / channels + LAYERNORM_EPS);

        // out
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
