// Approximate base-2 exponential and logarithm, computed by the special function unit (MUFU).
#pragma once

// 2^x to 2 ulp; exact for 0 and -infinity. Results below 2^-126 are flushed to 0 (ftz); exp2f handles these denormals,
// which costs three more instructions per element.
__device__ inline float exp2_approx(float x) {
    float y;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}

// e^x for x <= 0; exact for 0 and -infinity. Rounding x * log2(e) adds a relative error of |x| / 2^24.
__device__ inline float exp_approx(float x) { return exp2_approx(x * 1.44269504f); }

// log2(x) with an error of 2^-22: relative, or absolute where the result is small.
__device__ inline float log2_approx(float x) {
    float y;
    asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(y) : "f"(x));
    return y;
}
