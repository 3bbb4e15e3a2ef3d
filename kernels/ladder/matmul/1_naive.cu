// Matmul, step 1 of docs/study/ladder/matmul.md: all operands from device memory.  out = x * weight^T
// Shapes:   x (N, C), weight (OC, C), out (N, OC) bf16; row-major
// Writes:   out "="
// Requires: N % BLOCK_M == 0, OC % BLOCK_N == 0; no bias, residual or GELU
// Launch:   as kernels/matmul_sm80.cu: one CTA per output tile, of 128 x 256 with 256 threads or of 64 x 64 with 128
// Numerics: f32 accumulation in the order of k; one rounding at the end
// Traffic:  4*N*OC*C bytes requested: two elements for each multiplication
#include "../../common/types.cuh"
#include "../../params/matmul.h"

template <uint32_t BLOCK_M, uint32_t BLOCK_N, uint32_t THREADS>
__device__ inline void forward(const MatmulForwardParams &params) {
    const uint32_t block_m = blockIdx.x % params.tiles_m * BLOCK_M, block_n = blockIdx.x / params.tiles_m * BLOCK_N;
    // Neighbouring lanes have neighbouring columns of one row.
    for (uint32_t i = threadIdx.x; i < BLOCK_M * BLOCK_N; i += THREADS) {
        const uint32_t m = block_m + i / BLOCK_N, n = block_n + i % BLOCK_N;
        // All lanes read the same element of x, and each reads a different row of weight: 32 sectors for 64 bytes.
        const bf16 *x = params.x + uint64_t(m) * params.c, *weight = params.weight + uint64_t(n) * params.c;
        float sum = 0.0f;
        for (uint32_t k = 0; k < params.c; k++) sum = fmaf(__bfloat162float(x[k]), __bfloat162float(weight[k]), sum);
        params.out[uint64_t(m) * params.oc + n] = __float2bfloat16(sum);
    }
}

extern "C" __global__ void __launch_bounds__(MATMUL_LARGE_THREADS)
    matmul_forward_128x256x32(const __grid_constant__ MatmulForwardParams params) {
    forward<MATMUL_LARGE_BLOCK_M, MATMUL_LARGE_BLOCK_N, MATMUL_LARGE_THREADS>(params);
}

extern "C" __global__ void __launch_bounds__(MATMUL_SMALL_THREADS, MATMUL_SMALL_MIN_BLOCKS)
    matmul_forward_64x64x32(const __grid_constant__ MatmulForwardParams params) {
    forward<MATMUL_SMALL_BLOCK_M, MATMUL_SMALL_BLOCK_N, MATMUL_SMALL_THREADS>(params);
}
