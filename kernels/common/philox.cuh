// Philox4x32-10, the counter-based random number generator of src/ops/philox.rs, and stochastic rounding with its
// draws. Bit-equal to the Rust code; the known-answer tests there cover both.
#pragma once

#include <stdint.h>

// What a draw is used for: `Purpose` in philox.rs.
constexpr uint32_t PURPOSE_SAMPLING = 1;
constexpr uint32_t PURPOSE_ROUNDING = 2;

// Four independent 32-bit draws for a key and a counter.
__device__ inline uint4 philox4x32(uint64_t key, uint4 x) {
    uint32_t key0 = uint32_t(key), key1 = uint32_t(key >> 32);
#pragma unroll
    for (uint32_t round = 0; round < 10; round++) {
        // High and low halves are computed separately: for a 64-bit product the compiler emits 64-bit arithmetic, a
        // third more instructions.
        x = make_uint4(__umulhi(0xcd9e8d57u, x.z) ^ x.y ^ key0, 0xcd9e8d57u * x.z,
                       __umulhi(0xd2511f53u, x.x) ^ x.w ^ key1, 0xd2511f53u * x.x);
        key0 += 0x9e3779b9u;
        key1 += 0xbb67ae85u;
    }
    return x;
}

// Draws 4*quad to 4*quad + 3 of a key, for a counter below 2^56.
__device__ inline uint4 draw4(uint64_t key, uint32_t purpose, uint64_t counter, uint64_t quad) {
    const uint32_t high = (uint32_t(counter >> 32) & 0x00ffffffu) | purpose << 24;
    return philox4x32(key, make_uint4(uint32_t(quad), uint32_t(quad >> 32), uint32_t(counter), high));
}

// Stochastic rounding: rounds `value` to bf16 by the low 16 bits of a draw. The result is in the upper half of the
// word; the lower half is noise.
__device__ inline uint32_t round_to_bf16(float value, uint32_t draw) {
    const uint32_t bits = __float_as_uint(value);
    // Sets the quiet bit of a NaN: truncating a NaN whose only mantissa bits are low ones would give an infinity.
    return isnan(value) ? bits | 0x00400000u : bits + (draw & 0xffffu);
}

// Packs the upper halves of two words as two bf16, `first` at the lower address.
__device__ inline uint32_t upper_halves(uint32_t first, uint32_t second) { return __byte_perm(first, second, 0x7632); }
