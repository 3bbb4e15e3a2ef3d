// Softmax and cross-entropy, forward, or forward and backward in place.
//           loss[n] = log(sum_v exp(logit[n, v])) - logit[n, target[n]]
//           logit[n, v] := (softmax(logit[n])[v] - (v == target[n])) * scale
// Shapes:   logits (N, Vp) bf16, of which columns 0..V count; targets (N) i32; losses (N) f32; row-major
// Writes:   losses "="; backward: logits in place, columns V..Vp 0; loss_sum: total "=" or "+="
// Requires: Vp % 8 == 0, 1 <= V <= Vp < 2^31; logits 16-byte-aligned
// Content:  target < 0: loss and row are 0, the row is not read. target >= V: loss and columns 0..V are NaN
// Launch:   block 256, smem static. *_warp: a warp a row, grid ceil(N/8), V / 8 <= 320; others: a block a row, grid N,
//           V / 8 <= 2560 (_20k), 6400 (_51k), any (_stream, forward_block). loss_sum: grid 1, block 1024
// Numerics: f32; exp by ex2.approx of the difference from the maximum, so that a certain target has loss and gradient 0;
//           sums in an order that depends on V alone
// Traffic:  forward 2*N*V bytes, backward 2*N*(V + Vp), _stream 2*N*(2*V + Vp); memory-bound
//
// The backward holds a row in registers, packed: 100 of a thread for GPT-2's 50,257 columns, so that two blocks fit into a
// multiprocessor, one of them loading 100 KB while the other writes. Each exponential is computed twice. Per row of
// 50,304 on a multiprocessor that is 6,300 cycles of ex2 (16 a cycle) and 4,300 of issue, beside 11,000 of memory (4.3 TB/s
// over 132 multiprocessors at 1.8 GHz). Keeping the first exponential in place of the logit would save half of the ex2 and
// round the gradient twice.
#include "common/math.cuh"
#include "common/reduce.cuh"
#include "params/cross_entropy.h"

constexpr uint32_t BLOCK = CROSS_ENTROPY_THREADS;
constexpr uint32_t GROUP = CROSS_ENTROPY_UNROLL;

static_assert(CROSS_ENTROPY_WARP_ROWS_PER_BLOCK == BLOCK / WARP, "a warp a row");
static_assert(CROSS_ENTROPY_WARP_MAX_VECTORS == 2 * GROUP * WARP, "two groups a lane");
static_assert(CROSS_ENTROPY_20K_MAX_VECTORS == 2 * GROUP * BLOCK, "two groups a thread");
static_assert(CROSS_ENTROPY_51K_MAX_VECTORS == 5 * GROUP * BLOCK, "five groups a thread");

// ---------------------------------------------------------------------------------------------------------------------
// device helpers

// Of a part of a row: its largest logit, and the sum of exp(logit - max).
struct Softmax {
    float max;
    float sum;
};

// The lowest finite bf16. As a maximum to begin with, it keeps logits of -infinity from -infinity - -infinity.
constexpr float LOWEST = -3.3895314e38f;

// The larger of each half; a number where the other is NaN.
__device__ inline uint32_t max_of_pairs(uint32_t a, uint32_t b) {
    const __nv_bfloat162 max =
        __hmax2(reinterpret_cast<const __nv_bfloat162 &>(a), reinterpret_cast<const __nv_bfloat162 &>(b));
    return reinterpret_cast<const uint32_t &>(max);
}

// The largest of a group, without unpacking it.
__device__ inline float max_of(const bf16x8 (&logits)[GROUP]) {
    uint32_t max = logits[0].x;
#pragma unroll
    for (uint32_t i = 0; i < GROUP; i++) {
        const bf16x8 &raw = logits[i];
        max = max_of_pairs(max, max_of_pairs(max_of_pairs(raw.x, raw.y), max_of_pairs(raw.z, raw.w)));
    }
    return fmaxf(__uint_as_float(max << 16), __uint_as_float(max & 0xffff0000u));
}

// Adds a group of logits. NaN, which a maximum does not see, gets into the sum, and so does +infinity.
__device__ inline void add(Softmax &to, const bf16x8 (&logits)[GROUP]) {
    const float max = fmaxf(to.max, max_of(logits));
    float sum = to.sum * exp_approx(to.max - max);
#pragma unroll
    for (uint32_t i = 0; i < GROUP; i++) {
        f32x8 v = unpack(logits[i]);
#pragma unroll
        for (float &x : v.at) x = exp_approx(x - max);
        // In pairs: shorter chains, smaller errors.
        sum += ((v.at[0] + v.at[1]) + (v.at[2] + v.at[3])) + ((v.at[4] + v.at[5]) + (v.at[6] + v.at[7]));
    }
    to = {max, sum};
}

// One row and one of its THREADS threads, which has vectors thread, thread + THREADS, … of those that are wholly inside
// of 0..V. The up to 7 columns that are left are one each for the first threads.
template <uint32_t THREADS>
struct Row {
    uint32_t thread;
    uint32_t v;
    uint32_t whole;  // vectors
    int32_t target;
    uint64_t id;

    template <typename Params>
    __device__ Row(const Params &params)
        : thread(threadIdx.x % THREADS),
          v(params.v),
          whole(params.v / VECTOR),
          target(0),
          id(uint64_t(blockIdx.x) * (BLOCK / THREADS) + threadIdx.x / THREADS) {}

    // Of the columns that are left, the thread's.
    __device__ uint32_t last_column() const { return whole * VECTOR + thread; }

    __device__ bool has_target() const { return uint32_t(target) < v; }

    // Whether the thread has the target's column. One of them says yes even where there is no such column.
    __device__ bool owns_target() const {
        const uint32_t vector = uint32_t(target) / VECTOR;
        return thread == (vector < whole ? vector % THREADS : uint32_t(target) % VECTOR);
    }

    __device__ float target_logit(const bf16 *logits) const {
        return has_target() && owns_target() ? __bfloat162float(logits[target]) : NAN;
    }

    // The last columns; those of the other threads are -infinity.
    __device__ float last_logit(const bf16 *logits) const {
        return last_column() < v ? __bfloat162float(logits[last_column()]) : -INFINITY;
    }

    // Vectors from `first` on, a step of THREADS apart; -infinity where there are none. `full`: there are all, which a
    // compiler knows in the unrolled loops below.
    __device__ void load_group(bf16x8 (&to)[GROUP], const bf16 *logits, uint32_t first, bool full = false) const {
#pragma unroll
        for (uint32_t i = 0; i < GROUP; i++) {
            const uint32_t vector = first + i * THREADS + thread;
            to[i] = make_uint4(0xff80ff80u, 0xff80ff80u, 0xff80ff80u, 0xff80ff80u);
            if (full || vector < whole) to[i] = load_packed(logits + vector * VECTOR);
        }
    }

    // The thread's share, to begin with.
    __device__ Softmax of_last(float last) const {
        const float max = fmaxf(last, LOWEST);
        return {max, exp_approx(last - max)};
    }

    // The thread's share of a row that is read once and not kept.
    __device__ Softmax read(const bf16 *logits) const {
        Softmax share = of_last(last_logit(logits));
        for (uint32_t first = 0; first < whole; first += GROUP * THREADS) {
            bf16x8 group[GROUP];
            load_group(group, logits, first);
            add(share, group);
        }
        return share;
    }

    // The whole row's, of the threads' shares. A row of -infinity has the sum 0, and becomes NaN by its logarithm.
    __device__ Softmax reduce(const Softmax &share) const {
        constexpr uint32_t WARPS = THREADS / WARP;
        __shared__ float maxima[WARPS], sums[WARPS];
        const float max = block_max<WARPS>(share.max, thread / WARP, maxima);
        return {max, block_sum<WARPS>(share.sum * exp_approx(share.max - max), thread / WARP, sums)};
    }

    // Vectors from `first` on become 0.
    __device__ void clear(bf16 *logits, uint32_t first, uint32_t vp) const {
#pragma unroll 1
        for (uint32_t vector = first + thread; vector < vp / VECTOR; vector += THREADS) {
            store_packed(logits + vector * VECTOR, make_uint4(0, 0, 0, 0));
        }
    }
};

// What turns logits into their gradient.
struct Gradient {
    float max;
    float factor;  // scale / sum

    __device__ float of(float logit) const { return exp_approx(logit - max) * factor; }

    __device__ bf16x8 of(const bf16x8 &logits) const {
        f32x8 v = unpack(logits);
#pragma unroll
        for (float &x : v.at) x = of(x);
        return pack(v);
    }
};

// In place of what load_group has loaded.
template <uint32_t THREADS>
__device__ inline void write_group(const Row<THREADS> &row, bf16 *logits, uint32_t first, const Gradient &gradient,
                                   const bf16x8 (&group)[GROUP], bool full = false) {
#pragma unroll
    for (uint32_t i = 0; i < GROUP; i++) {
        const uint32_t vector = first + i * THREADS + row.thread;
        if (full || vector < row.whole) store_packed(logits + vector * VECTOR, gradient.of(group[i]));
    }
}

__device__ inline float loss(const Softmax &row, float target_logit) {
    // The difference first: of two bf16 it is exact, or large.
    return logf(row.sum) + (row.max - target_logit);
}

// All but the whole vectors, which come before.
template <uint32_t THREADS>
__device__ inline void finish(const CrossEntropyBackwardParams &params, const Row<THREADS> &row, bf16 *logits,
                              const Gradient &gradient, float last, float loss, float target_gradient) {
    if (row.thread < VECTOR && row.whole * VECTOR < row.v) {
        const float x = row.last_column() < row.v ? gradient.of(last) : 0.0f;
        logits[row.last_column()] = __float2bfloat16_rn(x);
    }
    row.clear(logits, (row.v + VECTOR - 1) / VECTOR, params.vp);
    if (row.owns_target()) {
        params.losses[row.id] = loss;
        // A second store to a column of this thread's: cheaper than to look for the target in every vector.
        if (row.has_target()) logits[row.target] = __float2bfloat16_rn(target_gradient);
    }
}

// ---------------------------------------------------------------------------------------------------------------------
// forward

template <uint32_t THREADS>
__device__ inline void forward(const CrossEntropyForwardParams &params) {
    Row<THREADS> row(params);
    if (THREADS == WARP && row.id >= params.n) return;  // with several rows a block, which has no barrier then
    const bf16 *logits = params.logits + row.id * params.vp;
    row.target = params.targets[row.id];
    if (row.target < 0) {
        if (row.thread == 0) params.losses[row.id] = 0.0f;
        return;
    }
    const float target_logit = row.target_logit(logits);
    const Softmax softmax = row.reduce(row.read(logits));
    if (row.owns_target()) params.losses[row.id] = loss(softmax, target_logit);
}

// ---------------------------------------------------------------------------------------------------------------------
// backward

// A row of GROUPS groups is held in registers, of which the smallest that the kernel is for fills FULL_GROUPS. With
// GROUPS of 0 it is not held but read again.
template <uint32_t THREADS, uint32_t GROUPS, int FULL_GROUPS = 0>
__device__ inline void backward(const CrossEntropyBackwardParams &params) {
    Row<THREADS> row(params);
    if (THREADS == WARP && row.id >= params.n) return;  // as in the forward
    bf16 *logits = params.logits + row.id * params.vp;
    row.target = params.targets[row.id];
    if (row.target < 0) {
        row.clear(logits, 0, params.vp);
        if (row.thread == 0) params.losses[row.id] = 0.0f;
        return;
    }
    const float target_logit = row.target_logit(logits);
    const float last = row.last_logit(logits);

    [[maybe_unused]] bf16x8 held[GROUPS + (GROUPS == 0)][GROUP];
    Softmax share;
    if constexpr (GROUPS == 0) {
        share = row.read(logits);
    } else {
        // All loads before the first use; the exponentials of what has come hide behind the rest.
#pragma unroll
        for (uint32_t g = 0; g < GROUPS; g++) row.load_group(held[g], logits, g * GROUP * THREADS, int(g) < FULL_GROUPS);
        share = row.of_last(last);
#pragma unroll
        for (uint32_t g = 0; g < GROUPS; g++) {
            // The same for all of the row's threads: a short row pays for its own groups.
            // Full ones are asked as well: without a branch between groups ptxas works on several at once, and spills.
            if (g * GROUP * THREADS < row.whole) add(share, held[g]);
        }
    }
    const Softmax softmax = row.reduce(share);
    const float scale = row.has_target() ? params.scale : NAN;
    const Gradient gradient = {softmax.max, scale / softmax.sum};

    if constexpr (GROUPS == 0) {
        for (uint32_t first = 0; first < row.whole; first += GROUP * THREADS) {
            row.load_group(held[0], logits, first);
            write_group(row, logits, first, gradient, held[0]);
        }
    } else {
#pragma unroll
        for (uint32_t g = 0; g < GROUPS; g++) {
            write_group(row, logits, g * GROUP * THREADS, gradient, held[g], int(g) < FULL_GROUPS);
        }
    }
    const float target_gradient = fmaf(exp_approx(target_logit - softmax.max), gradient.factor, -scale);
    finish(params, row, logits, gradient, last, loss(softmax, target_logit), target_gradient);
}

// ---------------------------------------------------------------------------------------------------------------------
// sum of losses

// Four losses. A thread has the same ones whether they are aligned or not.
__device__ inline float4 four_losses(const float *losses, bool aligned) {
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
    // Rows that fill no more than two groups have their own kernel.
    backward<BLOCK, 5, 2>(params);
}

extern "C" __global__ void __launch_bounds__(BLOCK, CROSS_ENTROPY_MIN_BLOCKS)
    cross_entropy_backward_stream(const __grid_constant__ CrossEntropyBackwardParams params) {
    backward<BLOCK, 0>(params);
}

// One block: the order of the sum is then the same on every GPU, and 65,536 losses are a matter of microseconds.
extern "C" __global__ void __launch_bounds__(LOSS_SUM_THREADS)
    loss_sum(const __grid_constant__ LossSumParams params) {
    const bool aligned = uintptr_t(params.losses) % sizeof(float4) == 0;
    float4 sums = {0.0f, 0.0f, 0.0f, 0.0f};
    const uint64_t fours = params.n / 4;
#pragma unroll 4
    for (uint64_t i = threadIdx.x; i < fours; i += LOSS_SUM_THREADS) {
        const float4 x = four_losses(params.losses + 4 * i, aligned);
        sums = {sums.x + x.x, sums.y + x.y, sums.z + x.z, sums.w + x.w};
    }
    if (threadIdx.x < params.n % 4) sums.x += params.losses[4 * fours + threadIdx.x];
    __shared__ float partials[LOSS_SUM_THREADS / WARP];
    static_assert(LOSS_SUM_THREADS == WARP * WARP, "as many warps as lanes, so that one warp adds them up in pairs");
    const float warp = warp_sum((sums.x + sums.y) + (sums.z + sums.w));
    if (lane_id() == 0) partials[warp_id()] = warp;
    __syncthreads();  // the first warp reads what each has written
    if (warp_id() > 0) return;
    const float sum = warp_sum(partials[lane_id()]);
    if (threadIdx.x == 0) *params.total = (params.accumulate ? *params.total : 0.0f) + params.scale * sum;
}
