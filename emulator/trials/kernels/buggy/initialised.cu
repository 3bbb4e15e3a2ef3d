// Reads of uninitialised memory and registers.
#include <stdint.h>

// The host has written only half of x.
extern "C" __global__ void global_memory(const float *x, float *out) {
    out[threadIdx.x] = x[threadIdx.x];  // BUG
}

extern "C" __global__ void shared_memory(float *out, unsigned written) {
    __shared__ float buffer[64];
    if (threadIdx.x < written) buffer[threadIdx.x] = 1.0f;
    __syncthreads();                         // the buffer is visible to all threads
    out[threadIdx.x] = buffer[threadIdx.x];  // BUG: `written` is 63
}

extern "C" __global__ void local_memory(float *out, unsigned written) {
    float buffer[8];
#pragma unroll 1
    for (unsigned i = 0; i < written; i++) buffer[i] = float(i);
    out[threadIdx.x] = buffer[threadIdx.x % 8];  // BUG: `written` is 7
}

extern "C" __global__ void a_register(uint32_t *out, uint32_t written) {
    uint32_t value;
    // In lanes from `written` on, `sum` is uninitialised.
    asm volatile(
        "{ .reg .pred inside; .reg .b32 sum; setp.lt.u32 inside, %1, %2; @inside mov.b32 sum, 7; add.u32 %0, sum, 1; }"
        : "=r"(value)
        : "r"(threadIdx.x), "r"(written));  // BUG
    out[threadIdx.x] = value;
}
