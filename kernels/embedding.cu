// Embedding.  out[b, t] = wte[tokens[b, t]] + wpe[position + t]
//             dwte[tokens[b, t]] += dout[b, t];  dwpe[t] (+)= sum over b of dout[b, t]
// Shapes:   tokens (B, T) i32; wte (Vp, C), wpe (T_max, C), out, dout (B, T, C) bf16; dwte, dwpe f32; row-major
// Writes:   out "="; dwte "+="; dwpe "=" (rows past T become zero) or "+="
// Requires: C % 8 == 0; 16-byte-aligned pointers; N = B*T < 2^31; Vp <= 2^31
// Bad ids:  for a token id outside 0..Vp the row of out is NaN, dwte ignores the row of dout, and no memory is accessed
//           by the id
// Launch:   forward  grid (ceil(T*C/2048), 1 to B), block 256; one thread = one vector of one position
//           count    grid tiles = ceil(N/4096), block 512; not launched for one tile
//           sort     grid tiles, block 512; one launch per byte of Vp, or a single launch for one tile
//           sum      grid (position blocks + ceil(N/128), ceil(C/128)), block 256; one warp = 128 columns of one
//                    position, or of 16 sorted pairs
//           reduce   grid (ceil(N/128), ceil(C/128)), block 256; not launched if the grid's x dimension is 1
// Numerics: f32. A row of dwte is summed within 16 sorted pairs, then within 128, then over all, each in the order of
//           positions; a row of dwpe is summed within up to 8 ranges of sequences, then over the ranges. Shapes and ids
//           alone determine the summation order
// Traffic:  forward  4*N*C + 4*N + 2*C*T bytes; memory-bound
//           backward 2*N*C + 4*N + 8*C*(distinct ids) + 4*C*T_max bytes, and 2*N*C that should hit L2; memory-bound
#include <type_traits>

#include "common/predicated.cuh"
#include "common/radix_sort.cuh"
#include "params/embedding.h"

// ---------------------------------------------------------------------------------------------------------------------
// forward

// Sequences whose rows a thread has in flight at once.
constexpr uint32_t FORWARD_UNROLL = 4;
constexpr uint32_t INVALID_TOKEN = 0xffffffff;

extern "C" __global__ void __launch_bounds__(EMBEDDING_FORWARD_THREADS)
    embedding_forward(const __grid_constant__ EmbeddingForwardParams params) {
    const uint32_t vectors = params.c / VECTOR;
    const uint32_t i = blockIdx.x * EMBEDDING_FORWARD_THREADS + threadIdx.x;
    if (i >= params.t * vectors) return;
    // The only division: a thread keeps its position, and loads wpe once for all its sequences.
    const uint32_t position = i / vectors;
    const uint32_t column = (i - position * vectors) * VECTOR;
    const uint64_t offset = uint64_t(i) * VECTOR;
    const f32x8 wpe = load(params.wpe + offset);

    for (uint32_t first = blockIdx.y; first < params.b; first += FORWARD_UNROLL * gridDim.y) {
        // token ids
        uint32_t tokens[FORWARD_UNROLL];
        bf16x8 rows[FORWARD_UNROLL];
#pragma unroll
        for (uint32_t r = 0; r < FORWARD_UNROLL; r++) {
            const uint32_t sequence = first + r * gridDim.y;
            const bool in_bounds = sequence < params.b;
            tokens[r] = in_bounds ? uint32_t(params.tokens[uint64_t(sequence) * params.t + position]) : INVALID_TOKEN;
        }
        // rows of wte
#pragma unroll
        for (uint32_t r = 0; r < FORWARD_UNROLL; r++) {
            rows[r] = make_uint4(0x7fff7fff, 0x7fff7fff, 0x7fff7fff, 0x7fff7fff);  // NaN
            if (tokens[r] < params.vp) rows[r] = load_packed(params.wte + uint64_t(tokens[r]) * params.c + column);
        }
        // out
#pragma unroll
        for (uint32_t r = 0; r < FORWARD_UNROLL; r++) {
            const uint32_t sequence = first + r * gridDim.y;
            if (sequence >= params.b) break;
            f32x8 row = unpack(rows[r]);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) row.at[k] += wpe.at[k];
            store(params.out + uint64_t(sequence) * params.t * params.c + offset, row);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// backward: radix sort of the positions by token id
//
// A stable LSD radix sort of (key, position) pairs, one byte per pass. Each block sorts one tile; the histograms of all
// tiles give the destination of its keys. The whole backward takes tens of microseconds at GPT-2's sizes, so the cost
// of a launch matters: only the first pass has a histogram kernel (count). Each pass computes the histograms of the
// next one while it scatters its pairs.

constexpr uint32_t RADIX_DIGITS = 1 << EMBEDDING_SORT_RADIX_BITS;
constexpr uint32_t SORT_WARPS = EMBEDDING_SORT_THREADS / WARP;
constexpr uint32_t ITEMS_PER_THREAD = EMBEDDING_SORT_TILE / EMBEDDING_SORT_THREADS;
static_assert(RADIX_DIGITS <= EMBEDDING_SORT_THREADS, "at least one thread per digit");

// The sort key of a token id: all ids outside 0..Vp, negative ones included, get the key Vp, which is sorted last.
__device__ inline uint32_t key_of(int32_t token, uint32_t vp) { return min(uint32_t(token), vp); }

__device__ inline uint32_t digit_of(uint32_t key, uint32_t pass) {
    return key >> (pass * EMBEDDING_SORT_RADIX_BITS) & (RADIX_DIGITS - 1);
}

// Computes each tile's histogram for the first pass, and zeroes the histograms of the later passes.
extern "C" __global__ void __launch_bounds__(EMBEDDING_SORT_THREADS)
    embedding_backward_count(const __grid_constant__ EmbeddingSortParams params) {
    __shared__ uint32_t histogram[RADIX_DIGITS];
    const uint32_t digit = threadIdx.x;
    if (digit < RADIX_DIGITS) histogram[digit] = 0;
    __syncthreads();  // all counts are zero before any thread increments one

    const uint32_t first = blockIdx.x * EMBEDDING_SORT_TILE + threadIdx.x;
#pragma unroll
    for (uint32_t r = 0; r < ITEMS_PER_THREAD; r++) {
        const uint32_t i = first + r * EMBEDDING_SORT_THREADS;
        if (i < params.n) atomicAdd(&histogram[digit_of(key_of(params.tokens[i], params.vp), 0)], 1);
    }
    __syncthreads();  // RAW: all keys are counted before the counts are read

    if (digit >= RADIX_DIGITS) return;
    params.histograms[blockIdx.x * RADIX_DIGITS + digit] = histogram[digit];
#pragma unroll 1
    for (uint32_t pass = 1; pass < params.passes; pass++) {
        params.histograms[(uint64_t(pass) * gridDim.x + blockIdx.x) * RADIX_DIGITS + digit] = 0;
    }
}

// One pass: sorts this block's tile by one digit and scatters its pairs to their destinations among all tiles.
__device__ inline void sort_pass(const EmbeddingSortParams &params, uint32_t pass) {
    __shared__ uint32_t warp_histograms[SORT_WARPS][RADIX_DIGITS];  // later their exclusive prefix sums over the warps
    __shared__ uint32_t digit_offsets[RADIX_DIGITS];
    __shared__ uint32_t warp_sums[SORT_WARPS];
    const uint32_t tiles = gridDim.x;
    // Warp-striped: the keys of a warp are contiguous, and its lanes take 32 consecutive keys per step, so ranks follow
    // the order of positions and the sort is stable.
    const uint32_t first = blockIdx.x * EMBEDDING_SORT_TILE + warp_id() * ITEMS_PER_THREAD * WARP + lane_id();
    const uint2 *src = params.pairs + (pass + 1) % 2 * uint64_t(params.n);
    uint2 *dst = params.pairs + pass % 2 * uint64_t(params.n);

    // load
    uint2 pairs[ITEMS_PER_THREAD];
#pragma unroll
    for (uint32_t r = 0; r < ITEMS_PER_THREAD; r++) {
        const uint32_t i = first + r * WARP;
        pairs[r] = make_uint2(0, 0);
        if (i >= params.n) continue;
        pairs[r] = pass == 0 ? make_uint2(key_of(params.tokens[i], params.vp), i) : src[i];
    }

    // rank of each key within its warp, and the warp's histogram
    for (uint32_t digit = lane_id(); digit < RADIX_DIGITS; digit += WARP) warp_histograms[warp_id()][digit] = 0;
    __syncwarp();  // all counts are zero before other lanes increment them
    uint32_t ranks[ITEMS_PER_THREAD];
#pragma unroll
    for (uint32_t r = 0; r < ITEMS_PER_THREAD; r++) {
        ranks[r] = rank_in_warp(warp_histograms[warp_id()], digit_of(pairs[r].x, pass), first + r * WARP < params.n);
    }
    __syncthreads();  // RAW: the thread of a digit reads the histograms of all warps

    // exclusive scans: over the warps of the block, over the tiles, and over the digits
    uint32_t total = 0, lower_tiles = 0;
    const uint32_t digit = threadIdx.x;
    if (digit < RADIX_DIGITS) {
#pragma unroll
        for (uint32_t warp = 0; warp < SORT_WARPS; warp++) {
            const uint32_t count = warp_histograms[warp][digit];
            warp_histograms[warp][digit] = total;
            total += count;
        }
        if (tiles > 1) {
            total = 0;
            const uint32_t *histograms = params.histograms + uint64_t(pass) * tiles * RADIX_DIGITS + digit;
#pragma unroll 4
            for (uint32_t tile = 0; tile < tiles; tile++) {
                const uint32_t count = histograms[tile * RADIX_DIGITS];
                if (tile < blockIdx.x) lower_tiles += count;
                total += count;
            }
        }
    }
    const uint32_t lower_digits = block_exclusive_sum(total, warp_sums);
    if (digit < RADIX_DIGITS) digit_offsets[digit] = lower_digits + lower_tiles;
    __syncthreads();  // RAW: the scatter reads the offsets of all digits

    // scatter, and the next pass's histograms
    uint32_t *next_histograms = params.histograms + (uint64_t(pass) + 1) * tiles * RADIX_DIGITS;
#pragma unroll
    for (uint32_t r = 0; r < ITEMS_PER_THREAD; r++) {
        if (first + r * WARP >= params.n) continue;
        const uint32_t digit = digit_of(pairs[r].x, pass);
        const uint32_t i = digit_offsets[digit] + warp_histograms[warp_id()][digit] + ranks[r];
        dst[i] = pairs[r];
        if (tiles == 1 || pass + 1 == params.passes) continue;
        // An integer sum: the order of the atomics does not change it.
        atomicAdd(&next_histograms[i / EMBEDDING_SORT_TILE * RADIX_DIGITS + digit_of(pairs[r].x, pass + 1)], 1);
    }
}

extern "C" __global__ void __launch_bounds__(EMBEDDING_SORT_THREADS)
    embedding_backward_sort(const __grid_constant__ EmbeddingSortParams params) {
    for (uint32_t pass = params.pass;; pass++) {
        sort_pass(params, pass);
        if (gridDim.x > 1 || pass + 1 == params.passes) return;
        // RAW: the next pass reads the pairs that all threads have scattered. WAR: it overwrites the histograms.
        __syncthreads();
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// backward: sums of rows
//
// dwpe sums dout in the order of positions and dwte in the order of token ids. The partial sums of neither fit on the
// chip until the last row has arrived, and with atomics the scheduler would determine the order of f32 sums. So dout is
// read twice, but in slices of 128 columns: the blocks of the launch run slice by slice, first those that sum by
// position, then those that sum by token. A slice is 256*N bytes (17 MB at N = 65,536), which stays in L2, so only the
// first read should go to DRAM.
//
// A thread has four columns: 16 bytes of f32 and 8 of bf16, so a warp's requests cover full sectors. With eight
// columns, bf16 would take one request of 16 bytes, but f32 two requests that each cover half of every sector.

constexpr uint32_t SUM_WARPS = EMBEDDING_SUM_THREADS / WARP;
constexpr uint32_t SUM_WARPS_LOG2 = 3;
static_assert(SUM_WARPS == 1 << SUM_WARPS_LOG2);
constexpr uint32_t PAIRS_PER_WARP = EMBEDDING_SUM_BLOCK_PAIRS / SUM_WARPS;
// Sorted pairs whose rows a warp has in flight at once.
constexpr uint32_t UNROLL = 4;
constexpr uint32_t COLUMNS_PER_THREAD = EMBEDDING_SUM_BLOCK_C / WARP;
static_assert(PAIRS_PER_WARP % UNROLL == 0);
static_assert(COLUMNS_PER_THREAD == 4, "16 bytes of f32 per thread");
// The key past the last pair, larger than all others.
constexpr uint32_t INVALID_KEY = 0xffffffff;

// Four columns per lane of one row per warp, in shared memory.
using WarpRows = float4[SUM_WARPS][WARP];

// Row pointers into a matrix of C columns. With the row stride in bytes, an address takes one instruction.
template <typename T>
struct Rows {
    T *first;
    uint32_t c;

    __device__ T *at(uint32_t row) const {
        using Byte = std::conditional_t<std::is_const_v<T>, const char, char>;
        return reinterpret_cast<T *>(reinterpret_cast<Byte *>(first) + uint64_t(row) * uint32_t(c * sizeof(T)));
    }
};

__device__ inline float4 load_columns(const float *from) { return load(from); }

__device__ inline uint2 load_columns(const bf16 *from) { return *reinterpret_cast<const uint2 *>(from); }

__device__ inline float4 unpack(const float4 &raw) { return raw; }

__device__ inline float4 unpack(const uint2 &raw) {
    return make_float4(__uint_as_float(raw.x << 16), __uint_as_float(raw.x & 0xffff0000u), __uint_as_float(raw.y << 16),
                       __uint_as_float(raw.y & 0xffff0000u));
}

__device__ inline void add(float4 &sum, const float4 &x) {
    sum.x += x.x;
    sum.y += x.y;
    sum.z += x.z;
    sum.w += x.w;
}

// Sums `count` rows that are `stride` elements apart, in order.
template <typename T>
__device__ inline float4 sum_rows(const T *row, uint32_t count, uint64_t stride) {
    float4 sum = {};
#pragma unroll 8
    for (uint32_t i = 0; i < count; i++, row += stride) add(sum, unpack(load_columns(row)));
    return sum;
}

// Cross-warp reduction: adds the sums of warps w, w + stride, w + 2 * stride, ... in order. Warps w < stride return the
// result.
__device__ inline float4 reduce_warps(float4 sum, uint32_t stride, WarpRows &warp_sums) {
    warp_sums[warp_id()][lane_id()] = sum;
    __syncthreads();  // RAW: warps read the sums of other warps
    for (uint32_t warp = warp_id() + stride; warp < SUM_WARPS; warp += stride) add(sum, warp_sums[warp][lane_id()]);
    return sum;
}

// dwpe: each warp sums a range of the sequences at one position.
__device__ inline void sum_by_position(const EmbeddingSumParams &params, uint32_t column, WarpRows &warp_sums) {
    const uint32_t block_positions = SUM_WARPS >> params.warps_per_position_log2;
    const uint32_t position = blockIdx.x * block_positions + (warp_id() & (block_positions - 1));
    const uint32_t count = (params.b + (1 << params.warps_per_position_log2) - 1) >> params.warps_per_position_log2;
    const uint32_t first = min((warp_id() >> (SUM_WARPS_LOG2 - params.warps_per_position_log2)) * count, params.b);
    const uint32_t end = min(first + count, params.b);
    float4 sum = {};
    if (position < params.t && column < params.c) {
        const uint64_t stride = uint64_t(params.t) * params.c;
        sum = sum_rows(params.dout + first * stride + uint64_t(position) * params.c + column, end - first, stride);
    }
    sum = reduce_warps(sum, block_positions, warp_sums);
    if (warp_id() >= block_positions || position >= params.positions || column >= params.c) return;
    float *to = params.dwpe + uint64_t(position) * params.c + column;
    if (params.accumulate) add(sum, load(to));
    store(to, sum);
}

// dwte: a segmented reduction over the sorted pairs. A segment is a run of pairs with equal keys, whose sum goes to one
// row of dwte. Only the warp that has the first pair of a segment accesses that row. A warp whose pairs begin in the
// middle of a segment passes its sum of it, the carry, to that warp. A block whose pairs begin in the middle of a
// segment writes its carry to params.carries, for embedding_backward_reduce.
__device__ inline void sum_by_token(const EmbeddingSumParams &params, uint32_t block, uint32_t column,
                                    WarpRows &warp_carries) {
    __shared__ uint2 pairs[1 + EMBEDDING_SUM_BLOCK_PAIRS];  // begins with the last pair of the block before
    static_assert(EMBEDDING_SUM_BLOCK_PAIRS < EMBEDDING_SUM_THREADS, "one thread per pair");
    if (threadIdx.x <= EMBEDDING_SUM_BLOCK_PAIRS) {
        const uint32_t i = block * EMBEDDING_SUM_BLOCK_PAIRS + threadIdx.x - 1;
        pairs[threadIdx.x] = i < params.b * params.t ? params.pairs[i] : make_uint2(INVALID_KEY, 0);
    }
    __syncthreads();  // RAW: every warp reads pairs that other warps have written

    const uint32_t warp = warp_id();
    const auto pair_at = [&](uint32_t warp, uint32_t k) { return pairs[1 + warp * PAIRS_PER_WARP + k]; };
    const Rows<const bf16> dout{params.dout + column, params.c};
    const Rows<float> dwte{params.dwte + column, params.c};
    // Keys from here on have no row in dwte. For columns past C, no key has one.
    const uint32_t end_key = column < params.c ? params.vp : 0;

    // The current segment: its key, its sum, and whether it began before this warp's pairs.
    uint32_t key = pair_at(warp, 0).x;
    bool is_carry = pairs[warp * PAIRS_PER_WARP].x == key;
    float4 sum = {};
#pragma unroll 1
    for (uint32_t first = 0; first < PAIRS_PER_WARP; first += UNROLL) {
        // Issue all loads before the first use: the rows of dout, and the rows of dwte of the segments that end here.
        uint32_t keys[UNROLL];
        uint2 rows[UNROLL];
        float4 sums[UNROLL];
        uint32_t segment = key;
        bool carry = is_carry;
#pragma unroll
        for (uint32_t k = 0; k < UNROLL; k++) {
            const uint2 pair = pair_at(warp, first + k);
            keys[k] = pair.x;
            rows[k] = load_predicated(pair.x < end_key, dout.at(pair.y));
            const bool ends = pair.x != segment;
            sums[k] = load_streaming_predicated(ends && !carry && segment < end_key, dwte.at(segment));
            carry = carry && !ends;
            segment = pair.x;
        }
#pragma unroll
        for (uint32_t k = 0; k < UNROLL; k++) {
            const float4 row = unpack(rows[k]);
            if (keys[k] == key) {
                add(sum, row);
                continue;
            }
            if (is_carry) {
                warp_carries[warp][lane_id()] = sum;
            } else {
                add(sums[k], sum);
                store_streaming_predicated(key < end_key, dwte.at(key), sums[k]);
            }
            is_carry = false;
            key = keys[k];
            sum = row;
        }
    }
    if (is_carry) warp_carries[warp][lane_id()] = sum;
    __syncthreads();  // RAW: the warp that has a segment's first pair reads the carries of the warps after it

    const auto add_carries = [&](uint32_t key, uint32_t from) {
        for (uint32_t w = from; w < SUM_WARPS && pair_at(w, 0).x == key; w++) add(sum, warp_carries[w][lane_id()]);
    };
    // The last segment of the warp may continue in the next warps.
    if (!is_carry && key < end_key) {
        add_carries(key, warp + 1);
        add(sum, load(dwte.at(key)));
        store(dwte.at(key), sum);
    }

    // The carry of the block.
    const uint32_t first_key = pair_at(0, 0).x;
    if (warp == 0 && first_key == pairs[0].x && first_key < end_key) {
        sum = {};
        add_carries(first_key, 0);
        store(params.carries + uint64_t(block) * params.c + column, sum);
    }
}

extern "C" __global__ void __launch_bounds__(EMBEDDING_SUM_THREADS, EMBEDDING_SUM_MIN_BLOCKS)
    embedding_backward_sum(const __grid_constant__ EmbeddingSumParams params) {
    __shared__ WarpRows shared;
    const uint32_t column = blockIdx.y * EMBEDDING_SUM_BLOCK_C + lane_id() * COLUMNS_PER_THREAD;
    if (blockIdx.x < params.position_blocks) {
        sum_by_position(params, column, shared);
    } else {
        sum_by_token(params, blockIdx.x - params.position_blocks, column, shared);
    }
}

// Adds the blocks' carries to dwte. The first block that has a carry of a segment adds all carries of that segment.
// minBlocks = 1 is required: otherwise ptxas targets 32 registers and serialises the eight loads of sum_rows.
extern "C" __global__ void __launch_bounds__(EMBEDDING_SUM_THREADS, 1)
    embedding_backward_reduce(const __grid_constant__ EmbeddingSumParams params) {
    __shared__ WarpRows warp_sums;
    const auto key_at = [&](uint32_t i) { return params.pairs[i].x; };
    const uint32_t block = blockIdx.x;
    if (block == 0) return;
    const uint32_t i = block * EMBEDDING_SUM_BLOCK_PAIRS;
    const uint32_t key = key_at(i);
    if (key >= params.vp || key_at(i - 1) != key) return;
    // Return if the block before has a carry of the segment as well.
    if (block > 1 && key_at(i - EMBEDDING_SUM_BLOCK_PAIRS - 1) == key) return;

    // Binary search for `end`, the first block without a carry of the segment; `last` has one.
    uint32_t last = block, end = gridDim.x;
    while (end - last > 1) {
        const uint32_t middle = last + (end - last) / 2;
        if (key_at(middle * EMBEDDING_SUM_BLOCK_PAIRS) == key)
            last = middle;
        else
            end = middle;
    }

    // Each warp sums a range of the carries.
    const uint32_t column = blockIdx.y * EMBEDDING_SUM_BLOCK_C + lane_id() * COLUMNS_PER_THREAD;
    const uint32_t count = (end - block + SUM_WARPS - 1) / SUM_WARPS;
    const uint32_t warp_first = min(block + warp_id() * count, end);
    const uint32_t warp_end = min(warp_first + count, end);
    float4 sum = {};
    if (column < params.c) {
        sum = sum_rows(params.carries + uint64_t(warp_first) * params.c + column, warp_end - warp_first, params.c);
    }
    sum = reduce_warps(sum, 1, warp_sums);
    if (warp_id() > 0 || column >= params.c) return;
    float *to = params.dwte + uint64_t(key) * params.c + column;
    add(sum, load(to));
    store(to, sum);
}
