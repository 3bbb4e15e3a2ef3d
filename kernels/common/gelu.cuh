// GELU and its derivative, for the kernel of its own and for the epilogues of matmul: fused and alone must be bit-equal,
// or recomputing an activation would give another.
#pragma once

constexpr float GELU_ROOT = 0.7978845608f;  // sqrt(2/pi)
constexpr float GELU_CUBIC = 0.044715f;

// u = sqrt(2/pi) * (x + 0.044715 * x^3)
__device__ inline float gelu_argument(float x) { return GELU_ROOT * fmaf(GELU_CUBIC * x * x, x, x); }

// x/2 * (1 + tanh(u)) = x * sigmoid(2u)
__device__ inline float gelu(float x) {
    // Where x^3 overflows, exp(-2u) is 0 or infinity and the quotient x or -0, as it should be.
    return __fdividef(x, 1.0f + __expf(-2.0f * gelu_argument(x)));
}

// sigmoid(2u) + x * sigmoid(2u) * (1 - sigmoid(2u)) * 2u'
__device__ inline float dgelu(float x) {
    const float gate = __frcp_rn(1.0f + __expf(-2.0f * gelu_argument(x)));
    // From 16 on the gate is 0 or 1 and the slope 0: bounded, so that it does not become 0 * infinity where x^2 overflows.
    const float bounded = fminf(fmaxf(x, -16.0f), 16.0f);
    const float du = GELU_ROOT * fmaf(3.0f * GELU_CUBIC * bounded, bounded, 1.0f);
    return fmaf(bounded * gate * (1.0f - gate), 2.0f * du, gate);
}
