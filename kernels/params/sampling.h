// Launch parameters and constants of sampling: see params.h.
#ifndef IRONWARP_PARAMS_SAMPLING_H
#define IRONWARP_PARAMS_SAMPLING_H

#include "device_pointer.h"

/// Threads of a block of `sample`.
constexpr uint32_t SAMPLE_THREADS = 512;
/// Blocks of `sample` that a multiprocessor must have room for, as far as registers decide.
constexpr uint32_t SAMPLE_MIN_BLOCKS = 2;
/// Columns of a row that shared memory holds: with the sums, 99 KB, the least that a multiprocessor from sm_80 on has.
constexpr uint32_t SAMPLE_SHARED_COLUMNS = 50304;

/// Parameters of `sample`.
struct SampleParams {
    /// (B, Vp) bf16.
    DEVICE_POINTER(const bf16) logits;
    /// (B) i32 `=`.
    DEVICE_POINTER(int32_t) tokens;
    /// (B, V/8) of 8 keys, or null: in shared memory.
    DEVICE_POINTER(uint4) keys;
    /// Columns of `logits`, a multiple of 8.
    uint64_t vp;
    /// Key of the draws.
    uint64_t seed;
    /// Counter of the draws.
    uint64_t draw;
    /// Columns that count, at most 2^23.
    uint32_t v;
    /// At most this many tokens.
    uint32_t top_k;
    /// In (0, 1].
    float top_p;
    /// 2·log2(e) / temperature, finite; 0 for temperature 0.
    float logit_scale;
};

#endif
