//! Theoretical occupancy: how many thread blocks of a launch are resident on an SM at once, and which resource limits
//! that number.
//!
//! The rules are those of the CUDA toolkit's occupancy calculator (`cuda_occupancy.h`), the limits those of the
//! programming guide's appendix "Compute Capabilities".

use serde::Serialize;

const WARP_SIZE: u32 = 32;
/// Registers of an SM. They are divided evenly among its sub-partitions; a warp's registers are in one sub-partition.
const REGISTERS: u32 = 65_536;
const SUBPARTITIONS: u32 = 4;
/// Granularity in which registers are allocated to a warp.
const REGISTER_ALLOCATION_UNIT: u32 = 256;
const MAX_REGISTERS_PER_THREAD: u32 = 255;
const MAX_THREADS_PER_BLOCK: u32 = 1024;
/// Granularity in bytes in which shared memory is allocated to a block.
const SHARED_ALLOCATION_UNIT: u32 = 128;
/// Bytes of shared memory that the system reserves for each block, in addition to the block's own.
const SHARED_RESERVED: u32 = 1024;

/// The limits of an SM that differ between architectures.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Maximum number of resident warps.
    pub warps: u32,
    /// Maximum number of resident thread blocks.
    pub blocks: u32,
    /// Bytes of shared memory; a block can have at most 1 KiB less.
    pub shared_bytes: u32,
}

impl Limits {
    /// The limits of a compute capability such as `(9, 0)`; `None` if it is not known.
    pub fn of(capability: (u32, u32)) -> Option<Limits> {
        let (warps, blocks, shared_kib) = match capability {
            (8, 0) => (64, 32, 164),
            (8, 6) => (48, 16, 100),
            (8, 7) => (48, 16, 164),
            (8, 9) => (48, 24, 100),
            (9, 0) | (10, 0 | 3) => (64, 32, 228),
            (11, 0) => (48, 24, 228),
            (12, 0 | 1) => (48, 24, 100),
            _ => return None,
        };
        Some(Limits { warps, blocks, shared_bytes: shared_kib * 1024 })
    }
}

/// The resource of an SM that limits the number of resident blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Resident threads. Full occupancy is possible if the block size divides their maximum.
    Threads,
    /// Resident blocks.
    Blocks,
    /// Registers.
    Registers,
    /// Shared memory.
    Shared,
}

/// The theoretical occupancy of a launch.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Occupancy {
    /// Resident thread blocks per SM; 0 for a launch that exceeds a limit.
    pub blocks: u32,
    /// Resident warps per SM.
    pub warps: u32,
    /// Resident warps divided by their maximum number.
    pub fraction: f64,
    /// The resource that limits the number of blocks; of several, the first in the order of [`Limit`].
    pub limited_by: Limit,
}

/// The occupancy of a launch with the given threads per block, registers per thread, and bytes of shared memory per
/// block (static and dynamic together).
pub fn occupancy(limits: Limits, threads: u32, registers: u32, shared_bytes: u32) -> Occupancy {
    let warps = threads.div_ceil(WARP_SIZE).max(1);
    let by_threads = if (1..=MAX_THREADS_PER_BLOCK).contains(&threads) { limits.warps / warps } else { 0 };
    let by_registers = if registers <= MAX_REGISTERS_PER_THREAD {
        let per_warp = (registers.max(1) * WARP_SIZE).next_multiple_of(REGISTER_ALLOCATION_UNIT);
        REGISTERS / SUBPARTITIONS / per_warp * SUBPARTITIONS / warps
    } else {
        0
    };
    let shared = shared_bytes.saturating_add(SHARED_RESERVED).checked_next_multiple_of(SHARED_ALLOCATION_UNIT);
    let by_shared = shared.map_or(0, |shared| limits.shared_bytes / shared);
    let (blocks, limited_by) = [
        (by_threads, Limit::Threads),
        (limits.blocks, Limit::Blocks),
        (by_registers, Limit::Registers),
        (by_shared, Limit::Shared),
    ]
    .into_iter()
    .min_by_key(|(blocks, _)| *blocks)
    .expect("there are four limits");
    let warps = blocks * warps;
    Occupancy { blocks, warps, fraction: f64::from(warps) / f64::from(limits.warps), limited_by }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A100: Limits = Limits { warps: 64, blocks: 32, shared_bytes: 167_936 };
    const H100: Limits = Limits { warps: 64, blocks: 32, shared_bytes: 233_472 };

    #[test]
    fn limits_of_known_compute_capabilities() {
        assert_eq!(Limits::of((8, 0)), Some(A100));
        assert_eq!(Limits::of((9, 0)), Some(H100));
        assert_eq!(Limits::of((8, 6)).map(|limits| (limits.warps, limits.blocks)), Some((48, 16)));
        assert_eq!(Limits::of((12, 0)), Limits::of((8, 9)));
        assert_eq!([(7, 5), (8, 1), (9, 1), (13, 0)].map(Limits::of), [None; 4]);
    }

    /// The figures of `docs/kernels.md`: threads, registers for sm_80 and sm_90a, blocks for both.
    #[test]
    fn blocks_of_the_kernels() {
        for (kernel, threads, registers, shared, blocks) in [
            ("layernorm_forward_c1024", 256, [52, 54], 4 * 1024, [4, 4]),
            ("residual_layernorm_forward_c2048", 256, [128, 127], 4 * 2048, [2, 2]),
            ("layernorm_forward_c12288", 256, [62, 64], 4 * 12_288 + 64, [3, 4]),
            ("layernorm_backward_c1024", 256, [166, 172], 2 * 1024, [1, 1]),
            ("layernorm_backward_reduce", 256, [34, 32], 4096, [6, 8]),
            ("embedding_forward", 256, [40, 40], 0, [6, 6]),
            ("embedding_backward_count", 512, [16, 18], 1024, [4, 4]),
            ("embedding_backward_sort", 512, [96, 62], 17_472, [1, 2]),
            ("gelu_forward", 256, [25, 24], 0, [8, 8]),
            ("cross_entropy_backward_51k", 256, [128, 128], 64, [2, 2]),
            ("loss_sum", 1024, [32, 32], 128, [2, 2]),
        ] {
            for (limits, (registers, blocks)) in [A100, H100].into_iter().zip(registers.into_iter().zip(blocks)) {
                let found = occupancy(limits, threads, registers, shared);
                assert_eq!(found.blocks, blocks, "{kernel}: {found:?}");
                assert_eq!(found.warps, blocks * threads / 32, "{kernel}");
            }
        }
    }

    #[test]
    fn the_limiting_resource_is_named() {
        for (threads, registers, shared, blocks, limited_by) in [
            (256, 32, 0, 8, Limit::Threads),
            (32, 32, 0, 32, Limit::Blocks),
            // Three warps, the last of them with 16 lanes.
            (80, 32, 0, 21, Limit::Threads),
            // A 33rd register costs each warp an allocation unit of 256: 12 warps per sub-partition instead of 16.
            (256, 33, 0, 6, Limit::Registers),
            // With 169 registers, 9 warps need 50,688 of the 65,536 registers, but a sub-partition holds only 2 warps
            // of 5,632 registers: 8 warps in all.
            (288, 168, 0, 1, Limit::Registers),
            (288, 169, 0, 0, Limit::Registers),
            (64, 32, 32 * 1024, 6, Limit::Shared),
            // A fifth of the SM's shared memory, which is not a multiple of the allocation unit.
            (64, 32, 46_694 - 1024, 4, Limit::Shared),
            // The maximum of a block, and one byte more.
            (64, 32, 227 * 1024, 1, Limit::Shared),
            (64, 32, 227 * 1024 + 1, 0, Limit::Shared),
            (1025, 32, 0, 0, Limit::Threads),
            (0, 32, 0, 0, Limit::Threads),
            (32, 256, 0, 0, Limit::Registers),
            (32, u32::MAX, u32::MAX, 0, Limit::Registers),
        ] {
            let found = occupancy(H100, threads, registers, shared);
            assert_eq!((found.blocks, found.limited_by), (blocks, limited_by), "{threads}, {registers}, {shared}");
        }
        let found = occupancy(H100, 256, 33, 0);
        assert_eq!((found.warps, found.fraction), (48, 0.75));
        let json = serde_json::to_value(found).unwrap();
        assert_eq!(json["limited_by"], "registers");
    }
}
