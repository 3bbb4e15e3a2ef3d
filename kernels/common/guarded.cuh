// Accesses of four columns under a condition, without a branch: a kernel can have many of them under way, each with a
// condition and an address of its own. Of a branch around a load ptxas makes a detour that works the address out anew.
#pragma once

#include <stdint.h>

#include "types.cuh"

// Four bf16, or zeros where not `wanted`; the address then may be any.
__device__ inline uint2 load_predicated(bool wanted, const bf16 *from) {
    uint2 to;
    asm volatile(
        "{\n\t"
        ".reg .pred wanted;\n\t"
        "setp.ne.u32 wanted, %2, 0;\n\t"
        "mov.u32 %0, 0;\n\t"
        "mov.u32 %1, 0;\n\t"
        "@wanted ld.global.v2.u32 {%0, %1}, [%3];\n\t"
        "}"
        : "=&r"(to.x), "=&r"(to.y)
        : "r"(uint32_t(wanted)), "l"(from)
        : "memory");
    return to;
}

// As load_predicated, for what the launch uses once: it is the first to leave L2.
__device__ inline float4 load_streaming_predicated(bool wanted, const float *from) {
    float4 to;
    asm volatile(
        "{\n\t"
        ".reg .pred wanted;\n\t"
        "setp.ne.u32 wanted, %4, 0;\n\t"
        "mov.f32 %0, 0f00000000;\n\t"
        "mov.f32 %1, 0f00000000;\n\t"
        "mov.f32 %2, 0f00000000;\n\t"
        "mov.f32 %3, 0f00000000;\n\t"
        "@wanted ld.global.cs.v4.f32 {%0, %1, %2, %3}, [%5];\n\t"
        "}"
        : "=&f"(to.x), "=&f"(to.y), "=&f"(to.z), "=&f"(to.w)
        : "r"(uint32_t(wanted)), "l"(from)
        : "memory");
    return to;
}

__device__ inline void store_streaming_predicated(bool wanted, float *to, const float4 &from) {
    asm volatile(
        "{\n\t"
        ".reg .pred wanted;\n\t"
        "setp.ne.u32 wanted, %0, 0;\n\t"
        "@wanted st.global.cs.v4.f32 [%1], {%2, %3, %4, %5};\n\t"
        "}"
        :
        : "r"(uint32_t(wanted)), "l"(to), "f"(from.x), "f"(from.y), "f"(from.z), "f"(from.w)
        : "memory");
}
