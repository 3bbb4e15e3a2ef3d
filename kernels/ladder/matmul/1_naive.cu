// Matmul, step 1 of docs/study/ladder.md: everything from device memory.  out = x * weight^T
// Shapes:   x (N, C), weight (OC, C), out (N, OC) bf16; row-major
// Writes:   out "="
// Requires: N and OC whole tiles; no bias, residual or GELU
// Launch:   as kernels/matmul_sm80.cu: a block a tile of out, of (128, 256) and 256 threads or of (64, 64) and 128
// Numerics: f32 sums in the order of the terms; one rounding at the end
// Traffic:  4*N*OC*C bytes asked: two elements for each multiplication
#include "../../common/types.cuh"
#include "../../params/matmul.h"

template <uint32_t ROWS, uint32_t COLUMNS, uint32_t THREADS>
__device__ inline void forward(const MatmulForwardParams &params) {
    const uint32_t first_row = blockIdx.x % params.tiles_m * ROWS;
    const uint32_t first_column = blockIdx.x / params.tiles_m * COLUMNS;
    // Neighbouring lanes have neighbouring columns of one row.
    for (uint32_t i = threadIdx.x; i < ROWS * COLUMNS; i += THREADS) {
        const uint32_t row = first_row + i / COLUMNS, column = first_column + i % COLUMNS;
        // All lanes ask for one element of x, and each for another row of weight: 32 sectors for 64 bytes.
        const bf16 *x = params.x + uint64_t(row) * params.c, *weight = params.weight + uint64_t(column) * params.c;
        float sum = 0.0f;
        for (uint32_t k = 0; k < params.c; k++) sum = fmaf(__bfloat162float(x[k]), __bfloat162float(weight[k]), sum);
        params.out[uint64_t(row) * params.oc + column] = __float2bfloat16(sum);
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
