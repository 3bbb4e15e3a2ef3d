//! The counts of a kernel launch, as the emulated CUDA driver writes them in JSON and its clients read them.
//!
//! Both sides use these structs, so that a field has one name, one unit and one type. The keys of the JSON are the names of
//! the fields. A request is one warp instruction that accesses memory; a sector is 32 consecutive bytes of device memory.

#![forbid(unsafe_code)]
#![warn(missing_docs)]

use std::collections::BTreeMap;
use std::iter::Sum;

use serde::{Deserialize, Serialize};

/// A launch and its counts: one object of the JSON.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LaunchRecord {
    /// Number of the launch in its process, from 1.
    pub launch: u64,
    /// Name of the kernel's entry point.
    pub kernel: String,
    /// Thread blocks of the grid in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Thread blocks of a cluster in x, y and z.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory per block.
    pub dynamic_shared: u32,
    /// The counts.
    pub counts: Counts,
}

/// What a launch executed and moved.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Counts {
    /// Name of the kernel's entry point.
    pub kernel: String,
    /// Thread blocks of the grid in x, y and z.
    pub grid: [u32; 3],
    /// Threads of a block in x, y and z.
    pub block: [u32; 3],
    /// Bytes of shared memory per block, static and dynamic.
    pub shared_bytes_per_block: u32,
    /// Instructions that warps executed.
    pub warp_instructions: u64,
    /// Instructions that lanes executed: each warp instruction counts once per active lane.
    pub lane_instructions: u64,
    /// Floating-point operations of `mma`; a multiply-add counts as 2.
    pub tensor_flops: u64,
    /// Atomic operations on device memory, one per active lane.
    pub l2_atomics: u64,
    /// Distinct bytes of device memory that were read. A cache of any size could not avoid them. 0 with checks off.
    pub unique_read_bytes: u64,
    /// Distinct bytes of device memory that were written. 0 with checks off.
    pub unique_written_bytes: u64,
    /// Distinct bytes of device memory that were read or written. 0 with checks off.
    pub unique_bytes: u64,
    /// Load requests to shared memory.
    pub shared_loads: u64,
    /// Store requests to shared memory.
    pub shared_stores: u64,
    /// Bytes of shared memory that lanes requested.
    pub shared_bytes: u64,
    /// Passes over the banks of shared memory.
    pub shared_wavefronts: u64,
    /// Those of the passes that bank conflicts added.
    pub bank_conflicts: u64,
    /// Arrivals of warps at barriers of their block.
    pub barriers: u64,
    /// Branches at which the lanes of a warp diverged.
    pub divergent_branches: u64,
    /// Loads from device memory.
    pub global_loads: Traffic,
    /// Stores to device memory.
    pub global_stores: Traffic,
    /// Atomics on device memory.
    pub global_atomics: Traffic,
    /// Warp instructions by class, such as `tensor` or `load_global`.
    pub mix: BTreeMap<String, u64>,
    /// Counts by source line and the line it was inlined into; only lines that were executed.
    pub lines: Vec<LineCounts>,
}

/// Accesses to device memory of one kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Traffic {
    /// Warp instructions that accessed device memory.
    pub requests: u64,
    /// Bytes that lanes requested.
    pub bytes: u64,
    /// Sectors that the requests touched.
    pub sectors: u64,
}

/// Counts of one source line.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct LineCounts {
    /// The line, such as `kernels/x.cu:12`.
    pub source: String,
    /// The kernel's line that it was inlined into; empty for a line of the kernel itself.
    pub called_from: String,
    /// Instructions that warps executed.
    pub warp_instructions: u64,
    /// Warp instructions that accessed device memory.
    pub requests: u64,
    /// Bytes of device memory that lanes requested.
    pub bytes: u64,
    /// Sectors that the requests touched.
    pub sectors: u64,
    /// Passes over the banks of shared memory.
    pub shared_wavefronts: u64,
    /// Those of the passes that bank conflicts added.
    pub bank_conflicts: u64,
}

impl Counts {
    /// Loads, stores and atomics of device memory together.
    pub fn global(&self) -> Traffic {
        [self.global_loads, self.global_stores, self.global_atomics].into_iter().sum()
    }
}

impl Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Traffic::default(), |a, b| Traffic {
            requests: a.requests + b.requests,
            bytes: a.bytes + b.bytes,
            sectors: a.sectors + b.sectors,
        })
    }
}
