//! A finding: what a check saw, and where.

use std::fmt;

/// The checks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Check {
    /// Access outside of live memory, or a write to what is read-only.
    Bounds,
    /// An access that is no multiple of its width.
    Alignment,
    /// A read of what nothing wrote.
    Initialised,
    /// Two accesses that nothing orders, one of them a write.
    Race,
    /// An end of an asynchronous copy touched before its wait.
    AsyncProxy,
    /// Divergence, wrong arrivals, deadlock.
    Barrier,
    /// A launch that is too long for the race check.
    Launch,
    /// The step budget is spent.
    EndlessLoop,
    /// `trap`, or an instruction whose operand makes no sense.
    Trap,
}

/// Something that must not happen. `Display` gives the whole message.
#[derive(Debug, Clone)]
pub struct Finding {
    pub check: Check,
    pub kernel: String,
    /// `kernels/gelu.cu:42` from `.loc`, or the PTX line.
    pub source: String,
    pub block: [u32; 3],
    pub thread: [u32; 3],
    /// What happened, with the address and the allocation it belongs to; for a race, both sides.
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ([bx, by, bz], [tx, ty, tz]) = (self.block, self.thread);
        let Finding { check, kernel, source, message, .. } = self;
        write!(f, "{check:?} in {kernel} at {source}, block ({bx}, {by}, {bz}), thread ({tx}, {ty}, {tz}): {message}")
    }
}
