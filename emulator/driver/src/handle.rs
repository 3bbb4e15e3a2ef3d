//! Handles of driver objects.

use std::sync::atomic::{AtomicU64, Ordering};

use crate::boundary::Handle;

/// The kind of object that a handle names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Context = 1,
    Stream,
    Event,
    Module,
    Function,
    Library,
    Kernel,
    Graph,
    Node,
    Executable,
    Pool,
}

/// A new handle. It is not a valid address, so that a program that dereferences it crashes at once.
pub fn new_handle(kind: Kind) -> Handle {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    0xEC00_0000_0000_0000 | (kind as u64) << 48 | NEXT.fetch_add(1, Ordering::Relaxed) << 4
}
