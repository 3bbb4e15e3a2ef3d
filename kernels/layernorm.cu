// LayerNorm.  Forward:  out = (x - mean) * rstd * weight + bias; with a residual, of sum = x + residual in place of x
//             Backward: dx (+)= rstd * (g - mean(g) - xhat * mean(g * xhat)),
//                       dweight (+)= sum_n dout * xhat, dbias (+)= sum_n dout,
//                       where xhat = (x - mean) * rstd and g = dout * weight
// Shapes:   x, residual, sum, out, dout, dx (N, C) bf16; weight, bias (C) bf16; mean, rstd (N) f32;
//           dweight, dbias (C) f32; row-major
// Writes:   sum, out, mean, rstd "="; dx, dweight, dbias "=" or "+=", selected by parameters
// Requires: C % 8 == 0, C <= 12288; 16-byte-aligned pointers except mean and rstd
// Launch:   block 256, grid-stride loop over rows; a kernel's suffix is its largest C. A row belongs to one warp, or to
//           2 or 8 warps in the kernels for larger C. Each block of the backward writes partial sums of dweight and
//           dbias, which layernorm_backward_reduce adds up
// Numerics: f32; two-pass variance of the row in registers; sum is rounded to bf16 before it is normalised. The order
//           of every summation depends on N and C alone
// Traffic:  forward 4*N*C + 8*N + 4*C bytes, with a residual 8*N*C in place of 4*N*C; backward 6*N*C (8*N*C for dx +=)
//           + 8*N + 16*C per block; memory-bound
#include "common/reduce.cuh"
#include "params/layernorm.h"

constexpr uint32_t WARPS = LAYERNORM_THREADS / WARP;
// The same value as in src/ops/mod.rs.
constexpr float LAYERNORM_EPS = 1e-5f;

// ---------------------------------------------------------------------------------------------------------------------
// device helpers

// Calls f(i, v) for a thread's vectors of the row, v = thread, thread + STRIDE, ...: neighbouring threads access
// neighbouring vectors. The first FULL of VECTORS iterations need no bounds check: every row of the kernel has them.
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

// Limited to 64 registers per thread (128 where a thread has 8 vectors of a row), so that four (two) blocks fit on an
// SM: 48 KB in flight at C = 768, 51 KB at C = 1600, where 30 KB hide the latency of HBM3. With a residual it is twice
// as much, and the widest rows would spill at 64 registers: their kernel has 80 registers and three blocks per SM.
template <uint32_t WARPS_PER_ROW, int FULL, uint32_t VECTORS, bool RESIDUAL>
__device__ inline void forward(const LayernormForwardParams &params) {
    constexpr uint32_t ROWS_PER_BLOCK = WARPS / WARPS_PER_ROW, STRIDE = WARPS_PER_ROW * WARP;
    extern __shared__ bf16x8 shared[];
    __shared__ float warp_sums[2][WARPS_PER_ROW];
    const uint32_t vectors = uint32_t(params.c) / VECTOR;
    const uint32_t thread = threadIdx.x % STRIDE, block_row = threadIdx.x / STRIDE;
    const float channels = float(params.c);

    // weight and bias to shared memory, once per block: if every row loaded them from the cache, they would be as many
    // bytes as x
    bf16x8 *weight = shared, *bias = shared + vectors;
#pragma unroll 1
    for (uint32_t v = threadIdx.x; v < vectors; v += LAYERNORM_THREADS) {
        weight[v] = load_packed(params.weight + v * VECTOR);
        bias[v] = load_packed(params.bias + v * VECTOR);
    }
    // RAW: every warp reads all of weight and bias. Where the whole block has one row, each thread reads only the
    // vectors that it has stored itself.
    if constexpr (ROWS_PER_BLOCK > 1) __syncthreads();

    const uint64_t grid_stride = uint64_t(gridDim.x) * ROWS_PER_BLOCK;
    // 64-bit index: N * C may exceed 2^32.
    for (uint64_t row = uint64_t(blockIdx.x) * ROWS_PER_BLOCK + block_row; row < params.n; row += grid_stride) {
        const uint64_t start = row * params.c;
        // All loads of x and residual come before the first store of sum: the compiler moves no load across a store
        // that may alias it.
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

        // mean
        float sum = 0.0f;
        for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t) {
            const f32x8 value = unpack(x[i]);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) sum += value.at[k];
        });
        // The two sums of a row have separate buffers, so the barrier within each block_sum also protects the other
        // buffer (WAR): all threads have read it before the next row overwrites it.
        const float mean = block_sum<WARPS_PER_ROW>(sum, warp_id(), warp_sums[0]) / channels;

        // rstd
        float squares = 0.0f;
        for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t) {
            const f32x8 value = unpack(x[i]);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) {
                const float centred = value.at[k] - mean;
                squares = fmaf(centred, centred, squares);
            }
        });
        const float variance = block_sum<WARPS_PER_ROW>(squares, warp_id(), warp_sums[1]) / channels;
        const float rstd = 1.0f / sqrtf(variance + LAYERNORM_EPS);

        // out
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

// One thread's vectors of a row, in registers.
template <uint32_t VECTORS>
struct BackwardRow {
    bf16x8 x[VECTORS], dout[VECTORS], dx[VECTORS];
};

// dweight and dbias of a thread's columns are accumulated in registers over all rows of the block: 16 registers per
// vector, which is why wide rows are spread over more warps. That leaves one block per SM, so rows are double-buffered
// in registers: the next row is loaded while the current one is computed. So is the old dx, for "+=": loaded where it
// is used, each of its vectors would wait behind the store of the vector before.
template <uint32_t WARPS_PER_ROW, int FULL, uint32_t VECTORS>
__device__ inline void backward(const LayernormBackwardParams &params) {
    constexpr uint32_t ROWS_PER_BLOCK = WARPS / WARPS_PER_ROW, STRIDE = WARPS_PER_ROW * WARP;
    // With 6 vectors per thread a second row would spill.
    constexpr bool DOUBLE_BUFFER = VECTORS <= 4;
    static_assert(DOUBLE_BUFFER || ROWS_PER_BLOCK == 1, "load_row() checks the row bound only when double-buffering");
    extern __shared__ float4 column_sums[];
    __shared__ float warp_sums[2][ROWS_PER_BLOCK][WARPS_PER_ROW];
    const uint32_t vectors = uint32_t(params.c) / VECTOR;
    const uint32_t thread = threadIdx.x % STRIDE, block_row = threadIdx.x / STRIDE, warp = warp_id() % WARPS_PER_ROW;
    const float channels = float(params.c);

    // weight to shared memory, behind the column sums. A block with one row at a time has no column sums there.
    bf16x8 *weight = reinterpret_cast<bf16x8 *>(column_sums + (ROWS_PER_BLOCK > 1 ? 4 * vectors : 0));
#pragma unroll 1
    for (uint32_t v = threadIdx.x; v < vectors; v += LAYERNORM_THREADS) {
        weight[v] = load_packed(params.weight + v * VECTOR);
    }
    if constexpr (ROWS_PER_BLOCK > 1) __syncthreads();  // RAW on weight, as in the forward

    f32x8 dweight[VECTORS] = {}, dbias[VECTORS] = {};
    BackwardRow<VECTORS> current = {}, next = {};
    const auto load_row = [&](BackwardRow<VECTORS> &to, uint64_t row) {
        // Without double buffering the row always exists, as each block then has one row at a time.
        if (DOUBLE_BUFFER && row >= params.n) return;
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
    // Lane 0 loads mean and lane 1 loads rstd; shuffles broadcast them. Every kernel loads them one row ahead, as the
    // shuffles at the start of a row wait for them.
    const auto load_statistic = [&](uint64_t row) {
        if (lane_id() >= 2 || row >= params.n) return 0.0f;
        return (lane_id() == 0 ? params.mean : params.rstd)[row];
    };
    const uint64_t grid_stride = uint64_t(gridDim.x) * ROWS_PER_BLOCK;
    float next_statistic = load_statistic(uint64_t(blockIdx.x) * ROWS_PER_BLOCK + block_row);
    if constexpr (DOUBLE_BUFFER) load_row(next, uint64_t(blockIdx.x) * ROWS_PER_BLOCK + block_row);

    // dx, and the thread's sums of dweight and dbias. All warps run the same number of iterations, as the barriers in
    // block_sum are for the whole block.
    for (uint64_t first = uint64_t(blockIdx.x) * ROWS_PER_BLOCK; first < params.n; first += grid_stride) {
        const uint64_t row = first + block_row;
        const bool in_bounds = ROWS_PER_BLOCK == 1 || row < params.n;
        // Copied before the next load is issued: in the other order, ptxas waits for that load before the copy.
        const float statistic = next_statistic;
        next_statistic = load_statistic(row + grid_stride);
        if constexpr (DOUBLE_BUFFER) {
            current = next;
            load_row(next, row + grid_stride);
        } else {
            load_row(current, row);
        }
        const float mean = __shfl_sync(ALL_LANES, statistic, 0), rstd = __shfl_sync(ALL_LANES, statistic, 1);

        // mean(g) and mean(g * xhat); dweight and dbias
        float sum_g = 0.0f, sum_g_xhat = 0.0f;
        if (in_bounds) {
            for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t v) {
                const f32x8 x = unpack(current.x[i]), dout = unpack(current.dout[i]), w = unpack(weight[v]);
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
        // Two buffers, as in the forward (WAR).
        const float mean_g = block_sum<WARPS_PER_ROW>(sum_g, warp, warp_sums[0][block_row]) / channels;
        const float mean_g_xhat = block_sum<WARPS_PER_ROW>(sum_g_xhat, warp, warp_sums[1][block_row]) / channels;

        // dx
        if (!in_bounds) continue;
        for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t v) {
            const f32x8 x = unpack(current.x[i]), dout = unpack(current.dout[i]), w = unpack(weight[v]);
            f32x8 dx = unpack(current.dx[i]);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) {
                const float xhat = (x.at[k] - mean) * rstd, g = dout.at[k] * w.at[k];
                dx.at[k] = fmaf(rstd, fmaf(-xhat, mean_g_xhat, g - mean_g), dx.at[k]);
            }
            store(params.dx + row * params.c + v * VECTOR, dx);
        });
    }

    // The block's partial sums of dweight and dbias, (4, C / 8) of float4: low and high halves of dweight's vectors,
    // then those of dbias's. If the halves of a vector were adjacent, the lanes of a warp would have bank conflicts.
    // One block_row after the other adds its sums, so that the order is fixed.
    const auto half_of = [](const f32x8 &from, uint32_t half) {
        return make_float4(from.at[4 * half], from.at[4 * half + 1], from.at[4 * half + 2], from.at[4 * half + 3]);
    };
    float4 *partial = params.partials + uint64_t(blockIdx.x) * 4 * vectors;
    for (uint32_t r = 0; r < ROWS_PER_BLOCK; r++) {
        if (ROWS_PER_BLOCK == 1 || r == block_row) {
            for_each_vector<FULL, VECTORS, STRIDE>(thread, vectors, [&](uint32_t i, uint32_t v) {
#pragma unroll
                for (uint32_t half = 0; half < 4; half++) {
                    float4 sum = half_of(half < 2 ? dweight[i] : dbias[i], half % 2);
                    const uint32_t index = half * vectors + v;
                    if (r > 0) sum = column_sums[index] + sum;
                    if (r + 1 < ROWS_PER_BLOCK)
                        column_sums[index] = sum;
                    else
                        partial[index] = sum;
                }
            });
        }
        if constexpr (ROWS_PER_BLOCK > 1) __syncthreads();  // RAW: the next block_row adds to what this one has written
    }
}

// Adds the blocks' partial sums of dweight and dbias. A lane has 4 columns, a warp every eighth block.
__device__ inline void backward_reduce(const LayernormBackwardParams &params) {
    __shared__ float4 warp_sums[WARPS][WARP];
    const uint32_t vectors = params.c / VECTOR, quads = params.c / 4;
    const uint32_t i = blockIdx.x * WARP + lane_id();
    const bool in_bounds = i < 2 * quads, is_bias = i >= quads;
    const uint32_t quad = is_bias ? i - quads : i;
    // The half of a vector in the layout that `backward` writes.
    const uint32_t index = (2 * is_bias + quad % 2) * vectors + quad / 2;
    float4 sum = {};
    // Eight loads in flight at a time, added in order.
    constexpr uint32_t UNROLL = 8;
    for (uint32_t first = warp_id(); in_bounds && first < params.blocks; first += WARPS * UNROLL) {
        float4 loaded[UNROLL] = {};
#pragma unroll
        for (uint32_t k = 0; k < UNROLL; k++) {
            const uint32_t block = first + k * WARPS;
            if (block < params.blocks) loaded[k] = params.partials[uint64_t(block) * 4 * vectors + index];
        }
#pragma unroll
        for (uint32_t k = 0; k < UNROLL; k++) sum = sum + loaded[k];
    }

    // cross-warp reduction, by the first warp
    warp_sums[warp_id()][lane_id()] = sum;
    __syncthreads();  // RAW: the first warp reads what all warps have written
    if (warp_id() > 0 || !in_bounds) return;
    for (uint32_t warp = 1; warp < WARPS; warp++) sum = sum + warp_sums[warp][lane_id()];
    float *to = (is_bias ? params.dbias : params.dweight) + 4 * quad;
    if (params.accumulate) sum = load(to) + sum;
    store(to, sum);
}

// ---------------------------------------------------------------------------------------------------------------------
// kernels

#define FORWARD(NAME, MIN_BLOCKS, WARPS_PER_ROW, FULL, VECTORS, RESIDUAL)                                              \
    extern "C" __global__ void __launch_bounds__(LAYERNORM_THREADS, MIN_BLOCKS)                                        \
        NAME(const __grid_constant__ LayernormForwardParams params) {                                                  \
        forward<WARPS_PER_ROW, FULL, VECTORS, RESIDUAL>(params);                                                       \
    }

FORWARD(layernorm_forward_c1024, LAYERNORM_FORWARD_MIN_BLOCKS, 1, 0, 4, false)
FORWARD(layernorm_forward_c2048, LAYERNORM_FORWARD_C2048_MIN_BLOCKS, 1, 4, 8, false)
FORWARD(layernorm_forward_c12288, LAYERNORM_FORWARD_MIN_BLOCKS, 8, 1, 6, false)
FORWARD(residual_layernorm_forward_c1024, LAYERNORM_FORWARD_MIN_BLOCKS, 1, 0, 4, true)
FORWARD(residual_layernorm_forward_c2048, LAYERNORM_FORWARD_C2048_MIN_BLOCKS, 1, 4, 8, true)
FORWARD(residual_layernorm_forward_c12288, LAYERNORM_RESIDUAL_C12288_MIN_BLOCKS, 8, 1, 6, true)

#define BACKWARD(NAME, WARPS_PER_ROW, FULL, VECTORS)                                                                   \
    extern "C" __global__ void __launch_bounds__(LAYERNORM_THREADS)                                                    \
        NAME(const __grid_constant__ LayernormBackwardParams params) {                                                 \
        backward<WARPS_PER_ROW, FULL, VECTORS>(params);                                                                \
    }

BACKWARD(layernorm_backward_c1024, 1, 0, 4)
BACKWARD(layernorm_backward_c2048, 2, 2, 4)
BACKWARD(layernorm_backward_c12288, 8, 1, 6)

// minBlocks = 1 is required: otherwise ptxas targets 32 registers and serialises the eight loads.
extern "C" __global__ void __launch_bounds__(LAYERNORM_THREADS, 1)
    layernorm_backward_reduce(const __grid_constant__ LayernormBackwardParams params) {
    backward_reduce(params);
}
