//! Why a module cannot be loaded and why a launch does not complete.

use crate::ast::Position;
use crate::memory::MemoryError;
use crate::observe::Finding;

/// Why a module cannot be loaded.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum LoadError {
    /// The text is not PTX.
    #[error("{position}: {message}")]
    Syntax { position: Position, message: String },
    /// The text is PTX but invalid: an undeclared name, a wrong operand.
    #[error("{position}: {message}")]
    Invalid { position: Position, message: String },
    /// The text uses a feature of PTX that the emulator does not execute.
    #[error("{position}: not supported by the emulator: {what}")]
    Unsupported { position: Position, what: String },
    /// `.target` requires another device.
    #[error(".target {target} does not run on compute capability {major}.{minor}")]
    Target { target: String, major: u32, minor: u32 },
    /// The module's variables cannot be allocated.
    #[error("variables of the module: {0}")]
    Memory(#[from] MemoryError),
}

/// Why a launch does not complete.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LaunchError {
    /// The launch violates a limit of the device or the kernel's declaration; nothing was executed.
    #[error("{kernel}: {message}")]
    Rejected { kernel: String, message: String },
    /// A check reported a finding; memory holds whatever was written until then.
    #[error("{0}")]
    Found(Box<Finding>),
}
