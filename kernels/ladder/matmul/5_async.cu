// Matmul, step 5 of docs/study/ladder.md: copies under way.  out = x * weight^T
// Change:   a tile's terms are on their way while those before are multiplied: cp.async copies to shared memory without a
//           register, into a ring of MATMUL_STAGES stages. One barrier a stage is left
// Shapes:   x (N, C), weight (OC, C), out (N, OC) bf16; row-major
// Writes:   out "="
// Requires: N and OC whole tiles, C % 32 == 0; 16-byte-aligned pointers; no bias, residual or GELU
// Launch:   as kernels/matmul_sm80.cu: a block a tile of out, of (128, 256) and 8 warps of (64, 64) each, or of (64, 64) and
//           4 warps of (32, 32)
// Numerics: bf16 products, f32 sums; one rounding at the end
// Traffic:  (rows + columns of a tile) * C * 2 bytes a block, and out
#include "../../common/cp_async.cuh"
#include "../../common/ldmatrix.cuh"
#include "../../common/mma.cuh"
#include "../../common/reduce.cuh"
#include "../../common/types.cuh"
#include "../../params/matmul.h"

// A row of a tile: 64 bytes, so that two fill the banks.
constexpr uint32_t TERMS = MATMUL_BLOCK_K, CHUNKS = TERMS / VECTOR;

// Where 16-byte chunk `chunk` of a tile's row lies. Rows 8 apart are permuted alike, so that a warp's part of a tile is read
// as if it began there.
__device__ inline uint32_t place(uint32_t row, uint32_t chunk) { return row * CHUNKS + (chunk ^ row / 2 % CHUNKS); }

// Asks for SIZE rows of an operand, TERMS of each row's terms. `to` and `from`: the thread's first chunk.
template <uint32_t SIZE, uint32_t THREADS>
__device__ inline void copy_tile(uint32_t to, const bf16 *from, uint32_t stride) {
    // Rows so many apart are permuted alike.
#pragma unroll
    for (uint32_t row = 0; row < SIZE; row += THREADS / CHUNKS) {
        cp_async_16(to + 16 * row * CHUNKS, from + uint64_t(row) * stride, true);
    }
}

// Adds the products of a tile's terms to a warp's (SIDE, SIDE) of out.
template <uint32_t SIDE>
__device__ inline void multiply(Accumulator (&sums)[SIDE / 16][SIDE / 8], uint32_t x, uint32_t weight) {
    // Which of a fragment's four matrices, 8 by 8, the lane gives a row's address for.
    const uint32_t matrix_row = lane_id() % 8, upper = lane_id() / 8 % 2, half = lane_id() / 16;
#pragma unroll
    for (uint32_t step = 0; step < TERMS / 16; step++) {
        FragmentA a[SIDE / 16];
#pragma unroll
        for (uint32_t i = 0; i < SIDE / 16; i++) {
            ldmatrix_x4<false>(a[i].regs, x + 16 * place(16 * i + 8 * upper + matrix_row, 2 * step + half));
        }
#pragma unroll
        for (uint32_t j = 0; j < SIDE / 16; j++) {
            uint32_t b[4];
            ldmatrix_x4<false>(b, weight + 16 * place(16 * j + 8 * half + matrix_row, 2 * step + upper));
#pragma unroll
            for (uint32_t i = 0; i < SIDE / 16; i++) {
                mma(sums[i][2 * j], a[i], {{b[0], b[1]}});
                mma(sums[i][2 * j + 1], a[i], {{b[2], b[3]}});
            }
        }
    }
}

// A warp's part of out, in pairs as mma leaves them: 8 rows of 16 bytes a request, half sectors.
template <uint32_t SIDE>
__device__ inline void write(const Accumulator (&sums)[SIDE / 16][SIDE / 8], bf16 *out, uint32_t stride) {
    const uint32_t row = lane_id() / 4, column = lane_id() % 4 * 2;
#pragma unroll
    for (uint32_t i = 0; i < SIDE / 16; i++) {
#pragma unroll
        for (uint32_t j = 0; j < SIDE / 8; j++) {
#pragma unroll
            for (uint32_t low = 0; low < 2; low++) {
                bf16 *to = out + uint64_t(16 * i + 8 * low + row) * stride + 8 * j + column;
                const float *pair = &sums[i][j].c[2 * low];
                *reinterpret_cast<__nv_bfloat162 *>(to) = __floats2bfloat162_rn(pair[0], pair[1]);
            }
        }
    }
}

template <uint32_t ROWS, uint32_t COLUMNS, uint32_t SIDE>
__device__ inline void forward(const MatmulForwardParams &params) {
    constexpr uint32_t ACROSS = COLUMNS / SIDE, THREADS = ROWS / SIDE * ACROSS * WARP;
    constexpr uint32_t STAGE = 16 * (ROWS + COLUMNS) * CHUNKS;
    extern __shared__ bf16x8 shared[];
    const uint32_t row = blockIdx.x % params.tiles_m * ROWS, column = blockIdx.x / params.tiles_m * COLUMNS;
    const uint32_t warp_row = warp_id() / ACROSS * SIDE, warp_column = warp_id() % ACROSS * SIDE;
    const uint32_t ring = shared_address(shared);
    const uint32_t own_row = threadIdx.x / CHUNKS, own_chunk = threadIdx.x % CHUNKS;
    const bf16 *x = params.x + uint64_t(row + own_row) * params.c + own_chunk * VECTOR;
    const bf16 *weight = params.weight + uint64_t(column + own_row) * params.c + own_chunk * VECTOR;

    // The next terms, if there are any. A group even if not, so that the wait below counts the same to the end.
    uint32_t fetched = 0;
    const auto fetch = [&] {
        if (fetched < params.c) {
            const uint32_t to = ring + fetched / TERMS % MATMUL_STAGES * STAGE + 16 * place(own_row, own_chunk);
            copy_tile<ROWS, THREADS>(to, x, params.c);
            copy_tile<COLUMNS, THREADS>(to + 16 * place(ROWS, 0), weight, params.c);
        }
        x += TERMS, weight += TERMS, fetched += TERMS;
        cp_async_commit();
    };
#pragma unroll 1
    for (uint32_t i = 0; i + 1 < MATMUL_STAGES; i++) fetch();

    Accumulator sums[SIDE / 16][SIDE / 8] = {};
    for (uint32_t term = 0; term < params.c; term += TERMS) {
        cp_async_wait<MATMUL_STAGES - 2>();
        __syncthreads();  // these terms are there, of all threads; and nobody reads those before, which make room now
        fetch();
        const uint32_t stage = ring + term / TERMS % MATMUL_STAGES * STAGE;
        multiply<SIDE>(sums, stage + 16 * place(warp_row, 0), stage + 16 * place(ROWS + warp_column, 0));
    }
    write<SIDE>(sums, params.out + uint64_t(row + warp_row) * params.oc + column + warp_column, params.oc);
}

extern "C" __global__ void __launch_bounds__(MATMUL_LARGE_THREADS)
    matmul_forward_128x256x32(const __grid_constant__ MatmulForwardParams params) {
    forward<MATMUL_LARGE_BLOCK_M, MATMUL_LARGE_BLOCK_N, 64>(params);
}

extern "C" __global__ void __launch_bounds__(MATMUL_SMALL_THREADS, MATMUL_SMALL_MIN_BLOCKS)
    matmul_forward_64x64x32(const __grid_constant__ MatmulForwardParams params) {
    forward<MATMUL_SMALL_BLOCK_M, MATMUL_SMALL_BLOCK_N, 32>(params);
}
