// Matrix product.  c = a * b^T
// Shapes:   a (M, K) bf16; b (N, K) bf16; c (M, N) f32; row-major
// Writes:   c "="
// Requires: K % 8 == 0; N % 2 == 0; 16-byte-aligned pointers
// Launch:   grid (ceil(N/32), ceil(M/32)), block 128, smem 0; one block = one tile of c, one warp = a quarter of it
// Numerics: f32 accumulation
// Traffic:  2*K*(M*ceil(N/32) + N*ceil(M/32)) + 4*M*N bytes
#include "ptx.cuh"

constexpr unsigned BLOCK = 32;  // rows of a and of b, and elements in k, of a tile
constexpr unsigned STAGES = 3;
constexpr unsigned VECTOR = 8;
constexpr unsigned VECTORS = BLOCK / VECTOR;

// A row has 64 bytes: eight rows at one vector would share four banks of 16 bytes each. Exchanging the vectors of every
// other pair of rows gives each of the eight its own.
__device__ inline unsigned swizzle(unsigned row, unsigned vector) {
    return row * BLOCK + (vector ^ (row / 2 % VECTORS)) * VECTOR;
}

// Begins to copy one tile, a vector a thread. What lies outside of the matrix becomes zero and is not read.
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
        __syncthreads();  // others' copies have arrived; all are done with the stage that is loaded next
        // Past the end these copies read nothing; the group that is counted on is there all the same.
        const unsigned next = (stage + STAGES - 1) % STAGES;
        load_tile(tiles[next][0], a, row, m, from + (STAGES - 1) * BLOCK, k);
        load_tile(tiles[next][1], b, column, n, from + (STAGES - 1) * BLOCK, k);
        cp_async_commit();
#pragma unroll
        for (unsigned vector = 0; vector < VECTORS; vector += 2) {
            // a: both halves of 16 rows, then of k; b: both halves of k, then of 16 columns.
            uint32_t left[4], right[4];
            ldmatrix_x4(left, tiles[stage][0] + swizzle(warp_row + lane % 16, vector + lane / 16));
            ldmatrix_x4(right, tiles[stage][1] + swizzle(warp_column + lane / 16 * 8 + lane % 8, vector + lane / 8 % 2));
            mma_m16n8k16(sums[0], left, right[0], right[1]);
            mma_m16n8k16(sums[1], left, right[2], right[3]);
        }
        stage = (stage + 1) % STAGES;
    }
#pragma unroll
    for (unsigned i = 0; i < 4; i++) {
        const unsigned to_row = row + warp_row + i / 2 * 8 + lane / 4;
        const unsigned to_column = column + warp_column + i % 2 * 8 + lane % 4 * 2;
        // Both are even: a pair is inside or outside as a whole.
        if (to_row < m && to_column < n) {
            const float *pair = sums[i % 2] + i / 2 * 2;
            *reinterpret_cast<float2 *>(c + size_t(to_row) * n + to_column) = make_float2(pair[0], pair[1]);
        }
    }
}
