//! The emulated GPU's own controls: what it counts, and in which order it runs what is unordered.

use serde::{Deserialize, Serialize};

use super::{Cuda, driver};
use crate::error::{Error, Result};

/// The emulated driver of this process. It is one for all of its devices: whoever counts should be alone.
#[derive(Debug, Clone, Copy)]
pub struct Emulation(());

/// A launch and what it counted. `emulator/driver/README.md` has the meaning of each count.
#[derive(Debug, Clone, Deserialize)]
pub struct Launch {
    /// The entry point.
    pub kernel: String,
    /// Blocks.
    pub grid: [u32; 3],
    /// Threads of a block.
    pub block: [u32; 3],
    /// Bytes of shared memory that the launch asked for.
    pub dynamic_shared: u32,
    /// What it did.
    pub counts: Counts,
}

/// What a launch executed and moved.
#[derive(Debug, Clone, Deserialize)]
#[expect(missing_docs, reason = "named as in the emulator's documentation")]
pub struct Counts {
    pub warp_instructions: u64,
    pub lane_instructions: u64,
    pub mix: std::collections::BTreeMap<String, u64>,
    pub tensor_flops: u64,
    pub global_loads: Traffic,
    pub global_stores: Traffic,
    pub global_atomics: Traffic,
    pub unique_read_bytes: u64,
    pub unique_written_bytes: u64,
    pub unique_bytes: u64,
    pub shared_wavefronts: u64,
    pub bank_conflicts: u64,
    pub barriers: u64,
    pub divergent_branches: u64,
    pub lines: Vec<LineCounts>,
}

/// Accesses to device memory: a warp's instructions, bytes that lanes asked for, sectors of 32 bytes that they touched.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[expect(missing_docs, reason = "named as in the emulator's documentation")]
pub struct Traffic {
    pub requests: u64,
    pub bytes: u64,
    pub sectors: u64,
}

/// What a source line counted.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[expect(missing_docs, reason = "named as in the emulator's documentation")]
pub struct LineCounts {
    pub source: String,
    pub called_from: String,
    pub warp_instructions: u64,
    pub requests: u64,
    pub bytes: u64,
    pub sectors: u64,
    pub shared_wavefronts: u64,
    pub bank_conflicts: u64,
}

impl Counts {
    /// Loads, stores and atomics of device memory together.
    pub fn global(&self) -> Traffic {
        [self.global_loads, self.global_stores, self.global_atomics].into_iter().sum()
    }
}

impl std::iter::Sum for Traffic {
    fn sum<I: Iterator<Item = Self>>(all: I) -> Self {
        all.fold(Traffic::default(), |a, b| Traffic {
            requests: a.requests + b.requests,
            bytes: a.bytes + b.bytes,
            sectors: a.sectors + b.sectors,
        })
    }
}

impl Emulation {
    /// Of a device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when it is not emulated.
    pub fn of(cuda: &Cuda) -> Result<Self> {
        let name = &cuda.device().properties().name;
        // Found by its usual name, as through LD_LIBRARY_PATH, it is emulated and still not ours to control.
        if cuda.device().properties().is_emulated()
            && driver::emulator_entry::<extern "C" fn()>("clear_counts").is_some()
        {
            return Ok(Emulation(()));
        }
        Err(Error::Unavailable(format!("{name} cannot be asked for counts: it was not opened as the emulated GPU")))
    }

    /// What the launches of `run` counted; waits for them.
    ///
    /// # Errors
    /// As `run`, and as its kernels.
    pub fn count<T>(self, cuda: &Cuda, run: impl FnOnce() -> Result<T>) -> Result<(T, Vec<Launch>)> {
        cuda.device().synchronize()?;
        entry::<extern "C" fn()>("clear_counts")?();
        let outcome = run()?;
        cuda.device().synchronize()?;
        let text = entry::<extern "C" fn(*mut u8, usize) -> usize>("all_counts")?;
        let mut buffer = vec![0; text(std::ptr::null_mut(), 0) + 1];
        text(buffer.as_mut_ptr(), buffer.len());
        // The zero at the end.
        buffer.pop();
        let launches = serde_json::from_slice(&buffer);
        launches
            .map(|launches| (outcome, launches))
            .map_err(|error| Error::Unavailable(format!("the emulator's counts are not understood: {error}")))
    }

    /// Another order of everything that is unordered.
    ///
    /// # Errors
    /// When the emulator is of another version, which has no such entry. So the following.
    pub fn set_seed(self, seed: u64) -> Result<()> {
        entry::<extern "C" fn(u64)>("set_seed").map(|set| set(seed))
    }

    /// Warp instructions that a launch may execute before it counts as an endless loop.
    ///
    /// # Errors
    /// As [`Emulation::set_seed`].
    pub fn set_step_budget(self, steps: u64) -> Result<()> {
        entry::<extern "C" fn(u64)>("set_step_budget").map(|set| set(steps))
    }

    /// Whether findings are not printed, for those that are meant to be.
    ///
    /// # Errors
    /// As [`Emulation::set_seed`].
    pub fn set_quiet(self, quiet: bool) -> Result<()> {
        entry::<extern "C" fn(i32)>("set_quiet").map(|set| set(quiet.into()))
    }
}

/// A function of the emulator's own. Each caller names one with its type.
fn entry<F: Copy>(name: &str) -> Result<F> {
    let missing =
        || Error::Unavailable(format!("the emulator has no ironwarp_emulator_{name}; `make emulator` builds it"));
    driver::emulator_entry(name).ok_or_else(missing)
}
