// Attention, forward (FlashAttention).  S[i,j] = q[i].k[j] / sqrt(HS), if causal for j <= i only,
//                                       P[i,j] = exp(S[i,j] - lse[i]), out = O = P * V, lse[i] = log(sum_j exp(S[i,j]))
// Shapes:   q, k, v (B, T, NH, HS) bf16, with strides of all axes but the last; out (B, T, C) bf16; lse (B, NH, T) f32;
//           row-major, C = (NH, HS)
// Writes:   out, lse "="
// Requires: HS as in the kernel's suffix; T < 2^31; token strides < 2^25; 16-byte-aligned pointers and strides
// Launch:   one CTA of 4 warps per head and BLOCK_M = 128 queries; tiles with the most causal work first, in groups of
//           heads whose K and V fit in L2; smem 768 * HS bytes
// Numerics: bf16 MMAs with f32 accumulation; online softmax in base 2; P is rounded to bf16 for P * V, row_sum is taken
//           before that rounding; one rounding of out at the end
// Traffic:  q, out and lse once; each CTA reads k and v, if causal up to the row of its last query, mostly from L2
#include "attention.cuh"

#include "common/math.cuh"

constexpr uint32_t THREADS = ATTENTION_FORWARD_THREADS;
constexpr uint32_t BLOCK_M = ATTENTION_FORWARD_BLOCK_M, BLOCK_N = ATTENTION_FORWARD_BLOCK_N;
// Queries of a warp: two MMAs' rows share each K and V fragment, which halves the reads of shared memory. One MMA's
// rows would be bound by them.
constexpr uint32_t WARP_M = BLOCK_M / (THREADS / WARP), MMA_ITERS_M = WARP_M / MMA_M;
// Keys of a tile or of a half of it that has keys to mask: in the causal case, those of the warp's diagonal.
constexpr uint32_t MASKED_N = WARP_M;
static_assert(BLOCK_N == 2 * MASKED_N, "a warp masks the first or the second half of a K/V tile");

// The warp's running output and online-softmax statistics. A lane holds the rows lane / 4 + 8 * half of each MMA.
template <uint32_t HS>
struct SoftmaxState {
    // O, not yet divided by row_sum: (WARP_M, HS).
    Accumulator acc_o[MMA_ITERS_M][HS / MMA_N];
    // row_max: largest score so far, times softmax_scale_log2. row_sum: this lane's part of sum_j 2^(score - row_max).
    float row_max[MMA_ITERS_M][2], row_sum[MMA_ITERS_M][2];
};

// The work of one warp on K/V tiles.
template <uint32_t HS>
struct Warp {
    static constexpr uint32_t K_STEPS = HS / MMA_K;
    // Up to HS = 48, Q stays in registers. Beyond, acc_o needs them: with HS = 64, ptxas spills on sm_90a.
    static constexpr bool Q_IN_REGISTERS = HS <= 48;
    // Keys per process_tile call, and k-steps of S = Q * K^T whose loads ptxas may interleave. With more of either,
    // ptxas spills.
    static constexpr uint32_t SUB_TILE_N = HS == 112 ? BLOCK_N / 2 : BLOCK_N;
    static constexpr uint32_t UNROLL = Q_IN_REGISTERS ? K_STEPS : HS == 112 ? 1 : 4;
    // For the copies of K and V. With OFFSETS, ptxas spills 80 bytes for HS = 128 on sm_120.
    static constexpr Unroll COPY_UNROLL = HS == 128 ? Unroll::POINTERS : Unroll::OFFSETS;
    FragmentA q_frag[Q_IN_REGISTERS ? K_STEPS : 1][MMA_ITERS_M];
    SharedToRegister<HS> q_loader, k_loader, v_loader;
    // Shared address of the warp's rows of Q.
    uint32_t q_tile;
    float softmax_scale_log2;
    // Mask::END: valid keys of the tile.
    uint32_t valid_keys;

    __device__ Warp(uint32_t q_tile, const AttentionForwardParams &params)
        : q_loader(lane_id() / 8 % 2, lane_id() / 16), k_loader(lane_id() / 16, lane_id() / 8 % 2),
          v_loader(lane_id() / 8 % 2, lane_id() / 16), q_tile(q_tile), softmax_scale_log2(params.softmax_scale_log2),
          valid_keys(params.t % MASKED_N) {
        if constexpr (Q_IN_REGISTERS) {
#pragma unroll
            for (uint32_t step = 0; step < K_STEPS; step++) load_q(q_frag[step], step);
        }
    }

    __device__ void load_q(FragmentA (&q)[MMA_ITERS_M], uint32_t step) const {
#pragma unroll
        for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
            q_loader.template load<false>(q[i].regs, q_tile, MMA_M * i, step);
        }
    }

    // S (WARP_M, N) = Q (WARP_M, HS) * K^T, K (N, HS)
    template <uint32_t N>
    __device__ void compute_scores(Accumulator (&acc_s)[MMA_ITERS_M][N / MMA_N], uint32_t k_tile) const {
#pragma unroll(UNROLL)
        for (uint32_t step = 0; step < K_STEPS; step++) {
            FragmentA q_loaded[MMA_ITERS_M];
            if constexpr (!Q_IN_REGISTERS) load_q(q_loaded, step);
            const FragmentA *q = Q_IN_REGISTERS ? q_frag[Q_IN_REGISTERS ? step : 0] : q_loaded;
#pragma unroll
            for (uint32_t j = 0; j < N / 16; j++) {
                uint32_t k_frag[4];
                k_loader.template load<false>(k_frag, k_tile, 16 * j, step);
#pragma unroll
                for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
                    // S (16, 8) += Q (16, 16) * K^T, K (8, 16)
                    mma(acc_s[i][2 * j], q[i], {{k_frag[0], k_frag[1]}});
                    mma(acc_s[i][2 * j + 1], q[i], {{k_frag[2], k_frag[3]}});
                }
            }
        }
    }

    // Online softmax: turns S into P = 2^(S * softmax_scale_log2 - row_max) in place, and rescales acc_o and row_sum to
    // the new row_max.
    template <uint32_t N>
    __device__ void online_softmax(Accumulator (&acc_s)[MMA_ITERS_M][N / MMA_N], SoftmaxState<HS> &state) const {
#pragma unroll
        for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
#pragma unroll
            for (uint32_t half = 0; half < 2; half++) {
                // row_max
                float largest = fmaxf(acc_s[i][0].c[2 * half], acc_s[i][0].c[2 * half + 1]);
#pragma unroll
                for (uint32_t j = 1; j < N / MMA_N; j++) {
                    largest = fmaxf(largest, fmaxf(acc_s[i][j].c[2 * half], acc_s[i][j].c[2 * half + 1]));
                }
                // Four lanes share a row.
                largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
                largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
                const float old_max = state.row_max[i][half], new_max = fmaxf(old_max, largest * softmax_scale_log2);
                const float rescale = exp2_approx(old_max - new_max);
                state.row_max[i][half] = new_max;
                // P and row_sum
                float sum = state.row_sum[i][half] * rescale;
#pragma unroll
                for (uint32_t j = 0; j < N / MMA_N; j++) {
#pragma unroll
                    for (uint32_t k = 2 * half; k < 2 * half + 2; k++) {
                        // One FMA rounds the difference of two large numbers only once, after the subtraction.
                        acc_s[i][j].c[k] = exp2_approx(fmaf(acc_s[i][j].c[k], softmax_scale_log2, -new_max));
                        sum += acc_s[i][j].c[k];
                    }
                }
                state.row_sum[i][half] = sum;
                // O
#pragma unroll
                for (Accumulator &o : state.acc_o[i]) {
                    o.c[2 * half] *= rescale;
                    o.c[2 * half + 1] *= rescale;
                }
            }
        }
    }

    // Processes N keys: S = Q * K^T, mask, softmax, O += P * V. The mask sets the scores of keys to -infinity.
    template <uint32_t N, Mask MASK>
    __device__ void process_tile(SoftmaxState<HS> &state, uint32_t k_tile, uint32_t v_tile) const {
        Accumulator acc_s[MMA_ITERS_M][N / MMA_N] = {};
        compute_scores<N>(acc_s, k_tile);
        if constexpr (MASK != Mask::NONE) {
            // Query and key of this lane's first accumulator element.
            const int32_t lane_query = lane_id() / 4, lane_key = lane_id() % 4 * 2;
#pragma unroll
            for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
#pragma unroll
                for (uint32_t j = 0; j < N / MMA_N; j++) {
#pragma unroll
                    for (uint32_t k = 0; k < 4; k++) {
                        const int32_t key = 8 * j + k % 2, query = 16 * i + k / 2 * 8;
                        // lane_query - lane_key is in [-6, 7]. Outside that range the compiler knows whether 8 x 8
                        // elements are all masked or all visible.
                        const bool after_query =
                            key - query >= 8 || (key - query >= -5 && key - query > lane_query - lane_key);
                        const bool past_end = key + lane_key >= int32_t(valid_keys);
                        if (MASK == Mask::DIAGONAL ? after_query : past_end) acc_s[i][j].c[k] = -INFINITY;
                    }
                }
            }
        }
        online_softmax<N>(acc_s, state);
        // O (WARP_M, HS) += P (WARP_M, N) * V (N, HS)
#pragma unroll
        for (uint32_t j = 0; j < N / 16; j++) {
            FragmentA p_frag[MMA_ITERS_M];
#pragma unroll
            for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
                p_frag[i] = pack_a_fragment(acc_s[i][2 * j], acc_s[i][2 * j + 1]);
            }
#pragma unroll
            for (uint32_t step = 0; step < K_STEPS; step++) {
                uint32_t v_frag[4];
                v_loader.template load<true>(v_frag, v_tile, 16 * j, step);
#pragma unroll
                for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
                    // O (16, 8) += P (16, 16) * V (16, 8)
                    mma(state.acc_o[i][2 * step], p_frag[i], {{v_frag[0], v_frag[1]}});
                    mma(state.acc_o[i][2 * step + 1], p_frag[i], {{v_frag[2], v_frag[3]}});
                }
            }
        }
    }
};

// Epilogue: stores O / row_sum and lse of the warp's queries, from `query` on. O goes through shared memory in place of
// the warp's rows of Q, which all lanes have read.
template <uint32_t HS>
__device__ inline void epilogue(const AttentionForwardParams &params, const SoftmaxState<HS> &state, uint4 *staging,
                                uint32_t head, uint32_t query) {
    constexpr uint32_t CHUNKS = HS / VECTOR;
    const uint32_t lane_row = lane_id() / 4;
#pragma unroll
    for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
            float row_sum = state.row_sum[i][half];
            row_sum += __shfl_xor_sync(ALL_LANES, row_sum, 1);
            row_sum += __shfl_xor_sync(ALL_LANES, row_sum, 2);
            const float inverse = 1.0f / row_sum;
            const uint32_t row = 16 * i + 8 * half + lane_row;
#pragma unroll
            for (uint32_t j = 0; j < HS / MMA_N; j++) {
                const Accumulator &o = state.acc_o[i][j];
                reinterpret_cast<uint32_t *>(staging)[swizzled_offset<CHUNKS>(row, j) / 4 + lane_id() % 4] =
                    pack_bf16x2(o.c[2 * half] * inverse, o.c[2 * half + 1] * inverse);
            }
            if (lane_id() % 4 == 0 && query + row < params.t) {
                const float lse = (state.row_max[i][half] + log2_approx(row_sum)) * LN_2;
                params.lse[uint64_t(head) * params.t + query + row] = lse;
            }
        }
    }
    __syncwarp();  // RAW: lanes read what other lanes wrote to the staging buffer
    const HeadRows<bf16> out = rows_of_head<HS>(params.out, head, params.nh, params.t);
    store_tile<HS, WARP_M, true>(out.from(query), staging, params.t - query);
}

template <uint32_t HS>
__device__ inline void forward(const AttentionForwardParams &params) {
    constexpr uint32_t ROW_BYTES = HS * sizeof(bf16), TILE_BYTES = BLOCK_N * ROW_BYTES;
    constexpr uint32_t SUB_TILE_N = Warp<HS>::SUB_TILE_N;
    extern __shared__ uint4 shared[];
    const uint32_t q_tiles = (params.t + BLOCK_M - 1) / BLOCK_M;
    const CtaCoord coord = cta_coord(params.batch_heads, params.heads_per_group, q_tiles);
    // With a causal mask the last Q tiles have the most keys. They go first.
    const uint32_t query = (q_tiles - 1 - coord.tile) * BLOCK_M;
    // Shared memory: Q (BLOCK_M, HS), then two stages of K and V (BLOCK_N, HS) each.
    const uint32_t q_tile = shared_address(shared), stages = q_tile + BLOCK_M * ROW_BYTES;
    const HeadRows<const bf16> k = rows_of_head(params.k, coord.head, params.nh);
    const HeadRows<const bf16> v = rows_of_head(params.v, coord.head, params.nh);
    const uint32_t keys = params.causal ? min(query + BLOCK_M, params.t) : params.t;
    const uint32_t kv_tiles = (keys + BLOCK_N - 1) / BLOCK_N;

    // Issues the cp.async copies of K/V tile `tile` to its stage.
    const auto issue_kv = [&](uint32_t tile) {
        const uint32_t key = tile * BLOCK_N, stage = stages + tile % 2 * 2 * TILE_BYTES;
        copy_tiles_async<HS, BLOCK_N, THREADS, Warp<HS>::COPY_UNROLL>(stage, {k.from(key), v.from(key)},
                                                                      params.t - key);
        cp_async_commit();
    };
    // Prologue: Q and the first K/V tile.
    const HeadRows<const bf16> q = rows_of_head(params.q, coord.head, params.nh);
    copy_tiles_async<HS, BLOCK_M, THREADS, Unroll::OFFSETS>(q_tile, {q.from(query)}, params.t - query);
    issue_kv(0);
    cp_async_wait<0>();
    __syncthreads();  // RAW: the copies of all threads have arrived

    const uint32_t warp_query = warp_id() * WARP_M;
    const Warp<HS> warp(q_tile + warp_query * ROW_BYTES, params);
    // All keys before this one are visible to all queries of the warp. The next MASKED_N are the warp's diagonal, or
    // without a causal mask they contain the end of the sequence.
    const uint32_t first_masked = params.causal ? query + warp_query : params.t / MASKED_N * MASKED_N;
    SoftmaxState<HS> state = {};
#pragma unroll
    for (uint32_t i = 0; i < MMA_ITERS_M; i++) state.row_max[i][0] = state.row_max[i][1] = -INFINITY;
    // Mainloop over K/V tiles: the copies of the next tile are in flight while this one is processed.
    uint32_t tile = 0;
#pragma unroll 1
    do {
        if (tile + 1 < kv_tiles) issue_kv(tile + 1);
        const uint32_t k_tile = stages + tile % 2 * 2 * TILE_BYTES, v_tile = k_tile + TILE_BYTES;
        if (tile < first_masked / BLOCK_N) {
#pragma unroll
            for (uint32_t i = 0; i < TILE_BYTES; i += SUB_TILE_N * ROW_BYTES) {
                warp.template process_tile<SUB_TILE_N, Mask::NONE>(state, k_tile + i, v_tile + i);
            }
        }
        if (tile == first_masked / BLOCK_N) {
            // The keys to mask are in the first half of the tile or in the second.
            const uint32_t half = first_masked % BLOCK_N * ROW_BYTES;
            if (half) warp.template process_tile<MASKED_N, Mask::NONE>(state, k_tile, v_tile);
            if (params.causal) {
                warp.template process_tile<MASKED_N, Mask::DIAGONAL>(state, k_tile + half, v_tile + half);
            } else {
                warp.template process_tile<MASKED_N, Mask::END>(state, k_tile + half, v_tile + half);
            }
        }
        cp_async_wait<0>();
        __syncthreads();  // RAW: the next tile has arrived. WAR: all warps have read this one, which may be overwritten
    } while (++tile < kv_tiles);
    epilogue<HS>(params, state, shared + warp_query * ROW_BYTES / 16, coord.head, query + warp_query);
}

#define KERNEL(HS)                                                                                                     \
    extern "C" __global__ void __launch_bounds__(ATTENTION_FORWARD_THREADS, ATTENTION_FORWARD_MIN_BLOCKS)              \
        attention_forward_hs##HS(const __grid_constant__ AttentionForwardParams params) {                              \
        forward<HS>(params);                                                                                           \
    }

KERNEL(16)
KERNEL(32)
KERNEL(48)
KERNEL(64)
KERNEL(80)
KERNEL(96)
KERNEL(112)
KERNEL(128)
