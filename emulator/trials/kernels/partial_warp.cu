// Warp operations after some lanes have exited.  s = x with s[0] = 2 x[0];  t[i] = s[i] + 2 x[0]
//                                                len >= 16: out[0] = sum over i < 16 of t[i],
//                                                           out[i] = x[0] for 0 < i < 16; otherwise out[i] = t[i]
// Shapes:   x, out (len) u32
// Writes:   out "="
// Requires: len <= 32
// Launch:   grid 1, block 16 or 32, smem 128; one thread = one element
// Numerics: modulo 2^32
// Traffic:  8*len bytes

extern "C" __global__ void partial_warp(const unsigned *x, unsigned *out, unsigned len) {
    __shared__ unsigned row[32];
    const unsigned lane = threadIdx.x;
    if (lane >= len) return;
    row[lane] = x[lane];
    __syncwarp();  // the remaining lanes see what lane 0 wrote
    const unsigned first = row[0];
    __syncwarp();  // all remaining lanes have read row[0] before it changes
    if (lane == 0) row[0] = 2 * first;
    __syncwarp();  // the remaining lanes see the new value
    unsigned sum = row[lane] + row[0];
    if (len >= 16 && lane < 16) {
        // Lanes from 8 on also add undefined values, which never reach lane 0.
        for (unsigned offset = 8; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffff, sum, offset);
        if (lane > 0) sum = first;
    }
    out[lane] = sum;
}
