// Predicated global loads and stores of four elements, without a branch. A kernel can have many of them in flight, each
// with its own predicate and address. Around a load in a branch, ptxas would jump and recompute the address.
#pragma once

#include <stdint.h>

#include "types.cuh"

// Loads four bf16, or returns zeros where `predicate` is false; the address is not read then and may be invalid.
__device__ inline uint2 load_predicated(bool predicate, const bf16 *from) {
    uint2 to;
    asm volatile(
        "{\n\t"
        ".reg .pred p;\n\t"
        "setp.ne.u32 p, %2, 0;\n\t"
        "mov.u32 %0, 0;\n\t"
        "mov.u32 %1, 0;\n\t"
        "@p ld.global.v2.u32 {%0, %1}, [%3];\n\t"
        "}"
        : "=&r"(to.x), "=&r"(to.y)
        : "r"(uint32_t(predicate)), "l"(from)
        : "memory");
    return to;
}

// Loads four f32 like load_predicated, with the streaming hint (.cs): the launch uses the data once, so L2 may evict it
// first.
__device__ inline float4 load_streaming_predicated(bool predicate, const float *from) {
    float4 to;
    asm volatile(
        "{\n\t"
        ".reg .pred p;\n\t"
        "setp.ne.u32 p, %4, 0;\n\t"
        "mov.f32 %0, 0f00000000;\n\t"
        "mov.f32 %1, 0f00000000;\n\t"
        "mov.f32 %2, 0f00000000;\n\t"
        "mov.f32 %3, 0f00000000;\n\t"
        "@p ld.global.cs.v4.f32 {%0, %1, %2, %3}, [%5];\n\t"
        "}"
        : "=&f"(to.x), "=&f"(to.y), "=&f"(to.z), "=&f"(to.w)
        : "r"(uint32_t(predicate)), "l"(from)
        : "memory");
    return to;
}

// Stores four f32 where `predicate` is true, with the streaming hint (.cs).
__device__ inline void store_streaming_predicated(bool predicate, float *to, const float4 &from) {
    asm volatile(
        "{\n\t"
        ".reg .pred p;\n\t"
        "setp.ne.u32 p, %0, 0;\n\t"
        "@p st.global.cs.v4.f32 [%1], {%2, %3, %4, %5};\n\t"
        "}"
        :
        : "r"(uint32_t(predicate)), "l"(to), "f"(from.x), "f"(from.y), "f"(from.z), "f"(from.w)
        : "memory");
}
