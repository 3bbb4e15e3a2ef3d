// Matmul, step 4 of docs/study/ladder/matmul.md: an XOR swizzle.  out = x * weight^T
// Change:   each pair of rows permutes its chunks by a different XOR: the 8 rows of a column that ldmatrix reads
//           together now cover all 32 banks, without a pad
// Shapes:   x (N, C), weight (OC, C), out (N, OC) bf16; row-major
// Writes:   out "="
// Requires: N % BLOCK_M == 0, OC % BLOCK_N == 0, C % BLOCK_K == 0; 16-byte-aligned pointers; no bias, residual or GELU
// Launch:   as kernels/matmul_sm80.cu: one CTA per output tile, of 128 x 256 with 8 warp tiles of 64 x 64, or of 64 x
//           64 with 4 warp tiles of 32 x 32
// Numerics: bf16 MMAs, f32 accumulation; one rounding at the end
// Traffic:  (BLOCK_M + BLOCK_N) * C * 2 bytes per CTA, and out
#include "../../common/cp_async.cuh"
#include "../../common/ldmatrix.cuh"
#include "../../common/mma.cuh"
#include "../../common/reduce.cuh"
#include "../../common/types.cuh"
#include "../../params/matmul.h"

// A row of a tile is BLOCK_K elements, 64 bytes: two rows fill the banks.
constexpr uint32_t BLOCK_K = MATMUL_BLOCK_K, CHUNKS = BLOCK_K / VECTOR;

// Index of 16-byte chunk `chunk` of a tile's row. Rows that are 8 apart have the same swizzle, so a warp reads its part
// of a tile as if the tile began there.
__device__ inline uint32_t chunk_at(uint32_t row, uint32_t chunk) { return row * CHUNKS + (chunk ^ row / 2 % CHUNKS); }

// Copies a ROWS x BLOCK_K tile of an operand to shared memory. `to` and `from` are those of this thread's first chunk.
template <uint32_t ROWS, uint32_t THREADS>
__device__ inline void copy_tile(bf16x8 *to, const bf16 *from, uint32_t stride) {
    // All rows of a thread have the same swizzle.
#pragma unroll
    for (uint32_t row = 0; row < ROWS; row += THREADS / CHUNKS) {
        to[row * CHUNKS] = load_packed(from + uint64_t(row) * stride);
    }
}

// acc (WARP_M, WARP_N) += x (WARP_M, BLOCK_K) * weight^T, weight (WARP_N, BLOCK_K)
template <uint32_t WARP_M, uint32_t WARP_N>
__device__ inline void multiply_tile(Accumulator (&acc)[WARP_M / MMA_M][WARP_N / MMA_N], uint32_t x, uint32_t weight) {
    // Row and 8 x 8 matrix of the fragment whose row address this lane passes to ldmatrix.
    const uint32_t row = lane_id() % 8, bit0 = lane_id() / 8 % 2, bit1 = lane_id() / 16;
#pragma unroll
    for (uint32_t k_step = 0; k_step < BLOCK_K / MMA_K; k_step++) {
        FragmentA a_frag[WARP_M / MMA_M];
#pragma unroll
        for (uint32_t i = 0; i < WARP_M / MMA_M; i++) {
            ldmatrix_x4<false>(a_frag[i].regs, x + 16 * chunk_at(16 * i + 8 * bit0 + row, 2 * k_step + bit1));
        }
#pragma unroll
        for (uint32_t j = 0; j < WARP_N / 16; j++) {
            uint32_t b_frag[4];
            ldmatrix_x4<false>(b_frag, weight + 16 * chunk_at(16 * j + 8 * bit1 + row, 2 * k_step + bit0));
            // (16, 8) += x (16, 16) * weight^T, weight (8, 16)
#pragma unroll
            for (uint32_t i = 0; i < WARP_M / MMA_M; i++) {
                mma(acc[i][2 * j], a_frag[i], {{b_frag[0], b_frag[1]}});
                mma(acc[i][2 * j + 1], a_frag[i], {{b_frag[2], b_frag[3]}});
            }
        }
    }
}

// Stores a warp's tile of out in pairs, in the mma layout: a request is 8 rows of 16 bytes, half sectors.
template <uint32_t WARP_M, uint32_t WARP_N>
__device__ inline void store_tile(const Accumulator (&acc)[WARP_M / MMA_M][WARP_N / MMA_N], bf16 *out,
                                  uint32_t stride) {
    const uint32_t row = lane_id() / 4, column = lane_id() % 4 * 2;
#pragma unroll
    for (uint32_t i = 0; i < WARP_M / MMA_M; i++) {
#pragma unroll
        for (uint32_t j = 0; j < WARP_N / MMA_N; j++) {
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                bf16 *to = out + uint64_t(16 * i + 8 * half + row) * stride + 8 * j + column;
                const float *pair = &acc[i][j].c[2 * half];
                *reinterpret_cast<__nv_bfloat162 *>(to) = __floats2bfloat162_rn(pair[0], pair[1]);
            }
        }
    }
}

template <uint32_t BLOCK_M, uint32_t BLOCK_N, uint32_t WARP_M, uint32_t WARP_N>
__device__ inline void forward(const MatmulForwardParams &params) {
    constexpr uint32_t WARPS_N = BLOCK_N / WARP_N, THREADS = BLOCK_M / WARP_M * WARPS_N * WARP;
    extern __shared__ bf16x8 shared[];
    const uint32_t block_m = blockIdx.x % params.tiles_m * BLOCK_M, block_n = blockIdx.x / params.tiles_m * BLOCK_N;
    const uint32_t warp_m = warp_id() / WARPS_N * WARP_M, warp_n = warp_id() % WARPS_N * WARP_N;

    const uint32_t row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
    const bf16 *x = params.x + uint64_t(block_m + row) * params.c + chunk * VECTOR;
    const bf16 *weight = params.weight + uint64_t(block_n + row) * params.c + chunk * VECTOR;
    // The tile of x, then the tile of weight.
    bf16x8 *to = shared + chunk_at(row, chunk);
    const uint32_t tiles = shared_address(shared);

    Accumulator acc[WARP_M / MMA_M][WARP_N / MMA_N] = {};
    for (uint32_t k_begin = 0; k_begin < params.c; k_begin += BLOCK_K) {
        copy_tile<BLOCK_M, THREADS>(to, x + k_begin, params.c);
        copy_tile<BLOCK_N, THREADS>(to + chunk_at(BLOCK_M, 0), weight + k_begin, params.c);
        __syncthreads();  // RAW: warps read what others have copied
        multiply_tile<WARP_M, WARP_N>(acc, tiles + 16 * chunk_at(warp_m, 0),
                                      tiles + 16 * chunk_at(BLOCK_M + warp_n, 0));
        __syncthreads();  // WAR: all warps have read these tiles before the next ones are copied
    }
    store_tile<WARP_M, WARP_N>(acc, params.out + uint64_t(block_m + warp_m) * params.oc + block_n + warp_n, params.oc);
}

extern "C" __global__ void __launch_bounds__(MATMUL_LARGE_THREADS)
    matmul_forward_128x256x32(const __grid_constant__ MatmulForwardParams params) {
    forward<MATMUL_LARGE_BLOCK_M, MATMUL_LARGE_BLOCK_N, 64, 64>(params);
}

extern "C" __global__ void __launch_bounds__(MATMUL_SMALL_THREADS, MATMUL_SMALL_MIN_BLOCKS)
    matmul_forward_64x64x32(const __grid_constant__ MatmulForwardParams params) {
    forward<MATMUL_SMALL_BLOCK_M, MATMUL_SMALL_BLOCK_N, 32, 32>(params);
}
