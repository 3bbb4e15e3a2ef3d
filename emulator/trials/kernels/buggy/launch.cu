// The kernels are correct; the tests launch them with invalid configurations.

extern "C" __global__ void __launch_bounds__(64) at_most_64(float *out) { out[threadIdx.x] = 1.0f; }

extern "C" __global__ void dynamic_shared(float *out) {
    extern __shared__ float buffer[];
    buffer[threadIdx.x] = 1.0f;
    __syncthreads();  // the buffer is visible to all threads
    out[threadIdx.x] = buffer[blockDim.x - 1 - threadIdx.x];
}
