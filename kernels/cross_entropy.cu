// Softmax and cross-entropy, forward, or forward and backward in place.
//           loss[n] = log(sum_v exp(logit[n, v])) - logit[n, target[n]]
//           logit[n, v] := (softmax(logit[n])[v] - (v == target[n])) * scale
// Shapes:   logits (N, Vp) bf16, of which columns V..Vp are padding; targets (N) i32; losses (N) f32; row-major
// Writes:   losses "="; backward: logits in place, columns V..Vp become 0; loss_sum: total "=" or "+="
// Requires: Vp % 8 == 0, 1 <= V <= Vp < 2^31; logits 16-byte-aligned
// Targets:  target < 0: the row is ignored, its loss and gradient are 0 and it is not read. target >= V: the loss and
//           columns 0..V of the gradient are NaN
// Launch:   block 256, smem static. *_warp: one warp per row, grid ceil(N/8), V / 8 <= 320; others: one block per row,
//           grid N, V / 8 <= 2560 (_20k), 6400 (_51k), any (_stream, forward_block). loss_sum: grid 1, block 1024
// Numerics: f32; online softmax; exp by ex2.approx of the difference from the maximum, so a target of probability 1 has
//           loss and gradient 0; the summation order depends on V alone
// Traffic:  forward 2*N*V bytes, backward 2*N*(V + Vp), _stream 2*N*(2*V + Vp); memory-bound
//
// The backward holds a row in registers as packed bf16: 100 registers of a thread for GPT-2's 50,257 columns, so two
// blocks fit on an SM, one loading 100 KB while the other writes. Each exponential is computed twice. For a row of
// 50,304 columns on an SM that is 6,300 cycles of ex2 (16 per cycle) and 4,300 of issue, compared with 11,000 of memory
// (4.3 TB/s over 132 SMs at 1.8 GHz). Storing the first exponential in place of the logit would save half of the ex2,
// but round the gradient twice.
#include "common/math.cuh"
#include "common/reduce.cuh"
#include "params/cross_entropy.h"

constexpr uint32_t BLOCK = CROSS_ENTROPY_THREADS;
// Vectors of a batch: the loads that a thread has in flight before it uses the first.
constexpr uint32_t UNROLL = CROSS_ENTROPY_UNROLL;

static_assert(CROSS_ENTROPY_WARP_ROWS_PER_BLOCK == BLOCK / WARP, "one warp per row");
static_assert(CROSS_ENTROPY_WARP_MAX_VECTORS == 2 * UNROLL * WARP, "two batches per lane");
static_assert(CROSS_ENTROPY_20K_MAX_VECTORS == 2 * UNROLL * BLOCK, "two batches per thread");
static_assert(CROSS_ENTROPY_51K_MAX_VECTORS == 5 * UNROLL * BLOCK, "five batches per thread");

// ---------------------------------------------------------------------------------------------------------------------
// device helpers

// Online softmax statistics of a row, or of a thread's part of it: row_max = max of the logits, and
// row_sum = sum of exp(logit - row_max).
struct OnlineSoftmax {
    float row_max;
    float row_sum;
};

// The lowest finite bf16. As the initial maximum it keeps logits of -infinity from computing -infinity - -infinity.
constexpr float BF16_LOWEST = -3.3895314e38f;

// The maximum of each half of two bf16x2; if one operand is NaN, the other.
__device__ inline uint32_t max_bf16x2(uint32_t a, uint32_t b) {
    const __nv_bfloat162 max =
        __hmax2(reinterpret_cast<const __nv_bfloat162 &>(a), reinterpret_cast<const __nv_bfloat162 &>(b));
    return reinterpret_cast<const uint32_t &>(max);
}

// The maximum of a batch of vectors, computed on packed bf16.
__device__ inline float max_of(const bf16x8 (&logits)[UNROLL]) {
    uint32_t max = logits[0].x;
#pragma unroll
    for (uint32_t i = 0; i < UNROLL; i++) {
        const bf16x8 &raw = logits[i];
        max = max_bf16x2(max, max_bf16x2(max_bf16x2(raw.x, raw.y), max_bf16x2(raw.z, raw.w)));
    }
    return fmaxf(__uint_as_float(max << 16), __uint_as_float(max & 0xffff0000u));
}

// Online softmax step: rescales the sum to the new maximum and adds a batch of logits. The maximum ignores NaN, but the
// sum becomes NaN; +infinity makes the sum NaN as well.
__device__ inline void update(OnlineSoftmax &softmax, const bf16x8 (&logits)[UNROLL]) {
    const float max = fmaxf(softmax.row_max, max_of(logits));
    float sum = softmax.row_sum * exp_approx(softmax.row_max - max);
#pragma unroll
    for (uint32_t i = 0; i < UNROLL; i++) {
        f32x8 v = unpack(logits[i]);
#pragma unroll
        for (float &x : v.at) x = exp_approx(x - max);
        // Pairwise: shorter dependency chains and smaller rounding errors.
        sum += ((v.at[0] + v.at[1]) + (v.at[2] + v.at[3])) + ((v.at[4] + v.at[5]) + (v.at[6] + v.at[7]));
    }
    softmax = {max, sum};
}

// One row, and one of the THREADS threads that compute it. The thread has vectors thread, thread + THREADS, ... of the
// full vectors, which lie entirely in columns 0..V. The tail, up to 7 more columns, is one column each for the first
// threads.
template <uint32_t THREADS>
struct Row {
    uint32_t thread;
    uint32_t v;
    uint32_t full_vectors;
    int32_t target;
    uint64_t index;

    template <typename Params>
    __device__ Row(const Params &params)
        : thread(threadIdx.x % THREADS), v(params.v), full_vectors(params.v / VECTOR), target(0),
          index(uint64_t(blockIdx.x) * (BLOCK / THREADS) + threadIdx.x / THREADS) {}

    // The thread's column of the tail, if it is below V.
    __device__ uint32_t tail_column() const { return full_vectors * VECTOR + thread; }

    __device__ bool has_target() const { return uint32_t(target) < v; }

    // Whether the target's column belongs to this thread: true for exactly one thread, even for a target out of bounds.
    __device__ bool owns_target() const {
        const uint32_t vector = uint32_t(target) / VECTOR;
        return thread == (vector < full_vectors ? vector % THREADS : uint32_t(target) % VECTOR);
    }

    __device__ float target_logit(const bf16 *logits) const {
        return has_target() && owns_target() ? __bfloat162float(logits[target]) : NAN;
    }

    // The thread's logit of the tail; -infinity if it has none.
    __device__ float tail_logit(const bf16 *logits) const {
        return tail_column() < v ? __bfloat162float(logits[tail_column()]) : -INFINITY;
    }

    // Loads a batch of vectors, from `first` on with a stride of THREADS; -infinity past the last full vector. `full`
    // means that all are full vectors; it is a compile-time constant in the unrolled loops below.
    __device__ void load_batch(bf16x8 (&batch)[UNROLL], const bf16 *logits, uint32_t first, bool full = false) const {
#pragma unroll
        for (uint32_t i = 0; i < UNROLL; i++) {
            const uint32_t vector = first + i * THREADS + thread;
            batch[i] = make_uint4(0xff80ff80u, 0xff80ff80u, 0xff80ff80u, 0xff80ff80u);
            if (full || vector < full_vectors) batch[i] = load_packed(logits + vector * VECTOR);
        }
    }

    // The thread's initial statistics: those of its tail logit.
    __device__ OnlineSoftmax init(float tail) const {
        const float max = fmaxf(tail, BF16_LOWEST);
        return {max, exp_approx(tail - max)};
    }

    // The thread's statistics of a row that is read once and not kept in registers.
    __device__ OnlineSoftmax stream(const bf16 *logits) const {
        OnlineSoftmax partial = init(tail_logit(logits));
        for (uint32_t first = 0; first < full_vectors; first += UNROLL * THREADS) {
            bf16x8 batch[UNROLL];
            load_batch(batch, logits, first);
            update(partial, batch);
        }
        return partial;
    }

    // Reduces the threads' statistics to those of the row. A row of only -infinity has the sum 0, whose logarithm makes
    // the loss NaN.
    __device__ OnlineSoftmax reduce(const OnlineSoftmax &partial) const {
        constexpr uint32_t WARPS = THREADS / WARP;
        __shared__ float maxima[WARPS], sums[WARPS];
        const float max = block_max<WARPS>(partial.row_max, thread / WARP, maxima);
        return {max, block_sum<WARPS>(partial.row_sum * exp_approx(partial.row_max - max), thread / WARP, sums)};
    }

    // Writes zeros to the vectors from `first` to the end of the row.
    __device__ void write_zeros(bf16 *logits, uint32_t first, uint32_t vp) const {
#pragma unroll 1
        for (uint32_t vector = first + thread; vector < vp / VECTOR; vector += THREADS) {
            store_packed(logits + vector * VECTOR, make_uint4(0, 0, 0, 0));
        }
    }
};

// Maps logits to their gradient without the target's -1: softmax(logit) * scale.
struct Gradient {
    float row_max;
    float scale_over_sum;  // scale / row_sum

    __device__ float of(float logit) const { return exp_approx(logit - row_max) * scale_over_sum; }

    __device__ bf16x8 of(const bf16x8 &logits) const {
        f32x8 v = unpack(logits);
#pragma unroll
        for (float &x : v.at) x = of(x);
        return pack(v);
    }
};

// Overwrites the logits of a batch that load_batch has loaded by their gradient.
template <uint32_t THREADS>
__device__ inline void write_batch(const Row<THREADS> &row, bf16 *logits, uint32_t first, const Gradient &gradient,
                                   const bf16x8 (&batch)[UNROLL], bool full = false) {
#pragma unroll
    for (uint32_t i = 0; i < UNROLL; i++) {
        const uint32_t vector = first + i * THREADS + row.thread;
        if (full || vector < row.full_vectors) store_packed(logits + vector * VECTOR, gradient.of(batch[i]));
    }
}

// logsumexp - target_logit
__device__ inline float loss(const OnlineSoftmax &row, float target_logit) {
    // The difference of the two bf16 comes first: it is either exact or large.
    return logf(row.row_sum) + (row.row_max - target_logit);
}

// Writes the loss and the rest of the gradient, after the full vectors: the tail, the padding and the target's column.
template <uint32_t THREADS>
__device__ inline void write_rest(const CrossEntropyBackwardParams &params, const Row<THREADS> &row, bf16 *logits,
                                  const Gradient &gradient, float tail, float loss, float target_gradient) {
    if (row.thread < VECTOR && row.full_vectors * VECTOR < row.v) {
        const float x = row.tail_column() < row.v ? gradient.of(tail) : 0.0f;
        logits[row.tail_column()] = __float2bfloat16_rn(x);
    }
    row.write_zeros(logits, (row.v + VECTOR - 1) / VECTOR, params.vp);
    if (row.owns_target()) {
        params.losses[row.index] = loss;
        // A second store to a column of this thread: cheaper than comparing every vector with the target.
        if (row.has_target()) logits[row.target] = __float2bfloat16_rn(target_gradient);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// forward

template <uint32_t THREADS>
__device__ inline void forward(const CrossEntropyForwardParams &params) {
    Row<THREADS> row(params);
    // Only with one warp per row can a block have rows past N. It then has no barrier.
    if (THREADS == WARP && row.index >= params.n) return;
    const bf16 *logits = params.logits + row.index * params.vp;
    row.target = params.targets[row.index];
    if (row.target < 0) {
        if (row.thread == 0) params.losses[row.index] = 0.0f;
        return;
    }
    const float target_logit = row.target_logit(logits);
    const OnlineSoftmax softmax = row.reduce(row.stream(logits));
    if (row.owns_target()) params.losses[row.index] = loss(softmax, target_logit);
}

// ---------------------------------------------------------------------------------------------------------------------
// backward

// Each thread holds BATCHES batches of the row in registers. Even the smallest row of the kernel fills the first
// FULL_BATCHES of them. With BATCHES = 0 the row is not held but read a second time.
template <uint32_t THREADS, uint32_t BATCHES, int FULL_BATCHES = 0>
__device__ inline void backward(const CrossEntropyBackwardParams &params) {
    Row<THREADS> row(params);
    if (THREADS == WARP && row.index >= params.n) return;  // as in the forward
    bf16 *logits = params.logits + row.index * params.vp;
    row.target = params.targets[row.index];
    if (row.target < 0) {
        row.write_zeros(logits, 0, params.vp);
        if (row.thread == 0) params.losses[row.index] = 0.0f;
        return;
    }
    const float target_logit = row.target_logit(logits);
    const float tail = row.tail_logit(logits);

    // row_max and row_sum
    [[maybe_unused]] bf16x8 batches[BATCHES + (BATCHES == 0)][UNROLL];
    OnlineSoftmax partial;
    if constexpr (BATCHES == 0) {
        partial = row.stream(logits);
    } else {
        // All loads are issued before the first use: exponentials of the first batches overlap the loads of the others.
#pragma unroll
        for (uint32_t g = 0; g < BATCHES; g++) {
            row.load_batch(batches[g], logits, g * UNROLL * THREADS, int(g) < FULL_BATCHES);
        }
        partial = row.init(tail);
#pragma unroll
        for (uint32_t g = 0; g < BATCHES; g++) {
            // Uniform over the threads of the row, so a short row costs only its own batches. Full batches are checked
            // as well: without branches between batches, ptxas interleaves several of them and spills.
            if (g * UNROLL * THREADS < row.full_vectors) update(partial, batches[g]);
        }
    }
    const OnlineSoftmax softmax = row.reduce(partial);
    const float scale = row.has_target() ? params.scale : NAN;
    const Gradient gradient = {softmax.row_max, scale / softmax.row_sum};

    // gradient
    if constexpr (BATCHES == 0) {
        for (uint32_t first = 0; first < row.full_vectors; first += UNROLL * THREADS) {
            row.load_batch(batches[0], logits, first);
            write_batch(row, logits, first, gradient, batches[0]);
        }
    } else {
#pragma unroll
        for (uint32_t g = 0; g < BATCHES; g++) {
            write_batch(row, logits, g * UNROLL * THREADS, gradient, batches[g], int(g) < FULL_BATCHES);
        }
    }
    const float target_gradient = fmaf(exp_approx(target_logit - softmax.row_max), gradient.scale_over_sum, -scale);
    write_rest(params, row, logits, gradient, tail, loss(softmax, target_logit), target_gradient);
}

// ---------------------------------------------------------------------------------------------------------------------
// sum of losses

// Loads four losses. A thread has the same ones for any alignment, so the summation order does not depend on it.
__device__ inline float4 load_losses(const float *losses, bool aligned) {
    if (aligned) return load(losses);
    return {losses[0], losses[1], losses[2], losses[3]};
}

// ---------------------------------------------------------------------------------------------------------------------
// kernels

extern "C" __global__ void __launch_bounds__(BLOCK, CROSS_ENTROPY_MIN_BLOCKS)
    cross_entropy_forward_warp(const __grid_constant__ CrossEntropyForwardParams params) {
    forward<WARP>(params);
}

extern "C" __global__ void __launch_bounds__(BLOCK, CROSS_ENTROPY_MIN_BLOCKS)
    cross_entropy_forward_block(const __grid_constant__ CrossEntropyForwardParams params) {
    forward<BLOCK>(params);
}

extern "C" __global__ void __launch_bounds__(BLOCK, CROSS_ENTROPY_MIN_BLOCKS)
    cross_entropy_backward_warp(const __grid_constant__ CrossEntropyBackwardParams params) {
    backward<WARP, 2>(params);
}

extern "C" __global__ void __launch_bounds__(BLOCK, CROSS_ENTROPY_MIN_BLOCKS)
    cross_entropy_backward_20k(const __grid_constant__ CrossEntropyBackwardParams params) {
    backward<BLOCK, 2>(params);
}

extern "C" __global__ void __launch_bounds__(BLOCK, CROSS_ENTROPY_51K_MIN_BLOCKS)
    cross_entropy_backward_51k(const __grid_constant__ CrossEntropyBackwardParams params) {
    // The first two batches are full: rows of at most two batches have their own kernel.
    backward<BLOCK, 5, 2>(params);
}

extern "C" __global__ void __launch_bounds__(BLOCK, CROSS_ENTROPY_MIN_BLOCKS)
    cross_entropy_backward_stream(const __grid_constant__ CrossEntropyBackwardParams params) {
    backward<BLOCK, 0>(params);
}

// A single block, so the summation order is the same on every GPU; 65,536 losses take only microseconds.
extern "C" __global__ void __launch_bounds__(LOSS_SUM_THREADS) loss_sum(const __grid_constant__ LossSumParams params) {
    const bool aligned = uintptr_t(params.losses) % sizeof(float4) == 0;
    float4 sums = {0.0f, 0.0f, 0.0f, 0.0f};
    const uint64_t quads = params.n / 4;
#pragma unroll 4
    for (uint64_t i = threadIdx.x; i < quads; i += LOSS_SUM_THREADS) {
        const float4 x = load_losses(params.losses + 4 * i, aligned);
        sums = {sums.x + x.x, sums.y + x.y, sums.z + x.z, sums.w + x.w};
    }
    if (threadIdx.x < params.n % 4) sums.x += params.losses[4 * quads + threadIdx.x];
    __shared__ float warp_sums[LOSS_SUM_THREADS / WARP];
    static_assert(LOSS_SUM_THREADS == WARP * WARP, "as many warps as lanes, so that one warp reduces the warp sums");
    const float partial = warp_sum((sums.x + sums.y) + (sums.z + sums.w));
    if (lane_id() == 0) warp_sums[warp_id()] = partial;
    __syncthreads();  // RAW: the first warp reads the sums of all warps
    if (warp_id() > 0) return;
    const float sum = warp_sum(warp_sums[lane_id()]);
    if (threadIdx.x == 0) *params.total = (params.accumulate ? *params.total : 0.0f) + params.scale * sum;
}
