// Causal attention, backward.  p[i,j] = exp(s[i,j] - lse[i]), s[i,j] = q[i].k[j] / sqrt(HS) for j <= i,
//                              ds[i,j] = p[i,j] * (dout[i].v[j] - delta[i]), delta[i] = dout[i].out[i],
//                              dq = ds.k / sqrt(HS), dk = ds^T.q / sqrt(HS), dv = p^T.dout
// Shapes:   dout, out (B, T, C), qkv, dqkv (B, T, 3C) bf16; lse (B, NH, T), statistics (2, B, NH, T) f32; row-major, heads
//           (NH, HS) beside each other in C
// Writes:   dqkv, statistics "="
// Requires: HS as the suffix says; T < 2^31; 16-byte-aligned pointers
// Launch:   attention_backward_dq_*, then attention_backward_dkdv_*. A block of 4 warps a head and 128 queries, or 128
//           keys (64 beyond HS = 64), those with the most products first, in groups of heads whose rows fit in L2
// Numerics: bf16 products with f32 sums; p and ds rounded to bf16 for theirs, delta and all else f32; one rounding at the end
// Traffic:  queries: q, dout, out, lse, dq, statistics once, k and v up to each block's last query; keys: k, v, dk, dv once,
//           q, dout, statistics from each block's first key on. L2 has what is read again
//
// Each kernel owns the rows that it sums for, and has their sums in registers: neither adds to memory, so that no order of
// blocks is seen, and neither passes p or ds through shared memory. It costs two products more than the five there must be.
#include "attention.cuh"
#include "params/attention.h"

#include "common/math.cuh"

constexpr uint32_t THREADS = ATTENTION_BACKWARD_THREADS, WARPS = THREADS / WARP;

// How work is cut. The block owns ROWS rows of one side, OWN_KEYS or queries; those of the other side pass by in tiles.
template <uint32_t HS_, bool OWN_KEYS_>
struct Cut {
    static constexpr uint32_t HS = HS_, STEPS = HS / 16;
    static constexpr bool OWN_KEYS = OWN_KEYS_, NARROW = HS <= ATTENTION_BACKWARD_MAX_SMALL_HS;
    // Two sums of 32 rows would not fit in registers beyond.
    static constexpr uint32_t ROWS = OWN_KEYS && !NARROW ? ATTENTION_BACKWARD_RESIDENT_ROWS / 2 : ATTENTION_BACKWARD_RESIDENT_ROWS;
    static constexpr uint32_t TILE = NARROW ? ATTENTION_BACKWARD_STREAMED_ROWS : ATTENTION_BACKWARD_STREAMED_ROWS / 2;
    // A warp's own rows, 16 an mma, and those of the other side that it takes at a time.
    static constexpr uint32_t WARP_ROWS = ROWS / WARPS, A = WARP_ROWS / 16, PORTION = 32;
    static constexpr bool SQUARE = WARP_ROWS == PORTION;
    static_assert(SQUARE || (OWN_KEYS && 2 * WARP_ROWS == PORTION), "what the mask takes");
    // Of the two own matrices, those that stay in registers: as many as ptxas finds room for beside the sums.
    static constexpr uint32_t HELD =
        OWN_KEYS ? (HS <= 32 || (!NARROW && HS < 128) ? 2 : HS == 128 ? 1 : 0) : (NARROW ? 2 : HS == 80 ? 1 : 0);
    // Steps whose loads ptxas may mix. It spills where it may mix more.
    static constexpr uint32_t UNROLLED = 4;
    static constexpr uint32_t ROW = HS * sizeof(bf16), SUMS = OWN_KEYS ? 2 : 1;
    // What a stage has: two matrices, and where keys are owned the queries' statistics.
    static constexpr uint32_t MATRICES = 2 * TILE * ROW, STAGE = MATRICES + (OWN_KEYS ? 2 * TILE * sizeof(float) : 0);
};

// Where a warp's operands are, and its rows' statistics. Own and passing rows are q and dout where they are queries, k and v
// where they are keys: matrix 0 and 1.
template <class C>
struct Warp {
    static constexpr uint32_t A = C::A, N = C::PORTION / 8, HS = C::HS;
    FragmentA held[C::HELD ? C::HELD * C::STEPS : 1][A];
    // By rows for an mma's A, transposed for its B of a product over rows; by columns for the B of one over columns.
    SharedToRegister<HS> by_rows, by_columns;
    uint32_t own;
    float scale;
    // -lse * log2(e) and -delta of own queries, row lane / 4 + 8 * half of each of the A.
    float lse[A][2], delta[A][2];

    __device__ Warp(uint32_t own, float scale)
        : by_rows(lane_id() / 8 % 2, lane_id() / 16), by_columns(lane_id() / 16, lane_id() / 8 % 2), own(own), scale(scale) {
        if constexpr (C::HELD > 0) {
#pragma unroll
            for (uint32_t i = 0; i < C::HELD * C::STEPS; i++) load_own(held[i], i / C::STEPS, i % C::STEPS);
        }
    }

    __device__ void load_own(FragmentA (&to)[A], uint32_t matrix, uint32_t step) const {
#pragma unroll
        for (uint32_t i = 0; i < A; i++) {
            by_rows.template load<false>(to[i].regs, own + matrix * C::ROWS * C::ROW, 16 * i, step);
        }
    }

    // Own rows of a matrix by a portion of passing rows.
    template <uint32_t MATRIX>
    __device__ void multiply(Accumulator (&d)[A][N], uint32_t passing) const {
        constexpr bool HELD = MATRIX < C::HELD;
#pragma unroll(HELD ? C::STEPS : C::UNROLLED)
        for (uint32_t step = 0; step < C::STEPS; step++) {
            FragmentA loaded[A];
            if constexpr (!HELD) load_own(loaded, MATRIX, step);
            const FragmentA *a = HELD ? held[HELD ? MATRIX * C::STEPS + step : 0] : loaded;
#pragma unroll
            for (uint32_t j = 0; j < N / 2; j++) {
                uint32_t b[4];
                by_columns.template load<false>(b, passing, 16 * j, step);
#pragma unroll
                for (uint32_t i = 0; i < A; i++) {
                    mma(d[i][2 * j], a[i], {{b[0], b[1]}});
                    mma(d[i][2 * j + 1], a[i], {{b[2], b[3]}});
                }
            }
        }
    }

    // Adds p or ds times a portion of passing rows.
    __device__ void add(Accumulator (&sums)[A][HS / 8], const Accumulator (&weights)[A][N], uint32_t passing) const {
#pragma unroll
        for (uint32_t j = 0; j < N / 2; j++) {
            FragmentA a[A];
#pragma unroll
            for (uint32_t i = 0; i < A; i++) a[i] = pack_a_fragment(weights[i][2 * j], weights[i][2 * j + 1]);
#pragma unroll
            for (uint32_t step = 0; step < C::STEPS; step++) {
                uint32_t b[4];
                by_rows.template load<true>(b, passing, 16 * j, step);
#pragma unroll
                for (uint32_t i = 0; i < A; i++) {
                    mma(sums[i][2 * step], a[i], {{b[0], b[1]}});
                    mma(sums[i][2 * step + 1], a[i], {{b[2], b[3]}});
                }
            }
        }
    }

    // A portion of passing rows, whose statistics these are where they are queries. On the DIAGONAL `beside_last` is as below.
    template <bool DIAGONAL>
    __device__ void take(Accumulator (&sums)[C::SUMS][A][HS / 8], uint32_t passing, const float *statistics, bool beside_last = false) const {
        Accumulator p[A][N] = {}, ds[A][N];
        multiply<0>(p, passing);
        if constexpr (DIAGONAL) mask(p, beside_last);
#pragma unroll
        for (uint32_t j = 0; j < N; j++) {
            float of_columns[2];
            if constexpr (C::OWN_KEYS) load_pair(of_columns, statistics, j);
#pragma unroll
            for (uint32_t i = 0; i < A; i++) {
#pragma unroll
                for (uint32_t k = 0; k < 4; k++) {
                    p[i][j].c[k] = exp2_approx(fmaf(p[i][j].c[k], scale, C::OWN_KEYS ? of_columns[k % 2] : lse[i][k / 2]));
                }
            }
        }
        const uint32_t second = passing + C::TILE * C::ROW;
#pragma unroll
        for (uint32_t j = 0; j < N; j++) {
            float of_columns[2];
            if constexpr (C::OWN_KEYS) load_pair(of_columns, statistics + C::TILE, j);
#pragma unroll
            for (uint32_t i = 0; i < A; i++) {
#pragma unroll
                for (uint32_t k = 0; k < 4; k++) ds[i][j].c[k] = C::OWN_KEYS ? of_columns[k % 2] : delta[i][k / 2];
            }
        }
        multiply<1>(ds, second);
        if constexpr (C::OWN_KEYS) add(sums[1], p, second);
#pragma unroll
        for (uint32_t i = 0; i < A; i++) {
#pragma unroll
            for (uint32_t j = 0; j < N; j++) {
#pragma unroll
                for (uint32_t k = 0; k < 4; k++) ds[i][j].c[k] *= p[i][j].c[k];
            }
        }
        add(sums[0], ds, passing);
    }

    // Of the lane's two columns of tile `j`.
    __device__ static void load_pair(float (&to)[2], const float *from, uint32_t j) {
        const float2 pair = *reinterpret_cast<const float2 *>(from + 8 * j + lane_id() % 4 * 2);
        to[0] = pair.x;
        to[1] = pair.y;
    }

    // Takes out the keys behind each query: where rows begin alike, a triangle. 16 keys are beside the portion's first queries,
    // or `beside_last`: then no query of the first half sees them.
    __device__ void mask(Accumulator (&s)[A][N], bool beside_last) const {
        const int32_t lane = int32_t(lane_id() / 4) - int32_t(lane_id() % 4 * 2);
        const int32_t most = C::OWN_KEYS ? -lane : lane;
#pragma unroll
        for (uint32_t i = 0; i < A; i++) {
#pragma unroll
            for (uint32_t j = 0; j < N; j++) {
#pragma unroll
                for (uint32_t k = 0; k < 4; k++) {
                    const int32_t row = 16 * i + k / 2 * 8, column = (C::SQUARE ? 8 * j : 8 * (j % 2)) + k % 2;
                    const int32_t behind = C::OWN_KEYS ? row - column : column - row;
                    // `most` is from -7 to 7: beyond, a tile of 8 keys is behind all of a tile of 8 queries or none.
                    bool hidden = behind >= 7 || (behind > -7 && behind > most);
                    if (!C::SQUARE) hidden = j < N / 2 ? beside_last || hidden : beside_last && hidden;
                    if (hidden) s[i][j].c[k] = -INFINITY;
                }
            }
        }
    }
};

// lse in base 2 and delta of the warp's queries, for itself and for the keys' kernel.
template <class C>
__device__ inline void find_statistics(const AttentionBackwardParams &params, Warp<C> &warp, const uint4 *dout, uint32_t head,
                                       uint32_t query) {
    constexpr uint32_t CHUNKS = C::HS / VECTOR;
    const uint32_t channels = params.nh * C::HS;
    const bf16 *out = params.out + uint64_t(head / params.nh) * params.t * channels + head % params.nh * C::HS;
#pragma unroll
    for (uint32_t i = 0; i < C::WARP_ROWS / 8; i++) {
        // Four lanes share a row, those of eight rows at one column meet no bank twice.
        const uint32_t row = 8 * i + lane_id() % 8;
        const bool there = query + row < params.t;
        float delta = 0, lse = 0;
        if (there) {
#pragma unroll
            for (uint32_t j = 0; j < CHUNKS; j += 4) {
                const uint32_t chunk = j + lane_id() / 8;
                if (j + 4 > CHUNKS && chunk >= CHUNKS) break;
                const f32x8 of_out = load(out + (uint64_t(query + row) * channels + chunk * VECTOR));
                const f32x8 of_dout = unpack(dout[swizzled_offset<CHUNKS>(row, chunk) / 16]);
#pragma unroll
                for (uint32_t x = 0; x < VECTOR; x++) delta = fmaf(of_dout.at[x], of_out.at[x], delta);
            }
        }
        delta += __shfl_xor_sync(ALL_LANES, delta, 8);
        delta += __shfl_xor_sync(ALL_LANES, delta, 16);
        if (there && lane_id() < 8) {
            const uint64_t place = uint64_t(head) * params.t + query + row;
            lse = params.lse[place] * -LOG2_E;
            params.stats[place] = lse;
            params.stats[uint64_t(params.batch_heads) * params.t + place] = -delta;
        }
        warp.lse[i / 2][i % 2] = __shfl_sync(ALL_LANES, lse, lane_id() / 4);
        warp.delta[i / 2][i % 2] = __shfl_sync(ALL_LANES, -delta, lane_id() / 4);
    }
}

// Writes the warp's sums by way of shared memory, where its own rows were, which all lanes have read.
template <class C>
__device__ inline void finish(const Accumulator (&sums)[C::A][C::HS / 8], float scale, bf16 *to, uint32_t stride, uint4 *slab,
                              int32_t rows) {
#pragma unroll
    for (uint32_t i = 0; i < C::A; i++) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
#pragma unroll
            for (uint32_t j = 0; j < C::HS / 8; j++) {
                const uint32_t row = 16 * i + 8 * half + lane_id() / 4;
                reinterpret_cast<uint32_t *>(slab)[swizzled_offset<C::HS / VECTOR>(row, j) / 4 + lane_id() % 4] =
                    pack_bf16x2(sums[i][j].c[2 * half] * scale, sums[i][j].c[2 * half + 1] * scale);
            }
        }
    }
    __syncwarp();  // lanes read what others have written
    store_tile<C::HS, C::WARP_ROWS, false>(to, stride, slab, rows);
}

// A head's rows.
template <uint32_t HS>
struct Head {
    const bf16 *qkv, *dout;
    uint32_t channels, t;

    __device__ Head(const AttentionBackwardParams &params, uint32_t head) : channels(params.nh * HS), t(params.t) {
        // 64 bits: B*T*C may pass 2^32.
        const uint64_t token = uint64_t(head / params.nh) * t;
        qkv = params.qkv + (token * 3 * channels + head % params.nh * HS);
        dout = params.dout + (token * channels + head % params.nh * HS);
    }

    // q and dout, or k and v, of ROWS tokens from `row` on, one behind the other.
    template <bool KEYS, uint32_t ROWS, bool UNROLLED>
    __device__ void fetch(uint32_t to, uint32_t row) const {
        const bf16 *tokens = qkv + uint64_t(row) * 3 * channels;
        if constexpr (KEYS) {
            copy_tile_async<HS, ROWS, THREADS, 2, UNROLLED>(to, tokens + channels, 3 * channels, t - row, channels);
        } else {
            copy_tile_async<HS, ROWS, THREADS, 1, UNROLLED>(to, tokens, 3 * channels, t - row);
            copy_tile_async<HS, ROWS, THREADS, 1, UNROLLED>(to + ROWS * HS * sizeof(bf16), dout + uint64_t(row) * channels, channels, t - row);
        }
    }
};

template <class C>
__device__ inline void backward(const AttentionBackwardParams &params) {
    constexpr uint32_t HS = C::HS, ROW = C::ROW, TILE = C::TILE;
    extern __shared__ uint4 shared[];
    const uint32_t tiles_owned = C::OWN_KEYS ? params.kv_tiles : params.q_tiles;
    const CtaCoord at = cta_coord(params.batch_heads, params.heads_per_group, tiles_owned);
    // Blocks with the most products first: the first keys, the last queries.
    const uint32_t first = (C::OWN_KEYS ? at.tile : tiles_owned - 1 - at.tile) * C::ROWS;
    const uint32_t own = shared_address(shared), stages = own + 2 * C::ROWS * ROW;
    const Head<HS> head(params, at.head);
    const auto fetch = [&](uint32_t row) {
        const uint32_t to = stages + row / TILE % 2 * C::STAGE;
        head.template fetch<!C::OWN_KEYS, TILE, true>(to, row);
        if (C::OWN_KEYS && (2 * TILE == THREADS || threadIdx.x < 2 * TILE)) {
            const uint32_t which = threadIdx.x / TILE, query = row + threadIdx.x % TILE;
            const uint64_t place = (uint64_t(which) * params.batch_heads + at.head) * params.t + query;
            cp_async_4(to + C::MATRICES + threadIdx.x * sizeof(float), params.stats + place, query < params.t);
        }
        cp_async_commit();
    };
    // Keys are for the queries from their own on, queries for the keys up to their own.
    uint32_t passing = C::OWN_KEYS ? first : 0;
    const uint32_t end = ((C::OWN_KEYS ? params.t : min(first + C::ROWS, params.t)) + TILE - 1) / TILE * TILE;
    head.template fetch<C::OWN_KEYS, C::ROWS, false>(own, first);
    fetch(passing);
    cp_async_wait<0>();
    __syncthreads();  // what all threads copied is there

    const uint32_t warp_row = warp_id() * C::WARP_ROWS, row = first + warp_row;
    uint4 *slab = shared + warp_row * ROW / 16;
    Warp<C> warp(own + warp_row * ROW, params.softmax_scale_log2);
    if constexpr (!C::OWN_KEYS) find_statistics<C>(params, warp, slab + C::ROWS * ROW / 16, at.head, row);
    Accumulator sums[C::SUMS][C::A][HS / 8] = {};
#pragma unroll 1
    do {
        if (passing % TILE == 0 && passing + TILE < end) fetch(passing + TILE);
        const uint32_t stage = 2 * C::ROWS * ROW + passing / TILE % 2 * C::STAGE, i = passing % TILE;
        const float *statistics = reinterpret_cast<const float *>(shared) + (stage + C::MATRICES) / 4 + i;
        const int32_t ahead = C::OWN_KEYS ? passing - row : row - passing;
        if (ahead > 0) {
            warp.template take<false>(sums, own + stage + i * ROW, statistics);
        } else if (ahead >= int32_t(C::WARP_ROWS) - int32_t(C::PORTION)) {
            warp.template take<true>(sums, own + stage + i * ROW, statistics, ahead < 0);
        }
        passing += C::PORTION;
        if (passing % TILE == 0) {
            cp_async_wait<0>();
            __syncthreads();  // the next tile is there, and nobody reads this one any more
        }
    } while (passing != end);

    const uint32_t stride = 3 * head.channels;
    bf16 *to = params.dqkv + (head.qkv - params.qkv) + uint64_t(row) * stride;
    if constexpr (C::OWN_KEYS) {
        finish<C>(sums[0], params.softmax_scale, to + head.channels, stride, slab, params.t - row);
        finish<C>(sums[1], 1.0f, to + 2 * head.channels, stride, slab + C::ROWS * ROW / 16, params.t - row);
    } else {
        finish<C>(sums[0], params.softmax_scale, to, stride, slab, params.t - row);
    }
}

#define KERNEL(SIDE, OWN_KEYS, HS)                                                                                     \
    extern "C" __global__ void __launch_bounds__(ATTENTION_BACKWARD_THREADS, ATTENTION_BACKWARD_MIN_BLOCKS)            \
        attention_backward_##SIDE##_hs##HS(const __grid_constant__ AttentionBackwardParams params) {                   \
        backward<Cut<HS, OWN_KEYS>>(params);                                                                           \
    }
#define KERNELS(HS)            \
    KERNEL(dq, false, HS)      \
    KERNEL(dkdv, true, HS)

KERNELS(16)
KERNELS(32)
KERNELS(48)
KERNELS(64)
KERNELS(80)
KERNELS(96)
KERNELS(112)
KERNELS(128)
