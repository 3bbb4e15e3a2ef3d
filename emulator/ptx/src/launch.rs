//! Launching a kernel.

use crate::device::Limits;
use crate::exec;
use crate::lower::{SHARED_BASE, align};
use crate::memory::Memory;
use crate::module::Kernel;
use crate::observe::{Counts, Finding};

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
    /// Bytes of dynamic shared memory a block.
    pub dynamic_shared: u32,
    /// Bytes of static and dynamic shared memory together that the function may use.
    pub shared_limit: u32,
    /// The parameter block, laid out as [`Kernel::params`] says.
    pub params: &'a [u8],
}

/// How to execute.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Decides the order of warps and blocks.
    pub seed: u64,
    /// Off: no check but those that execution itself needs (bounds, barriers, budget), and no unique bytes.
    pub checks: bool,
    /// Host threads; 1 makes the order of blocks reproducible too.
    pub threads: usize,
    /// Warp instructions a launch may execute before it counts as an endless loop.
    pub step_budget: u64,
}

impl Default for Settings {
    fn default() -> Self {
        let threads = std::thread::available_parallelism().map_or(1, |threads| threads.get());
        Self { seed: 0, checks: true, threads, step_budget: 1 << 31 }
    }
}

/// Why a launch did not complete.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LaunchError {
    /// It does not fit the device or the kernel's declaration; nothing was executed.
    #[error("{kernel}: {message}")]
    Rejected { kernel: String, message: String },
    /// A check found something; memory holds whatever was written until then.
    #[error("{0}")]
    Found(Box<Finding>),
}

impl Launch<'_> {
    /// Checks the launch against the device's limits and the kernel's declaration.
    ///
    /// # Errors
    /// [`LaunchError::Rejected`] with both numbers.
    pub fn check(&self, limits: &Limits) -> Result<(), LaunchError> {
        let reject = |message: String| {
            Err(LaunchError::Rejected {
                kernel: self.kernel.name.clone(),
                message: format!("launch rejected: {message}"),
            })
        };
        for (what, extents, most) in [("grid", self.grid, limits.grid), ("block", self.block, limits.block)] {
            for ((axis, extent), most) in ["x", "y", "z"].iter().zip(extents).zip(most) {
                if extent == 0 || extent > most {
                    return reject(format!("{what}.{axis} = {extent}, where 1 to {most} are possible"));
                }
            }
        }
        let threads = self.block.iter().map(|&extent| u64::from(extent)).product::<u64>();
        if threads > u64::from(limits.threads_per_block) {
            return reject(format!("{threads} threads a block, where the device has {}", limits.threads_per_block));
        }
        if let Some(required) = self.kernel.required_threads
            && required != self.block
        {
            return reject(format!("block {:?}, where the kernel requires {required:?} (.reqntid)", self.block));
        }
        if let Some(most) = self.kernel.max_threads
            && threads > u64::from(most)
        {
            return reject(format!("{threads} threads a block, where the kernel allows {most} (.maxntid)"));
        }
        let shared = u64::from(self.kernel.static_shared) + u64::from(self.dynamic_shared);
        let most = self.shared_limit.min(limits.shared_per_block_optin());
        if shared > u64::from(most) {
            let (fixed, dynamic) = (self.kernel.static_shared, self.dynamic_shared);
            return reject(format!(
                "{fixed} + {dynamic} bytes of shared memory (static + dynamic), where {most} are allowed"
            ));
        }
        if self.cluster != [1, 1, 1] {
            return reject(format!("clusters of {:?} blocks, which the emulator does not have yet", self.cluster));
        }
        let (have, want) = (self.params.len(), self.kernel.param_bytes);
        if have != want as usize {
            return reject(format!("{have} bytes of parameters, where the kernel declares {want}"));
        }
        Ok(())
    }

    /// Executes it to the end.
    ///
    /// # Errors
    /// [`LaunchError::Rejected`] as [`Launch::check`], [`LaunchError::Found`] for the first finding.
    pub fn run(&self, memory: &Memory, limits: &Limits, settings: &Settings) -> Result<Counts, LaunchError> {
        self.check(limits)?;
        exec::run(self, memory, limits, settings).map_err(LaunchError::Found)
    }

    /// Bytes of shared memory a block, static and dynamic.
    pub(crate) fn shared_bytes(&self) -> u32 {
        self.kernel.static_shared + self.dynamic_shared
    }

    /// Where dynamic shared memory begins.
    pub(crate) fn dynamic_shared_address(&self) -> u32 {
        align(SHARED_BASE + self.kernel.static_shared, self.kernel.dynamic_shared_align)
    }

    /// Bytes from the base of shared memory to its end, with what alignment leaves between.
    pub(crate) fn shared_end(&self) -> u32 {
        self.dynamic_shared_address() - SHARED_BASE + self.dynamic_shared
    }

    /// Blocks that the device can hold at once, as far as the PTX tells.
    pub fn resident_blocks(&self, limits: &Limits) -> u32 {
        let threads: u32 = self.block.iter().product::<u32>().next_multiple_of(32);
        let by_threads = limits.threads_per_multiprocessor / threads;
        let shared = self.shared_bytes() + limits.shared_reserved;
        let by_shared = limits.shared_per_multiprocessor / shared;
        by_threads.min(by_shared).clamp(1, limits.blocks_per_multiprocessor) * limits.multiprocessors
    }
}
