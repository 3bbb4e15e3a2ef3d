// Two unordered accesses, of which at least one is a write. The lines of both accesses are marked.
#include <stdint.h>

// 64 threads: each reads an element that the other warp wrote.
extern "C" __global__ void no_syncthreads(float *out) {
    __shared__ float buffer[64];
    buffer[threadIdx.x] = 0.0f;
    __syncthreads();                              // the buffer is initialised
    buffer[threadIdx.x] = float(threadIdx.x);     // BUG
    out[threadIdx.x] = buffer[63 - threadIdx.x];  // BUG: __syncthreads is missing before it
}

// The barrier before the next round is missing.
extern "C" __global__ void no_second_syncthreads(float *out, unsigned rounds) {
    __shared__ float buffer[64];
    float sum = 0.0f;
#pragma unroll 1
    for (unsigned round = 0; round < rounds; round++) {
        buffer[threadIdx.x] = float(round);  // BUG: other threads may not have read the last round's value
        __syncthreads();                     // the buffer is visible to all threads
        sum += buffer[63 - threadIdx.x];     // BUG
    }
    out[threadIdx.x] = sum;
}

// One warp.
extern "C" __global__ void no_syncwarp(float *out) {
    __shared__ float buffer[32];
    buffer[threadIdx.x] = float(threadIdx.x);     // BUG
    out[threadIdx.x] = buffer[31 - threadIdx.x];  // BUG: __syncwarp is missing before it
}

extern "C" __global__ void two_blocks(float *out) {
    if (threadIdx.x == 0) out[0] = 1.0f;  // BUG: every block writes it, even if with the same value
}

// Block 0 passes a value to block 1.
extern "C" __global__ void no_threadfence(float *value, uint32_t *flag, float *out) {
    if (threadIdx.x != 0) return;
    if (blockIdx.x == 0) {
        *value = 3.0f;  // BUG
        // __threadfence is missing here.
        atomicExch(flag, 1);
    } else {
        while (atomicAdd(flag, 0) == 0) {
        }
        __threadfence();  // everything written before the flag is visible
        *out = *value;    // BUG
    }
}

// The same, but the fence of the reader is missing.
extern "C" __global__ void no_reader_fence(float *value, uint32_t *flag, float *out) {
    if (threadIdx.x != 0) return;
    if (blockIdx.x == 0) {
        *value = 3.0f;    // BUG
        __threadfence();  // a thread that sees the flag also sees the value
        atomicExch(flag, 1);
    } else {
        while (atomicAdd(flag, 0) == 0) {
        }
        *out = *value;  // BUG
    }
}

extern "C" __global__ void store_and_atomic(uint32_t *count) {
    if (blockIdx.x == 0) {
        if (threadIdx.x == 0) *count = 0;  // BUG: other blocks may already count
    } else {
        atomicAdd(count, 1);  // BUG
    }
}

// Launched with two blocks: an atomic of block scope is not atomic for the other block.
extern "C" __global__ void block_scope_atomic(uint32_t *count) {
    atomicAdd_block(count, 1);  // BUG
}

// The loads go through the read-only cache, which is not coherent with stores of the same launch.
extern "C" __global__ void read_only_load(float *value, float *out) {
    value[threadIdx.x] = 2.0f;
    __syncthreads();                                // the barrier does not invalidate the read-only cache
    out[threadIdx.x] = __ldg(value + threadIdx.x);  // BUG
}

extern "C" __global__ void read_only_after_an_atomic(unsigned *counts, unsigned *out) {
    atomicAdd(&counts[threadIdx.x], 1u);
    __syncthreads();
    out[threadIdx.x] = __ldg(&counts[threadIdx.x ^ 1]);  // BUG: the read-only cache may have the old value
}

extern "C" __global__ void read_only_before_a_store(unsigned *counts, unsigned *out) {
    out[threadIdx.x] = __ldg(&counts[threadIdx.x]);
    __syncthreads();
    counts[threadIdx.x ^ 1] = 1;  // BUG: memory read with __ldg must not change during the launch
}
