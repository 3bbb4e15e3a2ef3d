//! What the library tells its user: messages on standard error, and the reason of the last failed call.

use std::cell::RefCell;
use std::io::Write;
use std::sync::atomic::{AtomicBool, Ordering};

static QUIET: AtomicBool = AtomicBool::new(false);

/// Switches [`print()`] off or on.
pub fn set_quiet(quiet: bool) {
    QUIET.store(quiet, Ordering::Relaxed);
}

/// Prints a message on standard error. If that is not possible, the message is lost.
pub fn print(text: &str) {
    if QUIET.load(Ordering::Relaxed) {
        return;
    }
    // One write per message, so that the lines of several threads do not mix.
    let _ = std::io::stderr().write_all(format!("cuda-emulator: {text}\n").as_bytes());
}

thread_local! {
    static LAST_ERROR: RefCell<String> = const { RefCell::new(String::new()) };
}

/// Stores why the current thread's last failed call failed.
pub fn set_last_error(text: String) {
    LAST_ERROR.with(|last| *last.borrow_mut() = text);
}

/// Why the current thread's last failed call failed.
pub fn last_error() -> String {
    LAST_ERROR.with(|last| last.borrow().clone())
}
