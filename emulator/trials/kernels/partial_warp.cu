// Lanes that are left of a warp.  out[0] = sum over i < 16 of x[i] + 2 x[0] (x[0] itself counted twice);
//                                 out[i] = x[0] for 0 < i < 16, x[i] + 2 x[0] for i >= 16
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
    __syncwarp();  // those that are left read what lane 0 wrote
    const unsigned first = row[0];
    __syncwarp();  // all have read it before it changes
    if (lane == 0) row[0] = 2 * first;
    __syncwarp();  // the new value is read
    unsigned sum = row[lane] + row[0];
    if (len >= 16 && lane < 16) {
        // Lanes 8 and up also get what is undefined, which never comes to lane 0.
        for (unsigned offset = 8; offset > 0; offset /= 2) sum += __shfl_down_sync(0xffff, sum, offset);
        if (lane > 0) sum = first;
    }
    out[lane] = sum;
}
