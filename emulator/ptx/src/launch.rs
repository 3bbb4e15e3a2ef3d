//! Launches: their parameters, and the checks against the device's limits.

use crate::address_space::{SHARED_BASE, align};
use crate::device::Limits;
use crate::error::LaunchError;
use crate::module::Kernel;

/// One launch.
#[derive(Debug, Clone)]
pub struct Launch<'a> {
    pub kernel: &'a Kernel,
    /// Blocks along x, y, z.
    pub grid: [u32; 3],
    /// Threads of a block along x, y, z.
    pub block: [u32; 3],
    /// Blocks of a cluster along x, y, z.
    pub cluster: [u32; 3],
    /// Bytes of dynamic shared memory per block.
    pub dynamic_shared: u32,
    /// The most bytes of static and dynamic shared memory together that the function may use.
    pub shared_limit: u32,
    /// The parameter block, with the layout of [`Kernel::params`].
    pub params: &'a [u8],
}

/// How a launch is executed.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Determines the order of warps and blocks.
    pub seed: u64,
    /// If off, only the checks that execution itself needs are made (bounds, alignment, barriers, step budget), and unique
    /// bytes are not counted.
    pub checks: bool,
    /// Number of host threads. With 1 the order of blocks is reproducible too.
    pub threads: usize,
    /// Warp instructions that a launch may execute before it is reported as an endless loop.
    pub step_budget: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        Self { seed: 0, checks: true, threads, step_budget: 1 << 31 }
    }
}

impl Launch<'_> {
    /// Checks the launch against the device's limits and the kernel's declaration.
    ///
    /// # Errors
    /// [`LaunchError::Rejected`] with the value and its limit.
    pub fn check(&self, limits: &Limits) -> Result<(), LaunchError> {
        let reject = |message: String| {
            Err(LaunchError::Rejected {
                kernel: self.kernel.name.clone(),
                message: format!("launch rejected: {message}"),
            })
        };
        for (what, extents, limits) in [("grid", self.grid, limits.grid), ("block", self.block, limits.block)] {
            for ((axis, extent), limit) in ["x", "y", "z"].iter().zip(extents).zip(limits) {
                if extent == 0 || extent > limit {
                    return reject(format!("{what}.{axis} = {extent} is not in the range from 1 to {limit}"));
                }
            }
        }
        let threads = self.block.iter().map(|&extent| u64::from(extent)).product::<u64>();
        if threads > u64::from(limits.threads_per_block) {
            return reject(format!("{threads} threads per block, the device allows {}", limits.threads_per_block));
        }
        if let Some(required) = self.kernel.required_threads
            && required != self.block
        {
            return reject(format!("block {:?}, the kernel requires {required:?} (.reqntid)", self.block));
        }
        if let Some(limit) = self.kernel.max_threads
            && threads > u64::from(limit)
        {
            return reject(format!("{threads} threads per block, the kernel allows {limit} (.maxntid)"));
        }
        let shared = u64::from(self.kernel.static_shared) + u64::from(self.dynamic_shared);
        let limit = self.shared_limit.min(limits.shared_per_block_optin());
        if shared > u64::from(limit) {
            let (fixed, dynamic) = (self.kernel.static_shared, self.dynamic_shared);
            return reject(format!(
                "{fixed} + {dynamic} bytes of shared memory (static + dynamic), at most {limit} are allowed"
            ));
        }
        if self.cluster != [1, 1, 1] {
            return reject(format!("clusters of {:?} blocks are not emulated", self.cluster));
        }
        let (given, declared) = (self.params.len(), self.kernel.param_bytes);
        if given != declared as usize {
            return reject(format!("{given} bytes of parameters, the kernel declares {declared}"));
        }
        Ok(())
    }

    /// Bytes of static and dynamic shared memory per block.
    pub(crate) fn shared_bytes(&self) -> u32 {
        self.kernel.static_shared + self.dynamic_shared
    }

    /// The first address of dynamic shared memory.
    pub(crate) fn dynamic_shared_address(&self) -> u32 {
        align(SHARED_BASE + self.kernel.static_shared, self.kernel.dynamic_shared_align)
    }

    /// Bytes from the base of shared memory to its end, including the alignment of dynamic shared memory.
    pub(crate) fn shared_end(&self) -> u32 {
        self.dynamic_shared_address() - SHARED_BASE + self.dynamic_shared
    }

    /// Number of blocks that are resident on the device at the same time, by threads and shared memory. The PTX does not
    /// determine the number of registers, so they are not considered.
    pub fn resident_blocks(&self, limits: &Limits) -> u32 {
        let threads: u32 = self.block.iter().product::<u32>().next_multiple_of(32);
        let by_threads = limits.threads_per_multiprocessor / threads;
        let shared = self.shared_bytes() + limits.shared_reserved;
        let by_shared = limits.shared_per_multiprocessor / shared;
        by_threads.min(by_shared).clamp(1, limits.blocks_per_multiprocessor) * limits.multiprocessors
    }
}
