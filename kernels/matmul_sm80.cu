// Matmul.  forward  out = x * weight^T (+ bias) (+ residual); with GELU: pre = that, out = gelu(pre)
//          dgrad    dx = dout * weight (* gelu'(pre))
//          wgrad    dweight (+)= dout^T * x, dbias (+)= sum_n dout
// Shapes:   x, dx, pre of dgrad (N, C); out, dout, residual, pre of forward (N, OC); weight (OC, C); bias (OC): bf16;
//           dweight (OC, C), dbias (OC): f32; row-major
// GEMM:     D (M, N) = A (M, K) * B (N, K)^T, where A and B are K-major or MN-major in global memory:
//           forward  M = N,  N = OC, K = C    A = x     K-major   B = weight  K-major
//           dgrad    M = N,  N = C,  K = OC   A = dout  K-major   B = weight  MN-major
//           wgrad    M = OC, N = C,  K = N    A = dout  MN-major  B = x       MN-major
// Writes:   out, pre, dx "="; dweight, dbias "=" or "+=" by params.accumulate
// Requires: C % 8 == 0, OC % 8 == 0; N, C, OC < 2^31; 16-byte-aligned pointers
// Launch:   one CTA per BLOCK_M x BLOCK_N output tile (the suffix is BLOCK_M x BLOCK_N x BLOCK_K), rasterized in groups
//           of GROUP_M tile rows; smem MATMUL_STAGES pipeline stages of A and B.
//           wgrad: gridDim.y = split_k splits of K; a second kernel adds up their partial sums where split_k > 1
// Numerics: bf16 products, f32 accumulation in the order of k; one rounding at the end, pre is rounded before gelu
// Traffic:  each CTA reads (BLOCK_M + BLOCK_N) * K * 2 bytes: A is read ceil(N/BLOCK_N) times, B ceil(M/BLOCK_M) times,
//           by CTAs that run at the same time, so that L2 holds them; compute-bound (tensor cores)
#include "matmul_epilogue.cuh"
#include "params/matmul.h"

#include "common/cp_async.cuh"
#include "common/gelu.cuh"
#include "common/ldmatrix.cuh"
#include "common/swizzle.cuh"

// Which index of an operand is contiguous in global memory: k, or m of A and n of B.
enum class Major { K, MN };

constexpr uint32_t BLOCK_K = MATMUL_BLOCK_K, STAGES = MATMUL_STAGES;
// MMA k-steps of a pipeline stage.
constexpr uint32_t K_STEPS = BLOCK_K / MMA_K;
static_assert(K_STEPS % 2 == 0, "the fragments of a k-step are in one of two register buffers");

template <uint32_t BLOCK_M_, uint32_t BLOCK_N_, uint32_t WARP_M_, uint32_t WARP_N_>
struct TileShape {
    static constexpr uint32_t BLOCK_M = BLOCK_M_, BLOCK_N = BLOCK_N_, WARP_M = WARP_M_, WARP_N = WARP_N_;
    static constexpr uint32_t WARPS_N = BLOCK_N / WARP_N, WARPS = BLOCK_M / WARP_M * WARPS_N;
    static constexpr uint32_t THREADS = WARPS * WARP;
    // MMAs of a warp tile per k-step. One ldmatrix.x4 loads the B fragments of a pair of MMAs.
    static constexpr uint32_t MMA_ITERS_M = WARP_M / MMA_M, MMA_ITERS_N = WARP_N / MMA_N, N_PAIRS = MMA_ITERS_N / 2;
    static constexpr uint32_t STAGE_A_BYTES = BLOCK_M * BLOCK_K * sizeof(bf16);
    static constexpr uint32_t STAGE_BYTES = (BLOCK_M + BLOCK_N) * BLOCK_K * sizeof(bf16);
    static_assert(WARPS * sizeof(EpilogueStaging<WARP_N>) <= STAGES * STAGE_BYTES, "staging reuses the stages");
    static_assert(WARPS_N == MMA_ITERS_M, "each warp sums the rows of one of its A fragments");
};

using LargeTile = TileShape<MATMUL_LARGE_BLOCK_M, MATMUL_LARGE_BLOCK_N, 64, 64>;
using SmallTile = TileShape<MATMUL_SMALL_BLOCK_M, MATMUL_SMALL_BLOCK_N, 32, 32>;
static_assert(LargeTile::THREADS == MATMUL_LARGE_THREADS && SmallTile::THREADS == MATMUL_SMALL_THREADS, "as launched");

// ---------------------------------------------------------------------------------------------------------------------
// copies: global memory -> shared memory -> registers

// 16-byte chunks in a row of an operand's stage. A K-major stage is SIZE rows of BLOCK_K elements, an MN-major stage
// BLOCK_K rows of SIZE elements, where SIZE is BLOCK_M for A and BLOCK_N for B. Rows are XOR-swizzled (swizzle.cuh).
template <Major MAJOR, uint32_t SIZE>
constexpr uint32_t CHUNKS_PER_ROW = (MAJOR == Major::K ? BLOCK_K : SIZE) / VECTOR;

// An operand in global memory.
struct Operand {
    const bf16 *data;
    // Leading dimension: elements between two rows.
    uint32_t ld;
    // M of A, N of B.
    uint32_t extent_mn;
};

// Copies an operand's stages from global to shared memory with cp.async; holds this thread's addresses and bounds.
// Chunks outside the operand or beyond k_end are zero-filled.
template <Major MAJOR, uint32_t SIZE, uint32_t THREADS>
struct GlobalToShared {
    static constexpr uint32_t CHUNKS = CHUNKS_PER_ROW<MAJOR, SIZE>, ROWS = MAJOR == Major::K ? SIZE : BLOCK_K;
    // Rows that the CTA copies per pass: a multiple of 8, so that all rows of a thread have the same swizzle.
    static constexpr uint32_t ROWS_PER_PASS = THREADS / CHUNKS;
    static_assert(ROWS_PER_PASS % 8 == 0 && ROWS % ROWS_PER_PASS == 0, "whole passes");

    const bf16 *src;
    // dst: byte offset within the operand's stage.
    uint32_t ld, dst;
    // From the thread's first row and column to the end of the operand or of the K range.
    int32_t rows_left, columns_left;

    __device__ GlobalToShared(const Operand &operand, uint32_t mn, uint32_t k_begin, uint32_t k_end) {
        const uint32_t row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        const uint32_t first_row = (MAJOR == Major::K ? mn : k_begin) + row;
        const uint32_t first_column = (MAJOR == Major::K ? k_begin : mn) + chunk * VECTOR;
        // 64 bits: an operand may have more than 2^32 elements.
        src = operand.data + uint64_t(first_row) * operand.ld + first_column;
        ld = operand.ld;
        dst = swizzled_offset<CHUNKS>(row, chunk);
        rows_left = int32_t((MAJOR == Major::K ? operand.extent_mn : k_end) - first_row);
        columns_left = int32_t((MAJOR == Major::K ? k_end : operand.extent_mn) - first_column);
    }

    // Issues the cp.async copies of the next BLOCK_K to the stage at shared address `stage`.
    __device__ void issue_stage(uint32_t stage) {
#pragma unroll
        for (uint32_t row = 0; row < ROWS; row += ROWS_PER_PASS) {
            const bool predicate = int32_t(row) < rows_left && columns_left > 0;
            cp_async_16(stage + dst + row * CHUNKS * 16, src + uint64_t(row) * ld, predicate);
        }
        src += MAJOR == Major::K ? BLOCK_K : uint64_t(BLOCK_K) * ld;
        (MAJOR == Major::K ? columns_left : rows_left) -= BLOCK_K;
    }
};

// Loads a warp's fragments of an operand from shared memory to registers with ldmatrix: (16 of M or N) x MMA_K each.
// `half_mn` and `half_k` say which of the four 8 x 8 matrices of a fragment this lane passes a row address for.
template <Major MAJOR, uint32_t SIZE>
struct SharedToRegister {
    static constexpr uint32_t CHUNKS = CHUNKS_PER_ROW<MAJOR, SIZE>;
    uint32_t lane_offset;

    __device__ SharedToRegister(uint32_t warp_mn, uint32_t half_mn, uint32_t half_k) {
        const uint32_t row = lane_id() % 8;
        lane_offset = MAJOR == Major::K ? swizzled_offset<CHUNKS>(warp_mn + 8 * half_mn + row, half_k)
                                        : swizzled_offset<CHUNKS>(8 * half_k + row, warp_mn / VECTOR + half_mn);
    }

    // Loads fragment `i` along M or N of a k-step. Fragments further along a row start a multiple of two chunks later:
    // XORing this distance (bit 5 and up) into the swizzled offset gives theirs. Rows of other fragments and k-steps
    // have the same swizzle.
    __device__ void load(uint32_t (&regs)[4], uint32_t operand_stage, uint32_t i, uint32_t k_step) const {
        const uint32_t rows = 16 * (MAJOR == Major::K ? i : k_step), chunks = 2 * (MAJOR == Major::K ? k_step : i);
        ldmatrix_x4<MAJOR == Major::MN>(regs, operand_stage + (lane_offset ^ chunks * 16) + rows * CHUNKS * 16);
    }
};

// ---------------------------------------------------------------------------------------------------------------------
// mainloop

// First row and column of a CTA's output tile.
struct TileCoord {
    uint32_t m, n;
};

// Rasterization order: tiles are numbered in groups of GROUP_M tile rows, and within a group column by column. CTAs
// that run at the same time then share few rows of A and B, which stay in L2: 132 CTAs of 128 x 256 cover about 16 x 8
// tiles, which are 2,048 rows of A and 2,048 of B.
template <typename Tile>
__device__ inline TileCoord tile_coord(uint32_t tiles_m, uint32_t extent_n) {
    constexpr uint32_t GROUP_M = 16;
    const uint32_t tiles_n = (extent_n + Tile::BLOCK_N - 1) / Tile::BLOCK_N;
    const uint32_t group = blockIdx.x / (GROUP_M * tiles_n), within_group = blockIdx.x % (GROUP_M * tiles_n);
    const uint32_t group_m = min(GROUP_M, tiles_m - group * GROUP_M);
    return {(group * GROUP_M + within_group % group_m) * Tile::BLOCK_M, within_group / group_m * Tile::BLOCK_N};
}

// A warp's WARP_M x WARP_N accumulators, and the row sums of one of its A fragments: each of the warps along N sums
// another fragment, so that the work is spread evenly.
template <typename Tile>
struct Accumulators {
    Accumulator acc[Tile::MMA_ITERS_M][Tile::MMA_ITERS_N];
    Accumulator row_sums;
};

// Mainloop: accumulates the K range [k_begin, k_end) of this CTA's BLOCK_M x BLOCK_N output tile.
// Shared memory holds STAGES pipeline stages of A (BLOCK_M x BLOCK_K) and B (BLOCK_N x BLOCK_K), XOR-swizzled. cp.async
// fills stage s + STAGES - 1 while ldmatrix and mma.sync consume stage s. Fragments are double-buffered in registers:
// the ldmatrix of k-step k + 1 overlap the MMAs of k-step k.
// Out-of-bounds chunks are zero-filled (cp.async src-size 0), so the loop needs no tail case.
// With SUM_ROWS and `sum_rows` the rows of A are summed too, as MMAs with a B of ones: the tensor cores add them in
// f32, and A is not read again.
template <typename Tile, Major MAJOR_A, Major MAJOR_B, bool SUM_ROWS = false>
__device__ inline void mainloop(Accumulators<Tile> &accumulators, uint32_t shared, const Operand &a, const Operand &b,
                                const TileCoord &coord, uint32_t k_begin, uint32_t k_end, bool sum_rows = false) {
    constexpr uint32_t PIPELINE_BYTES = STAGES * Tile::STAGE_BYTES;
    constexpr FragmentB ONES = {{0x3f803f80, 0x3f803f80}};
    const uint32_t warp_m = warp_id() / Tile::WARPS_N, warp_n = warp_id() % Tile::WARPS_N;
    // Matrix lane / 8 of an ldmatrix: A's are ordered MN first, then K; B's K first, then MN (two MMAs' fragments).
    const uint32_t bit0 = lane_id() / 8 % 2, bit1 = lane_id() / 16;
    GlobalToShared<MAJOR_A, Tile::BLOCK_M, Tile::THREADS> copy_a(a, coord.m, k_begin, k_end);
    GlobalToShared<MAJOR_B, Tile::BLOCK_N, Tile::THREADS> copy_b(b, coord.n, k_begin, k_end);
    const SharedToRegister<MAJOR_A, Tile::BLOCK_M> loader_a(warp_m * Tile::WARP_M, bit0, bit1);
    const SharedToRegister<MAJOR_B, Tile::BLOCK_N> loader_b(warp_n * Tile::WARP_N, bit1, bit0);

    // Stages are byte offsets into the ring of STAGES. Beyond k_end, stages of zeros are issued and multiplied.
    uint32_t write_stage = 0;
    const auto issue_stage = [&] {
        copy_a.issue_stage(shared + write_stage);
        copy_b.issue_stage(shared + write_stage + Tile::STAGE_A_BYTES);
        cp_async_commit();
        write_stage = write_stage + Tile::STAGE_BYTES == PIPELINE_BYTES ? 0 : write_stage + Tile::STAGE_BYTES;
    };
    FragmentA a_frag[2][Tile::MMA_ITERS_M];
    uint32_t b_frag[2][Tile::N_PAIRS][4];
    const auto load_fragments = [&](uint32_t buffer, uint32_t stage, uint32_t k_step) {
#pragma unroll
        for (uint32_t i = 0; i < Tile::MMA_ITERS_M; i++) loader_a.load(a_frag[buffer][i].regs, stage, i, k_step);
#pragma unroll
        for (uint32_t i = 0; i < Tile::N_PAIRS; i++) {
            loader_b.load(b_frag[buffer][i], stage + Tile::STAGE_A_BYTES, i, k_step);
        }
        if (SUM_ROWS && sum_rows) {
            FragmentA summed;
            loader_a.load(summed.regs, stage, warp_n, k_step);
            mma(accumulators.row_sums, summed, ONES);
        }
    };

    // Prologue: fill all stages but one.
#pragma unroll 1
    for (uint32_t i = 0; i + 1 < STAGES; i++) issue_stage();
    cp_async_wait<STAGES - 2>();
    __syncthreads();  // RAW: the first stage has arrived, the copies of all threads
    uint32_t read_stage = 0;
    load_fragments(0, shared, 0);
    int32_t k_left = int32_t(k_end - k_begin);
#pragma unroll 1
    do {
#pragma unroll
        for (uint32_t k_step = 0; k_step < K_STEPS; k_step++) {
            if (k_step + 1 == K_STEPS) {
                cp_async_wait<STAGES - 2>();
                // RAW: the next stage has arrived. WAR: all warps have loaded the last fragments of this stage, so the
                // next iteration may overwrite it.
                __syncthreads();
                read_stage = read_stage + Tile::STAGE_BYTES == PIPELINE_BYTES ? 0 : read_stage + Tile::STAGE_BYTES;
            }
            // Load the fragments of the next k-step, so that its MMAs do not wait for shared memory.
            load_fragments((k_step + 1) % 2, shared + read_stage, (k_step + 1) % K_STEPS);
            if (k_step == 0) issue_stage();
            // acc (WARP_M, WARP_N) += A (WARP_M, MMA_K) * B (WARP_N, MMA_K)^T
#pragma unroll
            for (uint32_t i = 0; i < Tile::MMA_ITERS_M; i++) {
#pragma unroll
                for (uint32_t j = 0; j < Tile::MMA_ITERS_N; j++) {
                    const uint32_t (&b_pair)[4] = b_frag[k_step % 2][j / 2];
                    mma(accumulators.acc[i][j], a_frag[k_step % 2][i], {{b_pair[j % 2 * 2], b_pair[j % 2 * 2 + 1]}});
                }
            }
        }
        k_left -= BLOCK_K;
    } while (k_left > 0);
    cp_async_wait<0>();
    // WAW and WAR: the epilogue's staging buffers reuse the stages, which copies have filled and other warps have read.
    __syncthreads();
}

// Epilogue: passes the warp's accumulators to `op` (matmul_epilogue.cuh).
template <typename Tile, typename Op>
__device__ inline void epilogue(const Accumulators<Tile> &accumulators, uint4 *shared, const TileCoord &coord,
                                uint32_t extent_m, uint32_t extent_n, Op &op) {
    const uint32_t m = coord.m + warp_id() / Tile::WARPS_N * Tile::WARP_M;
    const uint32_t n = coord.n + warp_id() % Tile::WARPS_N * Tile::WARP_N;
    EpilogueStaging<Tile::WARP_N> *staging = reinterpret_cast<EpilogueStaging<Tile::WARP_N> *>(shared);
    apply_epilogue(accumulators.acc, staging[warp_id()], {m, n, extent_m, extent_n}, op);
}

// ---------------------------------------------------------------------------------------------------------------------
// forward

// out = residual + (acc + bias), or pre = that and out = gelu(pre)
struct ForwardEpilogue {
    static constexpr uint32_t COLUMNS = VECTOR;
    using Values = f32x8;
    using Source = bf16x8;
    const MatmulForwardParams &params;
    bf16x8 bias;

    __device__ void begin(uint32_t column) {
        if (params.bias) bias = load_packed(params.bias + column);
    }

    __device__ bf16x8 load_source(uint64_t i) const {
        return params.residual ? load_packed(params.residual + i) : bf16x8{};
    }

    __device__ void apply(uint64_t i, f32x8 &values, const bf16x8 &source) const {
        const f32x8 b = unpack(bias), residual = unpack(source);
#pragma unroll
        for (uint32_t k = 0; k < VECTOR; k++) values.at[k] = residual.at[k] + (values.at[k] + b.at[k]);
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

template <typename Tile>
__device__ inline void forward(const MatmulForwardParams &params) {
    extern __shared__ uint4 shared[];
    const TileCoord coord = tile_coord<Tile>(params.tiles_m, params.oc);
    const Operand x = {params.x, params.c, params.n}, weight = {params.weight, params.c, params.oc};
    Accumulators<Tile> accumulators = {};
    mainloop<Tile, Major::K, Major::K>(accumulators, shared_address(shared), x, weight, coord, 0, params.c);
    ForwardEpilogue op = {params, {}};
    epilogue(accumulators, shared, coord, params.n, params.oc, op);
}

// ---------------------------------------------------------------------------------------------------------------------
// backward

// dx = acc, times gelu'(pre) where the layer's input was a GELU's output
struct DgradEpilogue {
    static constexpr uint32_t COLUMNS = VECTOR;
    using Values = f32x8;
    using Source = bf16x8;
    const MatmulDgradParams &params;

    __device__ void begin(uint32_t) {}

    __device__ bf16x8 load_source(uint64_t i) const { return params.pre ? load_packed(params.pre + i) : bf16x8{}; }

    __device__ void apply(uint64_t i, f32x8 &values, const bf16x8 &source) const {
        if (params.pre) {
            const f32x8 pre = unpack(source);
#pragma unroll
            for (uint32_t k = 0; k < VECTOR; k++) values.at[k] *= dgelu(pre.at[k]);
        }
        store(params.dx + i, values);
    }
};

template <typename Tile>
__device__ inline void dgrad(const MatmulDgradParams &params) {
    extern __shared__ uint4 shared[];
    const TileCoord coord = tile_coord<Tile>(params.tiles_m, params.c);
    const Operand dout = {params.dout, params.oc, params.n}, weight = {params.weight, params.c, params.c};
    Accumulators<Tile> accumulators = {};
    mainloop<Tile, Major::K, Major::MN>(accumulators, shared_address(shared), dout, weight, coord, 0, params.oc);
    DgradEpilogue op = {params};
    epilogue(accumulators, shared, coord, params.n, params.c, op);
}

// dweight (or a split's partial sum of it) = acc, or += acc
struct WgradEpilogue {
    static constexpr uint32_t COLUMNS = 4;
    using Values = float4;
    using Source = float4;
    float *dweight;
    bool accumulate;

    __device__ void begin(uint32_t) {}

    __device__ float4 load_source(uint64_t i) const { return accumulate ? load(dweight + i) : float4{}; }

    __device__ void apply(uint64_t i, const float4 &values, const float4 &source) const {
        store(dweight + i, source + values);
    }
};

// Stores dbias of the 16 output channels whose rows of A this warp has summed. The four lanes of a row hold equal sums.
template <typename Tile>
__device__ inline void store_dbias(const Accumulator &row_sums, const TileCoord &coord, uint32_t oc, float *dbias,
                                   bool accumulate) {
    if (lane_id() % 4 != 0) return;
    const uint32_t warp_m = warp_id() / Tile::WARPS_N, warp_n = warp_id() % Tile::WARPS_N;
    const uint32_t first = coord.m + warp_m * Tile::WARP_M + MMA_M * warp_n + lane_id() / 4;
#pragma unroll
    for (uint32_t half = 0; half < 2; half++) {
        const uint32_t row = first + 8 * half;
        if (row < oc) dbias[row] = accumulate ? dbias[row] + row_sums.c[2 * half] : row_sums.c[2 * half];
    }
}

template <typename Tile>
__device__ inline void wgrad(const MatmulWgradParams &params) {
    extern __shared__ uint4 shared[];
    const TileCoord coord = tile_coord<Tile>(params.tiles_m, params.c);
    const Operand dout = {params.dout, params.oc, params.oc}, x = {params.x, params.c, params.c};
    const uint32_t k_begin = blockIdx.y * params.k_per_split, k_end = min(params.n, k_begin + params.k_per_split);
    // All CTAs of a tile row have the same rows of A = dout^T: the first of them computes dbias.
    const bool sum_rows = params.dbias && coord.n == 0;
    Accumulators<Tile> accumulators = {};
    mainloop<Tile, Major::MN, Major::MN, true>(accumulators, shared_address(shared), dout, x, coord, k_begin, k_end,
                                               sum_rows);
    const uint64_t split_offset = blockIdx.y * params.split_stride;
    const bool accumulate = params.accumulate != 0;
    if (sum_rows) {
        store_dbias<Tile>(accumulators.row_sums, coord, params.oc, params.dbias + split_offset, accumulate);
    }
    WgradEpilogue op = {params.dweight + split_offset, accumulate};
    epilogue(accumulators, shared, coord, params.oc, params.c, op);
}

// Adds up the partial sums of the split_k splits in the order of the splits, which is deterministic. The loads of BATCH
// splits are in flight together.
__device__ inline void splitk_reduce(const MatmulSplitKReduceParams &params) {
    constexpr uint32_t BATCH = 8;
    // 64 bits: OC*C may exceed 2^32.
    const uint64_t i = 4 * (uint64_t(blockIdx.x) * MATMUL_SPLITK_REDUCE_THREADS + threadIdx.x);
    if (i >= params.len) return;
    float *to = i < params.dweight_len ? params.dweight + i : params.dbias + (i - params.dweight_len);
    float4 sum = {};
    uint32_t first_split = 0;
#pragma unroll 1
    do {
        float4 partials[BATCH] = {};
#pragma unroll
        for (uint32_t k = 0; k < BATCH; k++) {
            const uint32_t split = first_split + k;
            if (k == 0 || split < params.split_k) partials[k] = load(params.partials + split * params.split_stride + i);
        }
#pragma unroll
        for (uint32_t k = 0; k < BATCH; k++) sum = sum + partials[k];
        first_split += BATCH;
    } while (first_split < params.split_k);
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

KERNELS(128x256x32, LargeTile, MATMUL_LARGE_THREADS, 1)
KERNELS(64x64x32, SmallTile, MATMUL_SMALL_THREADS, MATMUL_SMALL_MIN_BLOCKS)

// minBlocks = 1 is required: otherwise ptxas targets 32 registers and serialises the eight loads.
extern "C" __global__ void __launch_bounds__(MATMUL_SPLITK_REDUCE_THREADS, 1)
    matmul_wgrad_splitk_reduce(const __grid_constant__ MatmulSplitKReduceParams params) {
    splitk_reduce(params);
}
