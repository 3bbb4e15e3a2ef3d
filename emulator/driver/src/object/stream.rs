//! Streams.

use crate::boundary::Handle;
use crate::object::capture::Branch;

/// A stream.
#[derive(Debug)]
pub struct Stream {
    pub context: Handle,
    pub kind: StreamKind,
    pub flags: u32,
    pub priority: i32,
    /// The last operation.
    pub tail: Option<u64>,
    /// The recordings of events that the next operation waits for.
    pub waits: Vec<u64>,
    /// The stream's participation in a capture, if it is being captured.
    pub branch: Option<Branch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StreamKind {
    /// The context's default stream, which synchronises with all blocking streams.
    Legacy,
    Blocking,
    NonBlocking,
}

impl Stream {
    pub fn legacy(context: Handle) -> Self {
        Self::new(context, StreamKind::Legacy, 0, 0)
    }

    pub fn new(context: Handle, kind: StreamKind, flags: u32, priority: i32) -> Self {
        Self { context, kind, flags, priority, tail: None, waits: Vec::new(), branch: None }
    }

    pub fn is_legacy(&self) -> bool {
        self.kind == StreamKind::Legacy
    }

    /// Whether the stream synchronises with the default stream.
    pub fn is_blocking(&self) -> bool {
        self.kind == StreamKind::Blocking
    }

    pub fn own(&self) -> impl Iterator<Item = u64> {
        self.tail.into_iter().chain(self.waits.iter().copied())
    }
}
