// Asynchronous copies from global to shared memory (cp.async, sm_80 and later). The data bypasses the registers.
#pragma once

#include <stdint.h>

// Converts a generic pointer into shared memory to the 32-bit address that cp.async and ldmatrix take.
__device__ inline uint32_t shared_address(const void *shared) { return uint32_t(__cvta_generic_to_shared(shared)); }

// Copies 16 bytes from global memory `src` to shared memory `dst`, both 16-byte-aligned. Where `predicate` is false the
// source size is 0: cp.async fills `dst` with zeros and does not read `src`, which then may be any address.
// .cg caches the line in L2 only: a tile is read from shared memory afterwards, so a copy in L1 would never be used.
__device__ inline void cp_async_16(uint32_t dst, const void *src, bool predicate) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(dst), "l"(src), "r"(predicate ? 16 : 0)
                 : "memory");
}

// The same for 4 bytes, 4-byte-aligned. cp.async has no .cg form of this size, so the line also goes to L1 (.ca).
__device__ inline void cp_async_4(uint32_t dst, const void *src, bool predicate) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 :
                 : "r"(dst), "l"(src), "r"(predicate ? 4 : 0)
                 : "memory");
}

// Commits the copies that this thread has issued since its last commit as one group.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }

// Waits until at most PENDING of this thread's committed groups are still in flight. The wait covers only the thread's
// own copies: a barrier must follow before other threads read the data.
template <uint32_t PENDING>
__device__ inline void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" : : "n"(PENDING) : "memory");
}
