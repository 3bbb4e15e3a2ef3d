// Launch parameters, and the constants that a launch must agree with its kernel on.
//
// The one definition of both: kernels include it, and `make params` has bindgen make src/cuda/params.rs of it. Every
// struct is passed by value as a kernel's only parameter. Members are 8-byte ones first, so that there is no padding.
#ifndef IRONWARP_PARAMS_H
#define IRONWARP_PARAMS_H

#include <stdint.h>

// A pointer into device memory: typed in a kernel, an address on the host, which cannot follow it.
#ifdef __CUDACC__
#include "common/types.cuh"
#define DEVICE_POINTER(T) T *
#else
#define DEVICE_POINTER(T) uint64_t
#endif

// ---------------------------------------------------------------------------------------------------------------------
// embedding

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
constexpr uint32_t EMBEDDING_SORT_BITS = 8;

/// Parameters of `embedding_backward_count` and `embedding_backward_sort`; the grid is a block a tile.
struct EmbeddingSortParams {
    /// (N) ids.
    DEVICE_POINTER(const int32_t) tokens;
    /// (2, N) (key, position): a pass writes the half of its parity and reads the other.
    DEVICE_POINTER(uint2) pairs;
    /// (passes, tiles, 256) keys of each digit in each tile. Not used where there is one tile.
    DEVICE_POINTER(uint32_t) counts;
    /// N = B·T.
    uint32_t n;
    /// Key of the ids that are not in 0..Vp; at most 2^31.
    uint32_t vp;
    /// Bytes that Vp takes.
    uint32_t passes;
    /// The pass of this launch. One tile goes through this and all later passes.
    uint32_t pass;
};

/// Threads of a block of `embedding_backward_sum` and `embedding_backward_join`.
constexpr uint32_t EMBEDDING_SUM_THREADS = 256;
/// Blocks of `embedding_backward_sum` that a multiprocessor must have room for.
constexpr uint32_t EMBEDDING_SUM_MIN_BLOCKS = 4;
/// Columns of a block of either: the grid's y has ceil(C / this) slices.
constexpr uint32_t EMBEDDING_SUM_COLUMNS = 128;
/// Sorted places of a block of `embedding_backward_sum`.
constexpr uint32_t EMBEDDING_SUM_PLACES = 128;

/// Parameters of `embedding_backward_sum` and `embedding_backward_join`.
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
    DEVICE_POINTER(float) heads;
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
    uint32_t split_log2;
    /// Whether `dwpe` is added to rather than replaced.
    uint32_t accumulate;
    /// Blocks in a slice that sum positions; those that sum places come behind.
    uint32_t position_blocks;
};

// ---------------------------------------------------------------------------------------------------------------------
// layernorm

/// Threads of a block of every layernorm kernel.
constexpr uint32_t LAYERNORM_THREADS = 256;
/// Blocks of the forward that a multiprocessor holds at least: 64 registers a thread.
constexpr uint32_t LAYERNORM_FORWARD_MIN_BLOCKS = 4;
/// As `LAYERNORM_FORWARD_MIN_BLOCKS`, where a thread has 8 vectors of a row: 128 registers.
constexpr uint32_t LAYERNORM_FORWARD_C2048_MIN_BLOCKS = 2;
/// As `LAYERNORM_FORWARD_MIN_BLOCKS`, where a thread has 6 vectors of x and of the residual: 80 registers.
constexpr uint32_t LAYERNORM_RESIDUAL_C12288_MIN_BLOCKS = 3;
/// Rows that a block of a layernorm kernel takes before there are more blocks: fewer would read the weights, or write
/// partial sums, too often.
constexpr uint32_t LAYERNORM_FORWARD_BLOCK_ROWS = 32;
/// As `LAYERNORM_FORWARD_BLOCK_ROWS`, for the backward.
constexpr uint32_t LAYERNORM_BACKWARD_BLOCK_ROWS = 64;
/// The most blocks of the backward, on every GPU: the number decides the order of sums.
constexpr uint32_t LAYERNORM_BACKWARD_MOST_BLOCKS = 256;
/// Columns of 4 that a block of `layernorm_backward_join` adds up.
constexpr uint32_t LAYERNORM_JOIN_COLUMNS = 32;
/// The largest C.
constexpr uint32_t LAYERNORM_MOST_CHANNELS = 12288;

/// Parameters of `layernorm_forward` and `residual_layernorm_forward`.
struct LayernormForwardParams {
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (N, C) bf16, or null.
    DEVICE_POINTER(const bf16) residual;
    /// (C) bf16.
    DEVICE_POINTER(const bf16) weight;
    /// (C) bf16.
    DEVICE_POINTER(const bf16) bias;
    /// (N, C) bf16 `=`, or null.
    DEVICE_POINTER(bf16) sum;
    /// (N, C) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// (N) f32 `=`.
    DEVICE_POINTER(float) mean;
    /// (N) f32 `=`.
    DEVICE_POINTER(float) rstd;
    /// N.
    uint64_t n;
    /// C.
    uint64_t c;
};

/// Parameters of `layernorm_backward` and `layernorm_backward_join`.
struct LayernormBackwardParams {
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (C) bf16.
    DEVICE_POINTER(const bf16) weight;
    /// (N) f32.
    DEVICE_POINTER(const float) mean;
    /// (N) f32.
    DEVICE_POINTER(const float) rstd;
    /// (N, C) bf16.
    DEVICE_POINTER(bf16) dx;
    /// (C) f32.
    DEVICE_POINTER(float) dweight;
    /// (C) f32.
    DEVICE_POINTER(float) dbias;
    /// (blocks, 4, C/8) of 4 f32: the halves of dweight's vectors, then of dbias's.
    DEVICE_POINTER(float4) partials;
    /// N.
    uint64_t n;
    /// C.
    uint32_t c;
    /// Blocks of `layernorm_backward`.
    uint32_t blocks;
    /// Whether dx is added to.
    uint32_t accumulate_dx;
    /// Whether dweight and dbias are added to.
    uint32_t accumulate;
};

// ---------------------------------------------------------------------------------------------------------------------
// matmul

/// Rows of the product that a block of `matmul_*_128x256` has.
constexpr uint32_t MATMUL_LARGE_ROWS = 128;
/// Columns of the product that a block of `matmul_*_128x256` has.
constexpr uint32_t MATMUL_LARGE_COLUMNS = 256;
/// Threads of a block of `matmul_*_128x256`: 8 warps, (64, 64) of the product each.
constexpr uint32_t MATMUL_LARGE_THREADS = 256;
/// Rows of the product that a block of `matmul_*_64x64` has.
constexpr uint32_t MATMUL_SMALL_ROWS = 64;
/// Columns of the product that a block of `matmul_*_64x64` has.
constexpr uint32_t MATMUL_SMALL_COLUMNS = 64;
/// Threads of a block of `matmul_*_64x64`: 4 warps, (32, 32) of the product each.
constexpr uint32_t MATMUL_SMALL_THREADS = 128;
/// Blocks of `matmul_*_64x64` that a multiprocessor must have room for: 128 registers a thread.
constexpr uint32_t MATMUL_SMALL_MIN_BLOCKS = 4;
/// Terms of the sums that a stage holds.
constexpr uint32_t MATMUL_STAGE_TERMS = 32;
/// Stages in shared memory: one multiplied, the others on their way.
constexpr uint32_t MATMUL_STAGES = 4;

/// Parameters of `matmul_forward_*`. The grid is a block a tile.
struct MatmulForwardParams {
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (OC, C) bf16.
    DEVICE_POINTER(const bf16) weight;
    /// (OC) bf16, or null.
    DEVICE_POINTER(const bf16) bias;
    /// (N, OC) bf16, or null.
    DEVICE_POINTER(const bf16) residual;
    /// (N, OC) bf16 `=`, or null where no GELU follows.
    DEVICE_POINTER(bf16) pre;
    /// (N, OC) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// N.
    uint32_t n;
    /// C, a multiple of 8.
    uint32_t c;
    /// OC, a multiple of 8.
    uint32_t oc;
    /// Tiles along N.
    uint32_t row_tiles;
};

/// Parameters of `matmul_dgrad_*`. The grid is a block a tile.
struct MatmulDgradParams {
    /// (N, OC) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (OC, C) bf16.
    DEVICE_POINTER(const bf16) weight;
    /// (N, C) bf16, or null where the input was no GELU's.
    DEVICE_POINTER(const bf16) pre;
    /// (N, C) bf16 `=`.
    DEVICE_POINTER(bf16) dx;
    /// N.
    uint32_t n;
    /// C, a multiple of 8.
    uint32_t c;
    /// OC, a multiple of 8.
    uint32_t oc;
    /// Tiles along N.
    uint32_t row_tiles;
};

/// Parameters of `matmul_wgrad_*`. The grid's x is a block a tile, its y a part of the N rows.
struct MatmulWgradParams {
    /// (N, OC) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (OC, C) f32; of part p at p · `part_stride`.
    DEVICE_POINTER(float) dweight;
    /// (OC) f32, or null; of part p at p · `part_stride`.
    DEVICE_POINTER(float) dbias;
    /// Elements between the sums of two parts.
    uint64_t part_stride;
    /// N.
    uint32_t n;
    /// C, a multiple of 8.
    uint32_t c;
    /// OC, a multiple of 8.
    uint32_t oc;
    /// Tiles along OC.
    uint32_t row_tiles;
    /// Rows of a part, a multiple of a stage's terms; the last may have fewer.
    uint32_t part_rows;
    /// Whether dweight and dbias are added to.
    uint32_t accumulate;
};

/// Threads of a block of `matmul_wgrad_join`.
constexpr uint32_t MATMUL_JOIN_THREADS = 256;

/// Parameters of `matmul_wgrad_join`; a thread is 4 elements.
struct MatmulJoinParams {
    /// (parts, OC·C + OC) f32: sums of dweight, then of dbias.
    DEVICE_POINTER(const float) partials;
    /// (OC·C) f32.
    DEVICE_POINTER(float) dweight;
    /// (OC) f32, or null.
    DEVICE_POINTER(float) dbias;
    /// OC·C.
    uint64_t weights;
    /// OC·C, and OC with it where there is a dbias.
    uint64_t len;
    /// Elements between two parts.
    uint64_t part_stride;
    /// Parts.
    uint32_t parts;
    /// Whether dweight and dbias are added to.
    uint32_t accumulate;
};

// ---------------------------------------------------------------------------------------------------------------------
// gelu

/// Threads of a block of `gelu_forward`.
constexpr uint32_t GELU_FORWARD_THREADS = 256;
/// Elements that a block of `gelu_forward` covers: a 16-byte vector a thread.
constexpr uint32_t GELU_FORWARD_BLOCK = 8 * GELU_FORWARD_THREADS;

/// Parameters of `gelu_forward`.
struct GeluForwardParams {
    /// (N, C) bf16.
    DEVICE_POINTER(const bf16) x;
    /// (N, C) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// N·C, a multiple of 8.
    uint64_t len;
};

// ---------------------------------------------------------------------------------------------------------------------
// cross_entropy

/// Threads of a block of the cross-entropy kernels.
constexpr uint32_t CROSS_ENTROPY_THREADS = 256;
/// Vectors of 8 columns that a thread loads together.
constexpr uint32_t CROSS_ENTROPY_GROUP = 5;
/// Rows of a block of `cross_entropy_forward_warp` and `cross_entropy_backward_warp`.
constexpr uint32_t CROSS_ENTROPY_WARP_ROWS = CROSS_ENTROPY_THREADS / 32;
/// Most vectors of a row, of those wholly inside of V, for a warp.
constexpr uint32_t CROSS_ENTROPY_WARP_VECTORS = 2 * CROSS_ENTROPY_GROUP * 32;
/// The same for `cross_entropy_backward_20k`.
constexpr uint32_t CROSS_ENTROPY_20K_VECTORS = 2 * CROSS_ENTROPY_GROUP * CROSS_ENTROPY_THREADS;
/// The same for `cross_entropy_backward_51k`.
constexpr uint32_t CROSS_ENTROPY_51K_VECTORS = 5 * CROSS_ENTROPY_GROUP * CROSS_ENTROPY_THREADS;
/// Blocks of `cross_entropy_backward_51k` that a multiprocessor has room for: half of its registers each.
constexpr uint32_t CROSS_ENTROPY_51K_BLOCKS = 2;
/// The same for the other cross-entropy kernels.
constexpr uint32_t CROSS_ENTROPY_SHARED_BLOCKS = 4;

/// Parameters of `cross_entropy_forward_*`.
struct CrossEntropyForwardParams {
    /// (N, Vp) bf16.
    DEVICE_POINTER(const bf16) logits;
    /// (N).
    DEVICE_POINTER(const int32_t) targets;
    /// (N) `=`.
    DEVICE_POINTER(float) losses;
    /// N.
    uint64_t n;
    /// V, from 1 to Vp.
    uint32_t v;
    /// Vp, a multiple of 8 below 2^31.
    uint32_t vp;
};

/// Parameters of `cross_entropy_backward_*`.
struct CrossEntropyBackwardParams {
    /// (N, Vp) bf16, logits in and gradient out.
    DEVICE_POINTER(bf16) logits;
    /// (N).
    DEVICE_POINTER(const int32_t) targets;
    /// (N) `=`.
    DEVICE_POINTER(float) losses;
    /// N.
    uint64_t n;
    /// Vp, a multiple of 8 below 2^31.
    uint64_t vp;
    /// V, from 1 to Vp.
    uint32_t v;
    /// What the gradient is multiplied by.
    float scale;
};

/// Threads of the one block of `loss_sum`.
constexpr uint32_t LOSS_SUM_THREADS = 1024;

/// Parameters of `loss_sum`.
struct LossSumParams {
    /// (N), aligned to 4 bytes.
    DEVICE_POINTER(const float) losses;
    /// (1) as `accumulate` says.
    DEVICE_POINTER(float) total;
    /// N.
    uint64_t n;
    /// What the sum is multiplied by.
    float scale;
    /// 1 to add to what is there, 0 to overwrite it.
    uint32_t accumulate;
};

// ---------------------------------------------------------------------------------------------------------------------
// grad_norm

/// Threads of a block of `grad_norm_partials` and of `grad_norm_total`.
constexpr uint32_t GRAD_NORM_THREADS = 256;
/// Elements that a block of `grad_norm_partials` takes at a time: four 16-byte vectors a thread.
constexpr uint32_t GRAD_NORM_TILE = 16 * GRAD_NORM_THREADS;
/// Most blocks of `grad_norm_partials`. Constant, as the order of the sum depends on it: two waves of 132
/// multiprocessors with eight blocks each.
constexpr uint32_t GRAD_NORM_MAX_BLOCKS = 2048;

/// Parameters of `grad_norm_partials`.
struct GradNormPartialsParams {
    /// (P) f32.
    DEVICE_POINTER(const float) grad;
    /// (blocks of the grid) f32 `=`.
    DEVICE_POINTER(float) partials;
    /// P, a multiple of 4.
    uint64_t len;
};

/// Parameters of `grad_norm_total`.
struct GradNormTotalParams {
    /// (num_partials) f32.
    DEVICE_POINTER(const float) partials;
    /// (1) f32 `=`.
    DEVICE_POINTER(float) norm;
    /// Blocks of `grad_norm_partials`, at most `GRAD_NORM_MAX_BLOCKS`.
    uint64_t num_partials;
};

// ---------------------------------------------------------------------------------------------------------------------
// adamw

/// Threads of a block of `adamw`.
constexpr uint32_t ADAMW_THREADS = 256;
/// Parameters that a block of `adamw` updates: four a thread.
constexpr uint32_t ADAMW_BLOCK = 4 * ADAMW_THREADS;

/// Parameters of `adamw`.
struct AdamWParams {
    /// (P) bf16 `=`.
    DEVICE_POINTER(bf16) weight;
    /// (P) f32, in place.
    DEVICE_POINTER(float) master;
    /// (P) f32.
    DEVICE_POINTER(const float) grad;
    /// (P) f32, in place.
    DEVICE_POINTER(float) m;
    /// (P) f32, in place.
    DEVICE_POINTER(float) v;
    /// (1) f32.
    DEVICE_POINTER(const float) norm;
    /// (1) f32.
    DEVICE_POINTER(const float) loss;
    /// P, a multiple of 4.
    uint64_t len;
    /// Key of the draws.
    uint64_t seed;
    /// Counter of the draws.
    uint64_t step;
    /// Index of the first draw, a multiple of 4.
    uint64_t first_index;
    /// Of this step.
    float learning_rate;
    /// Decay of the first moment.
    float beta1;
    /// Decay of the second moment.
    float beta2;
    /// Added to the root of the second moment.
    float eps;
    /// Multiplied by the learning rate.
    float weight_decay;
    /// `1 - beta1^step`, which cancels unless it is computed in f64.
    float correction1;
    /// `1 - beta2^step`.
    float correction2;
    /// Gradients are scaled down to this norm.
    float max_norm;
    /// No update when the norm is above it.
    float norm_limit;
    /// No update when the loss is above it.
    float loss_limit;
};

// ---------------------------------------------------------------------------------------------------------------------
// attention

/// Threads of a block of `attention_forward`.
constexpr uint32_t ATTENTION_FORWARD_THREADS = 128;
/// Queries of a block of `attention_forward`, 32 a warp.
constexpr uint32_t ATTENTION_FORWARD_QUERIES = 128;
/// Keys that `attention_forward` has in each of two stages of shared memory.
constexpr uint32_t ATTENTION_FORWARD_KEYS = 64;
/// Blocks of `attention_forward` that a multiprocessor has registers for.
constexpr uint32_t ATTENTION_FORWARD_MIN_BLOCKS = 2;

/// Parameters of `attention_forward`.
struct AttentionForwardParams {
    /// (B, T, 3C) bf16.
    DEVICE_POINTER(const bf16) qkv;
    /// (B, T, C) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// (B, NH, T) f32 `=`.
    DEVICE_POINTER(float) lse;
    /// T, less than 2^31.
    uint32_t t;
    /// NH.
    uint32_t nh;
    /// B·NH.
    uint32_t heads;
    /// Blocks that a head's queries take.
    uint32_t tiles;
    /// Heads whose blocks run together.
    uint32_t group;
    /// log2(e) / sqrt(HS).
    float scale;
};

/// Threads of a block of `attention_backward_*`.
constexpr uint32_t ATTENTION_BACKWARD_THREADS = 128;
/// Blocks of `attention_backward_*` that a multiprocessor has registers for.
constexpr uint32_t ATTENTION_BACKWARD_MIN_BLOCKS = 2;
/// The largest head size at which a warp of `attention_backward_keys_*` has 32 keys and all kernels take 64 rows at a time;
/// beyond, it has 16 and they take 32.
constexpr uint32_t ATTENTION_BACKWARD_NARROW = 64;
/// Queries of a block of `attention_backward_queries_*`, 32 a warp, and keys of one of `attention_backward_keys_*` where it
/// is narrow; beyond, it has half as many.
constexpr uint32_t ATTENTION_BACKWARD_ROWS = 128;
/// Rows of the other side in each of two stages of shared memory; beyond the narrow ones half as many.
constexpr uint32_t ATTENTION_BACKWARD_TILE = 64;

/// Parameters of `attention_backward_*`.
struct AttentionBackwardParams {
    /// (B, T, C) bf16.
    DEVICE_POINTER(const bf16) dout;
    /// (B, T, 3C) bf16.
    DEVICE_POINTER(const bf16) qkv;
    /// (B, T, C) bf16.
    DEVICE_POINTER(const bf16) out;
    /// (B, NH, T) f32.
    DEVICE_POINTER(const float) lse;
    /// (B, T, 3C) bf16 `=`: dq by the queries' kernel, dk and dv by the keys'.
    DEVICE_POINTER(bf16) dqkv;
    /// (2, B, NH, T) f32: -lse·log2(e), then -delta, which the queries' kernel writes and the keys' reads.
    DEVICE_POINTER(float) statistics;
    /// T, less than 2^31.
    uint32_t t;
    /// NH.
    uint32_t nh;
    /// B·NH.
    uint32_t heads;
    /// Blocks that a head's queries take.
    uint32_t query_tiles;
    /// Blocks that a head's keys take.
    uint32_t key_tiles;
    /// Heads whose blocks run together.
    uint32_t group;
    /// 1 / sqrt(HS).
    float scale;
    /// log2(e) / sqrt(HS).
    float log2_scale;
};

// ---------------------------------------------------------------------------------------------------------------------
// attention_decode

/// Threads of a block of `kv_cache_store`: a 16-byte vector of k and one of v each.
constexpr uint32_t KV_CACHE_STORE_THREADS = 256;

/// Parameters of `kv_cache_store`.
struct KvCacheStoreParams {
    /// (B, T, 3C) bf16.
    DEVICE_POINTER(const bf16) qkv;
    /// (B, T_max, C) bf16, rows `position..position+T` `=`.
    DEVICE_POINTER(bf16) k_cache;
    /// (B, T_max, C) bf16, rows `position..position+T` `=`.
    DEVICE_POINTER(bf16) v_cache;
    /// Positions that a sequence's cache has room for.
    uint64_t max_t;
    /// Of the first token.
    uint64_t position;
    /// Vectors of k: B·T·C/8, below 2^32.
    uint64_t len;
    /// Tokens a sequence.
    uint32_t t;
    /// Channels, a multiple of 8.
    uint32_t c;
};

/// Threads of a block of `attention_decode_*`.
constexpr uint32_t ATTENTION_DECODE_THREADS = 128;
/// Blocks of `attention_decode_hs*` that a multiprocessor must have room for: 128 registers a thread.
constexpr uint32_t ATTENTION_DECODE_MIN_BLOCKS = 4;
/// The largest head size.
constexpr uint32_t ATTENTION_DECODE_MOST_HEAD_SIZE = 256;

/// Parameters of `attention_decode_*`.
struct AttentionDecodeParams {
    /// (B, 1, 3C) bf16.
    DEVICE_POINTER(const bf16) qkv;
    /// (B, T_max, C) bf16, row `position` `=`.
    DEVICE_POINTER(bf16) k_cache;
    /// (B, T_max, C) bf16, row `position` `=`.
    DEVICE_POINTER(bf16) v_cache;
    /// (B, 1, C) bf16 `=`.
    DEVICE_POINTER(bf16) out;
    /// (B, NH, splits, 2, HS/8) of 4 f32: the halves of each vector's sum. Not used where there is one split.
    DEVICE_POINTER(float4) partials;
    /// (B, NH, splits) f32: the largest score, the sum of exponentials. Not used where there is one split.
    DEVICE_POINTER(float2) stats;
    /// Positions that a sequence's cache has room for.
    uint64_t max_t;
    /// Of the token; below 2^31.
    uint32_t position;
    /// Parts that the positions are cut into.
    uint32_t splits;
    /// Positions of each part but the last, which may have fewer.
    uint32_t split_positions;
    /// Channels, a multiple of 8.
    uint32_t c;
    /// Heads.
    uint32_t nh;
    /// Head size, a multiple of 8.
    uint32_t hs;
    /// Vectors of `out`: B·C/8.
    uint32_t len;
    /// log2(e) / √HS.
    float scale;
};

// ---------------------------------------------------------------------------------------------------------------------
// sampling

/// Threads of a block of `sample`.
constexpr uint32_t SAMPLE_THREADS = 512;
/// Blocks of `sample` that a multiprocessor must have room for, as far as registers decide.
constexpr uint32_t SAMPLE_MIN_BLOCKS = 2;
/// Columns of a row that shared memory holds: with the sums, 99 KB, the least that a multiprocessor from sm_80 on has.
constexpr uint32_t SAMPLE_HELD_COLUMNS = 50304;

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
    float rate;
};

// ---------------------------------------------------------------------------------------------------------------------
// ceilings

/// Threads of a block of `ceiling_copy`.
constexpr uint32_t CEILING_COPY_THREADS = 256;
/// Vectors of 16 bytes that a block of `ceiling_copy` copies: four a thread.
constexpr uint32_t CEILING_COPY_TILE = 4 * CEILING_COPY_THREADS;

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
constexpr uint32_t CEILING_MMA_ROWS = 2;
/// Tiles of 8 columns that a warp's product has.
constexpr uint32_t CEILING_MMA_COLUMNS = 4;
/// Products of a warp that do not wait for each other, and its products an iteration.
constexpr uint32_t CEILING_MMA_CHAINS = CEILING_MMA_ROWS * CEILING_MMA_COLUMNS;

/// Parameters of `ceiling_mma`.
struct CeilingMmaParams {
    /// (256 · blocks) f32 `=`.
    DEVICE_POINTER(float) out;
    /// Products in each chain, one after the other.
    uint64_t iterations;
};

#endif
