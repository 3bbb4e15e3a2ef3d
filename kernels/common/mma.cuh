// The tensor cores' multiplication of bf16 with f32 sums, a warp's instruction from sm_80 on, and who holds what of it.
//
// Fragments as in the PTX ISA, "Matrix Fragments for mma.m16n8k16 with floating point type". A register of A and B has a
// pair, the element of the smaller k in its lower half. With row = lane / 4 and column = lane % 4 * 2:
//
//   A (16, 16)  pairs[i]  at (row + i % 2 * 8, k = column + i / 2 * 8) and the next k
//   B (16, 8)   pairs[i]  at (k = column + i * 8, lane / 4) and the next k
//   D (16, 8)   at[i]     at (row + i / 2 * 8, column + i % 2)
#pragma once

#include <stdint.h>

struct MmaA {
    uint32_t pairs[4];
};

struct MmaB {
    uint32_t pairs[2];
};

struct MmaD {
    float at[4];
};

// d += a * b. All 32 lanes must take part.
__device__ inline void mma(MmaD &d, const MmaA &a, const MmaB &b) {
    // Not volatile: it does nothing but write d, so that the compiler may move it.
    asm("mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32 "
        "{%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(d.at[0]), "+f"(d.at[1]), "+f"(d.at[2]), "+f"(d.at[3])
        : "r"(a.pairs[0]), "r"(a.pairs[1]), "r"(a.pairs[2]), "r"(a.pairs[3]), "r"(b.pairs[0]), "r"(b.pairs[1]));
}
