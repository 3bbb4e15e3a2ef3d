// Element types, and the 16-byte accesses that kernels read and write them by.
#pragma once

#include <cuda_bf16.h>

using bf16 = __nv_bfloat16;

// Eight bf16 in memory, eight f32 in registers.
constexpr int VECTOR = 16 / sizeof(bf16);

struct f32x8 {
    float at[VECTOR];
};

// from: 16-byte-aligned.
__device__ inline f32x8 load(const bf16 *from) {
    const uint4 raw = *reinterpret_cast<const uint4 *>(from);
    const uint32_t pairs[VECTOR / 2] = {raw.x, raw.y, raw.z, raw.w};
    f32x8 to;
#pragma unroll
    for (int i = 0; i < VECTOR / 2; i++) {
        // A bf16 is the upper half of the f32 of its value; the first of a pair lies in the lower bits.
        to.at[2 * i] = __uint_as_float(pairs[i] << 16);
        to.at[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
    return to;
}

// to: 16-byte-aligned. Rounds to nearest, ties to even.
__device__ inline void store(bf16 *to, const f32x8 &from) {
    uint32_t pairs[VECTOR / 2];
#pragma unroll
    for (int i = 0; i < VECTOR / 2; i++) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(from.at[2 * i], from.at[2 * i + 1]);
        pairs[i] = reinterpret_cast<const uint32_t &>(pair);
    }
    *reinterpret_cast<uint4 *>(to) = make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}
