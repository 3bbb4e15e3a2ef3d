// LayerNorm.  out = (x - mean) * rstd * weight + bias, alone or of sum = x + residual; and the backward
//             dx (+)= rstd * (g - mean(g) - xhat * mean(g * xhat)), dweight (+)= sum_n dout * xhat,
//             dbias (+)= sum_n dout, with xhat = (x - mean) * rstd and g = dout * weight
// Shapes:   x, residual, sum, out, dout, dx (N, C) bf16; weight, bias (C) bf16; mean, rstd (N) f32;
//           dweight, dbias (C) f32; row-major
// Writes:   sum, out, mean, rstd "="; dx, dweight, dbias as asked
// Requires: C % 8 == 0, C <= 12288; 16-byte-aligned pointers but for mean and rstd
// Launch:   block 256; the suffix is the largest C; one warp = one row, or 2 or 8 warps as C grows; blocks go on to
//           further rows. The backward leaves a partial sum of dweight and dbias a block, which a second kernel adds up
// Numerics: f32, two-pass variance of the row in registers; sum is rounded before it is normalised. All sums in an
//           order that N and C alone decide
// Traffic:  forward 4*N*C + 8*N + 4*C bytes, with residual 8*N*C; backward 6*N*C (dx += 8*N*C) + 8*N and 16*C a block;
//           memory-bound
#include "common/reduce.cuh"
#include "params/layernorm.h"

constexpr uint32_t WARPS = LAYERNORM_THREADS / WARP;
// As src/ops/mod.rs has it.
constexpr float LAYERNORM_EPS = 1e-5f;

// ---------------------------------------------------------------------------------------------------------------------
// device helpers

// Thread `thread` of a row has the vectors thread, thread + STRIDE, … : neighbours read neighbours. In the smallest row
// that a kernel is for, every thread has FULL of them.
template <int FULL, uint32_t VECTORS, uint32_t STRIDE, typename F>
__device__ inline void for_each_vector(uint32_t thread, uint32_t vectors, F f) {
#pragma unroll
    for (uint32_t i = 0; i < VECTORS; i++) {
        const uint32_t v = thread + i * STRIDE;
        if (int(i) < FULL || v < vectors) f(i, v);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// forward

// Held to 64 registers (128 where a row has 8 vectors a thread), so that a multiprocessor has four (two) blocks: 48 KB in
// flight at C = 768, 51 at C = 1600, where 30 hide the latency of HBM3. With the residual it is twice that, and the widest
// rows would spill at 64: they have three blocks.
template <uint32_t ROW_WARPS, int FULL, uint32_t VECTORS, bool RESIDUAL>
__device__ inline void forward(const LayernormForwardParams &params) {
    constexpr uint32_t ROWS = WARPS / ROW_WARPS, STRIDE = ROW_WARPS * WARP;
    extern __shared__ bf16x8 shared[];
    __shared__ float partials[2][ROW_WARPS];
    const uint32_t vectors = uint32_t(params.c) / VECTOR;
    const uint32_t thread = threadIdx.x % STRIDE, group = threadIdx.x / STRIDE;
    const float channels = float(params.c);

    // Once a block: from the cache they would be as many bytes again as x.
    bf16x8 *weight = shared, *bias = shared + vectors;
#pragma unroll 1
    for (uint32_t v = threadIdx.x; v < vectors; v += LAYERNORM_THREADS) {
        weight[v] = load_packed(params.weight + v * VECTOR);
        bias[v] = load_packed(params.bias + v * VECTOR);
    }
    // Where a row is the whole block's, each thread reads what it has loaded itself.
    if constexpr (ROWS > 1) __syncthreads();

    // 64 bits: N * C may pass 2^32.
    for (uint64_t row = uint64_t(blockIdx.x) * ROWS + group; row < params.n; row += uint64_t(gridDim.x) * ROWS) {
        const uint64_t start = row * params.c;
        // All of both before the first store of sum: the compiler moves no load across a store that might be to its address.
        bf16x8 x[VECTORS], residual[RESIDUAL ? VECTORS : 1];
        for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t v) {
            x[i] = load_packed(params.x + start + v * VECTOR);
            if constexpr (RESIDUAL) residual[i] = load_packed(params.residual + start + v * VECTOR);
        });
        if constexpr (RESIDUAL) {
            for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t v) {
                f32x8 sum = unpack(x[i]);
                const f32x8 added = unpack(residual[i]);
#pragma unroll
                for (uint32_t k = 0; k < VECTOR; k++) sum.at[k] += added.at[k];
                x[i] = pack(sum);
                store_packed(params.sum + start + v * VECTOR, x[i]);
            });
        }

        float sum = 0.0f;
        for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t) {
            const f32x8 value = unpack(x[i]);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) sum += value.at[k];
        });
        // A row's two sums take turns in `partials`, so that the barrier of one is behind all readers of the other.
        const float mean = block_sum<ROW_WARPS>(sum, warp_id(), partials[0]) / channels;
        float squares = 0.0f;
        for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t) {
            const f32x8 value = unpack(x[i]);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) {
                const float centred = value.at[k] - mean;
                squares = fmaf(centred, centred, squares);
            }
        });
        const float variance = block_sum<ROW_WARPS>(squares, warp_id(), partials[1]) / channels;
        const float rstd = 1.0f / sqrtf(variance + LAYERNORM_EPS);

        for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t v) {
            f32x8 out = unpack(x[i]);
            const f32x8 w = unpack(weight[v]), b = unpack(bias[v]);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) out.at[k] = fmaf((out.at[k] - mean) * rstd, w.at[k], b.at[k]);
            store(params.out + start + v * VECTOR, out);
        });
        if (thread == 0) {
            params.mean[row] = mean;
            params.rstd[row] = rstd;
        }
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// backward

// What a thread has of a row.
template <uint32_t VECTORS>
struct BackwardRow {
    bf16x8 x[VECTORS], dout[VECTORS], dx[VECTORS];
};

// dweight and dbias of a thread's columns stay in registers over all rows of the block: 16 a vector, which is why wide rows
// are spread over more warps. One block a multiprocessor is left, so each row is loaded while the one before is worked on,
// what dx holds as well: asked for where it is used, each vector of it would wait behind the store of the one before.
template <uint32_t ROW_WARPS, int FULL, uint32_t VECTORS>
__device__ inline void backward(const LayernormBackwardParams &params) {
    constexpr uint32_t ROWS = WARPS / ROW_WARPS, STRIDE = ROW_WARPS * WARP;
    // With 6 vectors the registers of a second row would spill.
    constexpr bool AHEAD = VECTORS <= 4;
    static_assert(AHEAD || ROWS == 1, "fetch() looks at the end of rows only when it runs ahead");
    extern __shared__ float4 sums[];
    __shared__ float partials[2][ROWS][ROW_WARPS];
    const uint32_t vectors = uint32_t(params.c) / VECTOR;
    const uint32_t thread = threadIdx.x % STRIDE, group = threadIdx.x / STRIDE, warp = warp_id() % ROW_WARPS;
    const float channels = float(params.c);
    // Of the rows' groups, of which a row of the whole block has one.
    bf16x8 *weight = reinterpret_cast<bf16x8 *>(sums + (ROWS > 1 ? 4 * vectors : 0));
#pragma unroll 1
    for (uint32_t v = threadIdx.x; v < vectors; v += LAYERNORM_THREADS) weight[v] = load_packed(params.weight + v * VECTOR);
    if constexpr (ROWS > 1) __syncthreads();  // as in the forward

    f32x8 dweight[VECTORS] = {}, dbias[VECTORS] = {};
    BackwardRow<VECTORS> now = {}, next = {};
    const auto fetch = [&](BackwardRow<VECTORS> &to, uint64_t row) {
        // Without a row ahead there is one, as rows are not side by side then.
        if (AHEAD && row >= params.n) return;
        for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t v) {
            to.x[i] = load_packed(params.x + row * params.c + v * VECTOR);
            to.dout[i] = load_packed(params.dout + row * params.c + v * VECTOR);
        });
        if (params.accumulate_dx) {
            for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t v) {
                to.dx[i] = load_packed(params.dx + row * params.c + v * VECTOR);
            });
        }
    };
    // Mean and rstd, asked for by two lanes and not by all. A row ahead in every kernel, as the shuffles wait for them at once.
    const auto fetch_statistic = [&](uint64_t row) {
        if (lane_id() >= 2 || row >= params.n) return 0.0f;
        return (lane_id() == 0 ? params.mean : params.rstd)[row];
    };
    const uint64_t step = uint64_t(gridDim.x) * ROWS;
    float next_statistic = fetch_statistic(uint64_t(blockIdx.x) * ROWS + group);
    if constexpr (AHEAD) fetch(next, uint64_t(blockIdx.x) * ROWS + group);
    // All groups make the same number of turns, as the barriers below are the block's.
    for (uint64_t first = uint64_t(blockIdx.x) * ROWS; first < params.n; first += step) {
        const uint64_t row = first + group;
        const bool there = ROWS == 1 || row < params.n;
        // Taken before the next is asked for: after that, ptxas waits for the next to take this.
        const float statistic = next_statistic;
        next_statistic = fetch_statistic(row + step);
        if constexpr (AHEAD) {
            now = next;
            fetch(next, row + step);
        } else {
            fetch(now, row);
        }
        const float mean = __shfl_sync(ALL_LANES, statistic, 0), rstd = __shfl_sync(ALL_LANES, statistic, 1);

        float sum_g = 0.0f, sum_g_xhat = 0.0f;
        if (there) {
            for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t v) {
                const f32x8 x = unpack(now.x[i]), dout = unpack(now.dout[i]), w = unpack(weight[v]);
#pragma unroll
                for (uint32_t k = 0; k < VECTOR; k++) {
                    const float xhat = (x.at[k] - mean) * rstd, g = dout.at[k] * w.at[k];
                    sum_g += g;
                    sum_g_xhat = fmaf(g, xhat, sum_g_xhat);
                    dweight[i].at[k] = fmaf(dout.at[k], xhat, dweight[i].at[k]);
                    dbias[i].at[k] += dout.at[k];
                }
            });
        }
        // In turns, as in the forward.
        const float mean_g = block_sum<ROW_WARPS>(sum_g, warp, partials[0][group]) / channels;
        const float mean_g_xhat = block_sum<ROW_WARPS>(sum_g_xhat, warp, partials[1][group]) / channels;

        if (!there) continue;
        for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t v) {
            const f32x8 x = unpack(now.x[i]), dout = unpack(now.dout[i]), w = unpack(weight[v]);
            f32x8 dx = unpack(now.dx[i]);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) {
                const float xhat = (x.at[k] - mean) * rstd, g = dout.at[k] * w.at[k];
                dx.at[k] = fmaf(rstd, fmaf(-xhat, mean_g_xhat, g - mean_g), dx.at[k]);
            }
            store(params.dx + row * params.c + v * VECTOR, dx);
        });
    }

    // The rows' groups one after the other, so that the order is fixed. Halves of vectors lie apart, (4, C / 8) of float4:
    // side by side, lanes would meet in the banks.
    const auto quarter = [](const f32x8 &from, uint32_t half) {
        return make_float4(from.at[4 * half], from.at[4 * half + 1], from.at[4 * half + 2], from.at[4 * half + 3]);
    };
    float4 *partial = params.partials + uint64_t(blockIdx.x) * 4 * vectors;
    for (uint32_t turn = 0; turn < ROWS; turn++) {
        if (ROWS == 1 || turn == group) {
            for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t v) {
#pragma unroll
                for (uint32_t part = 0; part < 4; part++) {
                    float4 sum = quarter(part < 2 ? dweight[i] : dbias[i], part % 2);
                    const uint32_t place = part * vectors + v;
                    if (turn > 0) sum = sums[place] + sum;
                    if (turn + 1 < ROWS) sums[place] = sum;
                    else partial[place] = sum;
                }
            });
        }
        if constexpr (ROWS > 1) __syncthreads();  // the next group adds to what this one has written
    }
}

// dweight and dbias from the blocks' partial sums: a lane = 4 columns, a warp = every eighth block.
__device__ inline void backward_join(const LayernormBackwardParams &params) {
    __shared__ float4 slices[WARPS][WARP];
    const uint32_t vectors = params.c / VECTOR, columns = params.c / 4;
    const uint32_t place = blockIdx.x * WARP + lane_id();
    const bool there = place < 2 * columns, is_bias = place >= columns;
    const uint32_t column = is_bias ? place - columns : place;
    // Its vector and half, as `backward` has laid them.
    const uint32_t from = (2 * is_bias + column % 2) * vectors + column / 2;
    float4 sum = {};
    // Eight loads under way at a time, and added in their order.
    constexpr uint32_t BATCH = 8;
    for (uint32_t first = warp_id(); there && first < params.blocks; first += WARPS * BATCH) {
        float4 parts[BATCH] = {};
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) {
            const uint32_t block = first + i * WARPS;
            if (block < params.blocks) parts[i] = params.partials[uint64_t(block) * 4 * vectors + from];
        }
#pragma unroll
        for (uint32_t i = 0; i < BATCH; i++) sum = sum + parts[i];
    }
    slices[warp_id()][lane_id()] = sum;
    __syncthreads();  // the first warp reads what all have written
    if (warp_id() > 0 || !there) return;
    for (uint32_t slice = 1; slice < WARPS; slice++) sum = sum + slices[slice][lane_id()];
    float *to = (is_bias ? params.dbias : params.dweight) + 4 * column;
    if (params.accumulate) sum = load(to) + sum;
    store(to, sum);
}

// ---------------------------------------------------------------------------------------------------------------------
// kernels

#define FORWARD(NAME, MIN_BLOCKS, ROW_WARPS, FULL, VECTORS, RESIDUAL)                                                  \
    extern "C" __global__ void __launch_bounds__(LAYERNORM_THREADS, MIN_BLOCKS)                                        \
        NAME(const __grid_constant__ LayernormForwardParams params) {                                                  \
        forward<ROW_WARPS, FULL, VECTORS, RESIDUAL>(params);                                                           \
    }

FORWARD(layernorm_forward_c1024, LAYERNORM_FORWARD_MIN_BLOCKS, 1, 0, 4, false)
FORWARD(layernorm_forward_c2048, LAYERNORM_FORWARD_C2048_MIN_BLOCKS, 1, 4, 8, false)
FORWARD(layernorm_forward_c12288, LAYERNORM_FORWARD_MIN_BLOCKS, 8, 1, 6, false)
FORWARD(residual_layernorm_forward_c1024, LAYERNORM_FORWARD_MIN_BLOCKS, 1, 0, 4, true)
FORWARD(residual_layernorm_forward_c2048, LAYERNORM_FORWARD_C2048_MIN_BLOCKS, 1, 4, 8, true)
FORWARD(residual_layernorm_forward_c12288, LAYERNORM_RESIDUAL_C12288_MIN_BLOCKS, 8, 1, 6, true)

#define BACKWARD(NAME, ROW_WARPS, FULL, VECTORS)                                                                       \
    extern "C" __global__ void __launch_bounds__(LAYERNORM_THREADS)                                                    \
        NAME(const __grid_constant__ LayernormBackwardParams params) {                                                 \
        backward<ROW_WARPS, FULL, VECTORS>(params);                                                                    \
    }

BACKWARD(layernorm_backward_c1024, 1, 0, 4)
BACKWARD(layernorm_backward_c2048, 2, 2, 4)
BACKWARD(layernorm_backward_c12288, 8, 1, 6)

// The 1 is no idle word: without it ptxas goes for 32 registers, in which eight loads have no room.
extern "C" __global__ void __launch_bounds__(LAYERNORM_THREADS, 1)
    layernorm_backward_reduce(const __grid_constant__ LayernormBackwardParams params) {
    backward_join(params);
}
