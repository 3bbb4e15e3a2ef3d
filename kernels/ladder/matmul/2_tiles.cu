// Matmul, step 2 of docs/study/ladder/matmul.md: tiles in shared memory.  out = x * weight^T
// Change:   the CTA reads the rows of x and weight that its tile needs only once, BLOCK_K elements at a time, and
//           multiplies from shared memory. A thread accumulates several rows and columns, so that each value it reads
//           serves several FMAs
// Shapes:   x (N, C), weight (OC, C), out (N, OC) bf16; row-major
// Writes:   out "="
// Requires: N % BLOCK_M == 0, OC % BLOCK_N == 0, C % BLOCK_K == 0; 16-byte-aligned pointers; no bias, residual or GELU
// Launch:   as kernels/matmul_sm80.cu: one CTA per output tile, of 128 x 256 with 256 threads or of 64 x 64 with 128
// Numerics: f32 accumulation in the order of k; one rounding at the end
// Traffic:  (BLOCK_M + BLOCK_N) * C * 2 bytes per CTA, and out
#include "../../common/types.cuh"
#include "../../params/matmul.h"

constexpr uint32_t BLOCK_K = MATMUL_BLOCK_K;
// A row of a tile, padded by one float so that neighbouring rows begin in neighbouring banks.
using Row = float[BLOCK_K + 1];

// Copies a ROWS x BLOCK_K tile of an operand to shared memory as f32.
template <uint32_t ROWS, uint32_t THREADS>
__device__ inline void copy_tile(Row *to, const bf16 *from, uint32_t stride) {
    constexpr uint32_t CHUNKS = BLOCK_K / VECTOR;
    const uint32_t row = threadIdx.x / CHUNKS, column = threadIdx.x % CHUNKS * VECTOR;
#pragma unroll
    for (uint32_t first = 0; first < ROWS; first += THREADS / CHUNKS) {
        const f32x8 values = load(from + uint64_t(first + row) * stride + column);
#pragma unroll
        for (uint32_t k = 0; k < VECTOR; k++) to[first + row][column + k] = values.at[k];
    }
}

template <uint32_t BLOCK_M, uint32_t BLOCK_N, uint32_t THREADS>
__device__ inline void forward(const MatmulForwardParams &params) {
    // The CTA's threads are a grid of THREADS_M x THREADS_N. A thread's THREAD_M rows are THREADS_M apart, its THREAD_N
    // columns THREADS_N apart.
    constexpr uint32_t THREADS_M = 16, THREADS_N = THREADS / THREADS_M;
    constexpr uint32_t THREAD_M = BLOCK_M / THREADS_M, THREAD_N = BLOCK_N / THREADS_N;
    extern __shared__ Row shared[];
    Row *x = shared, *weight = shared + BLOCK_M;
    const uint32_t block_m = blockIdx.x % params.tiles_m * BLOCK_M, block_n = blockIdx.x / params.tiles_m * BLOCK_N;
    const uint32_t row = threadIdx.x / THREADS_N, column = threadIdx.x % THREADS_N;

    float acc[THREAD_M][THREAD_N] = {};
    for (uint32_t k_begin = 0; k_begin < params.c; k_begin += BLOCK_K) {
        copy_tile<BLOCK_M, THREADS>(x, params.x + uint64_t(block_m) * params.c + k_begin, params.c);
        copy_tile<BLOCK_N, THREADS>(weight, params.weight + uint64_t(block_n) * params.c + k_begin, params.c);
        __syncthreads();  // RAW: threads read what others have copied
#pragma unroll 4
        for (uint32_t k = 0; k < BLOCK_K; k++) {
            float a[THREAD_M];
#pragma unroll
            for (uint32_t i = 0; i < THREAD_M; i++) a[i] = x[row + i * THREADS_M][k];
#pragma unroll
            for (uint32_t j = 0; j < THREAD_N; j++) {
                const float b = weight[column + j * THREADS_N][k];
#pragma unroll
                for (uint32_t i = 0; i < THREAD_M; i++) acc[i][j] = fmaf(a[i], b, acc[i][j]);
            }
        }
        __syncthreads();  // WAR: all threads have read these tiles before the next ones are copied
    }

#pragma unroll
    for (uint32_t i = 0; i < THREAD_M; i++) {
        bf16 *out = params.out + uint64_t(block_m + row + i * THREADS_M) * params.oc + block_n + column;
#pragma unroll
        for (uint32_t j = 0; j < THREAD_N; j++) out[j * THREADS_N] = __float2bfloat16(acc[i][j]);
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
