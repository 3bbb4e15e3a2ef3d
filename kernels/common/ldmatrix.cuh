// ldmatrix: a warp loads four 8 x 8 matrices of bf16 from shared memory into mma fragments (layout: mma.cuh).
#pragma once

#include <stdint.h>

// Lane l passes the shared address of row l % 8 of matrix l / 8: 16 bytes, 16-byte-aligned. Register i of lane l then
// holds the pair of elements of matrix i that starts at (row l / 4, column l % 4 * 2). With TRANSPOSED it holds the
// elements at (row l % 4 * 2, column l / 4) and in the row below. All 32 lanes must execute it.
template <bool TRANSPOSED>
__device__ inline void ldmatrix_x4(uint32_t (&regs)[4], uint32_t address) {
    if constexpr (TRANSPOSED) {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(regs[0]), "=r"(regs[1]), "=r"(regs[2]), "=r"(regs[3])
                     : "r"(address));
    } else {
        asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                     : "=r"(regs[0]), "=r"(regs[1]), "=r"(regs[2]), "=r"(regs[3])
                     : "r"(address));
    }
}
