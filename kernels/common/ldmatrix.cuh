// Four matrices of 8 x 8 bf16 from shared memory to the fragments that mma takes: mma.cuh says who holds what.
#pragma once

#include <stdint.h>

// Lane l gives the address of row l % 8 of matrix l / 8: 16 bytes, aligned. Lane l then has of each matrix the pair at
// (l / 4, l % 4 * 2), or with TRANSPOSED the pair at (l % 4 * 2, l / 4) and the next row. All 32 lanes must take part.
template <bool TRANSPOSED>
__device__ inline void ldmatrix_x4(uint32_t (&to)[4], uint32_t address) {
    if constexpr (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address));
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(to[0]), "=r"(to[1]), "=r"(to[2]), "=r"(to[3])
                     : "r"(address));
    }
}
