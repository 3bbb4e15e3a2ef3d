//! The one error type of the library.
//!
//! Every message names the operation, file or setting it is about, and the numbers that did not fit. Paths and messages are
//! displayed without the characters that control a terminal: see [`crate::message`].
//!
//! ```
//! use ironwarp::Error;
//! use ironwarp::model::config::Config;
//!
//! let config = Config { context: 64, vocab: 257, layers: 2, heads: 3, channels: 64 };
//! match config.check() {
//!     Err(Error::Invalid(message)) => assert!(message.contains("C = 64, NH = 3"), "{message}"),
//!     other => panic!("{other:?}"),
//! }
//! ```

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::memory::Category;
use crate::message::{escaped_path, joined, printable};

/// Result with the library's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// An error of the library.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A precondition of an operation does not hold.
    ///
    /// Example: `layernorm_forward: C % 8 == 0 failed (C = 770)`.
    #[error("{operation}: {rule} failed ({found})")]
    Precondition {
        /// Name of the operation, as in the list of operations.
        operation: &'static str,
        /// The rule, in the notation of the operation's docs.
        rule: String,
        /// The values that violate it.
        found: String,
    },

    /// The operating system failed an operation on a file or folder.
    #[error("cannot {action} {}: {cause}", escaped_path(path))]
    Io {
        /// The operation, as a verb phrase: `read`, `write 4096 bytes to`.
        action: String,
        /// The file or folder.
        path: PathBuf,
        /// The system's error.
        cause: io::Error,
    },

    /// The content of a file is invalid.
    #[error("{}{}: {}", escaped_path(path), Offset(*offset), printable(message))]
    Format {
        /// The file or folder.
        path: PathBuf,
        /// Byte offset of the fault, if it is known.
        offset: Option<u64>,
        /// The fault, with the numbers.
        message: String,
    },

    /// Tensors of a file do not fit the model. The error holds every problem, not only the first; its message
    /// shows twelve.
    #[error("{}: {} tensor(s) do not fit the model:\n  {}", escaped_path(path), problems.len(), joined(problems, "\n  "))]
    Tensors {
        /// The file or folder.
        path: PathBuf,
        /// One line per problem: the tensor is missing, unexpected, or has another shape (both shapes are given).
        problems: Vec<String>,
    },

    /// A setting or an argument is not valid.
    #[error("{}", printable(.0))]
    Invalid(String),

    /// Another process holds the lock of the run folder.
    #[error("{}: another process is writing to this run folder (its lock is held)", escaped_path(path))]
    Locked {
        /// The run folder.
        path: PathBuf,
    },

    /// The request needs something that is not available on this machine or in this build.
    #[error("{}", printable(.0))]
    Unavailable(String),

    /// A device has too little free memory for an allocation. Nothing else changed: a smaller allocation may succeed.
    #[error("{0}")]
    OutOfDeviceMemory(Box<OutOfDeviceMemory>),

    /// A device failed in a way that leaves the content of its memory unknown. The device cannot be used any more, and
    /// data read from it since the last successful synchronisation must be discarded.
    #[error("device lost: {}", printable(.0))]
    DeviceLost(String),
}

/// Details of a failed device allocation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutOfDeviceMemory {
    /// Bytes requested.
    pub requested: u64,
    /// Purpose of the request.
    pub category: Category,
    /// Free and total bytes of the device, if the driver reports them.
    pub free_and_total: Option<(u64, u64)>,
    /// Bytes that this process's tensors hold, by category.
    pub held: Vec<(Category, u64)>,
}

impl fmt::Display for OutOfDeviceMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "out of device memory: {} requested for {}", Bytes(self.requested), self.category)?;
        if let Some((free, total)) = self.free_and_total {
            write!(f, ", {} of {} free", Bytes(free), Bytes(total))?;
        }
        let held: Vec<String> =
            self.held.iter().map(|(category, bytes)| format!("{category} {}", Bytes(*bytes))).collect();
        write!(f, "; held: {}", if held.is_empty() { "nothing".into() } else { held.join(", ") })?;
        write!(f, "; {}", self.category.advice())
    }
}

/// A byte count, displayed with a binary unit.
struct Bytes(u64);

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
        if self.0 < 1024 {
            return write!(f, "{} bytes", self.0);
        }
        let power = (self.0.ilog2() / 10).min(UNITS.len() as u32);
        write!(f, "{:.1} {}", self.0 as f64 / 1024f64.powi(power as i32), UNITS[power as usize - 1])
    }
}

/// A byte offset, displayed as ` at byte N`, or as nothing if it is unknown.
struct Offset(Option<u64>);

impl fmt::Display for Offset {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            Some(offset) => write!(f, " at byte {offset}"),
            None => Ok(()),
        }
    }
}

impl Error {
    /// An [`Error::Io`]; meant for `map_err(|e| Error::io("read", path, e))`.
    pub fn io(action: impl Into<String>, path: impl AsRef<Path>, cause: io::Error) -> Self {
        Error::Io { action: action.into(), path: path.as_ref().to_path_buf(), cause }
    }

    /// An [`Error::Format`] without an offset.
    pub fn format(path: impl AsRef<Path>, message: impl Into<String>) -> Self {
        Error::Format { path: path.as_ref().to_path_buf(), offset: None, message: message.into() }
    }

    /// An [`Error::Format`] at a byte offset.
    pub fn format_at(path: impl AsRef<Path>, offset: u64, message: impl Into<String>) -> Self {
        Error::Format { path: path.as_ref().to_path_buf(), offset: Some(offset), message: message.into() }
    }

    /// An [`Error::Invalid`].
    pub fn invalid(message: impl Into<String>) -> Self {
        Error::Invalid(message.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_name_the_subject_and_the_numbers() {
        let precondition =
            Error::Precondition { operation: "layernorm_forward", rule: "C % 8 == 0".into(), found: "C = 770".into() };
        assert_eq!(precondition.to_string(), "layernorm_forward: C % 8 == 0 failed (C = 770)");
        let format = Error::format_at("a.bin", 12, "token 70000 >= V = 50257");
        assert_eq!(format.to_string(), "a.bin at byte 12: token 70000 >= V = 50257");
        assert_eq!(Error::format("a.bin", "empty").to_string(), "a.bin: empty");
        let memory = OutOfDeviceMemory {
            requested: 3 << 30,
            category: Category::Activations,
            free_and_total: Some((200 << 20, 80 << 30)),
            held: vec![(Category::Weights, 1536 << 10), (Category::Other, 12)],
        };
        assert_eq!(
            Error::OutOfDeviceMemory(Box::new(memory)).to_string(),
            "out of device memory: 3.0 GiB requested for activations, 200.0 MiB of 80.0 GiB free; held: weights 1.5 MiB, \
             other 12 bytes; lower --batch or --context, or use --recompute"
        );
    }
}
