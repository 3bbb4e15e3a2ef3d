// Matmul.  out = x * weight^T (+ bias) (+ residual), or gelu of it;  dx = dout * weight (* gelu'(pre));
//          dweight (+)= dout^T * x, dbias (+)= sum_n dout
// Shapes:   x, dx, pre of dx (N, C); out, dout, residual, pre (N, OC); weight (OC, C); bias (OC): bf16; dweight (OC, C),
//           dbias (OC): f32; row-major
// Writes:   out, pre, dx "="; dweight, dbias as asked
// Requires: C % 8 == 0, OC % 8 == 0; N, C, OC < 2^31; 16-byte-aligned pointers
// Launch:   a block a tile of the product, as the suffix says, in groups of rows; MATMUL_STAGES stages of shared memory.
//           wgrad: the grid's y are parts of N, whose sums a second kernel adds up where there are several
// Numerics: bf16 products, f32 sums in the order of the terms; one rounding at the end, pre's before gelu
// Traffic:  each tile reads (rows + columns) * terms * 2 bytes: x is read ceil(OC/columns) times, weight ceil(N/rows) times,
//           by blocks that run together, so that L2 has them; bound by the tensor cores
#include "matmul_epilogue.cuh"
#include "params/matmul.h"

#include "common/cp_async.cuh"
#include "common/gelu.cuh"
#include "common/ldmatrix.cuh"
#include "common/swizzle.cuh"

// How an operand of (extent, terms) lies in memory: rows of terms, or rows of what it has along the product.
enum Order { TERMS, EXTENT };

constexpr uint32_t STAGE_TERMS = MATMUL_BLOCK_K, STAGES = MATMUL_STAGES;
// Terms of an mma, of which a stage has two.
constexpr uint32_t STEP_TERMS = 16, STEPS = STAGE_TERMS / STEP_TERMS;
static_assert(STEPS % 2 == 0, "the fragments of a step lie in one of two sets of registers");

template <uint32_t ROWS_, uint32_t COLUMNS_, uint32_t WARP_ROWS_, uint32_t WARP_COLUMNS_>
struct Tile {
    static constexpr uint32_t ROWS = ROWS_, COLUMNS = COLUMNS_, WARP_ROWS = WARP_ROWS_, WARP_COLUMNS = WARP_COLUMNS_;
    static constexpr uint32_t WARPS_ACROSS = COLUMNS / WARP_COLUMNS, WARPS = ROWS / WARP_ROWS * WARPS_ACROSS;
    static constexpr uint32_t THREADS = WARPS * WARP;
    // A warp's mma: 16 rows by 8 columns, whose B are loaded two at a time.
    static constexpr uint32_t A = WARP_ROWS / 16, B = WARP_COLUMNS / 16;
    static constexpr uint32_t A_BYTES = ROWS * STAGE_TERMS * sizeof(bf16);
    static constexpr uint32_t STAGE_BYTES = (ROWS + COLUMNS) * STAGE_TERMS * sizeof(bf16);
    static_assert(WARPS * sizeof(Slab<WARP_COLUMNS>) <= STAGES * STAGE_BYTES, "the epilogue's slabs lie in the stages");
    static_assert(WARPS_ACROSS == A, "a warp sums the rows of one of its A");
};

using Large = Tile<MATMUL_LARGE_BLOCK_M, MATMUL_LARGE_BLOCK_N, 64, 64>;
using Small = Tile<MATMUL_SMALL_BLOCK_M, MATMUL_SMALL_BLOCK_N, 32, 32>;
static_assert(Large::THREADS == MATMUL_LARGE_THREADS && Small::THREADS == MATMUL_SMALL_THREADS, "as launched");

// ---------------------------------------------------------------------------------------------------------------------
// tiles in shared memory

template <Order ORDER, uint32_t SIZE>
constexpr uint32_t CHUNKS = (ORDER == TERMS ? STAGE_TERMS : SIZE) / VECTOR;

// An operand as it lies in device memory.
struct Operand {
    const bf16 *at;
    // Elements between two rows, and how many the operand has along the product.
    uint32_t stride, extent;
};

// A thread's copies of an operand's tiles, stage by stage. Beyond the operand and beyond the last term are zeros.
template <Order ORDER, uint32_t SIZE, uint32_t THREADS>
struct Copies {
    static constexpr uint32_t CHUNKS = ::CHUNKS<ORDER, SIZE>, ROWS = ORDER == TERMS ? SIZE : STAGE_TERMS;
    // Rows that the block copies at a time: a multiple of 8, so that all of a thread's are permuted alike.
    static constexpr uint32_t PASS = THREADS / CHUNKS;
    static_assert(PASS % 8 == 0 && ROWS % PASS == 0, "whole passes");

    const bf16 *from;
    uint32_t stride, to;
    // From the thread's first row and column to the end of the operand or of the terms.
    int32_t rows_left, columns_left;

    __device__ Copies(const Operand &operand, uint32_t first, uint32_t term, uint32_t last_term) {
        const uint32_t row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        const uint32_t first_row = (ORDER == TERMS ? first : term) + row;
        const uint32_t first_column = (ORDER == TERMS ? term : first) + chunk * VECTOR;
        // 64 bits: an operand may have more than 2^32 elements.
        from = operand.at + uint64_t(first_row) * operand.stride + first_column;
        stride = operand.stride;
        to = swizzled_offset<CHUNKS>(row, chunk);
        rows_left = int32_t((ORDER == TERMS ? operand.extent : last_term) - first_row);
        columns_left = int32_t((ORDER == TERMS ? last_term : operand.extent) - first_column);
    }

    // Asks for the next stage.
    __device__ void fetch(uint32_t stage) {
#pragma unroll
        for (uint32_t i = 0; i < ROWS / PASS; i++) {
            const bool wanted = int32_t(i * PASS) < rows_left && columns_left > 0;
            cp_async_16(stage + to + i * PASS * CHUNKS * 16, from + uint64_t(i * PASS) * stride, wanted);
        }
        from += ORDER == TERMS ? STAGE_TERMS : uint64_t(STAGE_TERMS) * stride;
        (ORDER == TERMS ? columns_left : rows_left) -= STAGE_TERMS;
    }
};

// The fragments of a warp's operand, 16 of its extent by 16 terms each. `along` and `term` say which of the four 8 x 8
// matrices of a fragment the lane gives a row's address for.
template <Order ORDER, uint32_t SIZE>
struct Fragments {
    static constexpr uint32_t CHUNKS = ::CHUNKS<ORDER, SIZE>;
    uint32_t lane;

    __device__ Fragments(uint32_t first, uint32_t along, uint32_t term) {
        const uint32_t row = lane_id() % 8;
        lane = ORDER == TERMS ? swizzled_offset<CHUNKS>(first + 8 * along + row, term)
                              : swizzled_offset<CHUNKS>(8 * term + row, first / VECTOR + along);
    }

    // Of fragment `i` at a step. Two chunks on are bit 5 of the address, permuted or not, and the rows of other fragments
    // and steps are permuted alike.
    __device__ void load(uint32_t (&to)[4], uint32_t operand, uint32_t i, uint32_t step) const {
        const uint32_t rows = 16 * (ORDER == TERMS ? i : step), chunks = 2 * (ORDER == TERMS ? step : i);
        ldmatrix_x4<ORDER == EXTENT>(to, operand + (lane ^ chunks * 16) + rows * CHUNKS * 16);
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// the product

// Which of the product's tiles the block has: groups of GROUP tiles along the rows, within one column after the other, so
// that the blocks that run together read few rows and few columns: 132 blocks of (128, 256), 16 by 8 tiles or 2,048 of each.
struct Place {
    uint32_t row, column;
};

template <typename TILE>
__device__ inline Place place(uint32_t tiles_m, uint32_t columns) {
    constexpr uint32_t GROUP = 16;
    const uint32_t column_tiles = (columns + TILE::COLUMNS - 1) / TILE::COLUMNS;
    const uint32_t group = blockIdx.x / (GROUP * column_tiles), within = blockIdx.x % (GROUP * column_tiles);
    const uint32_t height = min(GROUP, tiles_m - group * GROUP);
    return {(group * GROUP + within % height) * TILE::ROWS, within / height * TILE::COLUMNS};
}

// A warp's part of the product, and the sums of 16 of its A's rows, one A a warp across, so that none does all the work.
template <typename TILE>
struct Sums {
    Accumulator d[TILE::A][2 * TILE::B];
    Accumulator rows;
};

// Terms `term` to `last_term` of the block's tile at `place`. With SUM_ROWS also the sums of A's rows, as products with
// ones: the tensor cores have them to f32, and A is not read again.
template <typename TILE, Order ORDER_A, Order ORDER_B, bool SUM_ROWS = false>
__device__ inline void multiply(Sums<TILE> &sums, uint32_t shared, const Operand &a, const Operand &b, const Place &place,
                                uint32_t term, uint32_t last_term, bool sum_rows = false) {
    constexpr uint32_t ALL = STAGES * TILE::STAGE_BYTES;
    constexpr FragmentB ONES = {{0x3f803f80, 0x3f803f80}};
    const uint32_t warp_row = warp_id() / TILE::WARPS_ACROSS, warp_column = warp_id() % TILE::WARPS_ACROSS;
    const uint32_t upper = lane_id() / 8 % 2, half = lane_id() / 16;
    Copies<ORDER_A, TILE::ROWS, TILE::THREADS> copies_a(a, place.row, term, last_term);
    Copies<ORDER_B, TILE::COLUMNS, TILE::THREADS> copies_b(b, place.column, term, last_term);
    const Fragments<ORDER_A, TILE::ROWS> fragments_a(warp_row * TILE::WARP_ROWS, upper, half);
    const Fragments<ORDER_B, TILE::COLUMNS> fragments_b(warp_column * TILE::WARP_COLUMNS, half, upper);

    // Beyond the last term there are zeros to fetch and to multiply, so that no stage is an exception.
    uint32_t filled = 0;
    const auto fetch = [&] {
        copies_a.fetch(shared + filled);
        copies_b.fetch(shared + filled + TILE::A_BYTES);
        cp_async_commit();
        filled = filled + TILE::STAGE_BYTES == ALL ? 0 : filled + TILE::STAGE_BYTES;
    };
    FragmentA set_a[2][TILE::A];
    uint32_t set_b[2][TILE::B][4];
    const auto load = [&](uint32_t set, uint32_t stage, uint32_t step) {
#pragma unroll
        for (uint32_t i = 0; i < TILE::A; i++) fragments_a.load(set_a[set][i].regs, stage, i, step);
#pragma unroll
        for (uint32_t i = 0; i < TILE::B; i++) fragments_b.load(set_b[set][i], stage + TILE::A_BYTES, i, step);
        if (SUM_ROWS && sum_rows) {
            FragmentA summed;
            fragments_a.load(summed.regs, stage, warp_column, step);
            mma(sums.rows, summed, ONES);
        }
    };

#pragma unroll 1
    for (uint32_t i = 0; i + 1 < STAGES; i++) fetch();
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // the first stage is there, of all threads
    uint32_t stage = 0;
    load(0, shared, 0);
    int32_t left = int32_t(last_term - term);
#pragma unroll 1
    do {
#pragma unroll
        for (uint32_t step = 0; step < STEPS; step++) {
            if (step + 1 == STEPS) {
                cp_async_wait<STAGES - 2>();
                // The next stage is there, and nobody reads this one any more, which the next turn fetches to.
                __syncthreads();
                stage = stage + TILE::STAGE_BYTES == ALL ? 0 : stage + TILE::STAGE_BYTES;
            }
            // A step ahead, so that the multiplications do not wait for shared memory.
            load((step + 1) % 2, shared + stage, (step + 1) % STEPS);
            if (step == 0) fetch();
#pragma unroll
            for (uint32_t i = 0; i < TILE::A; i++) {
#pragma unroll
                for (uint32_t j = 0; j < 2 * TILE::B; j++) {
                    const uint32_t(&pairs)[4] = set_b[step % 2][j / 2];
                    mma(sums.d[i][j], set_a[step % 2][i], {{pairs[j % 2 * 2], pairs[j % 2 * 2 + 1]}});
                }
            }
        }
        left -= STAGE_TERMS;
    } while (left > 0);
    cp_async_wait<0>();
    __syncthreads();  // the epilogue writes where stages were copied to and read
}

// The warp's part of the product to `f`: see matmul_epilogue.cuh.
template <typename TILE, typename F>
__device__ inline void finish(const Sums<TILE> &sums, uint4 *shared, const Place &place, uint32_t rows, uint32_t columns,
                              F &f) {
    const uint32_t row = place.row + warp_id() / TILE::WARPS_ACROSS * TILE::WARP_ROWS;
    const uint32_t column = place.column + warp_id() % TILE::WARPS_ACROSS * TILE::WARP_COLUMNS;
    Slab<TILE::WARP_COLUMNS> *slabs = reinterpret_cast<Slab<TILE::WARP_COLUMNS> *>(shared);
    for_each_vector(sums.d, slabs[warp_id()], {row, column, rows, columns}, f);
}

// ---------------------------------------------------------------------------------------------------------------------
// forward

struct ForwardEpilogue {
    static constexpr uint32_t COLUMNS = VECTOR;
    using Values = f32x8;
    using Fetched = bf16x8;
    const MatmulForwardParams &params;
    bf16x8 bias;

    __device__ void start(uint32_t column) {
        if (params.bias) bias = load_packed(params.bias + column);
    }

    __device__ bf16x8 fetch(uint64_t i) const { return params.residual ? load_packed(params.residual + i) : bf16x8{}; }

    __device__ void write(uint64_t i, f32x8 &values, const bf16x8 &fetched) const {
        const f32x8 added = unpack(bias), residual = unpack(fetched);
#pragma unroll
        for (uint32_t k = 0; k < VECTOR; k++) values.at[k] = residual.at[k] + (values.at[k] + added.at[k]);
        if (params.pre) {
            const bf16x8 pre = pack(values);
            store_packed(params.pre + i, pre);
            values = unpack(pre);
#pragma unroll
            for (float &x : values.at) x = gelu(x);
        }
        store(params.out + i, values);
    }
};

template <typename TILE>
__device__ inline void forward(const MatmulForwardParams &params) {
    extern __shared__ uint4 shared[];
    const Place at = place<TILE>(params.tiles_m, params.oc);
    const Operand x = {params.x, params.c, params.n}, weight = {params.weight, params.c, params.oc};
    Sums<TILE> sums = {};
    multiply<TILE, TERMS, TERMS>(sums, shared_address(shared), x, weight, at, 0, params.c);
    ForwardEpilogue epilogue = {params, {}};
    finish(sums, shared, at, params.n, params.oc, epilogue);
}

// ---------------------------------------------------------------------------------------------------------------------
// backward

struct DgradEpilogue {
    static constexpr uint32_t COLUMNS = VECTOR;
    using Values = f32x8;
    using Fetched = bf16x8;
    const MatmulDgradParams &params;

    __device__ void start(uint32_t) {}

    __device__ bf16x8 fetch(uint64_t i) const { return params.pre ? load_packed(params.pre + i) : bf16x8{}; }

    __device__ void write(uint64_t i, f32x8 &values, const bf16x8 &fetched) const {
        if (params.pre) {
            const f32x8 pre = unpack(fetched);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) values.at[k] *= dgelu(pre.at[k]);
        }
        store(params.dx + i, values);
    }
};

template <typename TILE>
__device__ inline void dgrad(const MatmulDgradParams &params) {
    extern __shared__ uint4 shared[];
    const Place at = place<TILE>(params.tiles_m, params.c);
    const Operand dout = {params.dout, params.oc, params.n}, weight = {params.weight, params.c, params.c};
    Sums<TILE> sums = {};
    multiply<TILE, TERMS, EXTENT>(sums, shared_address(shared), dout, weight, at, 0, params.oc);
    DgradEpilogue epilogue = {params};
    finish(sums, shared, at, params.n, params.c, epilogue);
}

struct WgradEpilogue {
    static constexpr uint32_t COLUMNS = 4;
    using Values = float4;
    using Fetched = float4;
    float *to;
    bool accumulate;

    __device__ void start(uint32_t) {}

    __device__ float4 fetch(uint64_t i) const { return accumulate ? load(to + i) : float4{}; }

    __device__ void write(uint64_t i, const float4 &values, const float4 &fetched) const { store(to + i, fetched + values); }
};

// The sums of A's rows, of which each lane of four has the same: dbias of 16 output channels a warp.
template <typename TILE>
__device__ inline void write_row_sums(const Accumulator &sums, const Place &at, uint32_t rows, float *to, bool accumulate) {
    if (lane_id() % 4 != 0) return;
    const uint32_t warp_row = warp_id() / TILE::WARPS_ACROSS, warp_column = warp_id() % TILE::WARPS_ACROSS;
    const uint32_t first = at.row + warp_row * TILE::WARP_ROWS + 16 * warp_column + lane_id() / 4;
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        const uint32_t row = first + 8 * half;
        if (row < rows) to[row] = accumulate ? to[row] + sums.c[2 * half] : sums.c[2 * half];
    }
}

template <typename TILE>
__device__ inline void wgrad(const MatmulWgradParams &params) {
    extern __shared__ uint4 shared[];
    const Place at = place<TILE>(params.tiles_m, params.c);
    const Operand dout = {params.dout, params.oc, params.oc}, x = {params.x, params.c, params.c};
    const uint32_t term = blockIdx.y * params.k_per_split, last_term = min(params.n, term + params.k_per_split);
    // All blocks of a row of tiles have the same rows of dout: the first sums them.
    const bool sum_rows = params.dbias && at.column == 0;
    Sums<TILE> sums = {};
    multiply<TILE, EXTENT, EXTENT, true>(sums, shared_address(shared), dout, x, at, term, last_term, sum_rows);
    const uint64_t part = blockIdx.y * params.split_stride;
    const bool accumulate = params.accumulate != 0;
    if (sum_rows) write_row_sums<TILE>(sums.rows, at, params.oc, params.dbias + part, accumulate);
    WgradEpilogue epilogue = {params.dweight + part, accumulate};
    finish(sums, shared, at, params.oc, params.c, epilogue);
}

// The parts' sums one after the other; the loads of eight are under way together.
__device__ inline void join(const MatmulSplitKReduceParams &params) {
    constexpr uint32_t BATCH = 8;
    // 64 bits: OC*C may pass 2^32.
    const uint64_t i = 4 * (uint64_t(blockIdx.x) * MATMUL_SPLITK_REDUCE_THREADS + threadIdx.x);
    if (i >= params.len) return;
    float *to = i < params.dweight_len ? params.dweight + i : params.dbias + (i - params.dweight_len);
    float4 sum = {};
    uint32_t first = 0;
#pragma unroll 1
    do {
        float4 parts[BATCH] = {};
#pragma unroll
        for (uint32_t k = 0; k < BATCH; k++) {
            const uint32_t part = first + k;
            if (k == 0 || part < params.split_k) parts[k] = load(params.partials + part * params.split_stride + i);
        }
#pragma unroll
        for (uint32_t k = 0; k < BATCH; k++) sum = sum + parts[k];
        first += BATCH;
    } while (first < params.split_k);
    if (params.accumulate) sum = load(to) + sum;
    store(to, sum);
}

// ---------------------------------------------------------------------------------------------------------------------
// kernels

#define KERNELS(SUFFIX, TILE, THREADS, MIN_BLOCKS)                                                                     \
    extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)                                                  \
        matmul_forward_##SUFFIX(const __grid_constant__ MatmulForwardParams params) {                                  \
        forward<TILE>(params);                                                                                         \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)                                                  \
        matmul_dgrad_##SUFFIX(const __grid_constant__ MatmulDgradParams params) {                                      \
        dgrad<TILE>(params);                                                                                           \
    }                                                                                                                  \
    extern "C" __global__ void __launch_bounds__(THREADS, MIN_BLOCKS)                                                  \
        matmul_wgrad_##SUFFIX(const __grid_constant__ MatmulWgradParams params) {                                      \
        wgrad<TILE>(params);                                                                                           \
    }

KERNELS(128x256x32, Large, MATMUL_LARGE_THREADS, 1)
KERNELS(64x64x32, Small, MATMUL_SMALL_THREADS, MATMUL_SMALL_MIN_BLOCKS)

// The 1 is no idle word: without it ptxas goes for 32 registers, in which eight loads have no room.
extern "C" __global__ void __launch_bounds__(MATMUL_SPLITK_REDUCE_THREADS, 1)
    matmul_wgrad_splitk_reduce(const __grid_constant__ MatmulSplitKReduceParams params) {
    join(params);
}
