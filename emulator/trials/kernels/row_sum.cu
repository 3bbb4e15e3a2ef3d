// Row sums.  out[n] = sum over c of x[n][c]
// Shapes:   x (N, C) f32; out (N) f32; row-major
// Writes:   out "="
// Requires: block a multiple of 32
// Launch:   grid 1 to N, block 32 to 1024, smem 0; one block = every gridDim-th row
// Numerics: f32; strided sums per thread, then a butterfly reduction per warp, then one over the warps' sums
// Traffic:  4*N*C + 4*N bytes
#include "reduce.cuh"

extern "C" __global__ void row_sum(const float *x, float *out, unsigned rows, unsigned columns) {
    __shared__ float partials[32];
    for (unsigned row = blockIdx.x; row < rows; row += gridDim.x) {
        float sum = 0.0f;
#pragma unroll 1
        for (unsigned c = threadIdx.x; c < columns; c += blockDim.x) sum += x[size_t(row) * columns + c];
        sum = block_sum(sum, partials);
        if (threadIdx.x == 0) out[row] = sum;
        __syncthreads();  // all warps have read partials, which the next row overwrites
    }
}
