// Matrix product.  c = a * b^T
// Shapes:   a (M, K) bf16; b (N, K) bf16; c (M, N) f32; row-major
// Writes:   c "="
// Requires: K % 8 == 0; N % 2 == 0; 16-byte-aligned pointers
// Launch:   grid (ceil(N/32), ceil(M/32)), block 128, smem 0; one block = one tile of c, one warp = a quarter of it
// Numerics: f32 accumulation
// Traffic:  2*K*(M*ceil(N/32) + N*ceil(M/32)) + 4*M*N bytes
#include "ptx.cuh"

constexpr unsigned BLOCK = 32;  // BLOCK_M, BLOCK_N and BLOCK_K
constexpr unsigned STAGES = 3;
constexpr unsigned VECTOR = 8;
constexpr unsigned VECTORS = BLOCK / VECTOR;

// Offset of a 16-byte vector in a tile of 64-byte rows. Without swizzling, the same vector of eight rows would lie in
// two groups of four banks. XORing the vector index with the row pair puts the eight vectors into all 32 banks.
__device__ inline unsigned swizzle(unsigned row, unsigned vector) {
    return row * BLOCK + (vector ^ (row / 2 % VECTORS)) * VECTOR;
}

// Issues the cp.async copies of one tile, one vector per thread. Vectors outside of the matrix are zero-filled.
__device__ inline void load_tile(bf16 *tile, const bf16 *from, unsigned first_row, unsigned rows, unsigned first_k,
                                 unsigned k) {
    const unsigned row = threadIdx.x / VECTORS, vector = threadIdx.x % VECTORS;
    const bool inside = first_row + row < rows && first_k + vector * VECTOR < k;
    const bf16 *source = from + size_t(first_row + row) * k + first_k + vector * VECTOR;
    cp_async_16(tile + swizzle(row, vector), source, inside ? 16 : 0);
}

extern "C" __global__ void __launch_bounds__(128)
    matmul(const bf16 *a, const bf16 *b, float *c, unsigned m, unsigned n, unsigned k) {
    __shared__ alignas(16) bf16 tiles[STAGES][2][BLOCK * BLOCK];
    const unsigned lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const unsigned row = blockIdx.y * BLOCK, column = blockIdx.x * BLOCK;
    const unsigned warp_row = warp / 2 * 16, warp_column = warp % 2 * 16;

#pragma unroll
    for (unsigned stage = 0; stage < STAGES - 1; stage++) {
        load_tile(tiles[stage][0], a, row, m, stage * BLOCK, k);
        load_tile(tiles[stage][1], b, column, n, stage * BLOCK, k);
        cp_async_commit();
    }
    float sums[2][4] = {};
    unsigned stage = 0;
#pragma unroll 1
    for (unsigned from = 0; from < k; from += BLOCK) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // all threads' copies have arrived, and all have read the stage that is overwritten next
        // Past the end of k these copies only zero-fill, but still form a group, which cp_async_wait counts.
        const unsigned next = (stage + STAGES - 1) % STAGES;
        load_tile(tiles[next][0], a, row, m, from + (STAGES - 1) * BLOCK, k);
        load_tile(tiles[next][1], b, column, n, from + (STAGES - 1) * BLOCK, k);
        cp_async_commit();
#pragma unroll
        for (unsigned vector = 0; vector < VECTORS; vector += 2) {
            // Matrices of a: first and second 8 rows for the first 8 k, then for the next 8 k. Matrices of b: both halves
            // of k for the first 8 columns, then for the next 8.
            uint32_t left[4], right[4];
            ldmatrix_x4(left, tiles[stage][0] + swizzle(warp_row + lane % 16, vector + lane / 16));
            ldmatrix_x4(right,
                        tiles[stage][1] + swizzle(warp_column + lane / 16 * 8 + lane % 8, vector + lane / 8 % 2));
            mma_m16n8k16(sums[0], left, right[0], right[1]);
            mma_m16n8k16(sums[1], left, right[2], right[3]);
        }
        stage = (stage + 1) % STAGES;
    }
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        const unsigned to_row = row + warp_row + i / 2 * 8 + lane / 4;
        const unsigned to_column = column + warp_column + i % 2 * 8 + lane % 4 * 2;
        // to_column and n are even, so a pair is either completely inside or completely outside.
        if (to_row < m && to_column < n) {
            const float *pair = sums[i % 2] + i / 2 * 2;
            *reinterpret_cast<float2 *>(c + size_t(to_row) * n + to_column) = make_float2(pair[0], pair[1]);
        }
    }
}
