//! Events.

use crate::boundary::Handle;

/// An event.
#[derive(Debug)]
pub struct Event {
    pub context: Handle,
    pub flags: u32,
    pub recorded: Recorded,
    /// When the recording was executed; `None` before.
    pub time: Option<u64>,
}

/// What an event has recorded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Recorded {
    Never,
    /// The recording is this operation, which may have ended.
    At(u64),
    /// The event was recorded in a capture, after these nodes.
    Captured {
        capture: u64,
        heads: Vec<Handle>,
    },
}
