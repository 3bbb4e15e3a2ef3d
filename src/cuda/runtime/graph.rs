//! CUDA graphs: launches that are captured once and replayed at the cost of one launch.
//!
//! A graph contains the addresses of its kernels' operands. It therefore keeps their memory alive, even if the tensors are
//! dropped.

use std::fmt;

use cudarc::driver::sys::CUgraphInstantiate_flags;
use cudarc::driver::sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
use cudarc::driver::sys::CUstreamCaptureMode::CU_STREAM_CAPTURE_MODE_RELAXED;
use cudarc::driver::sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
use cudarc::driver::{CudaGraph, DriverError, result};

use super::capture::{CapturedResources, lock_captures};
use super::faults::Fault;
use super::latch::QueryError;
use super::stream::{Stream, StreamId};
use crate::{Error, Result};

/// A CUDA graph that [`crate::ops::Backend::capture`] has captured.
pub struct Graph {
    graph: CudaGraph,
    resources: CapturedResources,
    stream: StreamId,
}

// SAFETY: any thread may use a graph, but only one at a time: it is not Sync.
#[allow(unsafe_code)]
unsafe impl Send for Graph {}

/// Ends a capture when it is dropped, so that a panic in the captured work does not leave the stream capturing.
struct CaptureGuard<'a>(&'a Stream);

impl Drop for CaptureGuard<'_> {
    fn drop(&mut self) {
        let _ = end_capture(self.0);
    }
}

impl Graph {
    /// Executes `work` and captures its launches. Returns `None`, with the work executed, if launches are blocking, the
    /// driver does not support capture, or the capture is invalidated. `work` must consist of operations on existing
    /// tensors only: copies from and to the host fail.
    ///
    /// Launches of other threads are executed as usual and not captured.
    pub(super) fn capture(stream: &Stream, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Graph>> {
        stream.ensure_ready()?;
        if stream.is_launch_blocking() || stream.capture.is_unsupported() {
            return work().map(|()| None);
        }
        let lock = lock_captures()?;
        let begun = stream.capturing().begin_capture(CU_STREAM_CAPTURE_MODE_RELAXED);
        if check_capture(stream, &"beginning a stream capture", begun)?.is_none() {
            drop(lock);
            return work().map(|()| None);
        }
        stream.capture.begin();
        let guard = CaptureGuard(stream);
        let outcome = work();
        let used_external = stream.capture.used_external();
        std::mem::forget(guard);
        let captured = end_capture(stream);
        drop(lock);
        outcome?;
        if used_external {
            return Err(Error::invalid(
                "a graph keeps its operands alive, which is not possible for memory of another owner: capture operations on \
                 tensors, or capture the stream yourself",
            ));
        }
        match captured? {
            Some(graph) => {
                graph.replay(stream)?;
                Ok(Some(graph))
            }
            // The capture was invalidated, and none of its work has been executed.
            None => work().map(|()| None),
        }
    }

    /// Enqueues the captured launches again.
    pub(super) fn replay(&self, stream: &Stream) -> Result<()> {
        stream.ensure_ready()?;
        if self.stream != stream.id {
            return Err(Error::invalid("a graph can only be replayed on the device that captured it"));
        }
        let context = "launching a CUDA graph";
        stream.latch.check_enqueue(&context, stream.context().bind_to_thread())?;
        // SAFETY: `self` keeps the graph, its kernels and the memory of their operands alive.
        #[allow(unsafe_code)]
        let launched = unsafe { result::graph::launch(self.graph.cu_graph_exec(), stream.compute().cu_stream()) };
        self.resources.kernels.iter().for_each(|(_, name, sizes)| stream.latch.note_launch(name, *sizes));
        stream.latch.check_enqueue(&context, launched)?;
        if stream.is_launch_blocking() { stream.synchronize() } else { Ok(()) }
    }
}

/// Ends the capture and returns its graph, unless it was invalidated.
fn end_capture(stream: &Stream) -> Result<Option<Graph>> {
    let Some(resources) = stream.capture.end() else { return Ok(None) };
    let graph = stream.capturing().end_capture(CUgraphInstantiate_flags(0));
    let graph = check_capture(stream, &"ending a stream capture", graph)?.flatten();
    let status = graph.is_none().then(|| stream.capturing().capture_status());
    if status.is_some_and(|status| status != Ok(CU_STREAM_CAPTURE_STATUS_NONE)) {
        stream.capture.set_unsupported();
    }
    Ok(graph.filter(|_| !resources.is_invalidated).map(|graph| Graph { graph, resources, stream: stream.id }))
}

/// Checks the outcome of a call for a capture; `None` if the driver refused it or invalidated the capture. The device is
/// then as it was, and the work can be executed uncaptured.
fn check_capture<T>(stream: &Stream, context: &dyn fmt::Display, outcome: Result<T, DriverError>) -> Result<Option<T>> {
    if outcome.as_ref().is_err_and(|&error| Fault::from(error).is(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED)) {
        return Ok(None);
    }
    match stream.latch.check_query(context, outcome) {
        Ok(value) => Ok(Some(value)),
        Err(QueryError::Recoverable(_)) => {
            stream.capture.set_unsupported();
            Ok(None)
        }
        Err(QueryError::Fatal(error)) => Err(error),
    }
}
