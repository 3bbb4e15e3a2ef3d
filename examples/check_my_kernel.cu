// Sums of rows of 64 numbers, with one thread block of 64 threads per row.

extern "C" __global__ void row_sums(const float *x, float *sums) {
    __shared__ float partial[64];
    partial[threadIdx.x] = x[64 * blockIdx.x + threadIdx.x];
    for (unsigned width = 32; width > 0; width /= 2) {
        __syncthreads();
        if (threadIdx.x < width) partial[threadIdx.x] += partial[threadIdx.x + width];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}

// Forgets the barrier in the loop: a thread may read a sum before another one has added to it.
extern "C" __global__ void row_sums_without_barrier(const float *x, float *sums) {
    __shared__ float partial[64];
    partial[threadIdx.x] = x[64 * blockIdx.x + threadIdx.x];
    __syncthreads();
    for (unsigned width = 32; width > 0; width /= 2) {
        if (threadIdx.x < width) partial[threadIdx.x] += partial[threadIdx.x + width];
    }
    if (threadIdx.x == 0) sums[blockIdx.x] = partial[0];
}
