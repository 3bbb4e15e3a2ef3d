// Barriers at which not all threads arrive, wrong masks of warp operations, and an endless loop.

// Macros, so that findings name the line that uses them.
#define BAR_SYNC(id, threads) asm volatile("bar.sync %0, %1;" ::"r"(id), "r"(threads) : "memory")
#define BAR_ARRIVE(id, threads) asm volatile("bar.arrive %0, %1;" ::"r"(id), "r"(threads) : "memory")

// Two barriers in the two branches of one warp.
extern "C" __global__ void in_a_branch(unsigned *out, unsigned half) {
    if (threadIdx.x < half) {
        out[threadIdx.x] = 1;
        __syncthreads();  // BUG: half of the warp
    } else {
        __syncthreads();  // BUG: the other half
        out[threadIdx.x] = 2;
    }
}

// 32 of 64 threads arrive.
extern "C" __global__ void too_few(unsigned *out) {
    if (threadIdx.x < 32) BAR_SYNC(1, 64);  // BUG
    out[threadIdx.x] = 1;
}

// 96 threads arrive at a barrier for 64: one warp waits for another 32 threads.
extern "C" __global__ void too_many(unsigned *out) {
    BAR_SYNC(1, 64);  // BUG
    out[threadIdx.x] = 1;
}

extern "C" __global__ void unmatched_arrival(unsigned *out) {
    out[threadIdx.x] = 1;
    BAR_ARRIVE(1, 64);  // BUG: the block ends while the barrier is incomplete
}

extern "C" __global__ void two_counts(unsigned *out) {
    BAR_SYNC(1, threadIdx.x < 32 ? 64 : 96);  // BUG
    out[threadIdx.x] = 1;
}

// The upper lanes wait at the block's barrier, the lower lanes wait for the upper ones.
extern "C" __global__ void lanes_never_arrive(unsigned *out, unsigned half) {
    if (threadIdx.x < half) {
        out[threadIdx.x] = 1;
        __syncwarp();  // BUG
    } else {
        __syncthreads();  // BUG
        out[threadIdx.x] = 2;
    }
}

extern "C" __global__ void shuffle_from_exited_lanes(unsigned *out, unsigned half) {
    if (threadIdx.x >= half) return;
    out[threadIdx.x] = __shfl_xor_sync(0xffffffff, threadIdx.x, 16);  // BUG
}

extern "C" __global__ void mask_without_own_lane(unsigned *out) {
    __syncwarp(0x0000ffff);  // BUG: lanes from 16 on also execute it
    out[threadIdx.x] = 1;
}

// flag is never set.
extern "C" __global__ void endless_loop(unsigned *flag, unsigned *out) {
    volatile unsigned *seen = flag;
    while (*seen == 0) {  // BUG
    }
    out[threadIdx.x] = 1;
}

extern "C" __global__ void masks_disagree(unsigned *out) {
    const unsigned mask = threadIdx.x % 32 == 0 ? 0xffffffff : 0xfffffffe;
    out[threadIdx.x] = __ballot_sync(mask, threadIdx.x & 1);  // BUG
}

extern "C" __global__ void sync_and_count_at_one_barrier(unsigned *out) {
    unsigned count = 0;
    if (threadIdx.x < 32) {
        __syncthreads();  // BUG
    } else {
        count = __syncthreads_count(1);  // BUG
    }
    out[threadIdx.x] = count;
}
