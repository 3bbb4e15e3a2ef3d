// Embedding.  out[b, t] = wte[tokens[b, t]] + wpe[position + t]
//             dwte[tokens[b, t]] += dout[b, t];  dwpe[t] (+)= sum over b of dout[b, t]
// Shapes:   tokens (B, T) i32; wte (Vp, C), wpe (T_max, C), out, dout (B, T, C) bf16; dwte, dwpe f32; row-major
// Writes:   out "="; dwte "+="; dwpe "=" (zero past T) or "+="
// Requires: C % 8 == 0; 16-byte-aligned pointers; N = B*T < 2^31; Vp <= 2^31
// Bad ids:  outside of 0..Vp: the row of out is NaN, dwte passes over the row of dout; no memory is touched by such an id
// Launch:   forward  grid (ceil(T*C/2048), 1 to B), block 256; one thread = one vector of one position
//           count    grid tiles = ceil(N/4096), block 512; left out for one tile
//           sort     grid tiles, block 512; once for each byte of Vp, or once in all for one tile
//           sum      grid (position blocks + ceil(N/128), ceil(C/128)), block 256; one warp = 128 columns of a
//                    position, or of 16 places in the order of ids
//           join     grid (ceil(N/128), ceil(C/128)), block 256; left out if the first is 1
// Numerics: f32. A row of dwte is summed within 16 places, 128 places and as a whole, each in the order of positions;
//           one of dwpe within up to 8 shares of the sequences. Where the borders are, shapes and ids alone decide
// Traffic:  forward  4*N*C + 4*N + 2*C*T bytes; memory-bound
//           backward 2*N*C + 4*N + 8*C*(different ids) + 4*C*T_max bytes, and 2*N*C that L2 should have; memory-bound
#include <type_traits>

#include "common/predicated.cuh"
#include "common/radix_sort.cuh"
#include "params/embedding.h"

// ---------------------------------------------------------------------------------------------------------------------
// forward

// Sequences whose rows a thread has under way at once.
constexpr uint32_t FORWARD_ROWS = 4;
constexpr uint32_t NO_TOKEN = 0xffffffff;

extern "C" __global__ void __launch_bounds__(EMBEDDING_FORWARD_THREADS)
    embedding_forward(const __grid_constant__ EmbeddingForwardParams params) {
    const uint32_t vectors = params.c / VECTOR;
    const uint32_t i = blockIdx.x * EMBEDDING_FORWARD_THREADS + threadIdx.x;
    if (i >= params.t * vectors) return;
    // The one division: a thread stays with its position, and loads wpe once for all its sequences.
    const uint32_t position = i / vectors;
    const uint32_t column = (i - position * vectors) * VECTOR;
    const uint64_t within = uint64_t(i) * VECTOR;
    const f32x8 at_position = load(params.wpe + within);

    for (uint32_t first = blockIdx.y; first < params.b; first += FORWARD_ROWS * gridDim.y) {
        uint32_t tokens[FORWARD_ROWS];
        bf16x8 rows[FORWARD_ROWS];
#pragma unroll
        for (uint32_t r = 0; r < FORWARD_ROWS; r++) {
            const uint32_t sequence = first + r * gridDim.y;
            const bool there = sequence < params.b;
            tokens[r] = there ? uint32_t(params.tokens[uint64_t(sequence) * params.t + position]) : NO_TOKEN;
        }
#pragma unroll
        for (uint32_t r = 0; r < FORWARD_ROWS; r++) {
            rows[r] = make_uint4(0x7fff7fff, 0x7fff7fff, 0x7fff7fff, 0x7fff7fff);  // NaN
            if (tokens[r] < params.vp) rows[r] = load_packed(params.wte + uint64_t(tokens[r]) * params.c + column);
        }
#pragma unroll
        for (uint32_t r = 0; r < FORWARD_ROWS; r++) {
            const uint32_t sequence = first + r * gridDim.y;
            if (sequence >= params.b) break;
            f32x8 row = unpack(rows[r]);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) row.at[k] += at_position.at[k];
            store(params.out + uint64_t(sequence) * params.t * params.c + within, row);
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// backward: rows of one token side by side
//
// A stable radix sort of (key, position), a byte a pass from the lowest up. A block sorts a tile; the digits' counts in
// all tiles tell it where its keys go. The whole backward takes tens of microseconds at GPT-2's sizes, so a launch shows:
// only the first pass's digits have a kernel that counts them, the next one's are counted as keys are placed.

constexpr uint32_t DIGITS = 1 << EMBEDDING_SORT_RADIX_BITS;
constexpr uint32_t SORT_WARPS = EMBEDDING_SORT_THREADS / WARP;
constexpr uint32_t SORT_ROUNDS = EMBEDDING_SORT_TILE / EMBEDDING_SORT_THREADS;
static_assert(DIGITS <= EMBEDDING_SORT_THREADS, "a thread a digit");

// Ids outside of 0..Vp, negative ones too, become one key behind all others.
__device__ inline uint32_t key_of(int32_t token, uint32_t vp) { return min(uint32_t(token), vp); }

__device__ inline uint32_t digit_of(uint32_t key, uint32_t pass) {
    return key >> (pass * EMBEDDING_SORT_RADIX_BITS) & (DIGITS - 1);
}

// The first pass's counts; zeros for the later ones.
extern "C" __global__ void __launch_bounds__(EMBEDDING_SORT_THREADS)
    embedding_backward_count(const __grid_constant__ EmbeddingSortParams params) {
    __shared__ uint32_t counts[DIGITS];
    const uint32_t digit = threadIdx.x;
    if (digit < DIGITS) counts[digit] = 0;
    __syncthreads();  // no key is counted before the zeros

    const uint32_t first = blockIdx.x * EMBEDDING_SORT_TILE + threadIdx.x;
#pragma unroll
    for (uint32_t r = 0; r < SORT_ROUNDS; r++) {
        const uint32_t at = first + r * EMBEDDING_SORT_THREADS;
        if (at < params.n) atomicAdd(&counts[digit_of(key_of(params.tokens[at], params.vp), 0)], 1);
    }
    __syncthreads();  // all keys are counted

    if (digit >= DIGITS) return;
    params.histograms[blockIdx.x * DIGITS + digit] = counts[digit];
#pragma unroll 1
    for (uint32_t pass = 1; pass < params.passes; pass++) {
        params.histograms[(uint64_t(pass) * gridDim.x + blockIdx.x) * DIGITS + digit] = 0;
    }
}

// Sorts this block's tile by one digit to where its keys belong among those of all tiles.
__device__ inline void sort_pass(const EmbeddingSortParams &params, uint32_t pass) {
    __shared__ uint32_t counts[SORT_WARPS][DIGITS];  // at last: keys of the digit in the warps before
    __shared__ uint32_t starts[DIGITS];
    __shared__ uint32_t partials[SORT_WARPS];
    const uint32_t tiles = gridDim.x;
    // Every warp takes keys that lie side by side, round by round, so that the order of ranks is that of positions.
    const uint32_t first = blockIdx.x * EMBEDDING_SORT_TILE + warp_id() * SORT_ROUNDS * WARP + lane_id();
    const uint2 *from = params.pairs + (pass + 1) % 2 * uint64_t(params.n);
    uint2 *to = params.pairs + pass % 2 * uint64_t(params.n);

    uint2 pairs[SORT_ROUNDS];
#pragma unroll
    for (uint32_t r = 0; r < SORT_ROUNDS; r++) {
        const uint32_t at = first + r * WARP;
        pairs[r] = make_uint2(0, 0);
        if (at >= params.n) continue;
        pairs[r] = pass == 0 ? make_uint2(key_of(params.tokens[at], params.vp), at) : from[at];
    }

    for (uint32_t digit = lane_id(); digit < DIGITS; digit += WARP) counts[warp_id()][digit] = 0;
    __syncwarp();  // other lanes count there
    uint32_t ranks[SORT_ROUNDS];
#pragma unroll
    for (uint32_t r = 0; r < SORT_ROUNDS; r++) {
        ranks[r] = rank_in_warp(counts[warp_id()], digit_of(pairs[r].x, pass), first + r * WARP < params.n);
    }
    __syncthreads();  // a digit's thread reads what all warps have counted

    uint32_t all = 0, before = 0;
    const uint32_t digit = threadIdx.x;
    if (digit < DIGITS) {
#pragma unroll
        for (uint32_t warp = 0; warp < SORT_WARPS; warp++) {
            const uint32_t count = counts[warp][digit];
            counts[warp][digit] = all;
            all += count;
        }
        if (tiles > 1) {
            all = 0;
            const uint32_t *of_pass = params.histograms + uint64_t(pass) * tiles * DIGITS + digit;
#pragma unroll 4
            for (uint32_t tile = 0; tile < tiles; tile++) {
                const uint32_t count = of_pass[tile * DIGITS];
                if (tile < blockIdx.x) before += count;
                all += count;
            }
        }
    }
    const uint32_t lower_digits = block_exclusive_sum(all, partials);
    if (digit < DIGITS) starts[digit] = lower_digits + before;
    __syncthreads();  // the starts of all digits, before keys go there

    uint32_t *next_counts = params.histograms + (uint64_t(pass) + 1) * tiles * DIGITS;
#pragma unroll
    for (uint32_t r = 0; r < SORT_ROUNDS; r++) {
        if (first + r * WARP >= params.n) continue;
        const uint32_t digit = digit_of(pairs[r].x, pass);
        const uint32_t place = starts[digit] + counts[warp_id()][digit] + ranks[r];
        to[place] = pairs[r];
        if (tiles == 1 || pass + 1 == params.passes) continue;
        // Of integers: the order does not matter.
        atomicAdd(&next_counts[place / EMBEDDING_SORT_TILE * DIGITS + digit_of(pairs[r].x, pass + 1)], 1);
    }
}

extern "C" __global__ void __launch_bounds__(EMBEDDING_SORT_THREADS)
    embedding_backward_sort(const __grid_constant__ EmbeddingSortParams params) {
    for (uint32_t pass = params.pass;; pass++) {
        sort_pass(params, pass);
        if (gridDim.x > 1 || pass + 1 == params.passes) return;
        __syncthreads();  // what the pass has placed, and the last readers of its counts
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// backward: sums of rows
//
// dout is needed in the order of positions for dwpe and in that of ids for dwte. No chip holds all of either sum until
// its last row has come, and with atomics the order of f32 sums would be the scheduler's. So dout is read twice, but in
// slices of 128 columns: a launch's blocks come slice by slice, first those of the positions, then those of the ids. A
// slice is 256*N bytes (17 MB at N = 65,536), which L2 keeps, so that memory should see only the first reading.
//
// A thread has four columns: 16 bytes of f32 and 8 of bf16, so that a warp's requests are whole sectors. Eight columns
// would make one request of 16 bytes for bf16, but two for f32, each of half of every sector.

constexpr uint32_t SUM_WARPS = EMBEDDING_SUM_THREADS / WARP;
constexpr uint32_t SUM_WARPS_LOG2 = 3;
static_assert(SUM_WARPS == 1 << SUM_WARPS_LOG2);
constexpr uint32_t PLACES = EMBEDDING_SUM_BLOCK_PAIRS / SUM_WARPS;
// Places whose rows a warp has under way at once.
constexpr uint32_t BATCH = 4;
constexpr uint32_t COLUMNS = EMBEDDING_SUM_BLOCK_C / WARP;
static_assert(PLACES % BATCH == 0);
static_assert(COLUMNS == 4, "16 bytes of f32 a thread");
// Key past the last place; larger than all others.
constexpr uint32_t NO_KEY = 0xffffffff;

using Shared = float4[SUM_WARPS][WARP];

// Rows of C, from a column on. A stride in bytes makes an address one instruction.
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
    return make_float4(__uint_as_float(raw.x << 16), __uint_as_float(raw.x & 0xffff0000u),
                       __uint_as_float(raw.y << 16), __uint_as_float(raw.y & 0xffff0000u));
}

__device__ inline void add(float4 &sum, const float4 &x) {
    sum.x += x.x;
    sum.y += x.y;
    sum.z += x.z;
    sum.w += x.w;
}

// Rows `stride` elements apart, in order.
template <typename T>
__device__ inline float4 sum_rows(const T *row, uint32_t count, uint64_t stride) {
    float4 sum = {};
#pragma unroll 8
    for (uint32_t i = 0; i < count; i++, row += stride) add(sum, unpack(load_columns(row)));
    return sum;
}

// What the warps that share a row have summed, in order, for the first of them: every `apart`-th shares one.
__device__ inline float4 sum_shares(float4 sum, uint32_t apart, Shared &shares) {
    shares[warp_id()][lane_id()] = sum;
    __syncthreads();  // everybody reads what other warps have summed
    for (uint32_t warp = warp_id() + apart; warp < SUM_WARPS; warp += apart) add(sum, shares[warp][lane_id()]);
    return sum;
}

__device__ inline void sum_positions(const EmbeddingSumParams &params, uint32_t column, Shared &shares) {
    const uint32_t at_once = SUM_WARPS >> params.warps_per_position_log2;
    const uint32_t position = blockIdx.x * at_once + (warp_id() & (at_once - 1));
    const uint32_t share = (params.b + (1 << params.warps_per_position_log2) - 1) >> params.warps_per_position_log2;
    const uint32_t first = min((warp_id() >> (SUM_WARPS_LOG2 - params.warps_per_position_log2)) * share, params.b);
    const uint32_t last = min(first + share, params.b);
    float4 sum = {};
    if (position < params.t && column < params.c) {
        const uint64_t stride = uint64_t(params.t) * params.c;
        sum = sum_rows(params.dout + first * stride + uint64_t(position) * params.c + column, last - first, stride);
    }
    sum = sum_shares(sum, at_once, shares);
    if (warp_id() >= at_once || position >= params.positions || column >= params.c) return;
    float *to = params.dwpe + uint64_t(position) * params.c + column;
    if (params.accumulate) add(sum, load(to));
    store(to, sum);
}

// A warp sums the runs of equal keys among its places. Of each run the warp that has the first place adds to dwte:
// nobody else touches that row. What a warp has of a run that began before its places, a head, it leaves to that warp;
// and what a block has of a run that began before it goes to `heads`, for embedding_backward_reduce.
__device__ inline void sum_places(const EmbeddingSumParams &params, uint32_t block, uint32_t column, Shared &heads) {
    __shared__ uint2 pairs[1 + EMBEDDING_SUM_BLOCK_PAIRS];  // the place before the block as well
    static_assert(EMBEDDING_SUM_BLOCK_PAIRS < EMBEDDING_SUM_THREADS, "a thread a place");
    if (threadIdx.x <= EMBEDDING_SUM_BLOCK_PAIRS) {
        const uint32_t place = block * EMBEDDING_SUM_BLOCK_PAIRS + threadIdx.x - 1;
        pairs[threadIdx.x] = place < params.b * params.t ? params.pairs[place] : make_uint2(NO_KEY, 0);
    }
    __syncthreads();  // all pairs are there

    const uint32_t warp = warp_id();
    const auto pair_at = [&](uint32_t warp, uint32_t k) { return pairs[1 + warp * PLACES + k]; };
    const Rows<const bf16> dout{params.dout + column, params.c};
    const Rows<float> dwte{params.dwte + column, params.c};
    // Keys from here on have no row; past the last column none has.
    const uint32_t end_key = column < params.c ? params.vp : 0;

    uint32_t key = pair_at(warp, 0).x;  // of the run at hand
    bool in_head = pairs[warp * PLACES].x == key;
    float4 sum = {};
#pragma unroll 1
    for (uint32_t batch = 0; batch < PLACES; batch += BATCH) {
        // All that the batch needs is asked for before any of it is used: its rows, and what the runs that end add to.
        uint32_t keys[BATCH];
        uint2 rows[BATCH];
        float4 sums[BATCH];
        uint32_t run = key;
        bool head = in_head;
#pragma unroll
        for (uint32_t k = 0; k < BATCH; k++) {
            const uint2 pair = pair_at(warp, batch + k);
            keys[k] = pair.x;
            rows[k] = load_predicated(pair.x < end_key, dout.at(pair.y));
            const bool ends = pair.x != run;
            sums[k] = load_streaming_predicated(ends && !head && run < end_key, dwte.at(run));
            head = head && !ends;
            run = pair.x;
        }
#pragma unroll
        for (uint32_t k = 0; k < BATCH; k++) {
            const float4 row = unpack(rows[k]);
            if (keys[k] == key) {
                add(sum, row);
                continue;
            }
            if (in_head) {
                heads[warp][lane_id()] = sum;
            } else {
                add(sums[k], sum);
                store_streaming_predicated(key < end_key, dwte.at(key), sums[k]);
            }
            in_head = false;
            key = keys[k];
            sum = row;
        }
    }
    if (in_head) heads[warp][lane_id()] = sum;
    __syncthreads();  // whoever has a run's first place adds the heads of it

    const auto add_heads = [&](uint32_t key, uint32_t from) {
        for (uint32_t w = from; w < SUM_WARPS && pair_at(w, 0).x == key; w++) add(sum, heads[w][lane_id()]);
    };
    if (!in_head && key < end_key) {
        add_heads(key, warp + 1);
        add(sum, load(dwte.at(key)));
        store(dwte.at(key), sum);
    }

    const uint32_t first_key = pair_at(0, 0).x;
    if (warp == 0 && first_key == pairs[0].x && first_key < end_key) {
        sum = {};
        add_heads(first_key, 0);
        store(params.carries + uint64_t(block) * params.c + column, sum);
    }
}

extern "C" __global__ void __launch_bounds__(EMBEDDING_SUM_THREADS, EMBEDDING_SUM_MIN_BLOCKS)
    embedding_backward_sum(const __grid_constant__ EmbeddingSumParams params) {
    __shared__ Shared shared;
    const uint32_t column = blockIdx.y * EMBEDDING_SUM_BLOCK_C + lane_id() * COLUMNS;
    if (blockIdx.x < params.position_blocks) {
        sum_positions(params, column, shared);
    } else {
        sum_places(params, blockIdx.x - params.position_blocks, column, shared);
    }
}

// Adds to dwte what blocks have summed of a run that began before them: by the block that has the first of its heads.
// The 1 is no idle word: without it ptxas goes for 32 registers, in which the eight loads of sum_rows have no room.
extern "C" __global__ void __launch_bounds__(EMBEDDING_SUM_THREADS, 1)
    embedding_backward_reduce(const __grid_constant__ EmbeddingSumParams params) {
    __shared__ Shared shared;
    const auto key_at = [&](uint32_t place) { return params.pairs[place].x; };
    const uint32_t block = blockIdx.x;
    if (block == 0) return;
    const uint32_t place = block * EMBEDDING_SUM_BLOCK_PAIRS;
    const uint32_t key = key_at(place);
    if (key >= params.vp || key_at(place - 1) != key) return;
    // The block before has a head of the run as well.
    if (block > 1 && key_at(place - EMBEDDING_SUM_BLOCK_PAIRS - 1) == key) return;

    // The first block behind that has no head of it.
    uint32_t has = block, end = gridDim.x;
    while (end - has > 1) {
        const uint32_t middle = has + (end - has) / 2;
        if (key_at(middle * EMBEDDING_SUM_BLOCK_PAIRS) == key) has = middle;
        else end = middle;
    }
    const uint32_t column = blockIdx.y * EMBEDDING_SUM_BLOCK_C + lane_id() * COLUMNS;
    const uint32_t share = (end - block + SUM_WARPS - 1) / SUM_WARPS;
    const uint32_t first = min(block + warp_id() * share, end);
    const uint32_t last = min(first + share, end);
    float4 sum = {};
    if (column < params.c) {
        sum = sum_rows(params.carries + uint64_t(first) * params.c + column, last - first, params.c);
    }
    sum = sum_shares(sum, 1, shared);
    if (warp_id() > 0 || column >= params.c) return;
    float *to = params.dwte + uint64_t(key) * params.c + column;
    add(sum, load(to));
    store(to, sum);
}
