//! Printing to standard output, and progress bars and messages on standard error.

use std::env;
use std::ffi::OsString;
use std::io::{self, ErrorKind, IsTerminal, Write};
use std::process;

use indicatif::{ProgressBar, ProgressStyle};
use ironwarp::message::printable;
use serde::Serialize;

/// Prints text and flushes. A terminal gets it [`printable`], because generated text may have any characters; a file or a
/// pipe gets it as it is. If the reader has closed the pipe (`| head`), the process exits silently.
pub fn print(text: &str) {
    if !write(text) {
        process::exit(0);
    }
}

/// Prints a line. If the reader has closed the pipe, the process continues, as a training run should.
pub fn tell(text: impl AsRef<str>) {
    write(&format!("{}\n", text.as_ref()));
}

/// Writes to standard output; false if the reader has closed the pipe.
fn write(text: &str) -> bool {
    let mut out = io::stdout().lock();
    let text = if out.is_terminal() { printable(text) } else { text.into() };
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => true,
        Err(e) if e.kind() == ErrorKind::BrokenPipe => false,
        Err(e) => {
            note(format!("error: cannot write to standard output: {e}"));
            process::exit(1);
        }
    }
}

/// Prints a line.
pub fn line(text: impl AsRef<str>) {
    print(&format!("{}\n", text.as_ref()));
}

/// Prints a message to standard error, [`printable`], and ignores write errors.
pub fn note(text: impl AsRef<str>) {
    let _ = writeln!(io::stderr(), "{}", printable(text.as_ref()));
}

/// Prints a value as a line of JSON.
pub fn json(value: &impl Serialize) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?);
    Ok(())
}

/// Whether the environment allows escape sequences on a terminal: not with `NO_COLOR`, even if it is empty, nor with
/// `TERM=dumb`.
pub fn allows_colour() -> bool {
    colour_allowed_by(|name| env::var_os(name))
}

fn colour_allowed_by(variable: impl Fn(&str) -> Option<OsString>) -> bool {
    variable("NO_COLOR").is_none() && variable("TERM").is_none_or(|term| term != "dumb")
}

/// A progress bar of `total` `unit`s with the remaining time. It is drawn only if standard error is a terminal.
pub fn progress(total: u64, unit: &str) -> ProgressBar {
    let template = format!("{{bar:24}} {{pos}}/{{len}} {unit}, {{eta}} left{{msg}}");
    let style = ProgressStyle::with_template(&template).unwrap_or_else(|_| ProgressStyle::default_bar());
    ProgressBar::new(total).with_style(style)
}

/// Formats a byte count with a binary unit.
pub fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{value:.2} {}", UNITS[unit]) }
}

/// Formats a count with thousands separators.
pub fn thousands(count: u64) -> String {
    let digits = count.to_string();
    let groups = digits.as_bytes().rchunks(3).rev().map(|group| String::from_utf8_lossy(group).into_owned());
    groups.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_can_forbid_colour() {
        let allowed = |variables: &[(&str, &str)]| {
            colour_allowed_by(|name| variables.iter().find(|(n, _)| *n == name).map(|(_, value)| value.into()))
        };
        assert!(allowed(&[]) && allowed(&[("TERM", "xterm-256color")]));
        for variables in [&[("NO_COLOR", "")][..], &[("NO_COLOR", "1")], &[("TERM", "dumb")]] {
            assert!(!allowed(&[&[("COLORTERM", "truecolor")], variables].concat()), "{variables:?}");
        }
    }

    #[test]
    fn numbers_are_formatted_for_readers() {
        assert_eq!(thousands(124_439_808), "124,439,808");
        assert_eq!(thousands(12), "12");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536 * 1024), "1.50 MiB");
    }
}
