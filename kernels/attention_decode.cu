// Attention over a KV cache.
//           store   k_cache[b, position + t] = k[b, t], v_cache[b, position + t] = v[b, t]
//           decode  the same of one token, then out = sum over j <= position of softmax(q.k[j] / sqrt(HS)) * v[j]
// Shapes:   qkv (B, T, 3, NH, HS), caches (B, T_max, NH, HS), out (B, 1, NH, HS) bf16; decode: T = 1; row-major
// Writes:   rows position..position+T of both caches, out "="
// Requires: HS % 8 == 0, decode: HS <= 256; 16-byte-aligned pointers
// Launch:   store   grid ceil(B*T*C/2048), block 256; one thread = one vector of k and of v
//           decode  grid B*splits*NH, block 128; a block = a head's share of the positions. _hs64, _hs128, _hs256 by the
//                   largest HS: 8, 16, 32 lanes a position
//           join    grid ceil(B*C/8/128), block 128; one thread = one vector of out; left out for one split
// Numerics: f32; exponentials ex2.approx of differences from a running maximum. Sums over the positions of 8 to 32 lanes'
//           turns, then over a block's lanes and warps, then over splits: their order depends on the shape alone
// Traffic:  store 8*B*T*C bytes; decode 2*B*C*(6 + 2*position) bytes, and 8*(HS + 3) + 8*HS a head and split; memory-bound
//
// The new token's row of a cache is read from qkv and written by the block that has its position, so that no block waits.
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
    // 64 bits: both may pass 2^32.
    const uint64_t from = uint64_t(token) * 3 * params.c + column;
    const uint64_t row = sequence * params.max_t + params.position + (token - sequence * params.t);
    const uint64_t to = row * params.c + column;
    const bf16x8 k = load_packed(params.qkv + from + params.c), v = load_packed(params.qkv + from + 2 * params.c);
    store_packed(params.k_cache + to, k);
    store_packed(params.v_cache + to, v);
}

// ---------------------------------------------------------------------------------------------------------------------
// decode

// Of some positions: the largest score, the sum of 2^(score - max), and that of v by the same weights, for 8 columns.
struct Partial {
    float max;
    float sum;
    f32x8 acc;

    // To another maximum.
    __device__ void rescale(float to) {
        const float factor = exp2_approx(max - to);
        max = to;
        sum *= factor;
#pragma unroll
        for (float &x : acc.at) x *= factor;
    }

    __device__ void add(float weight, float sum_of, const f32x8 &v) {
        sum = fmaf(weight, sum_of, sum);
#pragma unroll
        for (uint32_t i = 0; i < VECTOR; i++) acc.at[i] = fmaf(weight, v.at[i], acc.at[i]);
    }
};

// The lowest finite f32: of no positions. It keeps scores of -infinity from -infinity - -infinity.
constexpr float LOWEST = -3.40282347e38f;

__device__ inline f32x8 normalized(const Partial &partial) {
    f32x8 out;
#pragma unroll
    for (uint32_t i = 0; i < VECTOR; i++) out.at[i] = partial.acc.at[i] / partial.sum;
    return out;
}

__device__ inline f32x8 joined(const float4 &low, const float4 &high) {
    return {low.x, low.y, low.z, low.w, high.x, high.y, high.z, high.w};
}

// What a block works on. A position's HS columns are a vector each of the first lanes of LANES.
template <uint32_t LANES>
struct Share {
    // Positions of a warp in one turn.
    static constexpr uint32_t GROUPS = WARP / LANES;
    // Turns whose loads are under way together: 8 vectors a lane, 16 KB a block.
    static constexpr uint32_t AHEAD = 4;

    uint32_t head, split, sequence;
    uint32_t vectors;  // of a position
    uint32_t vector;   // the lane's

    __device__ Share(const AttentionDecodeParams &params) : vectors(params.hs / VECTOR), vector(lane_id() % LANES) {
        // Heads are fastest: blocks that run together read neighbours.
        const uint32_t rest = blockIdx.x / params.nh;
        head = blockIdx.x - rest * params.nh;
        sequence = rest / params.num_splits;
        split = rest - sequence * params.num_splits;
    }

    __device__ uint32_t column(const AttentionDecodeParams &params) const { return head * params.hs + vector * VECTOR; }

    // q in units that make a score an exponent of 2. Read once a warp.
    __device__ f32x8 query(const AttentionDecodeParams &params) const {
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

    // AHEAD turns from position `first` on, for the lane's group.
    __device__ void turn(const AttentionDecodeParams &params, const f32x8 &q, uint32_t first, uint32_t end,
                         Partial &partial) const {
        const uint64_t new_row = sequence * 3ull * params.c + column(params);
        const uint64_t cache = sequence * params.max_t * params.c + column(params);
        bf16x8 k[AHEAD], v[AHEAD];
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++) {
            const uint32_t position = first + i * GROUPS;
            k[i] = v[i] = make_uint4(0, 0, 0, 0);
            if (position >= end || vector >= vectors) continue;
            const uint64_t at = cache + uint64_t(position) * params.c;
            const bool is_new = position == params.position;
            k[i] = load_packed(is_new ? params.qkv + new_row + params.c : params.k_cache + at);
            v[i] = load_packed(is_new ? params.qkv + new_row + 2 * params.c : params.v_cache + at);
        }
        float scores[AHEAD];
        float max = partial.max;
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++) {
            const f32x8 key = unpack(k[i]);
            float score = 0.0f;
#pragma unroll
            for (uint32_t j = 0; j < VECTOR; j++) score = fmaf(q.at[j], key.at[j], score);
#pragma unroll
            for (uint32_t distance = LANES / 2; distance > 0; distance /= 2) {
                score += __shfl_xor_sync(ALL_LANES, score, distance);
            }
            scores[i] = first + i * GROUPS < end ? score : -INFINITY;
            max = fmaxf(max, scores[i]);
        }
        partial.rescale(max);
#pragma unroll
        for (uint32_t i = 0; i < AHEAD; i++) {
            partial.add(exp2_approx(scores[i] - max), 1.0f, unpack(v[i]));
            const uint32_t position = first + i * GROUPS;
            // In no other block: all splits but the last are whole turns.
            if (position == params.position && vector < vectors) {
                const uint64_t at = cache + uint64_t(position) * params.c;
                store_packed(params.k_cache + at, k[i]);
                store_packed(params.v_cache + at, v[i]);
            }
        }
    }
};

// Over the warp's groups, for each vector; all lanes get it.
template <uint32_t LANES>
__device__ inline void join_groups(Partial &partial) {
    partial.rescale(warp_reduce<Max>(partial.max));
#pragma unroll
    for (uint32_t distance = WARP / 2; distance >= LANES; distance /= 2) {
        partial.sum += __shfl_xor_sync(ALL_LANES, partial.sum, distance);
#pragma unroll
        for (float &x : partial.acc.at) x += __shfl_xor_sync(ALL_LANES, x, distance);
    }
}

// Over the block's warps, in their order; the first LANES threads get it. All must take part.
template <uint32_t LANES>
__device__ inline Partial join_warps(const Partial &partial) {
    __shared__ float2 stats[WARPS];
    // Halves apart: neighbours 16 bytes apart have no bank conflict.
    __shared__ float4 halves[WARPS][2][LANES];
    const uint32_t warp = warp_id(), lane = lane_id();
    if (lane < LANES) {
        const f32x8 &acc = partial.acc;
        halves[warp][0][lane] = make_float4(acc.at[0], acc.at[1], acc.at[2], acc.at[3]);
        halves[warp][1][lane] = make_float4(acc.at[4], acc.at[5], acc.at[6], acc.at[7]);
        if (lane == 0) stats[warp] = make_float2(partial.max, partial.sum);
    }
    __syncthreads();  // the first warp reads what all have written
    Partial all = {LOWEST, 0.0f, {}};
    if (threadIdx.x >= LANES) return all;
#pragma unroll
    for (uint32_t i = 0; i < WARPS; i++) all.max = fmaxf(all.max, stats[i].x);
#pragma unroll
    for (uint32_t i = 0; i < WARPS; i++) {
        all.add(exp2_approx(stats[i].x - all.max), stats[i].y, joined(halves[i][0][lane], halves[i][1][lane]));
    }
    return all;
}

template <uint32_t LANES>
__device__ inline void decode(const AttentionDecodeParams &params) {
    constexpr uint32_t GROUPS = Share<LANES>::GROUPS, TURN = WARPS * GROUPS * Share<LANES>::AHEAD;
    const Share<LANES> share(params);
    const f32x8 q = share.query(params);
    const uint32_t begin = share.split * params.positions_per_split;
    const uint32_t end = min(begin + params.positions_per_split, params.position + 1);
    Partial partial = {LOWEST, 0.0f, {}};
    // The same for a warp's lanes, which shuffle.
    const uint32_t first_of_warp = warp_id() * (GROUPS * Share<LANES>::AHEAD), group = lane_id() / LANES;
    for (uint32_t first = begin + first_of_warp; first < end; first += TURN) {
        share.turn(params, q, first + group, end, partial);
    }
    join_groups<LANES>(partial);
    const Partial all = join_warps<LANES>(partial);
    if (threadIdx.x >= share.vectors) return;
    if (params.num_splits == 1) {
        store(params.out + uint64_t(share.sequence) * params.c + share.column(params), normalized(all));
        return;
    }
    const uint64_t at = (uint64_t(share.sequence) * params.nh + share.head) * params.num_splits + share.split;
    float4 *const to = params.partials + at * 2 * share.vectors + share.vector;
    to[0] = make_float4(all.acc.at[0], all.acc.at[1], all.acc.at[2], all.acc.at[3]);
    to[share.vectors] = make_float4(all.acc.at[4], all.acc.at[5], all.acc.at[6], all.acc.at[7]);
    if (threadIdx.x == 0) params.stats[at] = make_float2(all.max, all.sum);
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
    Partial all = {LOWEST, 0.0f, {}};
#pragma unroll 4
    for (uint32_t split = 0; split < params.num_splits; split++) all.max = fmaxf(all.max, stats[split].x);
#pragma unroll 4
    for (uint32_t split = 0; split < params.num_splits; split++) {
        const float4 *const halves = from + uint64_t(split) * 2 * vectors;
        all.add(exp2_approx(stats[split].x - all.max), stats[split].y, joined(halves[0], halves[vectors]));
    }
    store(params.out + uint64_t(i) * VECTOR, normalized(all));
}
