// Attention over a KV cache (split-KV, as in Flash-Decoding).
//           store    k_cache[b, position + t] = k[b, t], v_cache[b, position + t] = v[b, t]
//           decode   stores the new token likewise, then out = sum_{j <= position} softmax(q.k[j] / sqrt(HS)) * v[j]
//           combine  merges the partial results of the splits
// Shapes:   qkv (B, T, 3, NH, HS), caches (B, T_max, NH, HS), out (B, 1, NH, HS) bf16; decode: T = 1; row-major
// Writes:   rows position..position+T of both caches, out "="
// Requires: HS % 8 == 0, decode: HS <= 256; 16-byte-aligned pointers
// Launch:   store    grid ceil(B*T*C/2048), block 256; one thread = one vector of k and one of v
//           decode   grid B*num_splits*NH, block 128; one CTA = one head and one split of the positions. _hs64, _hs128
//                    and _hs256 are for HS up to that size: 8, 16, 32 lanes per position
//           combine  grid ceil(B*C/8/128), block 128; one thread = one vector of out; not launched if num_splits is 1
// Numerics: f32; online softmax with ex2.approx. Sums are taken over the positions of each group of 8 to 32 lanes, then
//           over a CTA's groups and warps, then over splits: their order depends only on the shape
// Traffic:  store 8*B*T*C bytes; decode 2*B*C*(6 + 2*position) bytes, and with several splits 8 + 9.5*HS bytes per head
//           and split for the partial results; memory-bound
//
// The new token's k and v are read from qkv and written to the caches by the CTA whose split contains its position, so
// that no CTA waits for another.
#include "common/math.cuh"
#include "common/reduce.cuh"
#include "params/attention_decode.h"

constexpr uint32_t THREADS = ATTENTION_DECODE_THREADS;
constexpr uint32_t WARPS = THREADS / WARP;

// ---------------------------------------------------------------------------------------------------------------------
// store

extern "C" __global__ void __launch_bounds__(KV_CACHE_STORE_THREADS)
    kv_cache_store(const __grid_constant__ KvCacheStoreParams params) {
    const uint32_t i = blockIdx.x * KV_CACHE_STORE_THREADS + threadIdx.x;
    if (i >= params.len) return;
    const uint32_t vectors = params.c / VECTOR;
    const uint32_t token = i / vectors, sequence = token / params.t;
    const uint32_t column = (i - token * vectors) * VECTOR;
    // 64 bits: both indices may exceed 2^32.
    const uint64_t from = uint64_t(token) * 3 * params.c + column;
    const uint64_t row = sequence * params.max_t + params.position + (token - sequence * params.t);
    const uint64_t to = row * params.c + column;
    const bf16x8 k = load_packed(params.qkv + from + params.c), v = load_packed(params.qkv + from + 2 * params.c);
    store_packed(params.k_cache + to, k);
    store_packed(params.v_cache + to, v);
}

// ---------------------------------------------------------------------------------------------------------------------
// decode

// Online softmax over some positions: the largest score, the sum of p = 2^(score - row_max), and the sum of p * v for
// 8 columns.
struct SoftmaxState {
    float row_max;
    float row_sum;
    f32x8 acc_o;

    // Rescales the sums to another maximum.
    __device__ void rescale(float new_max) {
        const float factor = exp2_approx(row_max - new_max);
        row_max = new_max;
        row_sum *= factor;
#pragma unroll
        for (float &x : acc_o.at) x *= factor;
    }

    // Adds sums that were taken with weight 1: `sum` and `v` are a position's 1 and v, or another state's row_sum and
    // acc_o.
    __device__ void add(float weight, float sum, const f32x8 &v) {
        row_sum = fmaf(weight, sum, row_sum);
#pragma unroll
        for (uint32_t i = 0; i < VECTOR; i++) acc_o.at[i] = fmaf(weight, v.at[i], acc_o.at[i]);
    }
};

// row_max of no positions: the lowest finite f32. With -infinity, a masked score would give -infinity - -infinity =
// NaN.
constexpr float LOWEST = -3.40282347e38f;

// acc_o / row_sum
__device__ inline f32x8 normalized(const SoftmaxState &state) {
    f32x8 out;
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) out.at[i] = state.acc_o.at[i] / state.row_sum;
    return out;
}

__device__ inline f32x8 concat(const float4 &low, const float4 &high) {
    return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
}

// One CTA's work: a split of the positions of one head. A group of LANES lanes processes one position; its HS columns
// are one vector for each of the group's first lanes.
template <uint32_t LANES>
struct KvSplit {
    // Positions that a warp processes at the same time.
    static constexpr uint32_t GROUPS = WARP / LANES;
    // Positions of a group whose loads are in flight together: 8 vectors per lane, 16 KB per CTA.
    static constexpr uint32_t UNROLL = 4;

    uint32_t head, split, sequence;
    uint32_t vectors;  // of a row of q, k or v
    uint32_t vector;   // this lane's

    __device__ KvSplit(const AttentionDecodeParams &params) : vectors(params.hs / VECTOR), vector(lane_id() % LANES) {
        // Heads vary fastest: CTAs that run at the same time read neighbouring columns of the same rows.
        const uint32_t rest = blockIdx.x / params.nh;
        head = blockIdx.x - rest * params.nh;
        sequence = rest / params.num_splits;
        split = rest - sequence * params.num_splits;
    }

    __device__ uint32_t column(const AttentionDecodeParams &params) const { return head * params.hs + vector * VECTOR; }

    // Loads this lane's vector of q, times softmax_scale_log2 so that scores are exponents of 2. The first group reads
    // it and the others get it by shuffles.
    __device__ f32x8 load_q(const AttentionDecodeParams &params) const {
        bf16x8 raw = make_uint4(0, 0, 0, 0);
        if (lane_id() < vectors) raw = load_packed(params.qkv + sequence * 3ull * params.c + column(params));
        uint32_t *const pairs[] = {&raw.x, &raw.y, &raw.z, &raw.w};
#pragma unroll
        for (uint32_t i = 0; i < VECTOR / 2; i++) *pairs[i] = __shfl_sync(ALL_LANES, *pairs[i], vector);
        f32x8 q = unpack(raw);
#pragma unroll
        for (float &x : q.at) x *= params.softmax_scale_log2;
        return q;
    }

    // Processes UNROLL positions of this lane's group: `first`, `first` + GROUPS and so on, as far as they are before
    // `end`.
    __device__ void process_positions(const AttentionDecodeParams &params, const f32x8 &q, uint32_t first, uint32_t end,
                                      SoftmaxState &state) const {
        // Loads of k and v
        const uint64_t new_row = sequence * 3ull * params.c + column(params);
        const uint64_t cache = sequence * params.max_t * params.c + column(params);
        bf16x8 k[UNROLL], v[UNROLL];
#pragma unroll
        for (uint32_t i = 0; i < UNROLL; i++) {
            const uint32_t position = first + i * GROUPS;
            k[i] = v[i] = make_uint4(0, 0, 0, 0);
            if (position >= end || vector >= vectors) continue;
            const uint64_t at = cache + uint64_t(position) * params.c;
            const bool is_new = position == params.position;
            k[i] = load_packed(is_new ? params.qkv + new_row + params.c : params.k_cache + at);
            v[i] = load_packed(is_new ? params.qkv + new_row + 2 * params.c : params.v_cache + at);
        }
        // S = q.k and its maximum
        float scores[UNROLL];
        float new_max = state.row_max;
#pragma unroll
        for (uint32_t i = 0; i < UNROLL; i++) {
            const f32x8 key = unpack(k[i]);
            float score = 0.0f;
#pragma unroll
            for (uint32_t j = 0; j < VECTOR; j++) score = fmaf(q.at[j], key.at[j], score);
#pragma unroll
            for (uint32_t distance = LANES / 2; distance > 0; distance /= 2) {
                score += __shfl_xor_sync(ALL_LANES, score, distance);
            }
            scores[i] = first + i * GROUPS < end ? score : -INFINITY;
            new_max = fmaxf(new_max, scores[i]);
        }
        state.rescale(new_max);
        // O += P * v, and the new token's k and v to the caches
#pragma unroll
        for (uint32_t i = 0; i < UNROLL; i++) {
            state.add(exp2_approx(scores[i] - new_max), 1.0f, unpack(v[i]));
            const uint32_t position = first + i * GROUPS;
            // True in one CTA only: splits but the last are whole iterations, which do not reach beyond `end`.
            if (position == params.position && vector < vectors) {
                const uint64_t at = cache + uint64_t(position) * params.c;
                store_packed(params.k_cache + at, k[i]);
                store_packed(params.v_cache + at, v[i]);
            }
        }
    }
};

// Combines the states of a warp's groups, for each vector; all lanes get the result.
template <uint32_t LANES>
__device__ inline void combine_groups(SoftmaxState &state) {
    state.rescale(warp_reduce<Max>(state.row_max));
#pragma unroll
    for (uint32_t distance = WARP / 2; distance >= LANES; distance /= 2) {
        state.row_sum += __shfl_xor_sync(ALL_LANES, state.row_sum, distance);
#pragma unroll
        for (float &x : state.acc_o.at) x += __shfl_xor_sync(ALL_LANES, x, distance);
    }
}

// Combines the states of a CTA's warps in the order of the warps; the first LANES threads get the result. All threads
// must execute it.
template <uint32_t LANES>
__device__ inline SoftmaxState combine_warps(const SoftmaxState &state) {
    __shared__ float2 stats[WARPS];
    // Low and high halves of the vectors are stored apart: neighbouring lanes then are 16 bytes apart and have no bank
    // conflict.
    __shared__ float4 halves[WARPS][2][LANES];
    const uint32_t warp = warp_id(), lane = lane_id();
    if (lane < LANES) {
        const f32x8 &acc_o = state.acc_o;
        halves[warp][0][lane] = make_float4(acc_o.at[0], acc_o.at[1], acc_o.at[2], acc_o.at[3]);
        halves[warp][1][lane] = make_float4(acc_o.at[4], acc_o.at[5], acc_o.at[6], acc_o.at[7]);
        if (lane == 0) stats[warp] = make_float2(state.row_max, state.row_sum);
    }
    __syncthreads();  // RAW: the first warp reads what all warps wrote
    SoftmaxState all = {LOWEST, 0.0f, {}};
    if (threadIdx.x >= LANES) return all;
#pragma unroll
    for (uint32_t i = 0; i < WARPS; i++) all.row_max = fmaxf(all.row_max, stats[i].x);
#pragma unroll
    for (uint32_t i = 0; i < WARPS; i++) {
        all.add(exp2_approx(stats[i].x - all.row_max), stats[i].y, concat(halves[i][0][lane], halves[i][1][lane]));
    }
    return all;
}

template <uint32_t LANES>
__device__ inline void decode(const AttentionDecodeParams &params) {
    constexpr uint32_t GROUPS = KvSplit<LANES>::GROUPS, WARP_POSITIONS = GROUPS * KvSplit<LANES>::UNROLL;
    const KvSplit<LANES> kv(params);
    const f32x8 q = kv.load_q(params);
    const uint32_t begin = kv.split * params.positions_per_split;
    const uint32_t end = min(begin + params.positions_per_split, params.position + 1);
    SoftmaxState state = {LOWEST, 0.0f, {}};
    // All lanes of a warp run the same number of iterations, because the loop body shuffles.
    const uint32_t warp_first = warp_id() * WARP_POSITIONS, group = lane_id() / LANES;
    for (uint32_t first = begin + warp_first; first < end; first += WARPS * WARP_POSITIONS) {
        kv.process_positions(params, q, first + group, end, state);
    }
    combine_groups<LANES>(state);
    const SoftmaxState all = combine_warps<LANES>(state);
    if (threadIdx.x >= kv.vectors) return;
    if (params.num_splits == 1) {
        store(params.out + uint64_t(kv.sequence) * params.c + kv.column(params), normalized(all));
        return;
    }
    // The split's partial result, for attention_decode_combine.
    const uint64_t at = (uint64_t(kv.sequence) * params.nh + kv.head) * params.num_splits + kv.split;
    float4 *const to = params.partials + at * 2 * kv.vectors + kv.vector;
    to[0] = make_float4(all.acc_o.at[0], all.acc_o.at[1], all.acc_o.at[2], all.acc_o.at[3]);
    to[kv.vectors] = make_float4(all.acc_o.at[4], all.acc_o.at[5], all.acc_o.at[6], all.acc_o.at[7]);
    if (threadIdx.x == 0) params.stats[at] = make_float2(all.row_max, all.row_sum);
}

// ---------------------------------------------------------------------------------------------------------------------
// kernels

extern "C" __global__ void __launch_bounds__(THREADS, ATTENTION_DECODE_MIN_BLOCKS)
    attention_decode_hs64(const __grid_constant__ AttentionDecodeParams params) {
    decode<8>(params);
}

extern "C" __global__ void __launch_bounds__(THREADS, ATTENTION_DECODE_MIN_BLOCKS)
    attention_decode_hs128(const __grid_constant__ AttentionDecodeParams params) {
    decode<16>(params);
}

extern "C" __global__ void __launch_bounds__(THREADS, ATTENTION_DECODE_MIN_BLOCKS)
    attention_decode_hs256(const __grid_constant__ AttentionDecodeParams params) {
    decode<32>(params);
}

extern "C" __global__ void __launch_bounds__(THREADS)
    attention_decode_combine(const __grid_constant__ AttentionDecodeParams params) {
    const uint32_t vectors = params.hs / VECTOR;
    const uint32_t i = blockIdx.x * THREADS + threadIdx.x;
    if (i >= params.len) return;
    const uint32_t head = i / vectors;
    const uint64_t at = uint64_t(head) * params.num_splits;
    const float2 *const stats = params.stats + at;
    const float4 *const from = params.partials + at * 2 * vectors + (i - head * vectors);
    SoftmaxState all = {LOWEST, 0.0f, {}};
#pragma unroll 4
    for (uint32_t split = 0; split < params.num_splits; split++) all.row_max = fmaxf(all.row_max, stats[split].x);
#pragma unroll 4
    for (uint32_t split = 0; split < params.num_splits; split++) {
        const float4 *const halves = from + uint64_t(split) * 2 * vectors;
        all.add(exp2_approx(stats[split].x - all.row_max), stats[split].y, concat(halves[0], halves[vectors]));
    }
    store(params.out + uint64_t(i) * VECTOR, normalized(all));
}
