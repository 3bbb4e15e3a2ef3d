// Causal attention, step 4 of docs/study/ladder/attention.md: tensor cores
// Formula:  out = softmax(Q * K^T * scale) * V
// Change:   both GEMMs use mma, for 16 queries of a warp at a time. Q, K and V stay bf16 in shared memory. P does not
//           go there: the accumulators of S are in the layout of an A fragment and only need rounding. Four lanes share
//           a row
// Shapes:   qkv (B, T, 3C) at q.data, out (B, T, C) bf16; lse (B, NH, T) f32; row-major, C = (NH, HS)
// Writes:   out, lse "="
// Requires: HS = 64, T % 128 == 0; 16-byte-aligned pointers
// Launch:   as kernels/attention_forward_sm80.cu: one CTA of 4 warps per head and BLOCK_M = 128 queries
// Numerics: as kernels/attention_forward_sm80.cu
// Traffic:  q, out and lse once; each CTA reads k and v up to the row of its last query
#include "../../attention.cuh"
#include "../../common/math.cuh"
#include "../../params/attention.h"

constexpr uint32_t HS = 64, K_STEPS = HS / MMA_K, CHUNKS = HS / VECTOR, THREADS = ATTENTION_FORWARD_THREADS;
constexpr uint32_t BLOCK_M = ATTENTION_FORWARD_BLOCK_M, BLOCK_N = ATTENTION_FORWARD_BLOCK_N;
constexpr uint32_t WARP_M = BLOCK_M / (THREADS / WARP), MMA_ITERS_M = WARP_M / MMA_M;

// Index of 16-byte chunk `chunk` of a row: all rows begin in the same bank.
__device__ inline uint32_t chunk_at(uint32_t row, uint32_t chunk) { return row * CHUNKS + chunk; }

// Copies a ROWS x HS tile of Q, K or V to shared memory.
template <uint32_t ROWS>
__device__ inline void copy_tile(bf16x8 *to, const bf16 *from, uint32_t stride) {
    const uint32_t thread_row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
#pragma unroll
    for (uint32_t first = 0; first < ROWS; first += THREADS / CHUNKS) {
        const uint32_t row = first + thread_row;
        to[chunk_at(row, chunk)] = load_packed(from + uint64_t(row) * stride + chunk * VECTOR);
    }
}

// O (16, HS) before the division by row_sum, the largest score so far times softmax_scale_log2, and this lane's part of
// sum_j 2^(score - row_max). A lane holds the rows lane / 4 + 8 * half.
struct SoftmaxState {
    Accumulator acc_o[HS / MMA_N];
    float row_max[2], row_sum[2];
};

// Processes a K/V tile for 16 queries; the first query's token minus the tile's first key's is `query_minus_key`.
__device__ inline void process_tile(SoftmaxState &state, uint32_t q_tile, uint32_t k_tile, uint32_t v_tile,
                                    int32_t query_minus_key, float softmax_scale_log2) {
    // Row and 8 x 8 matrix of the fragment whose row address this lane passes to ldmatrix.
    const uint32_t row = lane_id() % 8, bit0 = lane_id() / 8 % 2, bit1 = lane_id() / 16;
    // S (16, BLOCK_N) = Q (16, HS) * K^T, K (BLOCK_N, HS)
    Accumulator acc_s[BLOCK_N / MMA_N] = {};
#pragma unroll
    for (uint32_t step = 0; step < K_STEPS; step++) {
        FragmentA q_frag;
        ldmatrix_x4<false>(q_frag.regs, q_tile + 16 * chunk_at(8 * bit0 + row, 2 * step + bit1));
#pragma unroll
        for (uint32_t j = 0; j < BLOCK_N / 16; j++) {
            uint32_t k_frag[4];
            ldmatrix_x4<false>(k_frag, k_tile + 16 * chunk_at(16 * j + 8 * bit1 + row, 2 * step + bit0));
            // S (16, 8) += Q (16, 16) * K^T, K (8, 16)
            mma(acc_s[2 * j], q_frag, {{k_frag[0], k_frag[1]}});
            mma(acc_s[2 * j + 1], q_frag, {{k_frag[2], k_frag[3]}});
        }
    }
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        // causal mask and row_max; four lanes share a row
        const int32_t last_key = query_minus_key + int32_t(lane_id() / 4 + 8 * half) - int32_t(lane_id() % 4 * 2);
        float largest = -INFINITY;
#pragma unroll
        for (uint32_t j = 0; j < BLOCK_N / MMA_N; j++) {
#pragma unroll
            for (uint32_t i = 0; i < 2; i++) {
                float &score = acc_s[j].c[2 * half + i];
                if (int32_t(8 * j + i) > last_key) score = -INFINITY;
                largest = fmaxf(largest, score);
            }
        }
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 1));
        largest = fmaxf(largest, __shfl_xor_sync(ALL_LANES, largest, 2));
        const float old_max = state.row_max[half], new_max = fmaxf(old_max, largest * softmax_scale_log2);
        const float rescale = exp2_approx(old_max - new_max);
        state.row_max[half] = new_max;
        state.row_sum[half] *= rescale;
        // P in place of S, row_sum, and O rescaled to the new row_max
#pragma unroll
        for (uint32_t j = 0; j < BLOCK_N / MMA_N; j++) {
#pragma unroll
            for (uint32_t i = 0; i < 2; i++) {
                acc_s[j].c[2 * half + i] = exp2_approx(fmaf(acc_s[j].c[2 * half + i], softmax_scale_log2, -new_max));
                state.row_sum[half] += acc_s[j].c[2 * half + i];
                state.acc_o[j].c[2 * half + i] *= rescale;
            }
        }
    }
    // O (16, HS) += P (16, BLOCK_N) * V (BLOCK_N, HS)
#pragma unroll
    for (uint32_t j = 0; j < BLOCK_N / 16; j++) {
        const FragmentA p_frag = pack_a_fragment(acc_s[2 * j], acc_s[2 * j + 1]);
#pragma unroll
        for (uint32_t step = 0; step < K_STEPS; step++) {
            uint32_t v_frag[4];
            ldmatrix_x4<true>(v_frag, v_tile + 16 * chunk_at(16 * j + 8 * bit0 + row, 2 * step + bit1));
            // O (16, 8) += P (16, 16) * V (16, 8)
            mma(state.acc_o[2 * step], p_frag, {{v_frag[0], v_frag[1]}});
            mma(state.acc_o[2 * step + 1], p_frag, {{v_frag[2], v_frag[3]}});
        }
    }
}

// Stores O / row_sum and lse of 16 queries, in pairs in the mma layout: a request is 8 rows of 16 bytes, half sectors.
__device__ inline void epilogue(const SoftmaxState &state, bf16 *out, float *lse, uint32_t c) {
    const uint32_t row = lane_id() / 4, column = lane_id() % 4 * 2;
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        float row_sum = state.row_sum[half];
        row_sum += __shfl_xor_sync(ALL_LANES, row_sum, 1);
        row_sum += __shfl_xor_sync(ALL_LANES, row_sum, 2);
        const float inverse = 1.0f / row_sum;
#pragma unroll
        for (uint32_t j = 0; j < HS / MMA_N; j++) {
            bf16 *to = out + uint64_t(8 * half + row) * c + 8 * j + column;
            const float *pair = &state.acc_o[j].c[2 * half];
            *reinterpret_cast<uint32_t *>(to) = pack_bf16x2(pair[0] * inverse, pair[1] * inverse);
        }
        if (column == 0) lse[8 * half + row] = (state.row_max[half] + log2_approx(row_sum)) * LN_2;
    }
}

extern "C" __global__ void __launch_bounds__(ATTENTION_FORWARD_THREADS, ATTENTION_FORWARD_MIN_BLOCKS)
    attention_forward_hs64(const __grid_constant__ AttentionForwardParams params) {
    extern __shared__ bf16x8 shared[];
    bf16x8 *k_tile = shared + BLOCK_M * CHUNKS, *v_tile = k_tile + BLOCK_N * CHUNKS;
    const uint32_t q_tiles = params.t / BLOCK_M;
    const uint32_t head = blockIdx.x / q_tiles, query = blockIdx.x % q_tiles * BLOCK_M;
    const uint32_t c = params.nh * HS, stride = 3 * c, warp_query = warp_id() * WARP_M;
    const bf16 *sequence = params.q.data + uint64_t(head / params.nh) * params.t * stride + head % params.nh * HS;

    copy_tile<BLOCK_M>(shared, sequence + uint64_t(query) * stride, stride);
    SoftmaxState state[MMA_ITERS_M] = {};
    for (SoftmaxState &s : state) s.row_max[0] = s.row_max[1] = -INFINITY;
    for (uint32_t first = 0; first < query + BLOCK_M; first += BLOCK_N) {
        const bf16 *from = sequence + uint64_t(first) * stride;
        copy_tile<BLOCK_N>(k_tile, from + c, stride);
        copy_tile<BLOCK_N>(v_tile, from + 2 * c, stride);
        __syncthreads();  // RAW: warps read what others have copied
#pragma unroll
        for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
            const uint32_t row = warp_query + 16 * i;
            process_tile(state[i], shared_address(shared + chunk_at(row, 0)), shared_address(k_tile),
                         shared_address(v_tile), int32_t(query + row - first), params.softmax_scale_log2);
        }
        __syncthreads();  // WAR: all warps have read the tiles before the next ones are copied
    }
#pragma unroll
    for (uint32_t i = 0; i < MMA_ITERS_M; i++) {
        const uint64_t row = query + warp_query + 16 * i;
        bf16 *out = params.out + (uint64_t(head / params.nh) * params.t + row) * c + head % params.nh * HS;
        epilogue(state[i], out, params.lse + uint64_t(head) * params.t + row, c);
    }
}
