// Tensor-core MMA of bf16 with f32 accumulators: the warp-level instruction mma.sync.m16n8k16 (sm_80 and later).
//
// Fragment layout as in the PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type". A register of A or B
// holds two elements, the one with the smaller k in its lower half. With row = lane / 4 and column = lane % 4 * 2:
//
//   A (16, 16)  regs[i]  (row + i % 2 * 8, k = column + i / 2 * 8) and the next k
//   B (16, 8)   regs[i]  (k = column + i * 8, lane / 4) and the next k
//   D (16, 8)   c[i]     (row + i / 2 * 8, column + i % 2)
#pragma once

#include <stdint.h>

// D (MMA_M, MMA_N) += A (MMA_M, MMA_K) x B (MMA_K, MMA_N)
constexpr uint32_t MMA_M = 16, MMA_N = 8, MMA_K = 16;

struct FragmentA {
    uint32_t regs[4];
};

struct FragmentB {
    uint32_t regs[2];
};

struct Accumulator {
    float c[4];
};

// d += a * b, (16, 8) += (16, 16) x (16, 8). All 32 lanes must execute it.
__device__ inline void mma(Accumulator &d, const FragmentA &a, const FragmentB &b) {
    // Not volatile: its only effect is to write d, so the compiler may reorder it.
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d.c[0]), "+f"(d.c[1]), "+f"(d.c[2]), "+f"(d.c[3])
        : "r"(a.regs[0]), "r"(a.regs[1]), "r"(a.regs[2]), "r"(a.regs[3]), "r"(b.regs[0]), "r"(b.regs[1]));
}
