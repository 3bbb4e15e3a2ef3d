// Launch parameters and constants of embedding: see params.h.
#ifndef IRONWARP_PARAMS_EMBEDDING_H
#define IRONWARP_PARAMS_EMBEDDING_H

#include "device_pointer.h"

/// Threads per block of `embedding_forward`, each with one 16-byte vector of one position.
constexpr uint32_t EMBEDDING_FORWARD_THREADS = 256;

/// Parameters of `embedding_forward`. The grid's y dimension strides over the sequences.
struct EmbeddingForwardParams {
    /// (B, T) i32 token ids.
    DEVICE_POINTER(const int32_t) tokens;
    /// (Vp, C) bf16, row-major token embeddings.
    DEVICE_POINTER(const bf16) wte;
    /// (T, C) bf16, row-major position embeddings, starting at the row of the first token's position.
    DEVICE_POINTER(const bf16) wpe;
    /// (B, T, C) bf16, row-major output `=`.
    DEVICE_POINTER(bf16) out;
    /// Number of sequences B.
    uint32_t b;
    /// Tokens T per sequence; T·C/8 < 2^32.
    uint32_t t;
    /// Channels C, a multiple of 8.
    uint32_t c;
    /// Number of rows Vp of wte, at most 2^31.
    uint32_t vp;
};

/// Threads per block of `embedding_backward_count` and `embedding_backward_sort`.
constexpr uint32_t EMBEDDING_SORT_THREADS = 512;
/// Keys that a block of these kernels counts or sorts.
constexpr uint32_t EMBEDDING_SORT_TILE = 4096;
/// Bits of a radix-sort digit: one pass sorts by one digit.
constexpr uint32_t EMBEDDING_SORT_RADIX_BITS = 8;

/// Parameters of `embedding_backward_count` and `embedding_backward_sort`. The grid has one block per tile.
struct EmbeddingSortParams {
    /// (N) i32 token ids.
    DEVICE_POINTER(const int32_t) tokens;
    /// (2, N) (key, position) pairs, double-buffered: pass p writes half p % 2 and reads the other.
    DEVICE_POINTER(uint2) pairs;
    /// (passes, tiles, 256) u32: the radix-sort histogram of each tile in each pass. Unused if there is only one tile.
    DEVICE_POINTER(uint32_t) histograms;
    /// Number of tokens N = B·T.
    uint32_t n;
    /// Vocabulary size Vp, at most 2^31; also the key of all token ids outside 0..Vp.
    uint32_t vp;
    /// Number of passes: the bytes of Vp.
    uint32_t passes;
    /// Pass of this launch. With one tile, the launch runs this pass and all later ones.
    uint32_t pass;
};

/// Threads per block of `embedding_backward_sum` and `embedding_backward_reduce`.
constexpr uint32_t EMBEDDING_SUM_THREADS = 256;
/// Minimum resident blocks of `embedding_backward_sum` per SM.
constexpr uint32_t EMBEDDING_SUM_MIN_BLOCKS = 4;
/// Columns that a block of either kernel sums: the grid's y dimension is ceil(C / 128).
constexpr uint32_t EMBEDDING_SUM_BLOCK_C = 128;
/// Sorted pairs that a block of `embedding_backward_sum` sums.
constexpr uint32_t EMBEDDING_SUM_BLOCK_PAIRS = 128;

/// Parameters of `embedding_backward_sum` and `embedding_backward_reduce`.
struct EmbeddingSumParams {
    /// (N) (key, position) pairs, sorted by key, then by position.
    DEVICE_POINTER(const uint2) pairs;
    /// (N, C) bf16, row-major gradient of the output.
    DEVICE_POINTER(const bf16) dout;
    /// (Vp, C) f32, row-major gradient of wte `+=`.
    DEVICE_POINTER(float) dwte;
    /// (T_max, C) f32, row-major gradient of wpe, `=` or `+=` by `accumulate`.
    DEVICE_POINTER(float) dwpe;
    /// (ceil(N / 128), C) f32 scratch: the carry of each block, its partial sum of a segment that began in an earlier
    /// block.
    DEVICE_POINTER(float) carries;
    /// Number of sequences B.
    uint32_t b;
    /// Tokens T per sequence.
    uint32_t t;
    /// Channels C, a multiple of 8.
    uint32_t c;
    /// Number of rows Vp of dwte; keys from here on are not token ids.
    uint32_t vp;
    /// Rows of dwpe to write: T to accumulate, T_max to overwrite.
    uint32_t positions;
    /// log2 of the number of warps of a block that split the sequences of one position, at most 3.
    uint32_t warps_per_position_log2;
    /// 1: dwpe is added to; 0: it is overwritten.
    uint32_t accumulate;
    /// Number of blocks in the grid's x dimension that sum by position; the blocks after them sum sorted pairs.
    uint32_t position_blocks;
};

#endif
