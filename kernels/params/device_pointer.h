// DEVICE_POINTER(T): a pointer into device memory, as a member of a launch-parameter struct.
#ifndef IRONWARP_PARAMS_DEVICE_POINTER_H
#define IRONWARP_PARAMS_DEVICE_POINTER_H

#include <stdint.h>

// Kernels see `T *`. The host cannot dereference it and sees `DevPtr<T>`: bindgen replaces this template by the type of the
// same name in src/cuda/launch/device_ptr.rs, and the element types by Rust's.
#ifdef __CUDACC__
#include "../common/types.cuh"
#define DEVICE_POINTER(T) T *
#else
struct bf16;
struct float2;
struct float4;
struct uint2;
struct uint4;
template <typename T>
struct DevPtr {
    uint64_t address;
};
#define DEVICE_POINTER(T) DevPtr<T>
#endif

#endif
