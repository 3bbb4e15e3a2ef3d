// Matmul, step 2 of docs/study/ladder.md: tiles in shared memory.  out = x * weight^T
// Change:   the block reads the rows of x and of weight that its tile needs once, TERMS terms at a time, and multiplies from
//           shared memory. A thread keeps the sums of several rows and columns, so that what it reads serves several FMAs
// Shapes:   x (N, C), weight (OC, C), out (N, OC) bf16; row-major
// Writes:   out "="
// Requires: N and OC whole tiles, C % 32 == 0; 16-byte-aligned pointers; no bias, residual or GELU
// Launch:   as kernels/matmul_sm80.cu: a block a tile of out, of (128, 256) and 256 threads or of (64, 64) and 128
// Numerics: f32 sums in the order of the terms; one rounding at the end
// Traffic:  (rows + columns of a tile) * C * 2 bytes a block, and out
#include "../../common/types.cuh"
#include "../../params/matmul.h"

constexpr uint32_t TERMS = MATMUL_BLOCK_K;
// A float more than a row has, so that neighbouring rows begin in neighbouring banks.
using Row = float[TERMS + 1];

// SIZE rows of an operand, TERMS of each row's terms, to shared memory as f32.
template <uint32_t SIZE, uint32_t THREADS>
__device__ inline void copy_tile(Row *to, const bf16 *from, uint32_t stride) {
    constexpr uint32_t CHUNKS = TERMS / VECTOR;
    const uint32_t row = threadIdx.x / CHUNKS, column = threadIdx.x % CHUNKS * VECTOR;
#pragma unroll
    for (uint32_t first = 0; first < SIZE; first += THREADS / CHUNKS) {
        const f32x8 values = load(from + uint64_t(first + row) * stride + column);
#pragma unroll
        for (uint32_t k = 0; k < VECTOR; k++) to[first + row][column + k] = values.at[k];
    }
}

template <uint32_t ROWS, uint32_t COLUMNS, uint32_t THREADS>
__device__ inline void forward(const MatmulForwardParams &params) {
    // Threads along the tile's rows and columns. A thread's rows lie DOWN apart, its columns ACROSS.
    constexpr uint32_t DOWN = 16, ACROSS = THREADS / DOWN, OWN_ROWS = ROWS / DOWN, OWN_COLUMNS = COLUMNS / ACROSS;
    extern __shared__ Row shared[];
    Row *x = shared, *weight = shared + ROWS;
    const uint32_t first_row = blockIdx.x % params.tiles_m * ROWS;
    const uint32_t first_column = blockIdx.x / params.tiles_m * COLUMNS;
    const uint32_t row = threadIdx.x / ACROSS, column = threadIdx.x % ACROSS;

    float sums[OWN_ROWS][OWN_COLUMNS] = {};
    for (uint32_t term = 0; term < params.c; term += TERMS) {
        copy_tile<ROWS, THREADS>(x, params.x + uint64_t(first_row) * params.c + term, params.c);
        copy_tile<COLUMNS, THREADS>(weight, params.weight + uint64_t(first_column) * params.c + term, params.c);
        __syncthreads();  // threads read what others have copied
#pragma unroll 4
        for (uint32_t k = 0; k < TERMS; k++) {
            float a[OWN_ROWS];
#pragma unroll
            for (uint32_t i = 0; i < OWN_ROWS; i++) a[i] = x[row + i * DOWN][k];
#pragma unroll
            for (uint32_t j = 0; j < OWN_COLUMNS; j++) {
                const float b = weight[column + j * ACROSS][k];
#pragma unroll
                for (uint32_t i = 0; i < OWN_ROWS; i++) sums[i][j] = fmaf(a[i], b, sums[i][j]);
            }
        }
        __syncthreads();  // all have read before the next terms are written
    }

#pragma unroll
    for (uint32_t i = 0; i < OWN_ROWS; i++) {
        bf16 *out = params.out + uint64_t(first_row + row + i * DOWN) * params.oc + first_column + column;
#pragma unroll
        for (uint32_t j = 0; j < OWN_COLUMNS; j++) out[j * ACROSS] = __float2bfloat16(sums[i][j]);
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
