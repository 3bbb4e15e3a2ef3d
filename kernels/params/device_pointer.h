// DEVICE_POINTER(T): a pointer into device memory, as a member of a launch-parameter struct.
#ifndef IRONWARP_PARAMS_DEVICE_POINTER_H
#define IRONWARP_PARAMS_DEVICE_POINTER_H

#include <stdint.h>

// Kernels see a typed pointer. The host cannot dereference it and sees its 64-bit address.
#ifdef __CUDACC__
#include "../common/types.cuh"
#define DEVICE_POINTER(T) T *
#else
#define DEVICE_POINTER(T) uint64_t
#endif

#endif
