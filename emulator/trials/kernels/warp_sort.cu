// Sorts runs of 32, each with one warp through shared memory (Batcher's bitonic sorting network).
// Shapes:   x, out (N) s32
// Writes:   out "=": each run of 32 sorted; the last run may be shorter
// Launch:   grid ceil(N/64), block 64, smem 0; one warp = one run
// Numerics: exact
// Traffic:  8*N bytes
#include <limits.h>

constexpr unsigned RUN = 32;

extern "C" __global__ void __launch_bounds__(2 * RUN) warp_sort(const int *x, int *out, unsigned len) {
    __shared__ int runs[2][RUN];
    const unsigned i = blockIdx.x * blockDim.x + threadIdx.x, lane = threadIdx.x % RUN;
    int *run = runs[threadIdx.x / RUN];
    // A short run is padded with the largest value, which is sorted to its end.
    int value = i < len ? x[i] : INT_MAX;
#pragma unroll 1
    for (unsigned size = 2; size <= RUN; size *= 2) {
#pragma unroll 1
        for (unsigned distance = size / 2; distance > 0; distance /= 2) {
            run[lane] = value;
            __syncwarp();  // the partner has written its value
            const int other = run[lane ^ distance];
            __syncwarp();  // the partner has read this lane's value
            const bool ascending = (lane & size) == 0, lower = (lane & distance) == 0;
            value = ascending == lower ? min(value, other) : max(value, other);
        }
    }
    if (i < len) out[i] = value;
}
