// The type of a pointer into device memory in a launch-parameter struct.
#ifndef IRONWARP_PARAMS_DEVICE_POINTER_H
#define IRONWARP_PARAMS_DEVICE_POINTER_H

#include <stdint.h>

// Kernels see a typed pointer; the host, which cannot dereference it, sees its 64-bit address.
#ifdef __CUDACC__
#include "../common/types.cuh"
#define DEVICE_POINTER(T) T *
#else
#define DEVICE_POINTER(T) uint64_t
#endif

#endif
