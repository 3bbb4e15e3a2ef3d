// Squares, warp-specialized: a producer warp loads into two buffers, a consumer warp computes; they synchronise with
// named barriers.  out = x * x
// Shapes:   x, out (N) f32
// Writes:   out "="
// Launch:   grid any, block 64, smem 0; one block = every gridDim-th chunk of 32
// Numerics: f32
// Traffic:  8*N bytes
#include "ptx.cuh"

constexpr unsigned CHUNK = 32;
constexpr unsigned BUFFERS = 2;
constexpr unsigned BOTH = 2 * CHUNK;
// Barrier ids, one per buffer; barrier 0 is that of __syncthreads.
constexpr unsigned FULL = 1;
constexpr unsigned EMPTY = FULL + BUFFERS;

extern "C" __global__ void __launch_bounds__(BOTH) producer_consumer(const float *x, float *out, unsigned len) {
    __shared__ float buffers[BUFFERS][CHUNK];
    const unsigned lane = threadIdx.x % CHUNK, stride = gridDim.x * CHUNK;
    const bool producer = threadIdx.x < CHUNK;
    unsigned round = 0;
#pragma unroll 1
    for (unsigned first = blockIdx.x * CHUNK; first < len; first += stride, round++) {
        const unsigned buffer = round % BUFFERS, i = first + lane;
        if (producer) {
            if (round >= BUFFERS) bar_sync(EMPTY + buffer, BOTH);  // the consumer has read the buffer
            if (i < len) buffers[buffer][lane] = x[i];
            bar_arrive(FULL + buffer, BOTH);
        } else {
            bar_sync(FULL + buffer, BOTH);  // the producer has written the buffer
            if (i < len) out[i] = buffers[buffer][lane] * buffers[buffer][lane];
            // Arrives only if the producer will wait: a block must not end with an incomplete barrier.
            if (len - first > BUFFERS * stride) bar_arrive(EMPTY + buffer, BOTH);
        }
    }
}
