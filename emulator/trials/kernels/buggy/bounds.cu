// Accesses outside of an allocation or variable. One block each; one thread = one element.
#include <stdint.h>

__constant__ float table[4] = {1.0f, 2.0f, 3.0f, 4.0f};

// x, out (N); launched with more than N threads.
extern "C" __global__ void past_the_end(const float *x, float *out, unsigned len) {
    const unsigned i = threadIdx.x;
    const float value = i < len ? x[i] : 0.0f;
    out[i] = value;  // BUG: no bounds check
}

// x, out (N): the difference between each element and the one before.
extern "C" __global__ void before_the_start(const float *x, float *out) {
    const int i = threadIdx.x;
    out[i] = x[i] - x[i - 1];  // BUG: no element before the first
}

// out (N), where N % 4 == 2.
extern "C" __global__ void past_a_vector(float *out) {
    const float4 v = make_float4(0.0f, 1.0f, 2.0f, 3.0f);
    reinterpret_cast<float4 *>(out)[threadIdx.x] = v;  // BUG: the last vector is half outside
}

// The kernel is correct, but the host has freed x.
extern "C" __global__ void after_the_free(const float *x, float *out) {
    out[threadIdx.x] = x[threadIdx.x];  // BUG
}

// The kernel is correct, but x is null.
extern "C" __global__ void through_null(const float *x, float *out) {
    out[threadIdx.x] = x[threadIdx.x];  // BUG
}

// A 64-bit address truncated to 32 bits.
extern "C" __global__ void truncated_address(const float *x, float *out) {
    const float *cut = reinterpret_cast<const float *>(uint64_t(uint32_t(reinterpret_cast<uint64_t>(x))));
    out[threadIdx.x] = cut[threadIdx.x];  // BUG
}

// Launched with 64 threads.
extern "C" __global__ void shared_overrun(float *out) {
    __shared__ float buffer[32];
    volatile float *at = buffer;
    at[threadIdx.x] = 1.0f;  // BUG: the buffer has 32 elements
    __syncthreads();         // at[0] is visible to all threads
    out[threadIdx.x] = at[0];
}

// Launched with 32 threads.
extern "C" __global__ void local_overrun(float *out, unsigned len) {
    float buffer[8];
#pragma unroll 1
    for (unsigned i = 0; i < len; i++) buffer[i] = float(i);  // BUG: len is 9
    out[threadIdx.x] = buffer[threadIdx.x % 8];
}

// constant: the address of `table`.
extern "C" __global__ void write_to_constant(float *constant, float *out) {
    out[threadIdx.x] = table[threadIdx.x % 4];
    if (threadIdx.x == 0) constant[1] = 5.0f;  // BUG
}
