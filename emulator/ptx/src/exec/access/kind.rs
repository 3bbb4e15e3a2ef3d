//! The kinds of memory access, as the checks distinguish them.

use crate::race::epoch::EpochKind;
use crate::race::shadow::Access;

/// How an instruction accesses memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AccessKind {
    Read,
    /// A read through the read-only path (`ld.global.nc`): no store of the launch may have written there.
    ReadOnly,
    Write,
    StrongRead,
    StrongWrite,
    Atomic,
    /// The read of an asynchronous copy, at some time before its wait.
    AsyncRead,
}

impl AccessKind {
    /// The kind for the race check.
    pub fn access(self) -> Access {
        match self {
            AccessKind::Read | AccessKind::ReadOnly | AccessKind::AsyncRead => Access::Read,
            AccessKind::Write => Access::Write,
            AccessKind::StrongRead => Access::StrongRead,
            AccessKind::StrongWrite => Access::StrongWrite,
            AccessKind::Atomic => Access::Atomic,
        }
    }

    /// The kind of the access's epoch.
    pub fn epoch_kind(self) -> EpochKind {
        match self.access() {
            _ if self == AccessKind::AsyncRead => EpochKind::Pending,
            _ if self == AccessKind::ReadOnly => EpochKind::ReadOnly,
            Access::Read | Access::Write => EpochKind::Plain,
            Access::StrongRead => EpochKind::StrongRead,
            Access::StrongWrite | Access::Atomic => EpochKind::Atomic,
        }
    }

    pub fn reads(self) -> bool {
        !matches!(self, AccessKind::Write | AccessKind::StrongWrite)
    }

    pub fn writes(self) -> bool {
        matches!(self, AccessKind::Write | AccessKind::StrongWrite | AccessKind::Atomic)
    }

    /// The name of the access in findings.
    pub fn name(self) -> &'static str {
        match self {
            AccessKind::Read | AccessKind::ReadOnly | AccessKind::StrongRead | AccessKind::AsyncRead => "read",
            AccessKind::Write | AccessKind::StrongWrite => "write",
            AccessKind::Atomic => "atomic",
        }
    }
}
