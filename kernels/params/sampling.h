// Launch parameters and constants of sampling: see params.h.
#ifndef IRONWARP_PARAMS_SAMPLING_H
#define IRONWARP_PARAMS_SAMPLING_H

#include "device_pointer.h"

/// Threads per block of `sample`.
constexpr uint32_t SAMPLE_THREADS = 512;
/// Minimum resident blocks of `sample` per SM as far as registers limit them; shared memory may allow fewer.
constexpr uint32_t SAMPLE_MIN_BLOCKS = 2;
/// Largest V whose keys fit into shared memory. With the partial sums they take 99 KB, which is the smallest limit per
/// block from sm_80 on.
constexpr uint32_t SAMPLE_SHARED_COLUMNS = 50304;

/// Parameters of `sample`.
struct SampleParams {
    /// (B, Vp) bf16, row-major logits.
    DEVICE_POINTER(const bf16) logits;
    /// (B) i32 output `=`: the sampled token of each row.
    DEVICE_POINTER(int32_t) tokens;
    /// (B, ceil(V/8)) scratch for vectors of 8 u16 keys; null: the keys are in shared memory.
    DEVICE_POINTER(uint4) keys;
    /// Row stride Vp in elements, a multiple of 8.
    uint64_t vp;
    /// Philox key.
    uint64_t seed;
    /// Philox counter: the number of the draw.
    uint64_t draw;
    /// Vocabulary size V without padding, at most 2^23.
    uint32_t v;
    /// Top-k: only the largest `top_k` logits can be sampled, in 1..=V.
    uint32_t top_k;
    /// Top-p (nucleus): only the most likely tokens whose probabilities reach `top_p` can be sampled, in (0, 1].
    float top_p;
    /// 2·log2(e) / temperature, finite; 0 for temperature 0 (greedy).
    float logit_scale;
};

#endif
