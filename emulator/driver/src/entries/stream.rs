//! Streams, and the order of their operations.

use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_READY, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED,
};

use crate::boundary::{Device, Handle, HostFunction, NullStream, Out, StreamCallback, UserData};
use crate::driver::{self, Driver, Guard, find, find_mut};
use crate::error::{Because, Result, ensure};
use crate::executor;
use crate::export::exports;
use crate::handle::{Kind, new_handle};
use crate::object::stream::{Stream, StreamKind};
use crate::work::Work;

/// Lowest and highest priority. Priorities have no effect on the order of execution.
pub const PRIORITIES: (i32, i32) = (0, -5);
const NON_BLOCKING: u32 = 1;
const LEGACY: Handle = 1;
const PER_THREAD: Handle = 2;

impl Driver {
    /// The stream that a stream argument stands for.
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

    /// The operations that must end before new work of a stream may start.
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

    /// The operations that a wait for a stream waits for. For the default stream they include those of all blocking streams.
    fn work_of(&self, handle: Handle) -> Result<Vec<u64>> {
        let stream = find(&self.streams, "stream", handle)?;
        if stream.is_legacy() { self.needs(handle) } else { Ok(stream.own().collect()) }
    }

    /// Queues an operation at the end of a stream, or adds it to the graph if the stream is being captured. Returns the id of
    /// a queued operation.
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

    /// [`Driver::needs`], and the check that work may be queued.
    pub fn needs_of_work(&mut self, handle: Handle) -> Result<Vec<u64>> {
        self.refuse_implicit_capture(handle)?;
        self.needs(handle)
    }

    /// Makes an operation the last one of its stream.
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

    /// Removes a stream. Its pending operations remain queued.
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

/// Queues an operation, and executes the oldest ones if too many are pending.
pub fn enqueue(mut driver: Guard, stream: Handle, work: Work) -> Result<(Guard, Option<u64>)> {
    let id = driver.submit(stream, work)?;
    Ok((executor::relieve(driver), id))
}

/// Waits for the operations of a stream.
pub fn synchronize(mut driver: Guard, stream: Handle) -> Result<Guard> {
    driver.refuse_captured_stream(stream)?;
    let context = find(&driver.streams, "stream", stream)?.context;
    let work = driver.work_of(stream)?;
    let driver = executor::finish(driver, &work);
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
    executor::advance(driver, &work).healthy(context)?;
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
        green.set_optional(0);
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
        ensure!(!function.is_null() && flags == 0, CUDA_ERROR_INVALID_VALUE, "the function is null, or the flags {flags:#x} are not 0");
        let captured = find(&driver.streams, "stream", named)?.branch.is_some();
        ensure!(!captured, CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "callbacks cannot be captured");
        enqueue(driver, named, Work::Callback(function, stream, data)).map(drop)?;
    }
}
