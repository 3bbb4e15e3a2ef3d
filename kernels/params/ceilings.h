// Launch parameters and constants of ceilings: see params.h.
#ifndef IRONWARP_PARAMS_CEILINGS_H
#define IRONWARP_PARAMS_CEILINGS_H

#include "device_pointer.h"

/// Threads per block of `ceiling_copy`.
constexpr uint32_t CEILING_COPY_THREADS = 256;
/// 16-byte vectors that a block of `ceiling_copy` copies: four per thread.
constexpr uint32_t CEILING_COPY_VECTORS_PER_BLOCK = 4 * CEILING_COPY_THREADS;

/// Parameters of `ceiling_copy`.
struct CeilingCopyParams {
    /// (len) vectors of 16 bytes, input.
    DEVICE_POINTER(const uint4) src;
    /// (len) vectors of 16 bytes, output `=`.
    DEVICE_POINTER(uint4) dst;
    /// Number of 16-byte vectors.
    uint64_t len;
};

/// Threads per block of `ceiling_mma`.
constexpr uint32_t CEILING_MMA_THREADS = 256;
/// Minimum resident blocks of `ceiling_mma` per SM: it limits the kernel to 64 registers per thread.
constexpr uint32_t CEILING_MMA_MIN_BLOCKS = 4;
/// MMA tiles of 16 rows in a warp's D.
constexpr uint32_t CEILING_MMA_ITERS_M = 2;
/// MMA tiles of 8 columns in a warp's D.
constexpr uint32_t CEILING_MMA_ITERS_N = 4;
/// Independent accumulator tiles of a warp, and so its MMAs per iteration.
constexpr uint32_t CEILING_MMA_ACCUMULATORS = CEILING_MMA_ITERS_M * CEILING_MMA_ITERS_N;

/// Parameters of `ceiling_mma`.
struct CeilingMmaParams {
    /// (256 · number of blocks) f32 output `=`.
    DEVICE_POINTER(float) out;
    /// Dependent MMAs per accumulator tile.
    uint64_t iterations;
};

#endif
