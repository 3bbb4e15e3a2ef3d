// Sampling.  One token per row from softmax(logits[b, 0..V] / temperature), restricted to the top_k largest logits and
//           then to the smallest set of most likely tokens whose probabilities reach top_p; temperature 0: the argmax
// Shapes:   logits (B, Vp) bf16, of which columns V..Vp are padding; tokens (B) i32; row-major
// Writes:   tokens "="
// Requires: Vp % 8 == 0, 1 <= V <= Vp, V <= 2^23; logits 16-byte-aligned
// Ties:     equal logits are ordered by token id, the lower first
// NaN:      NaN is ordered with -infinity, for temperature 0 below it. A row with +infinity, without a finite logit, or
//           with a NaN among the top_k has no softmax: its first token in this order is returned
// Launch:   grid B, block 512, smem 16*ceil(V/8) for V <= 50304, otherwise 0; one block = one row
// Numerics: a weight is exp((logit - max) / temperature) in f32 (ex2.approx), rounded to an integer multiple of 2^-40.
//           Sums are exact integers, so the summation order does not matter, and a bound is the same however computed
// Traffic:  2*B*V + 4*B bytes; for V > 50304 about 30 times as much for the keys in scratch memory, which should hit L2
//
// Top-k, top-p and the draw are each a weighted radix select: it finds a key by the mass (sum of the weights) of the
// keys above it. There is neither a sort nor a histogram. bf16 has 2^16 values, so a select takes at most eight sweeps
// over the row. Each sweep sums the mass above three pivots, which determines two bits of the key; for top-k every
// weight is 1. A histogram would take fewer sweeps, but most logits of a row share a few digits, and an SM does only
// about one shared-memory atomic per cycle on the same address.
// The keys of 50,304 columns are 100 KB, the most that fits into shared memory next to the partial sums on every GPU
// from sm_80 on. The keys of longer rows are in scratch memory. A generic pointer serves both, so there is one kernel.
#include "common/math.cuh"
#include "common/philox.cuh"
#include "common/reduce.cuh"
#include "params/sampling.h"

constexpr uint32_t THREADS = SAMPLE_THREADS;
constexpr uint32_t WARPS = THREADS / WARP;
static_assert(WARP % WARPS == 0, "each warp reduces the warps' results, WARP / WARPS times in parallel");

// ---------------------------------------------------------------------------------------------------------------------
// keys: bf16 mapped to unsigned integers of the same order

constexpr uint32_t PADDING_KEY = 0;  // below all others
constexpr uint32_t NAN_KEY = 0x7e;
constexpr uint32_t NEG_INFINITY_KEY = 0x7f;
constexpr uint32_t POS_INFINITY_KEY = 0xff80;

__device__ inline uint32_t key_of(uint32_t bits) {
    if ((bits & 0x7fff) > 0x7f80) return NAN_KEY;
    // Flips the sign bit, and for negative numbers all other bits as well.
    const uint32_t key = bits ^ (0x8000 | (bits >> 15) * 0x7fff);
    return key == 0x7fff ? 0x8000 : key;  // -0 equals 0
}

// The inverse of key_of, for the key of a number.
__device__ inline float value_of(uint32_t key) {
    return __uint_as_float((key ^ (0xffff - (key >> 15) * 0x7fff)) << 16);
}

// The keys of a row. A thread has vectors threadIdx.x, threadIdx.x + THREADS, ...
struct Row {
    const bf16 *logits;
    uint4 *keys;
    uint32_t v;

    // Converts the logits of columns `first` to `first` + 7. `first` is below V; as Vp is a multiple of 8, all eight
    // columns are in the row.
    __device__ uint4 convert(uint32_t first) const {
        const bf16x8 raw = load_packed(logits + first);
        uint32_t pairs[] = {raw.x, raw.y, raw.z, raw.w};
#pragma unroll
        for (uint32_t i = 0; i < VECTOR / 2; i++) {
            const uint32_t low = i == 0 || first + 2 * i < v ? key_of(pairs[i] & 0xffff) : PADDING_KEY;
            const uint32_t high = first + 2 * i + 1 < v ? key_of(pairs[i] >> 16) : PADDING_KEY;
            pairs[i] = low | high << 16;
        }
        return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
    }

    __device__ void write_keys() const {
        for (uint32_t first = threadIdx.x * VECTOR; first < v; first += THREADS * VECTOR) {
            keys[first / VECTOR] = convert(first);
        }
    }

    // Calls visit(key, id) for all columns of the thread, in ascending order of ids. The thread has written their keys
    // itself, so no barrier is needed.
    template <typename Visit>
    __device__ void for_each(Visit visit) const {
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

    // The key of any column. The caller must have passed a barrier since write_keys.
    __device__ uint32_t key(uint32_t id) const { return reinterpret_cast<const uint16_t *>(keys)[id]; }
};

struct Weights {
    float half_max;
    float logit_scale;

    // The weight of a number's key as an integer multiple of 2^-40. With a logit_scale of 0 every finite number has
    // weight 1.
    __device__ uint64_t operator()(uint32_t key) const {
        // Half of the difference from the maximum, as the difference itself may overflow.
        const float half = fmaf(0.5f, value_of(key), -half_max);
        return __float2ull_rn(exp2_approx(half * logit_scale) * 0x1p40f);
    }
};

constexpr uint32_t LOG2_UNIT_WEIGHT = 40;  // log2 of the integer for a weight of 1

// ---------------------------------------------------------------------------------------------------------------------
// sweeps over the row: all threads of the block execute them, and all get the result

struct MaxU64 {
    __device__ uint64_t operator()(uint64_t a, uint64_t b) const { return a > b ? a : b; }
};

// Block reduction of each of N values; every thread gets the results. The caller must place a barrier before `partials`
// is written again.
template <typename Combine, uint32_t N>
__device__ inline void block_all_reduce(uint64_t (&values)[N], uint64_t (&partials)[N][WARPS]) {
#pragma unroll
    for (uint32_t i = 0; i < N; i++) {
        values[i] = warp_reduce<Combine>(values[i]);
        if (lane_id() == 0) partials[i][warp_id()] = values[i];
    }
    __syncthreads();  // RAW: each warp reads the results of all warps
#pragma unroll
    for (uint32_t i = 0; i < N; i++) {
        values[i] = partials[i][lane_id() % WARPS];
#pragma unroll
        for (uint32_t distance = WARPS / 2; distance > 0; distance /= 2) {
            values[i] = Combine()(values[i], __shfl_xor_sync(ALL_LANES, values[i], distance));
        }
    }
}

struct KeyId {
    uint32_t key;
    uint32_t id;
};

// The largest key, and the lowest id that has it.
__device__ inline KeyId argmax(const Row &row) {
    __shared__ uint64_t partials[1][WARPS];
    uint64_t best[1] = {0};
    row.for_each([&](uint32_t key, uint32_t id) { best[0] = MaxU64()(best[0], uint64_t(key) << 32 | ~id); });
    block_all_reduce<MaxU64>(best, partials);
    return {uint32_t(best[0] >> 32), ~uint32_t(best[0])};
}

// The mass of all columns whose keys are above `threshold`.
__device__ inline uint64_t mass_above(const Row &row, uint32_t threshold, Weights weight) {
    __shared__ uint64_t partials[1][WARPS];
    uint64_t mass[1] = {0};
#pragma unroll 1
    for (uint32_t id = threadIdx.x; id < row.v; id += THREADS) {
        const uint32_t key = row.key(id);
        mass[0] += key > threshold ? weight(key) : 0;
    }
    block_all_reduce<Sum>(mass, partials);
    return mass[0];
}

// A key, and the mass of all columns whose keys are above it.
struct Selected {
    uint32_t key;
    uint64_t mass_above;
};

// Weighted radix select: the highest key in lo..=hi for which the columns with this key or a higher one have more than
// `mass`. No column's key may be above hi, and the columns at lo and above must have more than `mass`.
// Not inlined: three copies of the code for a vector's columns would only fill the instruction cache.
__device__ __noinline__ Selected radix_select(const Row row, uint32_t lo, uint32_t hi, uint64_t mass,
                                              const Weights weight) {
    constexpr uint32_t PIVOTS = 3;
    __shared__ uint64_t partials[PIVOTS][WARPS];
    Selected selected = {lo, 0};
    // Each sweep divides the 4 * step remaining keys by four.
    for (uint32_t shift = (33 - __clz(hi - lo)) & ~1; shift != 0;) {
        shift -= 2;
        const uint32_t step = 1 << shift, first = selected.key + step;
        uint64_t sums[PIVOTS] = {};
        row.for_each([&](uint32_t key, uint32_t) {
            // Skips keys above the range, whose mass is known, and keys below all pivots.
            const uint32_t distance = key - first;
            if (distance >= PIVOTS * step) return;
            const uint64_t w = weight(key);
            sums[0] += w;
#pragma unroll
            for (uint32_t i = 1; i < PIVOTS; i++) sums[i] += distance >= i * step ? w : 0;
        });
        block_all_reduce<Sum>(sums, partials);
        __syncthreads();  // WAR: all warps have read `partials` before the next sweep overwrites it
        const uint64_t above_range = selected.mass_above;
#pragma unroll
        for (uint32_t i = PIVOTS; i > 0; i--) {
            if (above_range + sums[i - 1] > mass) {
                selected.key += i * step;
                break;
            }
            selected.mass_above = above_range + sums[i - 1];
        }
    }
    return selected;
}

// The number of matching columns of each warp, and after them, at index RESULT, the column that nth_with_key finds.
constexpr uint32_t RESULT = WARPS;
using WarpCounts = uint32_t[WARPS + 1];

// Calls visit(id, key, rank) for each column with a key in from..=to, where rank is the number of such columns with
// lower ids (an exclusive scan by ballots). Each warp has the same number of contiguous columns. The caller must place
// a barrier before `counts` is written again.
template <typename Visit>
__device__ inline void for_each_ranked(const Row &row, uint32_t from, uint32_t to, WarpCounts &counts, Visit visit) {
    const uint32_t iterations = (row.v - 1) / THREADS + 1;
    const uint32_t first = warp_id() * iterations * WARP + lane_id(), end = first + iterations * WARP;
    const auto matches = [&](uint32_t id) { return id < row.v && row.key(id) - from <= to - from; };

    // count per warp
    uint32_t count = 0, id = first;
#pragma unroll 1
    do {
        count += __popc(__ballot_sync(ALL_LANES, matches(id)));
    } while ((id += WARP) != end);
    if (lane_id() == 0) counts[warp_id()] = count;
    __syncthreads();  // RAW: each warp reads the counts of the warps before it

    // ranks
    uint32_t rank = 0;
#pragma unroll 1
    for (uint32_t warp = 0; warp != warp_id(); warp++) rank += counts[warp];
    id = first;
#pragma unroll 1
    do {
        const bool match = matches(id);
        const uint32_t matching = __ballot_sync(ALL_LANES, match);
        const uint32_t lower_lanes = (1u << lane_id()) - 1;
        if (match) visit(id, row.key(id), rank + __popc(matching & lower_lanes));
        rank += __popc(matching);
    } while ((id += WARP) != end);
}

// ---------------------------------------------------------------------------------------------------------------------
// one row

// Whether a NaN is among the first `count` columns that are NaN or -infinity.
__device__ inline bool has_nan(const Row &row, uint32_t count, WarpCounts &counts) {
    bool found = false;
    for_each_ranked(row, NAN_KEY, NEG_INFINITY_KEY, counts,
                    [&](uint32_t, uint32_t key, uint32_t rank) { found |= key == NAN_KEY && rank < count; });
    return __syncthreads_or(found);
}

// The n-th column with the key, counted from 0.
__device__ inline uint32_t nth_with_key(const Row &row, uint32_t key, uint32_t n, WarpCounts &counts) {
    for_each_ranked(row, key, key, counts, [&](uint32_t id, uint32_t, uint32_t rank) {
        if (rank == n) counts[RESULT] = id;
    });
    __syncthreads();  // RAW: all threads read the result, which one thread has written
    return counts[RESULT];
}

// A uniform random number in 0..2^24.
__device__ inline uint32_t uniform24(const SampleParams &params, uint32_t row) {
    const uint4 words = draw4(params.seed, PURPOSE_SAMPLING, params.draw, row / 4);
    const uint32_t even = row & 2 ? words.z : words.x, odd = row & 2 ? words.w : words.y;
    return (row & 1 ? odd : even) >> 8;
}

__device__ inline uint32_t sample_row(const SampleParams &params, const Row &row) {
    __shared__ WarpCounts counts;
    // greedy, and rows without a softmax
    const KeyId best = argmax(row);
    if (params.logit_scale == 0.0f) return best.key == NAN_KEY ? row.v - 1 : best.id;
    if (best.key <= NEG_INFINITY_KEY) return 0;
    if (best.key == POS_INFINITY_KEY) return best.id;

    // top-k: the lowest key that is kept, and how many of its columns. If all columns are kept, hi = lo: no sweep runs.
    const float half_max = 0.5f * value_of(best.key);
    const uint32_t hi = params.top_k == row.v ? NEG_INFINITY_KEY : best.key;
    const uint64_t top_k_mass = uint64_t(params.top_k) << LOG2_UNIT_WEIGHT;
    Selected kept = radix_select(row, NEG_INFINITY_KEY, hi, top_k_mass - 1, {half_max, 0.0f});
    const uint32_t ties = params.top_k - uint32_t(kept.mass_above >> LOG2_UNIT_WEIGHT);
    if (kept.key == NEG_INFINITY_KEY && has_nan(row, ties, counts)) return best.id;

    // top-p: the nucleus, and its mass
    const Weights weight = {half_max, params.logit_scale};
    uint64_t mass = mass_above(row, kept.key, weight) + ties * weight(kept.key);
    if (params.top_p < 1.0f) {
        const uint64_t target = __double2ull_ru(double(params.top_p) * double(mass));
        kept = radix_select(row, kept.key, best.key, target - 1, weight);
        // Of the columns with the lowest key, only as many as are needed to reach the target.
        const uint64_t w = weight(kept.key);
        mass = kept.mass_above + (target - kept.mass_above + w - 1) / w * w;
    }

    // inverse-CDF sampling: the column in whose interval of the cumulative mass the point floor(mass * u / 2^24) lies
    const uint64_t u = uniform24(params, blockIdx.x);
    const uint64_t point = __umul64hi(mass, u) << 40 | mass * u >> 24;
    const Selected drawn = radix_select(row, kept.key, best.key, point, weight);
    const uint64_t width = weight(drawn.key);
    return nth_with_key(row, drawn.key, (point - drawn.mass_above) / width, counts);
}

// ---------------------------------------------------------------------------------------------------------------------
// kernels

extern "C" __global__ void __launch_bounds__(THREADS, SAMPLE_MIN_BLOCKS)
    sample(const __grid_constant__ SampleParams params) {
    extern __shared__ uint4 shared_keys[];
    const uint64_t vectors = (params.v + VECTOR - 1) / VECTOR;
    uint4 *const keys = params.keys == nullptr ? shared_keys : params.keys + blockIdx.x * vectors;
    const Row row = {params.logits + uint64_t(blockIdx.x) * params.vp, keys, params.v};
    row.write_keys();
    const uint32_t token = sample_row(params, row);
    if (threadIdx.x == 0) params.tokens[blockIdx.x] = token;
}
