//! Contexts: their state, and the stack of current contexts of each thread.

use std::cell::RefCell;
use std::collections::HashMap;
use std::thread::ThreadId;

use crate::boundary::Handle;
use crate::error::Error;

/// Number of limits.
pub const LIMITS: usize = 7;
/// The driver's defaults: stack, printf buffer, heap, synchronisation depth, pending launches, L2 fetch granularity,
/// persisting L2.
pub const DEFAULT_LIMITS: [usize; LIMITS] = [1024, 1 << 20, 8 << 20, 2, 2048, 64, 0];

/// A context.
#[derive(Debug)]
pub struct Context {
    pub id: u64,
    pub flags: u32,
    /// The error of a failed operation, which every later call returns.
    pub failed: Option<Error>,
    /// The default stream.
    pub legacy: Handle,
    /// The per-thread default streams that were used.
    pub per_thread: HashMap<ThreadId, Handle>,
    /// The last operations of blocking streams that were destroyed.
    pub orphans: Vec<u64>,
    pub limits: [usize; LIMITS],
    pub cache_config: u32,
    pub shared_config: u32,
}

/// The device's primary context.
#[derive(Debug, Default)]
pub struct Primary {
    pub context: Option<Handle>,
    pub retained: u32,
    pub flags: u32,
}

thread_local! {
    static STACK: RefCell<Vec<Handle>> = const { RefCell::new(Vec::new()) };
}

/// The calling thread's current context, which may have been destroyed.
pub fn top() -> Option<Handle> {
    STACK.with(|stack| stack.borrow().last().copied())
}

pub fn push(context: Handle) {
    STACK.with(|stack| stack.borrow_mut().push(context));
}

pub fn pop() -> Option<Handle> {
    STACK.with(|stack| stack.borrow_mut().pop())
}
