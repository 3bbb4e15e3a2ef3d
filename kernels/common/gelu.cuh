// GELU and its derivative, for the kernel of its own and for the epilogues of matmul: fused and alone must be bit-equal,
// or recomputing an activation would give another.
#pragma once

constexpr float GELU_ROOT = 0.7978845608f;  // sqrt(2/pi)
constexpr float GELU_CUBIC = 0.044715f;

// x/2 * (1 + tanh(u)) = x * sigmoid(2u), u = sqrt(2/pi) * (x + 0.044715 * x^3)
__device__ inline float gelu(float x) {
    const float u = GELU_ROOT * (x + GELU_CUBIC * x * x * x);
    // Where x^3 overflows, exp(-2u) is 0 or infinity and the quotient x or -0, as it should be.
    return __fdividef(x, 1.0f + __expf(-2.0f * u));
}

// sigmoid(2u) + x * sigmoid(2u) * (1 - sigmoid(2u)) * 2u'
__device__ inline float dgelu(float x) {
    const float u = GELU_ROOT * (x + GELU_CUBIC * x * x * x);
    const float gate = __frcp_rn(1.0f + __expf(-2.0f * u));
    const float du = GELU_ROOT * (1.0f + 3.0f * GELU_CUBIC * x * x);
    const float slope = gate * (1.0f - gate);
    // Where the gate is shut or open, du may be infinite and must not make 0 * infinity.
    return slope == 0.0f ? gate : gate + x * slope * 2.0f * du;
}
