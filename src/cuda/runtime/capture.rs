//! The state of a stream capture: which thread captures, and what its launches use.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use cudarc::driver::sys::{self, CUstreamCaptureMode, CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED};
use cudarc::driver::{CudaContext, CudaFunction};

use crate::cuda::launch::spec::Sizes;
use crate::{Error, Result};

/// Held during a capture and while a device is opened. A driver invalidates a capture when anything synchronizes with its
/// whole context, and creating a stream does.
static CAPTURES: Mutex<()> = Mutex::new(());

thread_local! {
    static HOLDS_LOCK: Cell<bool> = const { Cell::new(false) };
    /// Whether an operand since [`CaptureState::begin`] was memory of another owner, which a graph cannot keep alive.
    static USED_EXTERNAL: Cell<bool> = const { Cell::new(false) };
}

/// Notes that an operand of the next launch is memory of another owner.
pub(super) fn note_external() {
    USED_EXTERNAL.set(true);
}

/// While it exists, no other thread captures or opens a device.
pub(super) struct CaptureLock {
    _lock: MutexGuard<'static, ()>,
}

impl Drop for CaptureLock {
    fn drop(&mut self) {
        HOLDS_LOCK.set(false);
    }
}

pub(super) fn lock_captures() -> Result<CaptureLock> {
    // A thread that holds the lock would deadlock with itself.
    if HOLDS_LOCK.replace(true) {
        return Err(Error::invalid("cannot capture or open a device inside a capture"));
    }
    Ok(CaptureLock { _lock: CAPTURES.lock().unwrap_or_else(PoisonError::into_inner) })
}

/// While it exists, the calling thread may load modules, allocate memory and query events although the program captures a
/// stream. Otherwise the driver refuses these calls in all threads, and invalidates the capture, because they might
/// synchronize with the captured work. None of them depends on captured work.
pub(super) struct RelaxedCaptureMode {
    /// `None` if the driver refused to change the mode.
    previous: Option<CUstreamCaptureMode>,
}

impl RelaxedCaptureMode {
    pub fn enter(context: &CudaContext) -> Self {
        bind(context);
        RelaxedCaptureMode { previous: exchange_capture_mode(CU_STREAM_CAPTURE_MODE_RELAXED) }
    }
}

impl Drop for RelaxedCaptureMode {
    fn drop(&mut self) {
        self.previous.map(exchange_capture_mode);
    }
}

/// Sets the capture mode of the calling thread and returns the previous one. If the driver refuses, the call for which the
/// mode was to change reports what is wrong.
fn exchange_capture_mode(mut mode: CUstreamCaptureMode) -> Option<CUstreamCaptureMode> {
    // SAFETY: the driver replaces the mode by another one.
    #[allow(unsafe_code)]
    let outcome = unsafe { sys::cuThreadExchangeStreamCaptureMode(&mut mode) };
    outcome.result().is_ok().then_some(mode)
}

/// Makes the context current. An error that cudarc holds back is kept for the next call to report.
pub(super) fn bind(context: &CudaContext) {
    let kept = context.bind_to_thread();
    if kept.is_err() {
        context.record_err(context.bind_to_thread());
        context.record_err(kept);
    }
}

/// Whether a thread captures the launches of a device, and what they use.
#[derive(Debug, Default)]
pub(super) struct CaptureState {
    /// Read without the lock, as most launches are not captured.
    is_capturing: AtomicBool,
    /// Set if the driver does not support capture, or the stream may be left in a capture that could not be ended.
    is_unsupported: AtomicBool,
    resources: Mutex<Option<CapturedResources>>,
}

/// What the captured launches of one thread use.
#[derive(Debug)]
pub(super) struct CapturedResources {
    thread: ThreadId,
    /// Allocations of the operands, by address. They are kept alive as long as the graph is.
    memory: BTreeMap<u64, Arc<dyn fmt::Debug + Send + Sync>>,
    /// The functions are kept alive as well; names and sizes are for error messages.
    pub kernels: Vec<(CudaFunction, &'static str, Sizes)>,
    /// A launch failed because the capture was invalidated. Ending the capture need not report that again.
    pub is_invalidated: bool,
}

impl CaptureState {
    fn resources(&self) -> MutexGuard<'_, Option<CapturedResources>> {
        self.resources.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Runs `update` on the captured resources and returns true if the calling thread is capturing.
    fn update(&self, update: impl FnOnce(&mut CapturedResources)) -> bool {
        if !self.is_capturing.load(Ordering::Relaxed) {
            return false;
        }
        let mut resources = self.resources();
        match resources.as_mut().filter(|resources| resources.thread == thread::current().id()) {
            Some(resources) => {
                update(resources);
                true
            }
            None => false,
        }
    }

    /// Starts to collect what launches of the calling thread use.
    pub fn begin(&self) {
        USED_EXTERNAL.set(false);
        *self.resources() = Some(CapturedResources {
            thread: thread::current().id(),
            memory: BTreeMap::new(),
            kernels: Vec::new(),
            is_invalidated: false,
        });
        self.is_capturing.store(true, Ordering::Relaxed);
    }

    /// Ends the collection; `None` if it was ended before.
    pub fn end(&self) -> Option<CapturedResources> {
        self.is_capturing.store(false, Ordering::Relaxed);
        self.resources().take()
    }

    /// Whether the calling thread, which is capturing, has used memory of another owner as an operand.
    pub fn used_external(&self) -> bool {
        self.is_mine() && USED_EXTERNAL.get()
    }

    /// Whether the calling thread is capturing.
    pub fn is_mine(&self) -> bool {
        self.update(|_| {})
    }

    /// Keeps an allocation alive if the calling thread is capturing: it holds an operand of a launch.
    pub fn keep_alive<A: fmt::Debug + Send + Sync + 'static>(&self, address: u64, allocation: &Arc<A>) {
        self.update(|resources| {
            resources.memory.entry(address).or_insert_with(|| allocation.clone());
        });
    }

    /// Notes a captured launch.
    pub fn note_launch(&self, function: &CudaFunction, name: &'static str, sizes: Sizes) {
        self.update(|resources| resources.kernels.push((function.clone(), name, sizes)));
    }

    /// Notes that a launch failed because the capture was invalidated.
    pub fn invalidate(&self) {
        self.update(|resources| resources.is_invalidated = true);
    }

    pub fn is_unsupported(&self) -> bool {
        self.is_unsupported.load(Ordering::Relaxed)
    }

    /// Makes all later captures run their work uncaptured.
    pub fn set_unsupported(&self) {
        self.is_unsupported.store(true, Ordering::Relaxed);
    }
}
