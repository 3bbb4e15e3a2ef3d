//! The emulated GPU's own controls: what it counts, and in which order it runs what is unordered.

pub use emulator_counts::{Counts, LaunchRecord, LineCounts, Traffic};

use super::{Cuda, driver};
use crate::error::{Error, Result};

/// The emulated driver of this process. It is one for all of its devices: whoever counts should be alone.
#[derive(Debug, Clone, Copy)]
pub struct Emulation(());

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
    pub fn count<T>(self, cuda: &Cuda, run: impl FnOnce() -> Result<T>) -> Result<(T, Vec<LaunchRecord>)> {
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
