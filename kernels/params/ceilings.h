// Launch parameters and constants of ceilings: see params.h.
#ifndef IRONWARP_PARAMS_CEILINGS_H
#define IRONWARP_PARAMS_CEILINGS_H

#include "device_pointer.h"

/// Threads of a block of `ceiling_copy`.
constexpr uint32_t CEILING_COPY_THREADS = 256;
/// Vectors of 16 bytes that a block of `ceiling_copy` copies: four a thread.
constexpr uint32_t CEILING_COPY_VECTORS_PER_BLOCK = 4 * CEILING_COPY_THREADS;

/// Parameters of `ceiling_copy`.
struct CeilingCopyParams {
    /// (len) vectors of 16 bytes.
    DEVICE_POINTER(const uint4) src;
    /// (len) vectors of 16 bytes `=`.
    DEVICE_POINTER(uint4) dst;
    /// Vectors.
    uint64_t len;
};

/// Threads of a block of `ceiling_mma`.
constexpr uint32_t CEILING_MMA_THREADS = 256;
/// Blocks of `ceiling_mma` that a multiprocessor has room for: 64 registers a thread.
constexpr uint32_t CEILING_MMA_MIN_BLOCKS = 4;
/// Tiles of 16 rows that a warp's product has.
constexpr uint32_t CEILING_MMA_ITERS_M = 2;
/// Tiles of 8 columns that a warp's product has.
constexpr uint32_t CEILING_MMA_ITERS_N = 4;
/// Products of a warp that do not wait for each other, and its products an iteration.
constexpr uint32_t CEILING_MMA_ACCUMULATORS = CEILING_MMA_ITERS_M * CEILING_MMA_ITERS_N;

/// Parameters of `ceiling_mma`.
struct CeilingMmaParams {
    /// (256 · blocks) f32 `=`.
    DEVICE_POINTER(float) out;
    /// Products in each chain, one after the other.
    uint64_t iterations;
};

#endif
