// Vector accesses at addresses that are not multiples of the vector's size.

// x (N + 1), out (N)
extern "C" __global__ void shifted_vector(const float *x, float *out) {
    const float *from = x + 1 + 4 * threadIdx.x;
    reinterpret_cast<float4 *>(out)[threadIdx.x] = *reinterpret_cast<const float4 *>(from);  // BUG: 4 bytes off
}

extern "C" __global__ void odd_row(float *out, unsigned columns) {
    __shared__ alignas(16) float tile[2 * 33];
    volatile float *row = tile + threadIdx.x / 16 * columns;
    row[threadIdx.x % 16] = 1.0f;
    __syncthreads();  // the tile is visible to all threads
    // With 33 columns the second row begins 4 bytes after a multiple of 8.
    const float2 pair = *reinterpret_cast<const float2 *>(tile + threadIdx.x / 16 * columns);  // BUG
    out[threadIdx.x] = pair.x + pair.y;
}
