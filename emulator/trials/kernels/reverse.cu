// Reverses rows in dynamic shared memory; a row may take more than 48 KiB.  out[r][c] = x[r][C - 1 - c]
// Shapes:   x, out (R, C) u32; row-major
// Writes:   out "="; out may be x
// Launch:   grid R, block any, smem 4*C; one block = one row
// Numerics: exact
// Traffic:  8*R*C bytes
#include <stdint.h>

extern "C" __global__ void reverse(const uint32_t *x, uint32_t *out, unsigned columns) {
    extern __shared__ uint32_t row[];
    const size_t first = size_t(blockIdx.x) * columns;
#pragma unroll 1
    for (unsigned c = threadIdx.x; c < columns; c += blockDim.x) row[c] = x[first + c];
    __syncthreads();  // all have read x, which out may overwrite, and the whole row is in shared memory
#pragma unroll 1
    for (unsigned c = threadIdx.x; c < columns; c += blockDim.x) out[first + c] = row[columns - 1 - c];
}
