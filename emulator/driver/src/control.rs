//! The library's own functions, for tests: `ironwarp_emulator_…`.
//!
//! Texts are copied into a buffer of the caller, truncated to its size and zero-terminated. The return value is the length
//! of the whole text, so a call with a null buffer returns the required size.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_VALUE, CUDA_SUCCESS};

use crate::boundary::{Buffer, Text};
use crate::driver::{self, Guard};
use crate::fault;
use crate::fault_rule;
use crate::random::Random;
use crate::report;

/// Copies a text to the caller; after a panic the text is empty.
fn copy_out(buffer: Buffer, size: usize, text: impl FnOnce() -> String) -> usize {
    let text = catch_unwind(AssertUnwindSafe(text)).unwrap_or_default();
    buffer.set(&text, size);
    text.len()
}

/// Changes the state. After a panic the state is unchanged.
fn change(change: impl FnOnce(&mut Guard)) {
    // These functions return nothing, so a panic cannot be reported to the caller.
    let _ = catch_unwind(AssertUnwindSafe(|| change(&mut driver::lock_any())));
}

/// Converts a result to a result code; the text of an error becomes the last error.
fn code(name: &str, attempt: impl FnOnce() -> Result<(), String>) -> u32 {
    let outcome = catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|_| Err("failed inside the emulator".into()));
    match outcome {
        Ok(()) => CUDA_SUCCESS as u32,
        Err(error) => {
            report::set_last_error(format!("{name}: {error}"));
            CUDA_ERROR_INVALID_VALUE as u32
        }
    }
}

macro_rules! controls {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)*) => {$(
        $(#[$doc])*
        #[allow(unsafe_code)]
        // SAFETY: the name has the library's own prefix.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $type),*) -> $result $body
    )*};
}

controls! {
    /// Returns the name and version of the library. The text is valid while the library is loaded.
    fn ironwarp_emulator_version() -> Text {
        match std::ffi::CStr::from_bytes_with_nul(concat!("cuda-emulator ", env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(text) => Text::from(text),
            Err(_) => Text::NULL,
        }
    }

    /// Writes why the calling thread's last failed call failed.
    fn ironwarp_emulator_last_error(buffer: Buffer, size: usize) -> usize {
        copy_out(buffer, size, report::last_error)
    }

    /// Writes the last finding; the text is empty if there was none.
    fn ironwarp_emulator_last_finding(buffer: Buffer, size: usize) -> usize {
        copy_out(buffer, size, || driver::lock_any().record.finding.clone())
    }

    /// Writes the last launch with its counts as a JSON object; the text is empty if there was none.
    fn ironwarp_emulator_last_counts(buffer: Buffer, size: usize) -> usize {
        copy_out(buffer, size, || driver::lock_any().record.last())
    }

    /// Writes all launches since the counts were cleared as a JSON array.
    fn ironwarp_emulator_all_counts(buffer: Buffer, size: usize) -> usize {
        copy_out(buffer, size, || driver::lock_any().record.all())
    }

    /// Writes how often each driver function was called since the counts were cleared, as a JSON object.
    fn ironwarp_emulator_calls(buffer: Buffer, size: usize) -> usize {
        copy_out(buffer, size, fault::calls)
    }

    /// Clears the counts of launches and of calls.
    fn ironwarp_emulator_clear_counts() -> () {
        change(|driver| driver.record.clear());
        fault::clear_calls();
    }

    /// Switches messages on standard error off (1) or on (0).
    fn ironwarp_emulator_set_quiet(on: i32) -> () {
        report::set_quiet(on != 0);
    }

    /// Restarts the random sequence with a seed.
    fn ironwarp_emulator_set_seed(seed: u64) -> () {
        change(|driver| {
            driver.settings.seed = seed;
            driver.random = Random::new(seed);
        });
    }

    /// Switches the checks on (1) or off (0).
    fn ironwarp_emulator_set_checks(on: i32) -> () {
        change(|driver| driver.settings.checks = on != 0);
    }

    /// Sets the number of warp instructions that a launch may execute.
    fn ironwarp_emulator_set_step_budget(steps: u64) -> () {
        change(|driver| driver.settings.step_budget = steps.max(1));
    }

    /// Replaces the injected faults, which are written as in the environment; an empty text removes them.
    fn ironwarp_emulator_set_faults(rules: Text) -> u32 {
        code("ironwarp_emulator_set_faults", || {
            fault::set(fault_rule::parse(&rules.get().map_err(|error| error.text)?)?);
            Ok(())
        })
    }

    /// Resets the library to its state at the start of the process, and reads the environment again.
    fn ironwarp_emulator_reset() -> u32 {
        code("ironwarp_emulator_reset", driver::reset)
    }
}
