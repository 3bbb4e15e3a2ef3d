//! The library's own exports, for tests: `ironwarp_emulator_…`.
//!
//! Texts are copied into a buffer of the caller's, cut to its size, with a zero at the end; the answer is the whole
//! text's length, so that a call without a buffer asks for the size needed.

use std::panic::{AssertUnwindSafe, catch_unwind};

use cudarc::driver::sys::CUresult::{CUDA_ERROR_INVALID_VALUE, CUDA_SUCCESS};

use crate::boundary::{Buffer, Text};
use crate::driver::{self, Guard};
use crate::random::Random;
use crate::{error, fault};

/// Copies a text out; a panic counts as no text.
fn copy_out(buffer: Buffer, size: usize, text: impl FnOnce() -> String) -> usize {
    let text = catch_unwind(AssertUnwindSafe(text)).unwrap_or_default();
    buffer.set(&text, size);
    text.len()
}

/// Changes the state; a panic leaves it as it is.
fn change(change: impl FnOnce(&mut Guard)) {
    // There is nobody to tell: these entries answer nothing.
    let _ = catch_unwind(AssertUnwindSafe(|| change(&mut driver::lock_any())));
}

/// An outcome as a result code; its text becomes the last error.
fn code(name: &str, attempt: impl FnOnce() -> Result<(), String>) -> u32 {
    let outcome = catch_unwind(AssertUnwindSafe(attempt)).unwrap_or_else(|_| Err("failed inside the emulator".into()));
    match outcome {
        Ok(()) => CUDA_SUCCESS as u32,
        Err(wrong) => {
            error::remember(format!("{name}: {wrong}"));
            CUDA_ERROR_INVALID_VALUE as u32
        }
    }
}

macro_rules! controls {
    ($($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) -> $result:ty $body:block)*) => {$(
        $(#[$doc])*
        #[allow(unsafe_code)]
        // SAFETY: a name with the library's own prefix.
        #[unsafe(no_mangle)]
        extern "C" fn $name($($argument: $type),*) -> $result $body
    )*};
}

controls! {
    /// Name and version, for as long as the library is loaded.
    fn ironwarp_emulator_version() -> Text {
        match std::ffi::CStr::from_bytes_with_nul(concat!("cuda-emulator ", env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
            Ok(text) => Text::from(text),
            Err(_) => Text::NULL,
        }
    }

    /// Why the calling thread's last failing call failed.
    fn ironwarp_emulator_last_error(buffer: Buffer, size: usize) -> usize {
        copy_out(buffer, size, error::last)
    }

    /// The last finding; empty if there was none.
    fn ironwarp_emulator_last_finding(buffer: Buffer, size: usize) -> usize {
        copy_out(buffer, size, || driver::lock_any().record.finding.clone())
    }

    /// The last launch and its counts, a JSON object; empty if there was none.
    fn ironwarp_emulator_last_counts(buffer: Buffer, size: usize) -> usize {
        copy_out(buffer, size, || driver::lock_any().record.last())
    }

    /// All launches since the counts were cleared, a JSON array.
    fn ironwarp_emulator_all_counts(buffer: Buffer, size: usize) -> usize {
        copy_out(buffer, size, || driver::lock_any().record.all())
    }

    /// How often each driver function was called since the counts were cleared, a JSON object.
    fn ironwarp_emulator_calls(buffer: Buffer, size: usize) -> usize {
        copy_out(buffer, size, fault::calls)
    }

    /// Forgets the counts, of launches and of calls.
    fn ironwarp_emulator_clear_counts() -> () {
        change(|driver| driver.record.clear());
        fault::clear_calls();
    }

    /// Says nothing on standard error (1), or what there is to say (0).
    fn ironwarp_emulator_set_quiet(on: i32) -> () {
        error::set_quiet(on != 0);
    }

    /// Starts the random sequence anew.
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

    /// Warp instructions that a launch may execute.
    fn ironwarp_emulator_set_step_budget(steps: u64) -> () {
        change(|driver| driver.settings.step_budget = steps.max(1));
    }

    /// Replaces the faults, written as in the environment; an empty text removes them.
    fn ironwarp_emulator_set_faults(rules: Text) -> u32 {
        code("ironwarp_emulator_set_faults", || {
            fault::set(fault::parse(&rules.get().map_err(|error| error.text)?)?);
            Ok(())
        })
    }

    /// Forgets everything, as if the process had just started; the environment is read again.
    fn ironwarp_emulator_reset() -> u32 {
        code("ironwarp_emulator_reset", driver::reset)
    }
}
