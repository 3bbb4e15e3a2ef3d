// GELU (tanh approximation) and its derivative. The gelu kernel and the matmul epilogues share them: fused and unfused
// GELU must be bit-equal, or recomputing an activation would give a different result.
#pragma once

constexpr float SQRT_2_OVER_PI = 0.7978845608f;
constexpr float GELU_CUBIC = 0.044715f;

// u = sqrt(2/pi) * (x + 0.044715 * x^3)
__device__ inline float gelu_argument(float x) { return SQRT_2_OVER_PI * fmaf(GELU_CUBIC * x * x, x, x); }

// gelu(x) = x/2 * (1 + tanh(u)) = x * sigmoid(2u)
__device__ inline float gelu(float x) {
    // Where x^3 overflows, exp(-2u) is 0 or infinity and the quotient is x or -0, which are the correct limits.
    return __fdividef(x, 1.0f + __expf(-2.0f * gelu_argument(x)));
}

// gelu'(x) = sigmoid(2u) + x * sigmoid(2u) * (1 - sigmoid(2u)) * 2u'
__device__ inline float dgelu(float x) {
    const float sigmoid = __frcp_rn(1.0f + __expf(-2.0f * gelu_argument(x)));
    // For |x| >= 16 the sigmoid is exactly 0 or 1, so its slope is 0. Clamping x keeps the second term from becoming
    // 0 * infinity where x^2 overflows.
    const float clamped = fminf(fmaxf(x, -16.0f), 16.0f);
    const float du = SQRT_2_OVER_PI * fmaf(3.0f * GELU_CUBIC * clamped, clamped, 1.0f);
    return fmaf(clamped * sigmoid * (1.0f - sigmoid), 2.0f * du, sigmoid);
}
