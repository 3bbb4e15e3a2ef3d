//! Stream captures.

use std::thread::ThreadId;

use crate::boundary::Handle;

/// A capture in progress.
#[derive(Debug)]
pub struct Capture {
    pub context: Handle,
    pub graph: Handle,
    pub mode: u32,
    pub origin: Handle,
    pub thread: ThreadId,
    /// A forbidden function was called during the capture, which can now only be ended.
    pub invalid: bool,
}

/// The participation of a stream in a capture.
#[derive(Debug)]
pub struct Branch {
    pub capture: u64,
    /// The nodes that the stream's next node depends on.
    pub heads: Vec<Handle>,
}
