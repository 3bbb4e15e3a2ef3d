// A barrier for the compiler's elimination of common subexpressions.
#pragma once

#include <stdint.h>

// Returns `x`, but the compiler does not know that. What depends on the result is computed anew, instead of being kept
// in registers since it was computed from `x`.
__device__ inline uint32_t opaque(uint32_t x) {
    asm volatile("" : "+r"(x));
    return x;
}
