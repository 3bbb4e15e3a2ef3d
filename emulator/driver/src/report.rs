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
    let _ = std::io::stderr().write_all(format!("cuda-emulator: {}\n", printable(text)).as_bytes());
}

/// The text without characters that control a terminal: it may quote a path from a module, which can hold any.
fn printable(text: &str) -> String {
    let is_shown = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    text.chars().map(|c| if is_shown(c) { c.to_string() } else { c.escape_default().to_string() }).collect()
}

#[cfg(test)]
mod tests {
    #[test]
    fn messages_have_no_control_characters() {
        assert_eq!(super::printable("a\u{1b}[2J\n\tb\u{9b}é"), "a\\u{1b}[2J\n\tb\\u{9b}é");
    }
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
