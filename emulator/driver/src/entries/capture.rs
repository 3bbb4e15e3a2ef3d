//! Capture of streams into graphs.

use std::cell::Cell;
use std::collections::BTreeSet;

use cudarc::driver::sys::CUresult::{
    self, CUDA_ERROR_ILLEGAL_STATE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_SUPPORTED,
    CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, CUDA_ERROR_STREAM_CAPTURE_ISOLATION,
    CUDA_ERROR_STREAM_CAPTURE_MERGE, CUDA_ERROR_STREAM_CAPTURE_UNJOINED, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED,
    CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD,
};

use crate::boundary::{EdgeData, Handle, HandleList, In, InOut, Out};
use crate::driver::{self, Driver, Guard, find, find_mut};
use crate::error::{Because, Result, ensure};
use crate::export::exports;
use crate::object::capture::{Branch, Capture};
use crate::object::graph::Graph;
use crate::work::Work;

const GLOBAL: u32 = 0;
const RELAXED: u32 = 2;
const NONE: u32 = 0;
const ACTIVE: u32 = 1;
const INVALIDATED: u32 = 2;

thread_local! {
    static MODE: Cell<u32> = const { Cell::new(GLOBAL) };
}

impl Driver {
    fn begin_capture(&mut self, handle: Handle, mode: u32) -> Result<()> {
        let stream = find(&self.streams, "stream", handle)?;
        ensure!(mode <= RELAXED, CUDA_ERROR_INVALID_VALUE, "capture mode {mode} is unknown");
        let legacy = stream.is_legacy();
        ensure!(!legacy, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the default stream cannot be captured");
        ensure!(stream.branch.is_none(), CUDA_ERROR_ILLEGAL_STATE, "the stream is being captured already");
        let context = stream.context;
        let graph = self.add_graph(Graph::capturing());
        // The graph's handle is unique, so it also serves as the capture's id.
        let capture =
            Capture { context, graph, mode, origin: handle, thread: std::thread::current().id(), invalid: false };
        self.captures.insert(graph, capture);
        find_mut(&mut self.streams, "stream", handle)?.branch = Some(Branch { capture: graph, heads: Vec::new() });
        Ok(())
    }

    /// Ends a capture and returns its graph.
    ///
    /// # Errors
    /// The capture was invalidated, or must not be ended here. An invalid capture is ended nevertheless.
    fn end_capture(&mut self, handle: Handle) -> Result<Handle> {
        let Some(branch) = &find(&self.streams, "stream", handle)?.branch else {
            return Err(CUDA_ERROR_ILLEGAL_STATE.because("the stream is not being captured"));
        };
        let id = branch.capture;
        let Some(Capture { mode, origin, thread, invalid, graph, .. }) = self.captures.get(&id) else {
            return Err(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED.because("the capture was abandoned"));
        };
        let own_thread = *mode == RELAXED || *thread == std::thread::current().id();
        ensure!(own_thread, CUDA_ERROR_STREAM_CAPTURE_WRONG_THREAD, "the capture was started by another thread");
        ensure!(*origin == handle, CUDA_ERROR_STREAM_CAPTURE_UNMATCHED, "the capture was started on another stream");
        let (graph, invalid) = (*graph, *invalid);
        let joined = self.all_joined(id, graph, &branch.heads)?;
        self.forget_capture(id);
        if invalid || !joined {
            self.graphs.remove(&graph);
        }
        ensure!(
            !invalid,
            CUDA_ERROR_STREAM_CAPTURE_INVALIDATED,
            "a call was made that is not permitted during capture"
        );
        ensure!(joined, CUDA_ERROR_STREAM_CAPTURE_UNJOINED, "work of another stream was not joined by an event");
        find_mut(&mut self.graphs, "graph", graph)?.done();
        Ok(graph)
    }

    /// Whether the heads of the origin stream depend on all nodes that other streams captured.
    fn all_joined(&self, capture: u64, graph: Handle, heads: &[Handle]) -> Result<bool> {
        let before = find(&self.graphs, "graph", graph)?.closure(heads);
        let branches = self.streams.values().filter_map(|stream| stream.branch.as_ref());
        Ok(branches.filter(|b| b.capture == capture).all(|b| b.heads.iter().all(|head| before.contains(head))))
    }

    fn forget_capture(&mut self, id: u64) {
        self.captures.remove(&id);
        for stream in self.streams.values_mut().filter(|s| s.branch.as_ref().is_some_and(|b| b.capture == id)) {
            stream.branch = None;
        }
    }

    /// Ends a capture, one of whose streams is destroyed.
    pub fn abandon_capture(&mut self, id: u64) {
        let graph = self.captures.get(&id).map(|capture| capture.graph);
        self.forget_capture(id);
        if let Some(graph) = graph {
            self.graphs.remove(&graph);
        }
    }

    fn invalidate(&mut self, ids: &[u64]) {
        for id in ids {
            if let Some(capture) = self.captures.get_mut(id) {
                capture.invalid = true;
            }
        }
    }

    /// A capture that has not been invalidated.
    pub fn valid_capture(&self, id: u64) -> Result<&Capture> {
        let capture = self.captures.get(&id).filter(|capture| !capture.invalid);
        capture.ok_or_else(|| CUDA_ERROR_STREAM_CAPTURE_INVALIDATED.because("the capture was invalidated"))
    }

    /// Adds a node to the graph instead of queuing an operation.
    pub fn capture_work(&mut self, handle: Handle, work: Work) -> Result<()> {
        let Some(branch) = &find(&self.streams, "stream", handle)?.branch else {
            return Ok(());
        };
        let (id, heads) = (branch.capture, branch.heads.clone());
        let graph = self.valid_capture(id)?.graph;
        if let Work::Free(_) = work {
            self.invalidate(&[id]);
            return Err(CUDA_ERROR_NOT_SUPPORTED.because("graphs that free memory are not emulated"));
        }
        let node = find_mut(&mut self.graphs, "graph", graph)?.add(work, heads);
        find_mut(&mut self.streams, "stream", handle)?.branch = Some(Branch { capture: id, heads: vec![node] });
        Ok(())
    }

    /// Adds a stream that waits for an event of a capture to that capture.
    pub fn join_capture(&mut self, handle: Handle, id: u64, heads: &[Handle]) -> Result<()> {
        self.valid_capture(id)?;
        let stream = find_mut(&mut self.streams, "stream", handle)?;
        let legacy = stream.is_legacy();
        let other = stream.branch.as_ref().map(|branch| branch.capture).filter(|&other| other != id);
        if legacy || other.is_some() {
            self.invalidate(&[id, other.unwrap_or(id)]);
        }
        ensure!(!legacy, CUDA_ERROR_STREAM_CAPTURE_IMPLICIT, "the default stream cannot join a capture");
        ensure!(other.is_none(), CUDA_ERROR_STREAM_CAPTURE_MERGE, "the stream belongs to another capture");
        let stream = find_mut(&mut self.streams, "stream", handle)?;
        let branch = stream.branch.get_or_insert_with(|| Branch { capture: id, heads: Vec::new() });
        for head in heads {
            if !branch.heads.contains(head) {
                branch.heads.push(*head);
            }
        }
        Ok(())
    }

    /// Invalidates the capture of a stream that waits for an event recorded outside the capture.
    pub fn refuse_uncaptured(&mut self, handle: Handle) -> Result<()> {
        let capture = find(&self.streams, "stream", handle)?.branch.as_ref().map(|branch| branch.capture);
        self.invalidate(capture.as_slice());
        Err(CUDA_ERROR_STREAM_CAPTURE_ISOLATION.because("the event was recorded outside the capture"))
    }

    /// Refuses to wait for a stream that is part of a capture.
    pub fn refuse_captured_stream(&mut self, handle: Handle) -> Result<()> {
        self.refuse_implicit_capture(handle)?;
        let capture = find(&self.streams, "stream", handle)?.branch.as_ref().map(|branch| branch.capture);
        self.invalidate(capture.as_slice());
        ensure!(capture.is_none(), CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "the stream is being captured");
        Ok(())
    }

    /// Refuses work on the default stream while a blocking stream, with which it synchronises, is being captured.
    pub fn refuse_implicit_capture(&mut self, handle: Handle) -> Result<()> {
        let stream = find(&self.streams, "stream", handle)?;
        if !stream.is_legacy() {
            return Ok(());
        }
        let blocking = self.streams.values().filter(|s| s.context == stream.context && s.is_blocking());
        let captures: Vec<u64> = blocking.filter_map(|s| s.branch.as_ref().map(|b| b.capture)).collect();
        self.refuse(
            &captures,
            CUDA_ERROR_STREAM_CAPTURE_IMPLICIT,
            "the default stream synchronises with a stream that is being captured",
        )
    }

    /// Refuses to wait for a context while a stream of it is being captured.
    pub fn refuse_all_captures(&mut self, context: Handle) -> Result<()> {
        let captures: Vec<u64> =
            self.captures.iter().filter(|(_, c)| c.context == context).map(|(&id, _)| id).collect();
        self.refuse(&captures, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "a stream of the context is being captured")
    }

    /// Refuses a potentially unsafe call during a capture, unless the mode of the thread or of the capture permits it.
    pub fn refuse_unsafe(&mut self) -> Result<()> {
        let (mode, thread) = (MODE.get(), std::thread::current().id());
        let forbids = |capture: &Capture| match mode {
            RELAXED => false,
            GLOBAL if capture.mode == GLOBAL => true,
            _ => capture.mode != RELAXED && capture.thread == thread,
        };
        let captures: Vec<u64> = self.captures.iter().filter(|(_, c)| forbids(c)).map(|(&id, _)| id).collect();
        self.refuse(
            &captures,
            CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
            "the call is not permitted while a stream is being captured",
        )
    }

    fn refuse(&mut self, captures: &[u64], code: CUresult, why: &str) -> Result<()> {
        self.invalidate(captures);
        ensure!(captures.is_empty(), code, "{why}");
        Ok(())
    }

    fn capture_status(&self, handle: Handle) -> Result<(u32, Option<&Branch>)> {
        let branch = find(&self.streams, "stream", handle)?.branch.as_ref();
        let status = branch.map_or(NONE, |b| if self.valid_capture(b.capture).is_ok() { ACTIVE } else { INVALIDATED });
        Ok((status, branch))
    }
}

/// The outputs of `cuStreamGetCaptureInfo`.
struct Info {
    status: Out<u32>,
    id: Out<u64>,
    graph: Out<Handle>,
    heads: Out<HandleList>,
    count: Out<usize>,
}

impl Info {
    fn fill(self, mut driver: Guard, stream: Handle) -> Result<()> {
        driver.refuse_implicit_capture(stream)?;
        let (status, branch) = driver.capture_status(stream)?;
        self.status.set(status)?;
        let Some(branch) = branch.filter(|_| status == ACTIVE) else {
            return Ok(());
        };
        self.id.set_optional(branch.capture);
        self.graph.set_optional(driver.valid_capture(branch.capture)?.graph);
        self.heads.set_optional(HandleList::from(branch.heads.as_slice()));
        self.count.set_optional(branch.heads.len());
        Ok(())
    }
}

fn update(driver: Guard, stream: Handle, nodes: &[Handle], flags: u32) -> Result<()> {
    let mut driver = driver;
    ensure!(flags <= 1, CUDA_ERROR_INVALID_VALUE, "flags {flags:#x} are unknown");
    let (status, branch) = driver.capture_status(stream)?;
    let Some(branch) = branch.filter(|_| status == ACTIVE) else {
        return Err(CUDA_ERROR_ILLEGAL_STATE.because("the stream is not being captured"));
    };
    let capture = branch.capture;
    let graph = find(&driver.graphs, "graph", driver.valid_capture(capture)?.graph)?;
    ensure!(nodes.iter().all(|n| graph.contains(*n)), CUDA_ERROR_INVALID_VALUE, "a node belongs to another graph");
    let mut heads: BTreeSet<Handle> = nodes.iter().copied().collect();
    if flags == 0 {
        heads.extend(&branch.heads);
    }
    let heads = heads.into_iter().collect();
    find_mut(&mut driver.streams, "stream", stream)?.branch = Some(Branch { capture, heads });
    Ok(())
}

fn begin(mut driver: Guard, stream: Handle, mode: u32) -> Result<()> {
    driver.healthy(find(&driver.streams, "stream", stream)?.context)?;
    driver.begin_capture(stream, mode)
}

exports! {
    fn cuStreamBeginCapture / cuStreamBeginCapture_ptsz(null; stream: Handle) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        begin(driver, stream, GLOBAL)?;
    }

    fn cuStreamBeginCapture_v2 / cuStreamBeginCapture_v2_ptsz(null; stream: Handle, mode: u32) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        begin(driver, stream, mode)?;
    }

    fn cuStreamEndCapture / cuStreamEndCapture_ptsz(null; stream: Handle, out: Out<Handle>) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        out.set(0)?;
        out.set(driver.end_capture(stream)?)?;
    }

    fn cuStreamIsCapturing / cuStreamIsCapturing_ptsz(null; stream: Handle, out: Out<u32>) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        driver.refuse_implicit_capture(stream)?;
        out.set(driver.capture_status(stream)?.0)?;
    }

    fn cuStreamGetCaptureInfo / cuStreamGetCaptureInfo_ptsz(
        null; stream: Handle, status: Out<u32>, id: Out<u64>
    ) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        Info { status, id, graph: Out::NULL, heads: Out::NULL, count: Out::NULL }.fill(driver, stream)?;
    }

    fn cuStreamGetCaptureInfo_v2 / cuStreamGetCaptureInfo_v2_ptsz(
        null; stream: Handle, status: Out<u32>, id: Out<u64>, graph: Out<Handle>, heads: Out<HandleList>,
        count: Out<usize>
    ) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        Info { status, id, graph, heads, count }.fill(driver, stream)?;
    }

    fn cuStreamGetCaptureInfo_v3 / cuStreamGetCaptureInfo_v3_ptsz(
        null; stream: Handle, status: Out<u32>, id: Out<u64>, graph: Out<Handle>, heads: Out<HandleList>,
        edges: Out<HandleList>, count: Out<usize>
    ) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        edges.set_optional(HandleList::NULL);
        Info { status, id, graph, heads, count }.fill(driver, stream)?;
    }

    fn cuStreamUpdateCaptureDependencies / cuStreamUpdateCaptureDependencies_ptsz(
        null; stream: Handle, nodes: In<Handle>, count: usize, flags: u32
    ) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        update(driver, stream, &nodes.list(count)?, flags)?;
    }

    fn cuStreamUpdateCaptureDependencies_v2 / cuStreamUpdateCaptureDependencies_v2_ptsz(
        null; stream: Handle, nodes: In<Handle>, edges: In<EdgeData>, count: usize, flags: u32
    ) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        ensure!(edges.is_null(), CUDA_ERROR_NOT_SUPPORTED, "edges with data are not emulated");
        update(driver, stream, &nodes.list(count)?, flags)?;
    }

    fn cuThreadExchangeStreamCaptureMode(mode: InOut<u32>) {
        driver::ready()?;
        let new = mode.get()?;
        ensure!(new <= RELAXED, CUDA_ERROR_INVALID_VALUE, "capture mode {new} is unknown");
        mode.set(MODE.replace(new))?;
    }
}
