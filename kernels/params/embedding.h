// Launch parameters and constants of embedding: see params.h.
#ifndef IRONWARP_PARAMS_EMBEDDING_H
#define IRONWARP_PARAMS_EMBEDDING_H

#include "device_pointer.h"

/// Threads of a block of `embedding_forward`: a 16-byte vector of one position each.
constexpr uint32_t EMBEDDING_FORWARD_THREADS = 256;

/// Parameters of `embedding_forward`. Sequences are dealt to the grid's y in turn.
struct EmbeddingForwardParams {
    /// (B, T) ids.
    DEVICE_POINTER(const int32_t) tokens;
    /// (Vp, C) bf16.
    DEVICE_POINTER(const bf16) wte;
    /// (T, C) bf16: from the row of the first token's position on.
    DEVICE_POINTER(const bf16) wpe;
    /// (B, T, C) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// Sequences.
    uint32_t b;
    /// Tokens a sequence; T·C/8 < 2^32.
    uint32_t t;
    /// Channels, a multiple of 8.
    uint32_t c;
    /// Rows of `wte`, at most 2^31.
    uint32_t vp;
};

/// Threads of a block of `embedding_backward_count` and `embedding_backward_sort`.
constexpr uint32_t EMBEDDING_SORT_THREADS = 512;
/// Keys that such a block sorts.
constexpr uint32_t EMBEDDING_SORT_TILE = 4096;
/// Bits of a key that a pass sorts by.
constexpr uint32_t EMBEDDING_SORT_RADIX_BITS = 8;

/// Parameters of `embedding_backward_count` and `embedding_backward_sort`; the grid is a block a tile.
struct EmbeddingSortParams {
    /// (N) ids.
    DEVICE_POINTER(const int32_t) tokens;
    /// (2, N) (key, position): a pass writes the half of its parity and reads the other.
    DEVICE_POINTER(uint2) pairs;
    /// (passes, tiles, 256) keys of each digit in each tile. Not used where there is one tile.
    DEVICE_POINTER(uint32_t) histograms;
    /// N = B·T.
    uint32_t n;
    /// Key of the ids that are not in 0..Vp; at most 2^31.
    uint32_t vp;
    /// Bytes that Vp takes.
    uint32_t passes;
    /// The pass of this launch. One tile goes through this and all later passes.
    uint32_t pass;
};

/// Threads of a block of `embedding_backward_sum` and `embedding_backward_reduce`.
constexpr uint32_t EMBEDDING_SUM_THREADS = 256;
/// Blocks of `embedding_backward_sum` that a multiprocessor must have room for.
constexpr uint32_t EMBEDDING_SUM_MIN_BLOCKS = 4;
/// Columns of a block of either: the grid's y has ceil(C / this) slices.
constexpr uint32_t EMBEDDING_SUM_BLOCK_C = 128;
/// Sorted places of a block of `embedding_backward_sum`.
constexpr uint32_t EMBEDDING_SUM_BLOCK_PAIRS = 128;

/// Parameters of `embedding_backward_sum` and `embedding_backward_reduce`.
struct EmbeddingSumParams {
    /// (N) (key, position), sorted.
    DEVICE_POINTER(const uint2) pairs;
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (Vp, C) f32 `+=`.
    DEVICE_POINTER(float) dwte;
    /// (T_max, C) f32.
    DEVICE_POINTER(float) dwpe;
    /// (ceil(N / 128), C) f32: of each block the sum of what belongs to a run that began before it.
    DEVICE_POINTER(float) carries;
    /// Sequences.
    uint32_t b;
    /// Tokens a sequence.
    uint32_t t;
    /// Channels, a multiple of 8.
    uint32_t c;
    /// Rows of `dwte`; keys from here on are no ids.
    uint32_t vp;
    /// Rows of `dwpe` to write: T, or T_max when overwriting.
    uint32_t positions;
    /// 2^this warps of a block share each position's sequences; at most 3.
    uint32_t warps_per_position_log2;
    /// Whether `dwpe` is added to rather than replaced.
    uint32_t accumulate;
    /// Blocks in a slice that sum positions; those that sum places come behind.
    uint32_t position_blocks;
};

#endif
