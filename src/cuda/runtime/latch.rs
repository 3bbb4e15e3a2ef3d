//! The error latch of a device: driver errors that leave it usable, and those that poison it.
//!
//! An error after which the device's memory is in doubt **poisons** the device. It is reported together with the kernels
//! that may have caused it, and every later call returns the same error without calling the driver. A recoverable error
//! (an allocation that does not fit, a kernel file that does not load) is reported and leaves the device usable.

use std::fmt;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use cudarc::driver::DriverError;

use super::driver;
use super::faults::Fault;
use crate::cuda::launch::spec::Sizes;
use crate::{Error, Result};

/// The first error that poisoned a device, and the recent launches that may have caused it.
#[derive(Debug, Default)]
pub(super) struct ErrorLatch {
    poisoned: OnceLock<String>,
    recent: Mutex<RecentLaunches>,
}

/// The error of a call that enqueues no work.
pub(super) enum QueryError {
    /// The device is as it was.
    Recoverable(Fault),
    /// The device is poisoned.
    Fatal(Error),
}

impl ErrorLatch {
    /// Fails if the device is poisoned.
    pub fn ensure_usable(&self) -> Result<()> {
        match self.poisoned.get() {
            None => Ok(()),
            Some(message) => Err(Error::DeviceLost(message.clone())),
        }
    }

    pub fn is_poisoned(&self) -> bool {
        self.poisoned.get().is_some()
    }

    /// Poisons the device and returns its error. The first message is kept, as later errors only follow from it.
    pub fn poison(&self, message: String) -> Error {
        Error::DeviceLost(self.poisoned.get_or_init(|| message).clone())
    }

    /// Checks the outcome of a call that enqueues work; `context` says what the call does, as in "copying 8 bytes to the
    /// device". Any error poisons the device: the work is missing from the stream, so what follows cannot be right.
    pub fn check_enqueue<T>(&self, context: &dyn fmt::Display, outcome: Result<T, DriverError>) -> Result<T> {
        outcome.map_err(|error| self.poison_call(context, error.into()))
    }

    /// Checks the outcome of a call in a stream that the program may be capturing. An error of the capture is reported and
    /// poisons nothing: the work is missing from the program's graph only.
    pub fn check_captured<T>(&self, context: &dyn fmt::Display, outcome: Result<T, DriverError>) -> Result<T> {
        outcome.map_err(|error| match Fault::from(error) {
            fault if fault.is_of_capture() => Error::invalid(format!("{fault} while {context}")),
            fault => self.poison_call(context, fault),
        })
    }

    /// Checks the outcome of a call that enqueues no work. Only an error that is not recoverable poisons the device.
    pub fn check_query<T>(&self, context: &dyn fmt::Display, outcome: Result<T, DriverError>) -> Result<T, QueryError> {
        outcome.map_err(|error| match Fault::from(error) {
            fault if fault.is_recoverable() => QueryError::Recoverable(fault),
            fault => QueryError::Fatal(self.poison_call(context, fault)),
        })
    }

    /// Checks the answer to whether all launches have completed; an error poisons the device and names the launches.
    pub fn check_completion<T>(&self, outcome: Result<T, DriverError>) -> Result<T> {
        outcome.map_err(|error| self.poison(format!("{} in {}", ErrorContext(error.into()), self.recent())))
    }

    fn poison_call(&self, context: &dyn fmt::Display, fault: Fault) -> Error {
        let recent = self.recent();
        let earlier = if recent.count == 0 { String::new() } else { format!(", or earlier in {recent}") };
        self.poison(format!("{} while {context}{earlier}", ErrorContext(fault)))
    }

    /// Poisons the device because its launches did not complete in time.
    pub fn poison_hang(&self, seconds: f64) -> Error {
        let message = format!("{} did not complete within {seconds} s (IRONWARP_CUDA_TIMEOUT)", self.recent());
        self.poison(message)
    }

    /// Notes a launch: an error that is reported later may be its fault.
    pub fn note_launch(&self, kernel: &'static str, sizes: Sizes) {
        self.recent().push(kernel, sizes);
    }

    /// Forgets all launches: they have completed without an error.
    pub fn clear_launches(&self) {
        *self.recent() = RecentLaunches::default();
    }

    fn recent(&self) -> MutexGuard<'_, RecentLaunches> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A result code, with the emulated driver's explanation if there is one.
struct ErrorContext(Fault);

impl fmt::Display for ErrorContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        match driver::emulator_text() {
            Some(text) => write!(f, " [{text}]"),
            None => Ok(()),
        }
    }
}

/// Kernels launched since the device was last known to be idle. One of them caused an error that is reported meanwhile.
#[derive(Debug, Default)]
struct RecentLaunches {
    last: Vec<(&'static str, Sizes)>,
    count: usize,
}

impl RecentLaunches {
    /// A longer list would not help to find the kernel.
    const CAPACITY: usize = 8;

    fn push(&mut self, kernel: &'static str, sizes: Sizes) {
        if self.last.len() == Self::CAPACITY {
            self.last.remove(0);
        }
        self.last.push((kernel, sizes));
        self.count += 1;
    }
}

impl fmt::Display for RecentLaunches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels: Vec<String> = self.last.iter().map(|(kernel, sizes)| format!("{kernel} ({sizes})")).collect();
        match &kernels[..] {
            [] => f.write_str("the enqueued work"),
            [kernel] => f.write_str(kernel),
            kernels => {
                let (count, last) = (self.count, if self.count > kernels.len() { ", the last ones" } else { "" });
                let kernels = kernels.join(", ");
                write!(f, "one of {count} kernels{last}: {kernels}; IRONWARP_CUDA_SYNC=1 identifies the kernel")
            }
        }
    }
}
