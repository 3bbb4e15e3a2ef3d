// Functions that the special function unit computes.
#pragma once

// 2^x to 2 ulp; exact for 0 and -infinity. Results below 2^-126 are 0, which saves the instructions for them: exp2f has
// three more an element.
__device__ inline float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// e^x for x <= 0, exact for 0 and -infinity. Rounding x * log2(e) costs |x| / 2^24 of the result.
__device__ inline float exp_approx(float x) { return exp2_approx(x * 1.44269504f); }

// log2(x) to 2^-22, of the result or absolutely where it is small.
__device__ inline float log2_approx(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
