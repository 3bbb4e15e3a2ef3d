// Two accesses, one of them a write, that nothing orders. Lines of both sides are marked.
#include <stdint.h>

// 64 threads: each reads what the other warp wrote.
extern "C" __global__ void no_syncthreads(float *out) {
    __shared__ float buffer[64];
    buffer[threadIdx.x] = 0.0f;
    __syncthreads();                              // there is something to read
    buffer[threadIdx.x] = float(threadIdx.x);     // BUG
    out[threadIdx.x] = buffer[63 - threadIdx.x];  // BUG: no __syncthreads before
}

// The barrier of the next round is missing.
extern "C" __global__ void no_second_syncthreads(float *out, unsigned rounds) {
    __shared__ float buffer[64];
    float sum = 0.0f;
#pragma unroll 1
    for (unsigned round = 0; round < rounds; round++) {
        buffer[threadIdx.x] = float(round);  // BUG: others may still read
        __syncthreads();                     // others wrote
        sum += buffer[63 - threadIdx.x];     // BUG
    }
    out[threadIdx.x] = sum;
}

// One warp.
extern "C" __global__ void no_syncwarp(float *out) {
    __shared__ float buffer[32];
    buffer[threadIdx.x] = float(threadIdx.x);     // BUG
    out[threadIdx.x] = buffer[31 - threadIdx.x];  // BUG: no __syncwarp before
}

extern "C" __global__ void two_blocks(float *out) {
    if (threadIdx.x == 0) out[0] = 1.0f;  // BUG: every block writes it, if the same
}

// Block 0 hands a value to block 1.
extern "C" __global__ void no_threadfence(float *value, uint32_t *flag, float *out) {
    if (threadIdx.x != 0) return;
    if (blockIdx.x == 0) {
        *value = 3.0f;  // BUG
        // No __threadfence here.
        atomicExch(flag, 1);
    } else {
        while (atomicAdd(flag, 0) == 0) {}
        __threadfence();  // what came before the flag is seen
        *out = *value;    // BUG
    }
}

// As above, with the fence of the reader missing.
extern "C" __global__ void no_fence_of_the_reader(float *value, uint32_t *flag, float *out) {
    if (threadIdx.x != 0) return;
    if (blockIdx.x == 0) {
        *value = 3.0f;    // BUG
        __threadfence();  // who sees the flag sees the value
        atomicExch(flag, 1);
    } else {
        while (atomicAdd(flag, 0) == 0) {}
        *out = *value;  // BUG
    }
}

extern "C" __global__ void store_beside_atomic(uint32_t *count) {
    if (blockIdx.x == 0) {
        if (threadIdx.x == 0) *count = 0;  // BUG: blocks count already
    } else {
        atomicAdd(count, 1);  // BUG
    }
}

// Launched with two blocks: an atomic for the block alone is none for the other.
extern "C" __global__ void atomic_of_the_block(uint32_t *count) {
    atomicAdd_block(count, 1);  // BUG
}

// value goes through the read-only cache, which knows nothing of stores.
extern "C" __global__ void read_only_load(float *value, float *out) {
    value[threadIdx.x] = 2.0f;
    __syncthreads();                                // others wrote
    out[threadIdx.x] = __ldg(value + threadIdx.x);  // BUG
}

extern "C" __global__ void read_only_after_an_atomic(unsigned *counts, unsigned *out) {
    atomicAdd(&counts[threadIdx.x], 1u);
    __syncthreads();
    out[threadIdx.x] = __ldg(&counts[threadIdx.x ^ 1]);  // BUG: the read-only path may hold the old value
}

extern "C" __global__ void read_only_before_a_store(unsigned *counts, unsigned *out) {
    out[threadIdx.x] = __ldg(&counts[threadIdx.x]);
    __syncthreads();
    counts[threadIdx.x ^ 1] = 1;  // BUG: what is read so must not change in the launch
}
