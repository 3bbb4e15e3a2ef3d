//! Findings: what a check detected, and where.

use std::fmt;

/// The checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// An access outside of allocated memory, or a write to read-only memory.
    Bounds,
    /// An access at an address that is not a multiple of the access's size.
    Alignment,
    /// A read of memory or of a register that was never written.
    Initialised,
    /// Two accesses that nothing orders, of which at least one is a write.
    Race,
    /// An access to the source or the target of an asynchronous copy before its wait.
    AsyncProxy,
    /// Divergence at a barrier, a wrong number of arrivals, or a deadlock.
    Barrier,
    /// A launch that is too long for the race check.
    Launch,
    /// The step budget is exhausted.
    EndlessLoop,
    /// `trap`, a failed assertion, or an invalid operand.
    Trap,
}

/// An error that a check detected. `Display` writes the whole message.
#[derive(Debug, Clone)]
pub struct Finding {
    pub check: Check,
    pub kernel: String,
    /// The source line from `.loc`, `kernels/gelu.cu:42`; without a `.loc` the line of the PTX.
    pub source: String,
    pub block: [u32; 3],
    pub thread: [u32; 3],
    /// What happened, with the address and its allocation; for a race, both accesses.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        let Finding { check, kernel, source, message, .. } = self;
        write!(f, "{check:?} in {kernel} at {source}, block ({bx}, {by}, {bz}), thread ({tx}, {ty}, {tz}): {message}")
    }
}
