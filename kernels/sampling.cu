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
// Traffic:  2*B*V + 4*B bytes; for V > 50304 some 30 times that, of the keys in scratch memory, which L2 should have
//
// No sort and no histogram. Of bf16 there are 2^16: the rank of a key is looked for in eight sweeps over the row, each of
// which sums the weights above three keys that cut what is left into four; all weigh the same where they are counted. A
// histogram takes fewer sweeps, but most logits of a row share a few digits, and an SM adds to one address of shared memory
// about once a cycle.
// The keys of 50,304 columns are 100 KB, the most that fits into an SM of any GPU from sm_80 on beside the sums; those of
// more lie in scratch memory. Which of both a pointer does not say, so that there is one kernel.
#include "common/math.cuh"
#include "common/philox.cuh"
#include "common/reduce.cuh"
#include "params/sampling.h"

constexpr uint32_t THREADS = SAMPLE_THREADS;
constexpr uint32_t WARPS = THREADS / WARP;
static_assert(WARP % WARPS == 0, "a warp combines what the warps have, several times over");

// ---------------------------------------------------------------------------------------------------------------------
// keys: bf16 as integers of the same order

constexpr uint32_t PADDING = 0;          // below all
constexpr uint32_t NOT_A_NUMBER = 0x7e;
constexpr uint32_t LOWEST = 0x7f;        // -infinity
constexpr uint32_t HIGHEST = 0xff80;     // +infinity

__device__ inline uint32_t key_of(uint32_t bits) {
    if ((bits & 0x7fff) > 0x7f80) return NOT_A_NUMBER;
    // The sign is turned over, and with a negative number's all other bits.
    const uint32_t key = bits ^ (0x8000 | (bits >> 15) * 0x7fff);
    return key == 0x7fff ? 0x8000 : key;  // -0 equals 0
}

// Of a number's key, the reverse.
__device__ inline float value_of(uint32_t key) {
    return __uint_as_float((key ^ (0xffff - (key >> 15) * 0x7fff)) << 16);
}

// The keys of a row. A thread has vectors threadIdx.x, threadIdx.x + THREADS, …
struct Row {
    const bf16 *logits;
    uint4 *keys;
    uint32_t v;

    // Of columns `first` to `first` + 7, of which V has the first; Vp is a multiple of 8, so that they lie in the row.
    __device__ uint4 read(uint32_t first) const {
        const bf16x8 raw = load_packed(logits + first);
        uint32_t pairs[] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (uint32_t i = 0; i < VECTOR / 2; i++) {
            const uint32_t low = i == 0 || first + 2 * i < v ? key_of(pairs[i] & 0xffff) : PADDING;
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

    // visit(key, id) for all of the thread's columns, ids ascending. It has written their keys itself: no barrier is needed.
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

    // Of any thread's column, behind a barrier.
    __device__ uint32_t key(uint32_t id) const { return reinterpret_cast<const uint16_t *>(keys)[id]; }
};

struct Weights {
    float half_max;
    float rate;

    // Of a number's key in units of 2^-40. With a rate of 0 each finite number weighs 1.
    __device__ uint64_t operator()(uint32_t key) const {
        // Of the halves, as the difference itself may overflow.
        const float half = fmaf(0.5f, value_of(key), -half_max);
        return __float2ull_rn(exp2_approx(half * rate) * 0x1p40f);
    }
};

constexpr uint32_t LOG2_UNITS = 40;  // of a weight of 1

// ---------------------------------------------------------------------------------------------------------------------
// sweeps: all threads take part, and all get the result

struct Largest {
    __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return a > b ? a : b; }
};

// Each of the numbers over the block, in every thread. `partials` may be written again only after another barrier.
template <typename Combine, uint32_t N>
__device__ inline void block_all(uint64_t (&numbers)[N], uint64_t (&partials)[N][WARPS]) {
#pragma unroll
    for (uint32_t i = 0; i < N; i++) {
        numbers[i] = warp_reduce<Combine>(numbers[i]);
        if (lane_id() == 0) partials[i][warp_id()] = numbers[i];
    }
    __syncthreads();  // each warp reads what all have written
#pragma unroll
    for (uint32_t i = 0; i < N; i++) {
        numbers[i] = partials[i][lane_id() % WARPS];
#pragma unroll
        for (uint32_t distance = WARPS / 2; distance > 0; distance /= 2) {
            numbers[i] = Combine()(numbers[i], __shfl_xor_sync(ALL_LANES, numbers[i], distance));
        }
    }
}

struct Best {
    uint32_t key;
    uint32_t id;
};

// The largest key, and the first id that has it.
__device__ inline Best largest(const Row &row) {
    __shared__ uint64_t partials[1][WARPS];
    uint64_t best[1] = {0};
    row.each([&](uint32_t key, uint32_t id) { best[0] = Largest()(best[0], uint64_t(key) << 32 | ~id); });
    block_all<Largest>(best, partials);
    return {uint32_t(best[0] >> 32), ~uint32_t(best[0])};
}

// The weights of all columns whose keys are above `least`.
__device__ inline uint64_t mass_above(const Row &row, uint32_t least, Weights weight) {
    __shared__ uint64_t partials[1][WARPS];
    uint64_t mass[1] = {0};
#pragma unroll 1
    for (uint32_t id = threadIdx.x; id < row.v; id += THREADS) {
        const uint32_t key = row.key(id);
        mass[0] += key > least ? weight(key) : 0;
    }
    block_all<Sum>(mass, partials);
    return mass[0];
}

// A key, and the sum of the weights of all columns whose keys are above it.
struct Found {
    uint32_t key;
    uint64_t above;
};

// The highest key from `lo` to `hi` such that the weights of the columns with it and above are more than `rest`. No column's
// key is above hi, and the weights of those at lo and above are more.
// Not inlined, as three copies of a vector's columns would only fill the instruction cache.
__device__ __noinline__ Found search(const Row row, uint32_t lo, uint32_t hi, uint64_t rest, const Weights weight) {
    constexpr uint32_t CUTS = 3;
    __shared__ uint64_t partials[CUTS][WARPS];
    Found found = {lo, 0};
    // Of 4 * step keys that are left, a sweep leaves a quarter.
    for (uint32_t shift = (33 - __clz(hi - lo)) & ~1; shift != 0;) {
        shift -= 2;
        const uint32_t step = 1 << shift, first = found.key + step;
        uint64_t sums[CUTS] = {};
        row.each([&](uint32_t key, uint32_t) {
            // Those above have been summed, and those below are below each cut.
            const uint32_t distance = key - first;
            if (distance >= CUTS * step) return;
            const uint64_t share = weight(key);
            sums[0] += share;
#pragma unroll
            for (uint32_t i = 1; i < CUTS; i++) sums[i] += distance >= i * step ? share : 0;
        });
        block_all<Sum>(sums, partials);
        __syncthreads();  // all have read before the next sums are written
        const uint64_t before = found.above;
#pragma unroll
        for (uint32_t i = CUTS; i > 0; i--) {
            if (before + sums[i - 1] > rest) {
                found.key += i * step;
                break;
            }
            found.above = before + sums[i - 1];
        }
    }
    return found;
}

// Counts of the warps, and behind them the column that is found.
constexpr uint32_t FOUND = WARPS;
using Counts = uint32_t[WARPS + 1];

// visit(id, key, rank) for each column with a key from `from` to `to`; the rank is how many of them have lower ids. A warp
// has columns that lie side by side, as many as any other. `counts` may be written again only after another barrier.
template <typename Visit>
__device__ inline void each_ranked(const Row &row, uint32_t from, uint32_t to, Counts &counts, Visit visit) {
    const uint32_t turns = (row.v - 1) / THREADS + 1;
    const uint32_t first = warp_id() * turns * WARP + lane_id(), end = first + turns * WARP;
    const auto is_one = [&](uint32_t id) { return id < row.v && row.key(id) - from <= to - from; };
    uint32_t count = 0, id = first;
#pragma unroll 1
    do {
        count += __popc(__ballot_sync(ALL_LANES, is_one(id)));
    } while ((id += WARP) != end);
    if (lane_id() == 0) counts[warp_id()] = count;
    __syncthreads();  // each warp reads what those before it have counted
    uint32_t rank = 0;
#pragma unroll 1
    for (uint32_t warp = 0; warp != warp_id(); warp++) rank += counts[warp];
    id = first;
#pragma unroll 1
    do {
        const bool one = is_one(id);
        const uint32_t ones = __ballot_sync(ALL_LANES, one);
        const uint32_t lower = (1u << lane_id()) - 1;
        if (one) visit(id, row.key(id), rank + __popc(ones & lower));
        rank += __popc(ones);
    } while ((id += WARP) != end);
}

// ---------------------------------------------------------------------------------------------------------------------
// a row's token

// Whether a NaN is among the first `ties` columns of NaN and -infinity.
__device__ inline bool is_bad(const Row &row, uint32_t ties, Counts &counts) {
    bool bad = false;
    each_ranked(row, NOT_A_NUMBER, LOWEST, counts, [&](uint32_t, uint32_t key, uint32_t rank) {
        bad |= key == NOT_A_NUMBER && rank < ties;
    });
    return __syncthreads_or(bad);
}

// The n-th column with the key, n from 0.
__device__ inline uint32_t nth(const Row &row, uint32_t key, uint32_t n, Counts &counts) {
    each_ranked(row, key, key, counts, [&](uint32_t id, uint32_t, uint32_t rank) {
        if (rank == n) counts[FOUND] = id;
    });
    __syncthreads();  // one thread has found it
    return counts[FOUND];
}

__device__ inline uint32_t uniform(const SampleParams &params, uint32_t row) {
    const uint4 words = draw4(params.seed, PURPOSE_SAMPLING, params.draw, row / 4);
    const uint32_t even = row & 2 ? words.z : words.x, odd = row & 2 ? words.w : words.y;
    return (row & 1 ? odd : even) >> 8;  // of 2^24
}

__device__ inline uint32_t choose(const SampleParams &params, const Row &row) {
    __shared__ Counts counts;
    const Best best = largest(row);
    if (params.logit_scale == 0.0f) return best.key == NOT_A_NUMBER ? row.v - 1 : best.id;
    if (best.key <= LOWEST) return 0;
    if (best.key == HIGHEST) return best.id;

    // The lowest key that is kept, and how many of its columns. If all are kept, no sweep is needed to find -infinity's.
    const float half_max = 0.5f * value_of(best.key);
    const uint32_t most = params.top_k == row.v ? LOWEST : best.key;
    Found kept = search(row, LOWEST, most, (uint64_t(params.top_k) << LOG2_UNITS) - 1, {half_max, 0.0f});
    const uint32_t ties = params.top_k - uint32_t(kept.above >> LOG2_UNITS);
    if (kept.key == LOWEST && is_bad(row, ties, counts)) return best.id;

    const Weights weight = {half_max, params.logit_scale};
    uint64_t mass = mass_above(row, kept.key, weight) + ties * weight(kept.key);
    if (params.top_p < 1.0f) {
        const uint64_t target = __double2ull_ru(double(params.top_p) * double(mass));
        kept = search(row, kept.key, best.key, target - 1, weight);
        // As many of the lowest key's columns as it takes.
        const uint64_t share = weight(kept.key);
        mass = kept.above + (target - kept.above + share - 1) / share * share;
    }
    const uint64_t word = uniform(params, blockIdx.x);
    const uint64_t rest = __umul64hi(mass, word) << 40 | mass * word >> 24;  // floor(mass * word / 2^24)
    const Found drawn = search(row, kept.key, best.key, rest, weight);
    const uint64_t width = weight(drawn.key);
    return nth(row, drawn.key, (rest - drawn.above) / width, counts);
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
