//! Streams: which operation comes after which.

use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_READY, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
};

use crate::boundary::{Device, Handle, HostFunction, NullStream, Out, StreamCallback, UserData};
use crate::capture::Branch;
use crate::driver::{self, Driver, Guard, Kind, find, find_mut, new_handle};
use crate::error::{Because, Result, ensure};
use crate::export::exports;
use crate::queue;
use crate::work::Work;

/// Lowest and highest priority. They change nothing but what is answered: every order that is allowed may happen.
pub const PRIORITIES: (i32, i32) = (0, -5);
const NON_BLOCKING: u32 = 1;
const LEGACY: Handle = 1;
const PER_THREAD: Handle = 2;

/// A stream.
#[derive(Debug)]
pub struct Stream {
    pub context: Handle,
    kind: StreamKind,
    flags: u32,
    priority: i32,
    /// The last operation.
    tail: Option<u64>,
    /// Recorded events that the next operation waits for.
    pub waits: Vec<u64>,
    /// The stream is being captured.
    pub branch: Option<Branch>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum StreamKind {
    /// The context's default stream, in step with all blocking streams.
    Legacy,
    Blocking,
    NonBlocking,
}

impl Stream {
    pub fn legacy(context: Handle) -> Self {
        Self::new(context, StreamKind::Legacy, 0, 0)
    }

    fn new(context: Handle, kind: StreamKind, flags: u32, priority: i32) -> Self {
        Self { context, kind, flags, priority, tail: None, waits: Vec::new(), branch: None }
    }

    pub fn is_legacy(&self) -> bool {
        self.kind == StreamKind::Legacy
    }

    /// In step with the default stream.
    pub fn is_blocking(&self) -> bool {
        self.kind == StreamKind::Blocking
    }

    fn own(&self) -> impl Iterator<Item = u64> {
        self.tail.into_iter().chain(self.waits.iter().copied())
    }
}

impl Driver {
    /// What a stream argument names.
    pub fn stream(&mut self, handle: Handle, null: NullStream) -> Result<Handle> {
        let per_thread = match handle {
            0 => null == NullStream::PerThread,
            LEGACY => false,
            PER_THREAD => true,
            _ => {
                let context = find(&self.streams, "stream", handle)?.context;
                return self.healthy(context).map(|_| handle);
            }
        };
        let context = self.current()?;
        if !per_thread {
            return Ok(self.context(context)?.legacy);
        }
        let thread = std::thread::current().id();
        if let Some(&known) = self.context(context)?.per_thread.get(&thread) {
            return Ok(known);
        }
        let stream = self.create_stream(0, 0)?;
        self.context_mut(context)?.per_thread.insert(thread, stream);
        Ok(stream)
    }

    fn create_stream(&mut self, flags: u32, priority: i32) -> Result<Handle> {
        let context = self.current()?;
        ensure!(flags & !NON_BLOCKING == 0, CUDA_ERROR_INVALID_VALUE, "stream flags {flags:#x} are unknown");
        let kind = if flags & NON_BLOCKING != 0 { StreamKind::NonBlocking } else { StreamKind::Blocking };
        let handle = new_handle(Kind::Stream);
        let priority = priority.clamp(PRIORITIES.1, PRIORITIES.0);
        self.streams.insert(handle, Stream::new(context, kind, flags, priority));
        Ok(handle)
    }

    /// What must end before new work of a stream may begin.
    pub fn needs(&self, handle: Handle) -> Result<Vec<u64>> {
        let stream = find(&self.streams, "stream", handle)?;
        let context = self.context(stream.context)?;
        let mut needs: Vec<u64> = stream.own().collect();
        match stream.kind {
            StreamKind::Legacy => {
                let same = |other: &&Stream| other.context == stream.context && other.is_blocking();
                needs.extend(self.streams.values().filter(same).flat_map(Stream::own));
                needs.extend(&context.orphans);
            }
            StreamKind::Blocking => needs.extend(find(&self.streams, "stream", context.legacy)?.own()),
            StreamKind::NonBlocking => {}
        }
        Ok(needs)
    }

    /// The work of a stream that is waited for; the default stream's is that of every blocking stream too.
    fn work_of(&self, handle: Handle) -> Result<Vec<u64>> {
        let stream = find(&self.streams, "stream", handle)?;
        if stream.is_legacy() { self.needs(handle) } else { Ok(stream.own().collect()) }
    }

    /// Queues an operation at the end of a stream, or notes it in the graph that the stream is captured into.
    /// Returns the operation that was queued.
    pub fn submit(&mut self, handle: Handle, work: Work) -> Result<Option<u64>> {
        let stream = find(&self.streams, "stream", handle)?;
        let context = self.healthy(stream.context)?;
        if stream.branch.is_some() {
            return self.capture_work(handle, work).map(|()| None);
        }
        let needs = self.needs_of_work(handle)?;
        let id = self.queue.add(context, needs, work);
        self.set_tail(handle, id)?;
        Ok(Some(id))
    }

    /// [`Driver::needs`], when work is about to be queued.
    pub fn needs_of_work(&mut self, handle: Handle) -> Result<Vec<u64>> {
        self.refuse_implicit_capture(handle)?;
        self.needs(handle)
    }

    /// Makes an operation the last of its stream.
    pub fn set_tail(&mut self, handle: Handle, id: u64) -> Result<()> {
        let stream = find_mut(&mut self.streams, "stream", handle)?;
        stream.tail = Some(id);
        stream.waits.clear();
        let (context, legacy) = (stream.context, stream.is_legacy());
        if legacy {
            self.context_mut(context)?.orphans.clear();
        }
        Ok(())
    }

    /// The stream's pending work goes on without it.
    fn destroy_stream(&mut self, handle: Handle) -> Result<()> {
        let stream = find(&self.streams, "stream", handle)?;
        ensure!(!stream.is_legacy(), CUDA_ERROR_INVALID_HANDLE, "the default stream cannot be destroyed");
        let (context, tail, blocking) = (stream.context, stream.own().collect::<Vec<_>>(), stream.is_blocking());
        self.healthy(context)?;
        if let Some(capture) = stream.branch.as_ref().map(|branch| branch.capture) {
            self.abandon_capture(capture);
        }
        self.streams.remove(&handle);
        if blocking {
            self.context_mut(context)?.orphans.extend(tail);
        }
        Ok(())
    }
}

/// Queues an operation, and executes the oldest ones if there are too many.
pub fn enqueue(mut driver: Guard, stream: Handle, work: Work) -> Result<(Guard, Option<u64>)> {
    let id = driver.submit(stream, work)?;
    Ok((queue::relieve(driver), id))
}

/// Waits for the work of a stream.
pub fn synchronize(mut driver: Guard, stream: Handle) -> Result<Guard> {
    driver.refuse_captured_stream(stream)?;
    let context = find(&driver.streams, "stream", stream)?.context;
    let work = driver.work_of(stream)?;
    let driver = queue::finish(driver, &work);
    driver.healthy(context)?;
    Ok(driver)
}

fn query(mut driver: Guard, stream: Handle) -> Result<()> {
    driver.refuse_captured_stream(stream)?;
    let context = find(&driver.streams, "stream", stream)?.context;
    let work = driver.work_of(stream)?;
    if !work.iter().any(|&id| driver.queue.is_pending(id)) {
        return Ok(());
    }
    queue::advance(driver, &work).healthy(context)?;
    Err(CUDA_ERROR_NOT_READY.because("work is pending"))
}

exports! {
    fn cuStreamCreate(out: Out<Handle>, flags: u32) {
        ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the stream");
        out.set(driver::lock()?.create_stream(flags, 0)?)?;
    }

    fn cuStreamCreateWithPriority(out: Out<Handle>, flags: u32, priority: i32) {
        ensure!(!out.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the stream");
        out.set(driver::lock()?.create_stream(flags, priority)?)?;
    }

    fn cuStreamDestroy = cuStreamDestroy_v2(stream: Handle) {
        driver::lock()?.destroy_stream(stream)?;
    }

    fn cuStreamSynchronize / cuStreamSynchronize_ptsz(null; stream: Handle) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        synchronize(driver, stream).map(drop)?;
    }

    fn cuStreamQuery / cuStreamQuery_ptsz(null; stream: Handle) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        query(driver, stream)?;
    }

    fn cuStreamGetPriority / cuStreamGetPriority_ptsz(null; stream: Handle, out: Out<i32>) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        out.set(find(&driver.streams, "stream", stream)?.priority)?;
    }

    fn cuStreamGetFlags / cuStreamGetFlags_ptsz(null; stream: Handle, out: Out<u32>) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        out.set(find(&driver.streams, "stream", stream)?.flags)?;
    }

    fn cuStreamGetId / cuStreamGetId_ptsz(null; stream: Handle, out: Out<u64>) {
        let mut driver = driver::lock()?;
        out.set(driver.stream(stream, null)?)?;
    }

    fn cuStreamGetDevice / cuStreamGetDevice_ptsz(null; stream: Handle, out: Out<Device>) {
        driver::lock()?.stream(stream, null)?;
        out.set(0)?;
    }

    fn cuStreamGetCtx / cuStreamGetCtx_ptsz(null; stream: Handle, out: Out<Handle>) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        out.set(find(&driver.streams, "stream", stream)?.context)?;
    }

    fn cuStreamGetCtx_v2 / cuStreamGetCtx_v2_ptsz(null; stream: Handle, out: Out<Handle>, green: Out<Handle>) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        out.set(find(&driver.streams, "stream", stream)?.context)?;
        green.set_if_wanted(0);
    }

    fn cuLaunchHostFunc / cuLaunchHostFunc_ptsz(null; stream: Handle, function: HostFunction, data: UserData) {
        let mut driver = driver::lock()?;
        let stream = driver.stream(stream, null)?;
        ensure!(!function.is_null(), CUDA_ERROR_INVALID_VALUE, "a null pointer for the function");
        enqueue(driver, stream, Work::Host(function, data)).map(drop)?;
    }

    fn cuStreamAddCallback / cuStreamAddCallback_ptsz(
        null; stream: Handle, function: StreamCallback, data: UserData, flags: u32
    ) {
        let mut driver = driver::lock()?;
        let named = driver.stream(stream, null)?;
        ensure!(!function.is_null() && flags == 0, CUDA_ERROR_INVALID_VALUE, "no function, or flags {flags:#x}");
        let captured = find(&driver.streams, "stream", named)?.branch.is_some();
        ensure!(!captured, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "callbacks cannot be captured");
        enqueue(driver, named, Work::Callback(function, stream, data)).map(drop)?;
    }
}
