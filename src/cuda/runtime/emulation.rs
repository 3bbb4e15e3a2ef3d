//! Controls of the emulated GPU: what it counts, and the order in which it executes work that CUDA leaves unordered.

pub use emulator_counts::{Counts, LaunchRecord, LineCounts, Traffic};

use super::device::Cuda;
use super::driver;
use crate::error::{Error, Result};

/// The emulated driver of this process. All its devices share the counts, so nothing else should launch kernels during a
/// measurement.
#[derive(Debug, Clone, Copy)]
pub struct Emulation(());

impl Emulation {
    /// Controls of the driver that emulates a device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the device is not emulated.
    pub fn of(cuda: &Cuda) -> Result<Self> {
        let name = &cuda.device().properties().name;
        // An emulated driver that was found as libcuda.so, e.g. through LD_LIBRARY_PATH, cannot be controlled.
        if cuda.device().properties().is_emulated()
            && driver::emulator_entry::<extern "C" fn()>("clear_counts").is_some()
        {
            return Ok(Emulation(()));
        }
        Err(Error::Unavailable(format!("{name} has no counts: it was not opened as the emulated GPU")))
    }

    /// Executes `run`, waits for its launches and returns what each of them counted.
    ///
    /// # Errors
    /// The errors of `run` and of its kernels.
    pub fn count<T>(self, cuda: &Cuda, run: impl FnOnce() -> Result<T>) -> Result<(T, Vec<LaunchRecord>)> {
        cuda.device().synchronize()?;
        entry::<extern "C" fn()>("clear_counts")?();
        let outcome = run()?;
        cuda.device().synchronize()?;
        let text = entry::<extern "C" fn(*mut u8, usize) -> usize>("all_counts")?;
        let mut buffer = vec![0; text(std::ptr::null_mut(), 0) + 1];
        text(buffer.as_mut_ptr(), buffer.len());
        // The terminating zero.
        buffer.pop();
        let launches = serde_json::from_slice(&buffer);
        launches
            .map(|launches| (outcome, launches))
            .map_err(|error| Error::Unavailable(format!("cannot parse the emulator's counts: {error}")))
    }

    /// Selects another order of all work that CUDA leaves unordered.
    ///
    /// # Errors
    /// If the emulator is of another version, without this function.
    pub fn set_seed(self, seed: u64) -> Result<()> {
        entry::<extern "C" fn(u64)>("set_seed").map(|set| set(seed))
    }

    /// Sets how many warp instructions a launch may execute before it is reported as an endless loop.
    ///
    /// # Errors
    /// As [`Emulation::set_seed`].
    pub fn set_step_budget(self, steps: u64) -> Result<()> {
        entry::<extern "C" fn(u64)>("set_step_budget").map(|set| set(steps))
    }

    /// Sets whether the emulator prints no findings, for tests that expect some.
    ///
    /// # Errors
    /// As [`Emulation::set_seed`].
    pub fn set_quiet(self, quiet: bool) -> Result<()> {
        entry::<extern "C" fn(i32)>("set_quiet").map(|set| set(quiet.into()))
    }
}

/// A function of the emulator. Each caller passes the function's type.
fn entry<F: Copy>(name: &str) -> Result<F> {
    let missing =
        || Error::Unavailable(format!("the emulator has no ironwarp_emulator_{name}; `make emulator` builds it"));
    driver::emulator_entry(name).ok_or_else(missing)
}
