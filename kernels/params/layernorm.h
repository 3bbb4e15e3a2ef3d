// Launch parameters and constants of layernorm: see params.h.
#ifndef IRONWARP_PARAMS_LAYERNORM_H
#define IRONWARP_PARAMS_LAYERNORM_H

#include "device_pointer.h"

/// Threads per block of every layernorm kernel.
constexpr uint32_t LAYERNORM_THREADS = 256;
/// Minimum resident blocks per SM of the forward kernels: it limits them to 64 registers per thread.
constexpr uint32_t LAYERNORM_FORWARD_MIN_BLOCKS = 4;
/// Minimum resident blocks per SM of the forward kernels for C <= 2048, in which a thread has 8 vectors of a row: it
/// limits them to 128 registers per thread.
constexpr uint32_t LAYERNORM_FORWARD_C2048_MIN_BLOCKS = 2;
/// Minimum resident blocks per SM of `residual_layernorm_forward_c12288`, in which a thread has 6 vectors of x and 6 of
/// the residual: it limits the kernel to 80 registers per thread.
constexpr uint32_t LAYERNORM_RESIDUAL_C12288_MIN_BLOCKS = 3;
/// Minimum rows per block of the forward kernels: with fewer rows per block, weight and bias would be loaded too often.
constexpr uint32_t LAYERNORM_FORWARD_MIN_ROWS_PER_BLOCK = 32;
/// Minimum rows per block of the backward kernels: with fewer, weight would be loaded and partial sums would be written
/// too often.
constexpr uint32_t LAYERNORM_BACKWARD_MIN_ROWS_PER_BLOCK = 64;
/// Maximum number of blocks of the backward kernels. The same on every GPU, as the number of blocks determines the
/// summation order of dweight and dbias.
constexpr uint32_t LAYERNORM_BACKWARD_MAX_BLOCKS = 256;
/// float4 columns of dweight and dbias that a block of `layernorm_backward_reduce` reduces.
constexpr uint32_t LAYERNORM_REDUCE_VECTORS = 32;
/// Largest supported C.
constexpr uint32_t LAYERNORM_MAX_C = 12288;

/// Parameters of `layernorm_forward_*` and `residual_layernorm_forward_*`.
struct LayernormForwardParams {
    /// (N, C) bf16, row-major input.
    DEVICE_POINTER(const bf16) x;
    /// (N, C) bf16, row-major residual that is added to x; null without a residual.
    DEVICE_POINTER(const bf16) residual;
    /// (C) bf16 scale.
    DEVICE_POINTER(const bf16) weight;
    /// (C) bf16 shift.
    DEVICE_POINTER(const bf16) bias;
    /// (N, C) bf16, row-major output `=` x + residual; null without a residual.
    DEVICE_POINTER(bf16) sum;
    /// (N, C) bf16, row-major output `=`.
    DEVICE_POINTER(bf16) out;
    /// (N) f32 output `=`: the mean of each row.
    DEVICE_POINTER(float) mean;
    /// (N) f32 output `=`: the reciprocal standard deviation of each row.
    DEVICE_POINTER(float) rstd;
    /// Number of rows N.
    uint64_t n;
    /// Channels C per row, a multiple of 8.
    uint64_t c;
};

/// Parameters of `layernorm_backward_*` and `layernorm_backward_reduce`.
struct LayernormBackwardParams {
    /// (N, C) bf16, row-major gradient of the output.
    DEVICE_POINTER(const bf16) dout;
    /// (N, C) bf16, row-major input of the forward (the sum, with a residual).
    DEVICE_POINTER(const bf16) x;
    /// (C) bf16 scale.
    DEVICE_POINTER(const bf16) weight;
    /// (N) f32 row means from the forward.
    DEVICE_POINTER(const float) mean;
    /// (N) f32 reciprocal standard deviations from the forward.
    DEVICE_POINTER(const float) rstd;
    /// (N, C) bf16, row-major gradient of x, `=` or `+=` by `accumulate_dx`.
    DEVICE_POINTER(bf16) dx;
    /// (C) f32 gradient of weight, `=` or `+=` by `accumulate`.
    DEVICE_POINTER(float) dweight;
    /// (C) f32 gradient of bias, `=` or `+=` by `accumulate`.
    DEVICE_POINTER(float) dbias;
    /// (blocks, 4, C/8) float4 scratch: each block's partial sums of dweight and dbias. The second dimension is the low
    /// and the high halves of dweight's vectors of 8, then those of dbias's.
    DEVICE_POINTER(float4) partials;
    /// Number of rows N.
    uint64_t n;
    /// Channels C per row, a multiple of 8.
    uint32_t c;
    /// Number of blocks of `layernorm_backward_*`, each of which writes partial sums.
    uint32_t blocks;
    /// 1: dx is added to; 0: it is overwritten.
    uint32_t accumulate_dx;
    /// 1: dweight and dbias are added to; 0: they are overwritten.
    uint32_t accumulate;
};

#endif
