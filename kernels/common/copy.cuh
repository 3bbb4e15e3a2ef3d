// Copies from device memory to shared memory that no register is needed for, from sm_80 on.
#pragma once

#include <stdint.h>

// The address that instructions on shared memory take.
__device__ inline uint32_t shared_address(const void *shared) { return uint32_t(__cvta_generic_to_shared(shared)); }

// 16 bytes to shared memory, or zeros where not `wanted`; the source then may be any. Both 16-byte-aligned. The line goes
// to L2 alone (.cg): a tile is used out of shared memory, never out of L1.
__device__ inline void cp_async_16(uint32_t to, const void *from, bool wanted) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 :
                 : "r"(to), "l"(from), "r"(wanted ? 16 : 0)
                 : "memory");
}

// As above, 4 bytes, 4-byte-aligned. Such small ones go through L1 (.ca).
__device__ inline void cp_async_4(uint32_t to, const void *from, bool wanted) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;" : : "r"(to), "l"(from), "r"(wanted ? 4 : 0) : "memory");
}

// Ends a group: the thread's copies since the last group.
__device__ inline void cp_async_commit() { asm volatile("cp.async.commit_group;" : : : "memory"); }

// Waits until no more than PENDING of the thread's groups are under way. Other threads see what they copied after a
// barrier.
template <uint32_t PENDING>
__device__ inline void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" : : "n"(PENDING) : "memory");
}
