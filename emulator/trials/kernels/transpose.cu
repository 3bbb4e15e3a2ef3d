// Transpose.  out[c][r] = x[r][c]
// Shapes:   x (R, C) f32; out (C, R) f32; row-major
// Writes:   out "="
// Launch:   grid (ceil(C/32), ceil(R/32)), block (32, 8), smem 0; one block = one tile
// Numerics: exact
// Traffic:  8*R*C bytes; memory-bound
constexpr unsigned TILE = 32;
constexpr unsigned STEP = 8;

extern "C" __global__ void transpose(const float *x, float *out, unsigned rows, unsigned columns) {
    // The padding column puts the 32 elements of each tile column into 32 different banks.
    __shared__ float tile[TILE][TILE + 1];
    unsigned column = blockIdx.x * TILE + threadIdx.x, row = blockIdx.y * TILE + threadIdx.y;
#pragma unroll 1
    for (unsigned i = 0; i < TILE; i += STEP) {
        if (row + i < rows && column < columns) {
            tile[threadIdx.y + i][threadIdx.x] = x[size_t(row + i) * columns + column];
        }
    }
    __syncthreads();  // the whole tile is visible to all warps
    column = blockIdx.x * TILE + threadIdx.y, row = blockIdx.y * TILE + threadIdx.x;
#pragma unroll 1
    for (unsigned i = 0; i < TILE; i += STEP) {
        if (row < rows && column + i < columns) {
            out[size_t(column + i) * rows + row] = tile[threadIdx.x][threadIdx.y + i];
        }
    }
}
