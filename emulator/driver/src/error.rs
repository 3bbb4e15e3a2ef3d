//! Errors: a result code and the reason for it.

use std::fmt;

use cudarc::driver::sys::CUresult;

use crate::codes;

/// The result of the logic behind an exported function.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A result code with its reason. The code is a number, because an injected fault may have a code that no header defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    pub code: u32,
    /// The reason, for a person to read; `ironwarp_emulator_last_error` returns it.
    pub text: String,
}

impl From<CUresult> for Error {
    fn from(code: CUresult) -> Self {
        Self { code: code as u32, text: String::new() }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match codes::name(self.code) {
            Some(name) => write!(f, "{name}: {}", self.text),
            None => write!(f, "code {}: {}", self.code, self.text),
        }
    }
}

/// Adds the reason to a result code.
pub trait Because {
    fn because(self, text: impl Into<String>) -> Error;
}

impl Because for CUresult {
    fn because(self, text: impl Into<String>) -> Error {
        Error { code: self as u32, text: text.into() }
    }
}

/// Returns an error unless a condition holds.
macro_rules! ensure {
    ($condition:expr, $code:expr, $($text:tt)+) => {
        if !$condition {
            return Err($crate::error::Because::because($code, format!($($text)+)));
        }
    };
}
pub(crate) use ensure;
