// Attention, backward (FlashAttention-2), with O = out and dO = dout.
//           S[i,j] = q[i].k[j] / sqrt(HS), if causal for j <= i only, P[i,j] = exp(S[i,j] - lse[i]), dP = dO * V^T,
//           delta = rowsum(dO * O), dS[i,j] = P[i,j] * (dP[i,j] - delta[i]),
//           dQ = dS * K / sqrt(HS), dK = dS^T * Q / sqrt(HS), dV = P^T * dO
// Shapes:   q, k, v, dq, dk, dv (B, T, NH, HS) bf16, with strides of all axes but the last; dout, out (B, T, C) bf16;
//           lse (B, NH, T), stats (2, B, NH, T) f32; row-major, C = (NH, HS)
// Writes:   dq, dk, dv, stats "="
// Requires: HS as in the kernel's suffix; T < 2^31; token strides and C < 2^25; 16-byte-aligned pointers and strides
// Launch:   attention_backward_dq_*, then attention_backward_dkdv_*; one CTA of 4 warps per head and resident tile of
//           128 queries (dQ), 128 keys (dKdV up to HS = 64) or 64 keys (dKdV beyond); tiles with the most causal work
//           first, in groups of heads whose rows fit in L2; smem 4 * HS * (RESIDENT_ROWS + 2 * STREAMED_ROWS) bytes, in
//           dKdV 16 * STREAMED_ROWS more
// Numerics: bf16 MMAs with f32 accumulation; P and dS are rounded to bf16 for their MMAs, delta and all else is f32;
//           one rounding of each output at the end
// Traffic:  dQ: q, dout, out, lse, dq, stats once, each CTA reads k and v, if causal up to the row of its last query;
//           dKdV: k, v, dk, dv once, and each CTA reads q, dout, stats, if causal from the row of its first key on.
//           Repeated reads mostly hit L2
//
// Each kernel accumulates its outputs in registers, without atomics, so the result does not depend on the order of
// CTAs. P and dS never go through shared memory. The price is two GEMMs more than the minimum of five, because both
// kernels compute S and dP.
//
// One template serves both kernels. A CTA keeps a resident tile pair and loops over streamed tile pairs; tile QK of a
// pair is Q or K, tile DOV is dO or V:
//
//                           dQ kernel (queries resident)       dKdV kernel (keys resident)
//   resident QK, DOV        Q, dO  (RESIDENT_ROWS, HS)         K, V  (RESIDENT_ROWS, HS)
//   streamed QK, DOV        K, V   (STREAMED_ROWS, HS)         Q, dO (STREAMED_ROWS, HS)
//   acc_s                   S  = Q * K^T,   then P             S^T  = K * Q^T,   then P^T
//   acc_dp                  dP = dO * V^T,  then dS            dP^T = V * dO^T,  then dS^T
//   acc[DQ_DK]              dQ += dS * K                       dK += dS^T * Q
//   acc[DV]                 (none)                             dV += P^T * dO
//   lse, delta              of rows, in registers              of columns, in shared memory
#include "attention.cuh"

#include "common/math.cuh"
#include "common/opaque.cuh"

constexpr uint32_t THREADS = ATTENTION_BACKWARD_THREADS, WARPS = THREADS / WARP;
// Indices of the tiles of a pair and of the outputs: see the table above.
constexpr uint32_t QK = 0, DOV = 1;
constexpr uint32_t DQ_DK = 0, DV = 1;

// Tile sizes and register budget of the dKdV kernel (DKDV) or the dQ kernel.
template <uint32_t HS_, bool DKDV_>
struct Config {
    static constexpr uint32_t HS = HS_, K_STEPS = HS / MMA_K;
    static constexpr bool DKDV = DKDV_, SMALL_HS = HS <= ATTENTION_BACKWARD_MAX_SMALL_HS;
    // Beyond SMALL_HS, acc_dk and acc_dv of 32 rows per warp would not fit in registers.
    static constexpr uint32_t RESIDENT_ROWS = ATTENTION_BACKWARD_RESIDENT_ROWS / (DKDV && !SMALL_HS ? 2 : 1);
    static constexpr uint32_t STREAMED_ROWS =
        ATTENTION_BACKWARD_STREAMED_ROWS / (HS <= ATTENTION_BACKWARD_STREAMED_MAX_SMALL_HS ? 1 : 2);
    // Resident rows of a warp, and streamed rows per process_tile call (a sub-tile).
    static constexpr uint32_t WARP_M = RESIDENT_ROWS / WARPS, MMA_ITERS_M = WARP_M / MMA_M, SUB_TILE_N = 32;
    static constexpr bool SQUARE = WARP_M == SUB_TILE_N;
    static_assert(SQUARE || (DKDV && 2 * WARP_M == SUB_TILE_N), "the shapes that the causal mask supports");
    // Resident tiles (0 to 2) whose fragments stay in registers: as many as fit next to the accumulators. With both, the
    // dKdV kernel of HS = 112 spills on sm_100 and sm_120.
    static constexpr uint32_t DKDV_REGISTER_TILES = HS <= 32 || HS == 80 || HS == 96 ? 2 : HS >= 112;
    static constexpr uint32_t DQ_REGISTER_TILES = SMALL_HS ? 2 : HS == 80;
    static constexpr uint32_t REGISTER_TILES = DKDV ? DKDV_REGISTER_TILES : DQ_REGISTER_TILES;
    // k-steps whose loads ptxas may interleave. With more, it spills; for HS = 64, on sm_90a and sm_120.
    static constexpr uint32_t UNROLL = HS == 64 ? 2 : 4;
    // For the copies of streamed tiles. With OFFSETS, ptxas spills for HS = 128, and the loops of HS = 64 are longer.
    static constexpr Unroll COPY_UNROLL = HS < 64 ? Unroll::OFFSETS : Unroll::POINTERS;
    // With three CTAs per SM required, ptxas needs 168 registers for HS = 32, else 191.
    static constexpr bool THREE_BLOCKS = !DKDV && HS <= ATTENTION_BACKWARD_DQ_MAX_SMALL_HS;
    static constexpr uint32_t MIN_BLOCKS =
        THREE_BLOCKS ? ATTENTION_BACKWARD_DQ_SMALL_MIN_BLOCKS : ATTENTION_BACKWARD_MIN_BLOCKS;
    static constexpr uint32_t ROW_BYTES = HS * sizeof(bf16), OUTPUTS = DKDV ? 2 : 1;
    // A stage holds a streamed tile pair; in the dKdV kernel, -lse * log2(e) and -delta of its queries follow.
    static constexpr uint32_t STATS_OFFSET = 2 * STREAMED_ROWS * ROW_BYTES;
    static constexpr uint32_t STAGE_BYTES = STATS_OFFSET + (DKDV ? 2 * STREAMED_ROWS * sizeof(float) : 0);
};

// The work of one warp on streamed tiles.
template <class C>
struct Warp {
    static constexpr uint32_t MMA_ITERS_M = C::MMA_ITERS_M, MMA_ITERS_N = C::SUB_TILE_N / MMA_N, HS = C::HS;
    FragmentA resident_frag[C::REGISTER_TILES ? C::REGISTER_TILES * C::K_STEPS : 1][MMA_ITERS_M];
    // row_loader: A fragments of the resident tiles and, transposed, B fragments of "* streamed".
    // column_loader: B fragments of "* streamed^T".
    SharedToRegister<HS> row_loader, column_loader;
    // Shared address of the warp's rows of the resident tile pair.
    uint32_t resident;
    float softmax_scale_log2;
    // Mask::END: valid keys of the sub-tile, 1 to SUB_TILE_N.
    uint32_t valid_keys;
    // dQ kernel: -lse * log2(e) and -delta of the warp's queries. A lane holds rows lane / 4 + 8 * half of each MMA.
    float minus_lse[MMA_ITERS_M][2], minus_delta[MMA_ITERS_M][2];

    __device__ Warp(uint32_t resident, const AttentionBackwardParams &params)
        : row_loader(lane_id() / 8 % 2, lane_id() / 16), column_loader(lane_id() / 16, lane_id() / 8 % 2),
          resident(resident), softmax_scale_log2(params.softmax_scale_log2),
          valid_keys((params.t - 1) % C::SUB_TILE_N + 1) {
        if constexpr (C::REGISTER_TILES > 0) {
#pragma unroll
            for (uint32_t i = 0; i < C::REGISTER_TILES * C::K_STEPS; i++) {
                load_resident(resident_frag[i], i / C::K_STEPS, i % C::K_STEPS);
            }
        }
    }

    // Loads the warp's A fragments (WARP_M, 16) of resident tile QK or DOV at a k-step.
    __device__ void load_resident(FragmentA (&a)[MMA_ITERS_M], uint32_t tile, uint32_t step) const {
#pragma unroll
        for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
            const uint32_t resident_tile = resident + tile * C::RESIDENT_ROWS * C::ROW_BYTES;
            row_loader.template load<false>(a[i].regs, resident_tile, MMA_M * i, step);
        }
    }

    // acc (WARP_M, SUB_TILE_N) += resident (WARP_M, HS) * streamed^T, streamed (SUB_TILE_N, HS)
    template <uint32_t TILE>
    __device__ void multiply_resident(Accumulator (&acc)[MMA_ITERS_M][MMA_ITERS_N], uint32_t streamed) const {
        constexpr bool IN_REGISTERS = TILE < C::REGISTER_TILES;
#pragma unroll(IN_REGISTERS ? C::K_STEPS : C::UNROLL)
        for (uint32_t step = 0; step < C::K_STEPS; step++) {
            FragmentA loaded[MMA_ITERS_M];
            if constexpr (!IN_REGISTERS) load_resident(loaded, TILE, step);
            const FragmentA *a = IN_REGISTERS ? resident_frag[IN_REGISTERS ? TILE * C::K_STEPS + step : 0] : loaded;
#pragma unroll
            for (uint32_t j = 0; j < MMA_ITERS_N / 2; j++) {
                uint32_t b[4];
                column_loader.template load<false>(b, streamed, 16 * j, step);
#pragma unroll
                for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
                    // (16, 8) += resident (16, 16) * streamed^T, streamed (8, 16)
                    mma(acc[i][2 * j], a[i], {{b[0], b[1]}});
                    mma(acc[i][2 * j + 1], a[i], {{b[2], b[3]}});
                }
            }
        }
    }

    // acc (WARP_M, HS) += p_or_ds (WARP_M, SUB_TILE_N) * streamed (SUB_TILE_N, HS)
    __device__ void multiply_streamed(Accumulator (&acc)[MMA_ITERS_M][HS / MMA_N],
                                      const Accumulator (&p_or_ds)[MMA_ITERS_M][MMA_ITERS_N], uint32_t streamed) const {
#pragma unroll
        for (uint32_t j = 0; j < MMA_ITERS_N / 2; j++) {
            FragmentA a[MMA_ITERS_M];
#pragma unroll
            for (uint32_t i = 0; i < MMA_ITERS_M; i++) a[i] = pack_a_fragment(p_or_ds[i][2 * j], p_or_ds[i][2 * j + 1]);
#pragma unroll
            for (uint32_t step = 0; step < C::K_STEPS; step++) {
                uint32_t b[4];
                row_loader.template load<true>(b, streamed, 16 * j, step);
#pragma unroll
                for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
                    // (16, 8) += p_or_ds (16, 16) * streamed (16, 8)
                    mma(acc[i][2 * step], a[i], {{b[0], b[1]}});
                    mma(acc[i][2 * step + 1], a[i], {{b[2], b[3]}});
                }
            }
        }
    }

    // Processes a sub-tile of SUB_TILE_N streamed rows; the comments say what each phase computes in the dQ and in the
    // dKdV kernel. `streamed_qk` is its shared address in the streamed QK tile, `stats` points to its
    // queries' -lse * log2(e) (dKdV).
    template <Mask MASK>
    __device__ void process_tile(Accumulator (&acc)[C::OUTPUTS][MMA_ITERS_M][HS / MMA_N], uint32_t streamed_qk,
                                 const float *stats, bool diagonal_in_second_half = false) const {
        Accumulator acc_s[MMA_ITERS_M][MMA_ITERS_N] = {}, acc_dp[MMA_ITERS_M][MMA_ITERS_N];
        // S = Q * K^T or S^T = K * Q^T
        multiply_resident<QK>(acc_s, streamed_qk);
        if constexpr (MASK == Mask::DIAGONAL) mask_diagonal(acc_s, diagonal_in_second_half);
        if constexpr (MASK == Mask::END) mask_end(acc_s);
        // P = 2^(S * softmax_scale_log2 - lse * log2(e)), in place of S
#pragma unroll
        for (uint32_t j = 0; j < MMA_ITERS_N; j++) {
            float column_minus_lse[2];
            if constexpr (C::DKDV) load_column_pair(column_minus_lse, stats, j);
#pragma unroll
            for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
#pragma unroll
                for (uint32_t k = 0; k < 4; k++) {
                    const float shift = C::DKDV ? column_minus_lse[k % 2] : minus_lse[i][k / 2];
                    acc_s[i][j].c[k] = exp2_approx(fmaf(acc_s[i][j].c[k], softmax_scale_log2, shift));
                }
            }
        }
        // dP - delta = dO * V^T - delta or its transpose: the accumulators start from -delta
        const uint32_t streamed_dov = streamed_qk + C::STREAMED_ROWS * C::ROW_BYTES;
#pragma unroll
        for (uint32_t j = 0; j < MMA_ITERS_N; j++) {
            float column_minus_delta[2];
            if constexpr (C::DKDV) load_column_pair(column_minus_delta, stats + C::STREAMED_ROWS, j);
#pragma unroll
            for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
#pragma unroll
                for (uint32_t k = 0; k < 4; k++) {
                    acc_dp[i][j].c[k] = C::DKDV ? column_minus_delta[k % 2] : minus_delta[i][k / 2];
                }
            }
        }
        multiply_resident<DOV>(acc_dp, streamed_dov);
        // dV += P^T * dO
        if constexpr (C::DKDV) multiply_streamed(acc[DV], acc_s, streamed_dov);
        // dS = P * (dP - delta) elementwise, in place of dP - delta
#pragma unroll
        for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
#pragma unroll
            for (uint32_t j = 0; j < MMA_ITERS_N; j++) {
#pragma unroll
                for (uint32_t k = 0; k < 4; k++) acc_dp[i][j].c[k] *= acc_s[i][j].c[k];
            }
        }
        // dQ += dS * K or dK += dS^T * Q
        multiply_streamed(acc[DQ_DK], acc_dp, streamed_qk);
    }

    // Loads -lse * log2(e) or -delta of the two columns that this lane holds in MMA `j`.
    __device__ static void load_column_pair(float (&to)[2], const float *from, uint32_t j) {
        const float2 pair = *reinterpret_cast<const float2 *>(from + 8 * j + lane_id() % 4 * 2);
        to[0] = pair.x;
        to[1] = pair.y;
    }

    // Causal mask: sets the scores of keys after their query to -infinity. If SQUARE, resident and streamed rows start
    // at the same token and the mask is a triangle. Otherwise the warp's 16 keys are those of the first half of the
    // sub-tile's 32 queries, or with `diagonal_in_second_half` of the second half: then no query of the first half sees
    // them.
    __device__ void mask_diagonal(Accumulator (&acc_s)[MMA_ITERS_M][MMA_ITERS_N], bool diagonal_in_second_half) const {
        // Of this lane's first accumulator element.
        const int32_t row_minus_column = int32_t(lane_id() / 4) - int32_t(lane_id() % 4 * 2);
        const int32_t query_minus_key = C::DKDV ? -row_minus_column : row_minus_column;
#pragma unroll
        for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
#pragma unroll
            for (uint32_t j = 0; j < MMA_ITERS_N; j++) {
#pragma unroll
                for (uint32_t k = 0; k < 4; k++) {
                    const int32_t row = 16 * i + k / 2 * 8, column = (C::SQUARE ? 8 * j : 8 * (j % 2)) + k % 2;
                    const int32_t key_minus_query = C::DKDV ? row - column : column - row;
                    // query_minus_key is in [-7, 7]. Outside that range the compiler knows whether 8 x 8 elements are
                    // all masked or all visible.
                    bool masked = key_minus_query >= 7 || (key_minus_query > -7 && key_minus_query > query_minus_key);
                    if (!C::SQUARE) {
                        const bool first_half = j < MMA_ITERS_N / 2;
                        masked = first_half ? diagonal_in_second_half || masked : diagonal_in_second_half && masked;
                    }
                    if (masked) acc_s[i][j].c[k] = -INFINITY;
                }
            }
        }
    }

    // dQ kernel without a causal mask: sets the scores of keys past the end of the sequence to -infinity.
    __device__ void mask_end(Accumulator (&acc_s)[MMA_ITERS_M][MMA_ITERS_N]) const {
#pragma unroll
        for (uint32_t j = 0; j < MMA_ITERS_N; j++) {
#pragma unroll
            for (uint32_t k = 0; k < 4; k++) {
                const bool masked = 8 * j + k % 2 + lane_id() % 4 * 2 >= valid_keys;
#pragma unroll
                for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
                    if (masked) acc_s[i][j].c[k] = -INFINITY;
                }
            }
        }
    }
};

// dQ kernel: computes -delta = -rowsum(dO * O) and -lse * log2(e) of the warp's queries, from `query` on. Both stay in
// registers and are stored to `stats` for the dKdV kernel. `dout` is the warp's rows of dO in shared memory.
template <class C>
__device__ inline void compute_delta(const AttentionBackwardParams &params, Warp<C> &warp, const uint4 *dout,
                                     uint32_t head, uint32_t query) {
    constexpr uint32_t CHUNKS = C::HS / VECTOR;
    const HeadRows<const bf16> out = rows_of_head<C::HS>(params.out, head, params.nh, params.t);
#pragma unroll
    for (uint32_t i = 0; i < C::WARP_M / 8; i++) {
        // Four lanes share a row. The lanes of eight rows read the same column, which has no bank conflict.
        const uint32_t row = 8 * i + lane_id() % 8;
        const bool in_bounds = query + row < params.t;
        float delta = 0, minus_lse = 0;
        if (in_bounds) {
#pragma unroll
            for (uint32_t j = 0; j < CHUNKS; j += 4) {
                const uint32_t chunk = j + lane_id() / 8;
                if (j + 4 > CHUNKS && chunk >= CHUNKS) break;
                const f32x8 o = load(out.from(query + row).first + chunk * VECTOR);
                const f32x8 d_o = unpack(dout[swizzled_offset<CHUNKS>(row, chunk) / 16]);
#pragma unroll
                for (uint32_t x = 0; x < VECTOR; x++) delta = fmaf(d_o.at[x], o.at[x], delta);
            }
        }
        delta += __shfl_xor_sync(ALL_LANES, delta, 8);
        delta += __shfl_xor_sync(ALL_LANES, delta, 16);
        if (in_bounds && lane_id() < 8) {
            const uint64_t index = uint64_t(head) * params.t + query + row;
            minus_lse = params.lse[index] * -LOG2_E;
            params.stats[index] = minus_lse;
            params.stats[uint64_t(params.batch_heads) * params.t + index] = -delta;
        }
        warp.minus_lse[i / 2][i % 2] = __shfl_sync(ALL_LANES, minus_lse, lane_id() / 4);
        warp.minus_delta[i / 2][i % 2] = __shfl_sync(ALL_LANES, -delta, lane_id() / 4);
    }
}

// Epilogue: stores one output of the warp, times `scale`. It goes through shared memory in place of the warp's rows of
// the resident tile, which all lanes have read.
template <class C>
__device__ inline void epilogue(const Accumulator (&acc)[C::MMA_ITERS_M][C::HS / MMA_N], float scale,
                                const HeadRows<bf16> &to, uint4 *staging, int32_t rows_left) {
#pragma unroll
    for (uint32_t i = 0; i < C::MMA_ITERS_M; i++) {
#pragma unroll
        for (uint32_t half = 0; half < 2; half++) {
#pragma unroll
            for (uint32_t j = 0; j < C::HS / MMA_N; j++) {
                const uint32_t row = 16 * i + 8 * half + lane_id() / 4;
                reinterpret_cast<uint32_t *>(staging)[swizzled_offset<C::HS / VECTOR>(row, j) / 4 + lane_id() % 4] =
                    pack_bf16x2(acc[i][j].c[2 * half] * scale, acc[i][j].c[2 * half + 1] * scale);
            }
        }
    }
    __syncwarp();  // RAW: lanes read what other lanes wrote to the staging buffer
    store_tile<C::HS, C::WARP_M, false>(to, staging, rows_left);
}

template <class C>
__device__ inline void backward(const AttentionBackwardParams &params) {
    constexpr uint32_t HS = C::HS, ROW_BYTES = C::ROW_BYTES, STREAMED_ROWS = C::STREAMED_ROWS;
    // Shared memory: the resident tile pair, then two stages of streamed tile pairs.
    constexpr uint32_t RESIDENT_TILE_BYTES = C::RESIDENT_ROWS * ROW_BYTES;
    extern __shared__ uint4 shared[];
    const uint32_t nh = params.nh, t = params.t;
    const CtaCoord coord = cta_coord(params.batch_heads, params.heads_per_group, params.resident_tiles);
    // With a causal mask, the first keys and the last queries have the most work. Their tiles go first.
    const uint32_t first_row = (C::DKDV ? coord.tile : params.resident_tiles - 1 - coord.tile) * C::RESIDENT_ROWS;
    const uint32_t resident = shared_address(shared), stages = resident + 2 * RESIDENT_TILE_BYTES;
    const uint32_t head = coord.head;
    const HeadRows<const bf16> queries[2] = {rows_of_head(params.q, head, nh),
                                             rows_of_head<HS>(params.dout, head, nh, t)};
    const HeadRows<const bf16> keys[2] = {rows_of_head(params.k, head, nh), rows_of_head(params.v, head, nh)};
    const HeadRows<const bf16>(&resident_rows)[2] = C::DKDV ? keys : queries;
    const HeadRows<const bf16>(&streamed_rows)[2] = C::DKDV ? queries : keys;
    // Issues the cp.async copies of the streamed tile pair that starts at token `row` to its stage.
    const auto issue_stage = [&](uint32_t row) {
        const uint32_t stage = stages + row / STREAMED_ROWS % 2 * C::STAGE_BYTES;
        copy_tiles_async<HS, STREAMED_ROWS, THREADS, C::COPY_UNROLL>(
            stage, {streamed_rows[QK].from(row), streamed_rows[DOV].from(row)}, t - row);
        if (C::DKDV && (2 * STREAMED_ROWS == THREADS || threadIdx.x < 2 * STREAMED_ROWS)) {
            const uint32_t stat = threadIdx.x / STREAMED_ROWS, query = row + threadIdx.x % STREAMED_ROWS;
            const uint64_t index = (uint64_t(stat) * params.batch_heads + head) * t + query;
            cp_async_4(stage + C::STATS_OFFSET + threadIdx.x * sizeof(float), params.stats + index, query < t);
        }
        cp_async_commit();
    };
    // Streamed rows are [row, end): with a causal mask, queries see the keys up to their own token, and keys are
    // visible to the queries from their own token on.
    uint32_t row = C::DKDV && params.causal ? first_row : 0;
    const uint32_t row_limit = !C::DKDV && params.causal ? min(first_row + C::RESIDENT_ROWS, t) : t;
    const uint32_t end = (row_limit + STREAMED_ROWS - 1) / STREAMED_ROWS * STREAMED_ROWS;
    // Prologue: the resident tile pair and the first streamed one.
    copy_tiles_async<HS, C::RESIDENT_ROWS, THREADS, Unroll::NONE>(
        resident, {resident_rows[QK].from(first_row), resident_rows[DOV].from(first_row)}, t - first_row);
    issue_stage(row);
    cp_async_wait<0>();
    __syncthreads();  // RAW: the copies of all threads have arrived

    const uint32_t warp_offset = warp_id() * C::WARP_M, warp_row = first_row + warp_offset;
    uint4 *warp_rows = shared + warp_offset * ROW_BYTES / 16;
    Warp<C> warp(resident + warp_offset * ROW_BYTES, params);
    if constexpr (!C::DKDV) {
        compute_delta<C>(params, warp, warp_rows + RESIDENT_TILE_BYTES / 16, head, warp_row);
    }
    // First token of the sub-tile that has keys to mask. Without a causal mask, that is the dQ kernel's last sub-tile.
    // The dKdV kernel then masks nothing: queries past the end add nothing, because their dO is zero, and the rows of
    // keys past the end are not stored.
    const uint32_t masked_row = C::DKDV || params.causal ? warp_row : (t - 1) / C::SUB_TILE_N * C::SUB_TILE_N;
    // Mainloop over sub-tiles: the copies of the next streamed tile pair are in flight while this one is processed.
    Accumulator acc[C::OUTPUTS][C::MMA_ITERS_M][HS / MMA_N] = {};
#pragma unroll 1
    do {
        if (row % STREAMED_ROWS == 0 && row + STREAMED_ROWS < end) issue_stage(row + STREAMED_ROWS);
        const uint32_t stage = 2 * RESIDENT_TILE_BYTES + row / STREAMED_ROWS % 2 * C::STAGE_BYTES;
        const uint32_t i = row % STREAMED_ROWS;
        const uint32_t streamed = resident + stage + i * ROW_BYTES;
        const float *stats = reinterpret_cast<const float *>(shared) + (stage + C::STATS_OFFSET) / 4 + i;
        // Above 0, all queries see all keys. Below the warp's diagonal or past the end, the sub-tile is skipped.
        const int32_t query_minus_key = C::DKDV ? row - masked_row : masked_row - row;
        if (query_minus_key > 0 || (C::DKDV && !params.causal)) {
            warp.template process_tile<Mask::NONE>(acc, streamed, stats);
        } else if (query_minus_key >= int32_t(C::WARP_M) - int32_t(C::SUB_TILE_N)) {
            if (C::DKDV || params.causal) {
                warp.template process_tile<Mask::DIAGONAL>(acc, streamed, stats, query_minus_key < 0);
            } else {
                warp.template process_tile<Mask::END>(acc, streamed, stats);
            }
        }
        row += C::SUB_TILE_N;
        if (row % STREAMED_ROWS == 0) {
            cp_async_wait<0>();
            // RAW: the next stage has arrived. WAR: all warps have read this one, which may be overwritten.
            __syncthreads();
        }
    } while (row != end);

    const int32_t rows_left = t - warp_row;
    // Batch index and head index are computed again. In registers during the mainloop, they make ptxas spill.
    const uint32_t out_head = opaque(head);
    if constexpr (C::DKDV) {
        const HeadRows<bf16> dk = rows_of_head(params.dk, out_head, nh), dv = rows_of_head(params.dv, out_head, nh);
        epilogue<C>(acc[DQ_DK], params.softmax_scale, dk.from(warp_row), warp_rows, rows_left);
        epilogue<C>(acc[DV], 1.0f, dv.from(warp_row), warp_rows + RESIDENT_TILE_BYTES / 16, rows_left);
    } else {
        const HeadRows<bf16> dq = rows_of_head(params.dq, out_head, nh);
        epilogue<C>(acc[DQ_DK], params.softmax_scale, dq.from(warp_row), warp_rows, rows_left);
    }
}

#define KERNEL(NAME, DKDV, HS)                                                                                         \
    extern "C" __global__ void __launch_bounds__(ATTENTION_BACKWARD_THREADS, Config<HS, DKDV>::MIN_BLOCKS)             \
        attention_backward_##NAME##_hs##HS(const __grid_constant__ AttentionBackwardParams params) {                   \
        backward<Config<HS, DKDV>>(params);                                                                            \
    }
#define KERNELS(HS)                                                                                                    \
    KERNEL(dq, false, HS)                                                                                              \
    KERNEL(dkdv, true, HS)

KERNELS(16)
KERNELS(32)
KERNELS(48)
KERNELS(64)
KERNELS(80)
KERNELS(96)
KERNELS(112)
KERNELS(128)
