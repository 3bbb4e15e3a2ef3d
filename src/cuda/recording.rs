//! Recordings: launches that are kept as a CUDA graph, and queued again at the cost of one.
//!
//! A graph has the addresses of its kernels' operands in it. So a recording keeps what they point into: the memory stays,
//! whatever becomes of the tensors.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, ThreadId};

use cudarc::driver::sys::CUgraphInstantiate_flags;
use cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
use cudarc::driver::{CudaFunction, CudaGraph, result};

use super::device::Device;
use super::memory::Allocation;
use super::spec::Sizes;
use crate::{Error, Result};

/// A driver gives up a capture when anything waits for all of its context, as making a stream does. So within this process
/// nothing is captured while a device is opened.
static CAPTURES: Mutex<()> = Mutex::new(());

pub(super) fn no_captures() -> MutexGuard<'static, ()> {
    CAPTURES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What the launches of one thread use, while that records.
#[derive(Debug, Default)]
pub(super) struct Recorder {
    /// Asked before the lock: most launches are not recorded.
    is_recording: AtomicBool,
    used: Mutex<Option<Used>>,
}

#[derive(Debug)]
struct Used {
    thread: ThreadId,
    memory: BTreeMap<u64, Arc<Allocation>>,
    kernels: Vec<(CudaFunction, &'static str, Sizes)>,
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
}

/// Launches kept by [`Device::record`].
pub struct Recording {
    graph: CudaGraph,
    used: Used,
    /// Whose it is.
    device: Arc<Recorder>,
}

// SAFETY: a graph may be used by any thread, though by one at a time: it is not Sync.
#[allow(unsafe_code)]
unsafe impl Send for Recording {}

/// Ends a capture in any case: also when what is recorded panics.
struct Capture<'a>(&'a Device);

impl Drop for Capture<'_> {
    fn drop(&mut self) {
        let _ = self.0.end_capture();
    }
}

impl Device {
    /// Does `work` and keeps its launches; nothing is kept when each launch is waited for, or when the driver gives the
    /// capture up. `work` must be nothing but operations on tensors that exist: copies to and from the host are refused.
    ///
    /// Launches of other threads are not recorded, and go on.
    pub(super) fn record(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Recording>> {
        self.usable()?;
        self.not_recording()?;
        if self.waits_for_each_launch() {
            return work().map(|()| None);
        }
        let alone = no_captures();
        let recorder = self.recorder();
        let begun = self.recording_stream().begin_capture(CU_STREAM_CAPTURE_MODE_RELAXED);
        self.queued(&"the start of a recording", begun)?;
        *recorder.used() = Some(Used { thread: thread::current().id(), memory: BTreeMap::new(), kernels: Vec::new() });
        recorder.is_recording.store(true, Ordering::Relaxed);
        let capture = Capture(self);
        let outcome = work();
        std::mem::forget(capture);
        let captured = self.end_capture();
        drop(alone);
        outcome?;
        match captured {
            Some(recording) => {
                self.replay(&recording)?;
                Ok(Some(recording))
            }
            // Nothing of it has run.
            None => work().map(|()| None),
        }
    }

    /// What was captured, if the driver has kept it.
    fn end_capture(&self) -> Option<Recording> {
        let recorder = self.recorder();
        recorder.is_recording.store(false, Ordering::Relaxed);
        let used = recorder.used().take()?;
        let graph = self.recording_stream().end_capture(CUgraphInstantiate_flags(0));
        graph.ok().flatten().map(|graph| Recording { graph, used, device: recorder.clone() })
    }

    /// Queues a recording again.
    pub(super) fn replay(&self, recording: &Recording) -> Result<()> {
        self.usable()?;
        self.not_recording()?;
        let Recording { graph, used, device } = recording;
        if !Arc::ptr_eq(device, self.recorder()) {
            return Err(Error::invalid("a recording can only be replayed on the device that made it"));
        }
        let what = "a recording of launches";
        self.queued(&what, self.stream().context().bind_to_thread())?;
        // SAFETY: the recording keeps the graph, its kernels and the memory of their operands.
        #[allow(unsafe_code)]
        let launched = unsafe { result::graph::launch(graph.cu_graph_exec(), self.stream().cu_stream()) };
        used.kernels.iter().for_each(|(_, name, sizes)| self.note_launch(name, *sizes));
        self.queued(&what, launched)
    }
}
