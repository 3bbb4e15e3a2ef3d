// Sampling.  one token a row from softmax(logits[b, 0..V] / temperature), cut to the top_k largest, then to the fewest most
//           likely whose probabilities reach top_p; temperature 0: the largest
// Shapes:   logits (B, Vp) bf16, of which columns 0..V count; tokens (B) i32; row-major
// Writes:   tokens "="
// Requires: Vp % 8 == 0, 1 <= V <= Vp, V <= 2^23; logits 16-byte-aligned
// Content:  equal logits rank by id. NaN ranks with -infinity, for temperature 0 below it. A row with +infinity, without a
//           finite logit, or with a NaN among the top_k has no softmax: its first in rank is taken
// Launch:   grid B, block 512, smem 16*ceil(V/8) for V <= 50304, or 0; a block = a row
// Numerics: a weight is exp((logit - largest) / temperature) in f32, ex2.approx, then an integer of units of 2^-40. Sums are
//           of integers and exact: no order matters, and each bound is the same however it is come to
// Traffic:  2*B*V + 4*B bytes; for V > 50304 some 40 times that, of the keys in scratch memory, which L2 should have
//
// No sort and no histogram. Of bf16 there are 2^16: the rank of a key is looked for in eight sweeps over the row, each of
// which sums the weights (or counts) above three keys that cut what is left into four. A histogram takes fewer sweeps, but
// most logits of a row share a few digits, and an SM adds to one address of shared memory about once a cycle.
// The keys of 50,304 columns are 100 KB, the most that fits into an SM of any GPU from sm_80 on beside the sums; those of
// more lie in scratch memory. Which of both a pointer does not say, so that there is one kernel.
#include "common/math.cuh"
#include "common/philox.cuh"
#include "common/reduce.cuh"
#include "params.h"

constexpr uint32_t THREADS = SAMPLE_THREADS;
constexpr uint32_t WARPS = THREADS / WARP;
static_assert(WARPS <= WARP, "a warp sums the warps' sums");

// ---------------------------------------------------------------------------------------------------------------------
// keys: bf16 as integers of the same order

constexpr uint32_t PADDING = 0;          // below all
constexpr uint32_t NOT_A_NUMBER = 0x7e;
constexpr uint32_t LOWEST = 0x7f;        // -infinity
constexpr uint32_t HIGHEST = 0xff80;     // +infinity

__device__ inline uint32_t key_of(uint32_t bits) {
    if ((bits & 0x7fff) > 0x7f80) return NOT_A_NUMBER;
    if (bits == 0x8000) return 0x8000;  // -0 equals 0
    return bits & 0x8000 ? ~bits & 0xffff : bits | 0x8000;
}

__device__ inline float value_of(uint32_t key) {
    return __uint_as_float((key & 0x8000 ? key & 0x7fff : ~key) << 16);
}

// The keys of a row. A thread has vectors threadIdx.x, threadIdx.x + THREADS, …, and reads back what it has written itself, so
// that no barrier is needed.
struct Row {
    const bf16 *logits;
    uint4 *keys;
    uint32_t v;

    // Of columns `first` to `first` + 7; Vp is a multiple of 8, so that they lie in the row.
    __device__ uint4 read(uint32_t first) const {
        const bf16x8 raw = load_packed(logits + first);
        uint32_t pairs[] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (uint32_t i = 0; i < VECTOR / 2; i++) {
            const uint32_t low = first + 2 * i < v ? key_of(pairs[i] & 0xffff) : PADDING;
            const uint32_t high = first + 2 * i + 1 < v ? key_of(pairs[i] >> 16) : PADDING;
            pairs[i] = low | high << 16;
        }
        return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }

    __device__ void write_keys() const {
        for (uint32_t first = threadIdx.x * VECTOR; first < v; first += THREADS * VECTOR) {
            keys[first / VECTOR] = read(first);
        }
    }

    // visit(key, id) for all of the thread's columns, ids ascending.
    template <typename Visit>
    __device__ void each(Visit visit) const {
        for (uint32_t first = threadIdx.x * VECTOR; first < v; first += THREADS * VECTOR) {
            const uint4 raw = keys[first / VECTOR];
            const uint32_t pairs[] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
            for (uint32_t i = 0; i < VECTOR / 2; i++) {
                visit(pairs[i] & 0xffff, first + 2 * i);
                visit(pairs[i] >> 16, first + 2 * i + 1);
            }
        }
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// sweeps: all threads take part, and all get the result

struct Largest {
    __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return a > b ? a : b; }
};

struct Best {
    uint32_t key;
    uint32_t id;
};

// The largest key, and the first id that has it.
__device__ inline Best largest(const Row &row) {
    __shared__ uint64_t partials[WARPS];
    uint64_t best = 0;
    row.each([&](uint32_t key, uint32_t id) { best = Largest()(best, uint64_t(key) << 32 | ~id); });
    best = block_reduce<Largest, WARPS>(best, warp_id(), partials);
    return {uint32_t(best >> 32), ~uint32_t(best)};
}

template <uint32_t N>
__device__ inline void block_sums(uint64_t (&sums)[N]) {
    __shared__ uint64_t partials[N][WARPS];
#pragma unroll
    for (uint32_t i = 0; i < N; i++) {
        sums[i] = warp_sum(sums[i]);
        if (lane_id() == 0) partials[i][warp_id()] = sums[i];
    }
    __syncthreads();  // each warp reads what all have written
#pragma unroll
    for (uint32_t i = 0; i < N; i++) sums[i] = warp_sum(lane_id() < WARPS ? partials[i][lane_id()] : 0);
    __syncthreads();  // all have read before the next sums are written
}

// Of weight(key, id).
template <typename Weight>
__device__ inline uint64_t sum(const Row &row, Weight weight) {
    uint64_t sums[1] = {0};
    row.each([&](uint32_t key, uint32_t id) { sums[0] += weight(key, id); });
    block_sums(sums);
    return sums[0];
}

// A place, and the sum of the weights of all columns whose places are above it.
struct Found {
    uint32_t at;
    uint64_t above;
};

// The highest of the places lo to hi - 1 such that the weights of the columns there and above reach `target`. All columns'
// places are below hi, and the weights of those at lo and above do reach it; place(key, id) and weight(key) are the caller's.
template <typename Place, typename Weight>
__device__ inline Found search(const Row &row, uint32_t lo, uint32_t hi, uint64_t target, Place place, Weight weight) {
    constexpr uint32_t CUTS = 3;
    uint64_t above = 0;
    while (hi - lo > 1) {
        const uint32_t top = hi, step = (hi - lo + CUTS) / (CUTS + 1);
        uint64_t sums[CUTS] = {};
        row.each([&](uint32_t key, uint32_t id) {
            const uint32_t at = place(key, id);
            if (at <= lo || at >= top) return;
            const uint64_t share = weight(key);
#pragma unroll
            for (uint32_t i = 0; i < CUTS; i++) sums[i] += at + (i + 1) * step >= top ? share : 0;
        });
        block_sums(sums);
        const uint64_t before = above;
#pragma unroll
        for (uint32_t i = 0; i < CUTS; i++) {
            const uint32_t cut = top - (i + 1) * step;
            // With fewer than four places left, there are fewer cuts.
            if (cut <= lo) break;
            if (before + sums[i] >= target) {
                lo = cut;
                break;
            }
            hi = cut;
            above = before + sums[i];
        }
    }
    return {lo, above};
}

// Columns as places: the earlier, the higher. From 1, as a place of 0 is nowhere.
__device__ inline uint32_t place_of(const Row &row, uint32_t id) {
    return row.v - id;
}

// The place of the n-th column, n from 1, with a key of `from` to `to`.
__device__ inline uint32_t nth(const Row &row, uint32_t from, uint32_t to, uint64_t n) {
    const auto place = [&](uint32_t key, uint32_t id) { return key >= from && key <= to ? place_of(row, id) : 0; };
    return search(row, 1, row.v + 1, n, place, [](uint32_t) { return uint64_t(1); }).at;
}

// ---------------------------------------------------------------------------------------------------------------------
// a row's token

struct Weights {
    float half_max;
    float rate;

    __device__ uint64_t operator()(uint32_t key) const {
        // Of the halves, as the difference itself may overflow.
        const float half = fmaf(0.5f, value_of(key), -half_max);
        return __float2ull_rn(exp2_approx(half * rate) * 0x1p40f);
    }
};

__device__ inline uint32_t uniform(const SampleParams &params, uint32_t row) {
    const uint4 words = draw4(params.seed, PURPOSE_SAMPLING, params.draw, row / 4);
    const uint32_t even = row & 2 ? words.z : words.x, odd = row & 2 ? words.w : words.y;
    return (row & 1 ? odd : even) >> 8;  // of 2^24
}

__device__ inline uint32_t choose(const SampleParams &params, const Row &row) {
    const auto by_key = [](uint32_t key, uint32_t) { return key; };
    const Best best = largest(row);
    if (params.rate == 0.0f) return best.key == NOT_A_NUMBER ? row.v - 1 : best.id;
    if (best.key <= LOWEST) return 0;
    if (best.key == HIGHEST) return best.id;

    // The lowest key that is kept, and how many of its columns.
    const bool all = params.top_k >= row.v;
    Found kept = {LOWEST, 0};
    if (!all) kept = search(row, LOWEST, best.key + 1, params.top_k, by_key, [](uint32_t) { return uint64_t(1); });
    const uint64_t ties = all ? 0 : params.top_k - kept.above;
    if (kept.at == LOWEST) {
        const uint32_t last = all ? 1 : nth(row, NOT_A_NUMBER, LOWEST, ties);
        const auto is_bad = [&](uint32_t key, uint32_t id) {
            return uint64_t(key == NOT_A_NUMBER && place_of(row, id) >= last);
        };
        if (sum(row, is_bad) > 0) return best.id;
    }

    const Weights weight = {0.5f * value_of(best.key), params.rate};
    const auto above = [&](uint32_t key, uint32_t) { return key > kept.at ? weight(key) : 0; };
    uint64_t mass = sum(row, above) + ties * weight(kept.at);
    if (params.top_p < 1.0f) {
        const uint64_t target = __double2ull_ru(double(params.top_p) * double(mass));
        kept = search(row, kept.at, best.key + 1, target, by_key, weight);
        // As many of the lowest key's columns as it takes.
        const uint64_t share = weight(kept.at);
        mass = kept.above + (target - kept.above + share - 1) / share * share;
    }
    const uint64_t word = uniform(params, blockIdx.x);
    const uint64_t rest = __umul64hi(mass, word) << 40 | mass * word >> 24;  // floor(mass * word / 2^24)
    const Found drawn = search(row, kept.at, best.key + 1, rest + 1, by_key, weight);
    return row.v - nth(row, drawn.at, drawn.at, (rest - drawn.above) / weight(drawn.at) + 1);
}

// ---------------------------------------------------------------------------------------------------------------------
// kernels

extern "C" __global__ void __launch_bounds__(THREADS, SAMPLE_MIN_BLOCKS)
    sample(const __grid_constant__ SampleParams params) {
    extern __shared__ uint4 held[];
    const uint64_t vectors = (params.v + VECTOR - 1) / VECTOR;
    uint4 *const keys = params.keys == nullptr ? held : params.keys + blockIdx.x * vectors;
    const Row row = {params.logits + uint64_t(blockIdx.x) * params.vp, keys, params.v};
    row.write_keys();
    const uint32_t token = choose(params, row);
    if (threadIdx.x == 0) params.tokens[blockIdx.x] = token;
}
