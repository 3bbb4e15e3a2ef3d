//! Owners of device memory.

use crate::boundary::Handle;

/// The owner of a live allocation.
#[derive(Debug)]
pub struct Owned {
    pub context: Handle,
    /// The pool of a stream-ordered allocation.
    pub pool: Option<Handle>,
    /// Whether `cuMemFreeAsync` was called.
    pub freeing: bool,
}
