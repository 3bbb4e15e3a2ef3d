// Element types, and the 16-byte vector accesses with which kernels read and write them.
#pragma once

#include <cuda_bf16.h>
#include <stdint.h>

using bf16 = __nv_bfloat16;

// Elements of a vector: eight bf16 in memory (16 bytes), eight f32 in registers.
constexpr uint32_t VECTOR = 16 / sizeof(bf16);

// Eight bf16 as they are in memory: half as many registers as their f32 values.
using bf16x8 = uint4;

struct f32x8 {
    float at[VECTOR];
};

__device__ inline f32x8 unpack(const bf16x8 &raw) {
    const uint32_t pairs[VECTOR / 2] = {raw.x, raw.y, raw.z, raw.w};
    f32x8 to;
#pragma unroll
    for (uint32_t i = 0; i < VECTOR / 2; i++) {
        // A bf16 is the upper half of the f32 of the same value; the first of a pair is in the lower bits.
        to.at[2 * i] = __uint_as_float(pairs[i] << 16);
        to.at[2 * i + 1] = __uint_as_float(pairs[i] & 0xffff0000u);
    }
    return to;
}

// Converts eight f32 to bf16, rounding to nearest, ties to even.
__device__ inline bf16x8 pack(const f32x8 &from) {
    uint32_t pairs[VECTOR / 2];
#pragma unroll
    for (uint32_t i = 0; i < VECTOR / 2; i++) {
        const __nv_bfloat162 pair = __floats2bfloat162_rn(from.at[2 * i], from.at[2 * i + 1]);
        pairs[i] = reinterpret_cast<const uint32_t &>(pair);
    }
    return make_uint4(pairs[0], pairs[1], pairs[2], pairs[3]);
}

// All addresses below must be 16-byte-aligned.
__device__ inline bf16x8 load_packed(const bf16 *from) { return *reinterpret_cast<const bf16x8 *>(from); }

__device__ inline void store_packed(bf16 *to, const bf16x8 &from) { *reinterpret_cast<bf16x8 *>(to) = from; }

__device__ inline f32x8 load(const bf16 *from) { return unpack(load_packed(from)); }

__device__ inline void store(bf16 *to, const f32x8 &from) { store_packed(to, pack(from)); }

__device__ inline float4 load(const float *from) { return *reinterpret_cast<const float4 *>(from); }

__device__ inline void store(float *to, const float4 &from) { *reinterpret_cast<float4 *>(to) = from; }

__device__ inline float4 operator+(const float4 &a, const float4 &b) {
    return make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w);
}
