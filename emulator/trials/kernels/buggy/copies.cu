// Source or destination of a cp.async accessed before the wait. One warp; x (64, 4) f32, out (32).
#include "../ptx.cuh"

extern "C" __global__ void no_wait(const float4 *x, float *out) {
    __shared__ float4 buffer[32];
    cp_async_16(&buffer[threadIdx.x], &x[threadIdx.x], 16);
    cp_async_commit();
    out[threadIdx.x] = buffer[threadIdx.x].x;  // BUG
}

// Each thread waits for its own copies and reads those of another thread.
extern "C" __global__ void no_barrier_after_the_wait(const float4 *x, float *out) {
    __shared__ float4 buffer[32];
    cp_async_16(&buffer[threadIdx.x], &x[threadIdx.x], 16);  // BUG: the copy is the other access of the race
    cp_async_commit();
    cp_async_wait<0>();
    out[threadIdx.x] = buffer[31 - threadIdx.x].x;  // BUG
}

extern "C" __global__ void wait_for_the_first_group_only(const float4 *x, float *out) {
    __shared__ float4 buffers[2][32];
    for (unsigned i = 0; i < 2; i++) {
        cp_async_16(&buffers[i][threadIdx.x], &x[i * 32 + threadIdx.x], 16);
        cp_async_commit();
    }
    cp_async_wait<1>();
    const float first = buffers[0][threadIdx.x].x;
    out[threadIdx.x] = first + buffers[1][threadIdx.x].x;  // BUG: the second copy may be incomplete
}

extern "C" __global__ void no_commit(const float4 *x, float *out) {
    __shared__ float4 buffer[32];
    cp_async_16(&buffer[threadIdx.x], &x[threadIdx.x], 16);
    cp_async_wait<0>();
    out[threadIdx.x] = buffer[threadIdx.x].x;  // BUG: the copy is in no group
}

extern "C" __global__ void target_overwritten(const float4 *x, float *out) {
    __shared__ float4 buffer[32];
    cp_async_16(&buffer[threadIdx.x], &x[threadIdx.x], 16);
    cp_async_commit();
    buffer[threadIdx.x].x = 1.0f;  // BUG: it is not ordered with the copy
    cp_async_wait<0>();
    out[threadIdx.x] = buffer[threadIdx.x].x;
}

extern "C" __global__ void source_overwritten(float4 *scratch, float *out) {
    __shared__ float4 buffer[32];
    scratch[threadIdx.x] = make_float4(1.0f, 2.0f, 3.0f, 4.0f);
    cp_async_16(&buffer[threadIdx.x], &scratch[threadIdx.x], 16);
    cp_async_commit();
    scratch[threadIdx.x].x = 5.0f;  // BUG: the copy may read the old or the new value
    cp_async_wait<0>();
    out[threadIdx.x] = buffer[threadIdx.x].x;
}
