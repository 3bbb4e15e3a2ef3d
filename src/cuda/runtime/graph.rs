//! Recordings: launches that are kept as a CUDA graph, and queued again at the cost of one.
//!
//! A graph has the addresses of its kernels' operands in it. So a recording keeps what they point into: the memory stays,
//! whatever becomes of the tensors.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use cudarc::driver::sys::CUgraphInstantiate_flags;
use cudarc::driver::sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
use cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
use cudarc::driver::sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
use cudarc::driver::{CudaFunction, CudaGraph, DriverError, result};

use super::device::{Device, Refusal};
use super::faults::Fault;
use super::memory::Allocation;
use crate::cuda::launch::spec::Sizes;
use crate::{Error, Result};

/// A driver gives up a capture when anything waits for all of its context, as making a stream does. So within this process
/// nothing is captured while a device is opened.
static CAPTURES: Mutex<()> = Mutex::new(());

thread_local! {
    static IS_ALONE: Cell<bool> = const { Cell::new(false) };
}

/// While it lives, nobody else captures or opens a device.
pub(in crate::cuda) struct Alone {
    _lock: MutexGuard<'static, ()>,
}

impl Drop for Alone {
    fn drop(&mut self) {
        IS_ALONE.set(false);
    }
}

pub(in crate::cuda) fn no_captures() -> Result<Alone> {
    // The thread would wait for itself.
    if IS_ALONE.replace(true) {
        return Err(Error::invalid("a recording, or the opening of a device, within a recording"));
    }
    Ok(Alone { _lock: CAPTURES.lock().unwrap_or_else(PoisonError::into_inner) })
}

/// What the launches of one thread use, while that records.
#[derive(Debug, Default)]
pub(in crate::cuda) struct Recorder {
    /// Asked before the lock: most launches are not recorded.
    is_recording: AtomicBool,
    /// The driver does not capture; the stream may be left in a capture that could not be ended.
    is_refused: AtomicBool,
    used: Mutex<Option<Used>>,
}

#[derive(Debug)]
struct Used {
    thread: ThreadId,
    memory: BTreeMap<u64, Arc<Allocation>>,
    kernels: Vec<(CudaFunction, &'static str, Sizes)>,
    /// A launch was refused, as the capture was given up. That its end says so too is not relied on.
    is_broken: bool,
}

impl Recorder {
    fn used(&self) -> MutexGuard<'_, Option<Used>> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, note: impl FnOnce(&mut Used)) -> bool {
        if !self.is_recording.load(Ordering::Relaxed) {
            return false;
        }
        let mut used = self.used();
        match used.as_mut().filter(|used| used.thread == thread::current().id()) {
            Some(used) => {
                note(used);
                true
            }
            None => false,
        }
    }

    /// Whether the calling thread records.
    pub fn is_mine(&self) -> bool {
        self.note(|_| {})
    }

    /// An operand of a launch lies in this memory.
    pub fn keep(&self, allocation: &Arc<Allocation>) {
        self.note(|used| {
            used.memory.entry(allocation.address()).or_insert_with(|| allocation.clone());
        });
    }

    /// A kernel is launched.
    pub fn launched(&self, function: &CudaFunction, name: &'static str, sizes: Sizes) {
        self.note(|used| used.kernels.push((function.clone(), name, sizes)));
    }

    /// A launch was refused: the capture is of no use.
    pub fn give_up(&self) {
        self.note(|used| used.is_broken = true);
    }
}

/// Launches that [`crate::ops::Backend::record`] has kept.
pub struct Graph {
    graph: CudaGraph,
    used: Used,
    /// Whose it is.
    device: Arc<Recorder>,
}

// SAFETY: a graph may be used by any thread, though by one at a time: it is not Sync.
#[allow(unsafe_code)]
unsafe impl Send for Graph {}

/// Ends a capture in any case: also when what is recorded panics.
struct Capture<'a>(&'a Device);

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        let _ = self.0.end_capture();
    }
}

impl Device {
    /// Does `work` and keeps its launches; nothing is kept when each launch is waited for, or when the driver does not
    /// capture, or gives the capture up. `work` must be nothing but operations on tensors that exist: copies to and from
    /// the host are refused.
    ///
    /// Launches of other threads are not recorded, and go on.
    pub(in crate::cuda) fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Graph>> {
        self.usable()?;
        self.not_recording()?;
        let recorder = self.recorder();
        if self.waits_for_each_launch() || recorder.is_refused.load(Ordering::Relaxed) {
            return work().map(|()| None);
        }
        let alone = no_captures()?;
        let begun = self.recording_stream().begin_capture(CU_STREAM_CAPTURE_MODE_RELAXED);
        if self.captured(&"the start of a recording", begun)?.is_none() {
            drop(alone);
            return work().map(|()| None);
        }
        *recorder.used() = Some(Used {
            thread: thread::current().id(),
            memory: BTreeMap::new(),
            kernels: Vec::new(),
            is_broken: false,
        });
        recorder.is_recording.store(true, Ordering::Relaxed);
        let capture = Capture(self);
        let outcome = work();
        std::mem::forget(capture);
        let captured = self.end_capture();
        drop(alone);
        outcome?;
        match captured? {
            Some(recording) => {
                self.replay(&recording)?;
                Ok(Some(recording))
            }
            // Nothing of it has run.
            None => work().map(|()| None),
        }
    }

    /// What was captured, if the driver has kept it.
    fn end_capture(&self) -> Result<Option<Graph>> {
        let recorder = self.recorder();
        recorder.is_recording.store(false, Ordering::Relaxed);
        let Some(used) = recorder.used().take() else { return Ok(None) };
        let graph = self.recording_stream().end_capture(CUgraphInstantiate_flags(0));
        let graph = self.captured(&"the end of a recording", graph)?.flatten();
        let status = graph.is_none().then(|| self.recording_stream().capture_status());
        if status.is_some_and(|status| status != Ok(CU_STREAM_CAPTURE_STATUS_NONE)) {
            recorder.is_refused.store(true, Ordering::Relaxed);
        }
        Ok(graph.filter(|_| !used.is_broken).map(|graph| Graph { graph, used, device: recorder.clone() }))
    }

    /// What a call for a capture answered. One that is refused leaves nothing undone: the work can be queued without.
    fn captured<T>(&self, what: &dyn fmt::Display, outcome: Result<T, DriverError>) -> Result<Option<T>> {
        if outcome.as_ref().is_err_and(|&error| Fault::from(error).is(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)) {
            return Ok(None);
        }
        match self.asked(what, outcome) {
            Ok(done) => Ok(Some(done)),
            Err(Refusal::Harmless(_)) => {
                self.recorder().is_refused.store(true, Ordering::Relaxed);
                Ok(None)
            }
            Err(Refusal::Lost(error)) => Err(error),
        }
    }

    /// Queues a recording again.
    pub(in crate::cuda) fn replay(&self, recording: &Graph) -> Result<()> {
        self.usable()?;
        self.not_recording()?;
        let Graph { graph, used, device } = recording;
        if !Arc::ptr_eq(device, self.recorder()) {
            return Err(Error::invalid("a recording can only be replayed on the device that made it"));
        }
        let what = "a recording of launches";
        self.queued(&what, self.stream().context().bind_to_thread())?;
        // SAFETY: the recording keeps the graph, its kernels and the memory of their operands.
        #[allow(unsafe_code)]
        let launched = unsafe { result::graph::launch(graph.cu_graph_exec(), self.stream().cu_stream()) };
        used.kernels.iter().for_each(|(_, name, sizes)| self.note_launch(name, *sizes));
        self.queued(&what, launched)?;
        if self.waits_for_each_launch() { self.synchronize() } else { Ok(()) }
    }
}
