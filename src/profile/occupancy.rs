//! Theoretical occupancy: how many blocks of a launch a multiprocessor holds at once, and what keeps it from more.
//!
//! By the rules of the CUDA toolkit's occupancy calculator (`cuda_occupancy.h`) and the limits in the programming guide's
//! appendix "Compute Capabilities".

use serde::Serialize;

const WARP: u32 = 32;
/// Registers of a multiprocessor; each quarter of it holds a quarter of them, and whole warps.
const REGISTERS: u32 = 65_536;
const QUARTERS: u32 = 4;
/// Registers are given to a warp in units of so many.
const REGISTER_UNIT: u32 = 256;
const REGISTERS_A_THREAD: u32 = 255;
const THREADS_A_BLOCK: u32 = 1024;
/// Shared memory is given to a block in units of so many bytes.
const SHARED_UNIT: u32 = 128;
/// Bytes of shared memory that the system takes of each block, beside its own.
const SHARED_RESERVED: u32 = 1024;

/// What a multiprocessor has, where architectures differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// Warps at once.
    pub warps: u32,
    /// Blocks at once.
    pub blocks: u32,
    /// Bytes of shared memory; a block has at most 1 KiB less.
    pub shared_bytes: u32,
}

impl Limits {
    /// Of a compute capability such as `(9, 0)`; none if it is not known.
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

/// What a multiprocessor runs out of first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Limit {
    /// Room for threads: with blocks that divide it, all of it is used.
    Threads,
    /// Room for blocks.
    Blocks,
    /// Registers.
    Registers,
    /// Shared memory.
    Shared,
}

/// How much of a multiprocessor a launch can fill.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Occupancy {
    /// Blocks at once; 0 for a launch that is not possible.
    pub blocks: u32,
    /// Their warps.
    pub warps: u32,
    /// The share of the warps that there is room for.
    pub fraction: f64,
    /// What keeps it from more; of several, the first in the order of [`Limit`].
    pub limited_by: Limit,
}

/// The occupancy of a launch: threads a block, registers a thread, and bytes of shared memory a block, static and dynamic
/// together.
pub fn occupancy(limits: Limits, threads: u32, registers: u32, shared_bytes: u32) -> Occupancy {
    let warps = threads.div_ceil(WARP).max(1);
    let by_threads = if (1..=THREADS_A_BLOCK).contains(&threads) { limits.warps / warps } else { 0 };
    let by_registers = if registers <= REGISTERS_A_THREAD {
        let a_warp = (registers.max(1) * WARP).next_multiple_of(REGISTER_UNIT);
        REGISTERS / QUARTERS / a_warp * QUARTERS / warps
    } else {
        0
    };
    let shared = shared_bytes.saturating_add(SHARED_RESERVED).checked_next_multiple_of(SHARED_UNIT);
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
    fn limits_of_the_cards_known() {
        assert_eq!(Limits::of((8, 0)), Some(A100));
        assert_eq!(Limits::of((9, 0)), Some(H100));
        assert_eq!(Limits::of((8, 6)).map(|limits| (limits.warps, limits.blocks)), Some((48, 16)));
        assert_eq!(Limits::of((12, 0)), Limits::of((8, 9)));
        assert_eq!([(7, 5), (8, 1), (9, 1), (13, 0)].map(Limits::of), [None; 4]);
    }

    /// `docs/kernels.md` has these: threads, registers for sm_80 and sm_90a, blocks for both.
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
    fn what_is_short_is_named() {
        for (threads, registers, shared, blocks, limited_by) in [
            (256, 32, 0, 8, Limit::Threads),
            (32, 32, 0, 32, Limit::Blocks),
            // Three warps, the last of them half.
            (80, 32, 0, 21, Limit::Threads),
            // A thirty-third register takes a unit of 256 of every warp: 12 warps a quarter in place of 16.
            (256, 33, 0, 6, Limit::Registers),
            // 65,536 / (9 * 168 * 32) is more than 1, but a quarter holds 2 warps and no part of a third: 8 in all.
            (288, 168, 0, 1, Limit::Registers),
            (288, 169, 0, 0, Limit::Registers),
            (64, 32, 32 * 1024, 6, Limit::Shared),
            // A fifth of what there is, and no multiple of 128.
            (64, 32, 46_694 - 1024, 4, Limit::Shared),
            // The last byte that a block may have, and one more.
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
