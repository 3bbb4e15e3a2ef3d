//! Events.
//!
//! The time of an event is the number of operations that have been executed. It increases, but it is not a measurement.

use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_CAPTURED_EVENT, CUDA_ERROR_INVALID_HANDLE, CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_READY,
    CUDA_ERROR_NOT_SUPPORTED,
};

use super::stream::enqueue;
use crate::boundary::{Handle, NullStream, Out};
use crate::driver::{self, Driver, Guard, find, find_mut};
use crate::error::{Because, Result, ensure};
use crate::executor;
use crate::export::exports;
use crate::handle::{Kind, new_handle};
use crate::object::event::{Event, Recorded};
use crate::work::Work;

const NO_TIMING: u32 = 2;
const INTERPROCESS: u32 = 4;
const EXTERNAL: u32 = 1;

impl Driver {
    /// Sets the time of an event whose recording was executed, unless it has been recorded again since.
    pub fn event_happened(&mut self, handle: Handle, operation: u64) {
        let now = self.queue.now();
        if let Some(event) = self.events.get_mut(&handle)
            && event.recorded == Recorded::At(operation)
        {
            event.time = Some(now);
        }
    }

    /// An event that the host queries, waits for or reads the time of.
    ///
    /// # Errors
    /// The event was recorded in a captured stream.
    fn event_of_host(&self, handle: Handle) -> Result<&Event> {
        let event = find(&self.events, "event", handle)?;
        self.healthy(event.context)?;
        let captured = matches!(event.recorded, Recorded::Captured { .. });
        ensure!(!captured, CUDA_ERROR_CAPTURED_EVENT, "the event was last recorded in a captured stream");
        Ok(event)
    }

    /// Sets the recording of an event to an operation that was just queued.
    pub fn event_recorded(&mut self, handle: Handle, operation: u64) -> Result<()> {
        let event = find_mut(&mut self.events, "event", handle)?;
        event.recorded = Recorded::At(operation);
        event.time = None;
        Ok(())
    }
}

fn record(mut driver: Guard, event: Handle, stream: Handle, null: NullStream, flags: u32) -> Result<()> {
    let stream = driver.stream(stream, null)?;
    ensure!(flags & !EXTERNAL == 0, CUDA_ERROR_INVALID_VALUE, "record flags {flags:#x} are unknown");
    let context = find(&driver.events, "event", event)?.context;
    let owner = find(&driver.streams, "stream", stream)?;
    ensure!(context == owner.context, CUDA_ERROR_INVALID_HANDLE, "event and stream belong to different contexts");
    if let Some(branch) = owner.branch.as_ref().filter(|_| flags & EXTERNAL == 0) {
        let (capture, heads) = (branch.capture, branch.heads.clone());
        driver.valid_capture(capture)?;
        find_mut(&mut driver.events, "event", event)?.recorded = Recorded::Captured { capture, heads };
        return Ok(());
    }
    let (mut driver, operation) = enqueue(driver, stream, Work::Event(event))?;
    match operation {
        Some(operation) => driver.event_recorded(event, operation),
        None => Ok(()),
    }
}

/// Makes the stream's next operation wait for the current recording of the event.
fn wait(mut driver: Guard, stream: Handle, null: NullStream, event: Handle, flags: u32) -> Result<()> {
    let stream = driver.stream(stream, null)?;
    ensure!(flags & !EXTERNAL == 0, CUDA_ERROR_INVALID_VALUE, "wait flags {flags:#x} are unknown");
    let captured = find(&driver.streams, "stream", stream)?.branch.is_some();
    if captured && flags & EXTERNAL != 0 {
        return driver.submit(stream, Work::Await(event)).map(drop);
    }
    match find(&driver.events, "event", event)?.recorded.clone() {
        Recorded::Captured { capture, heads } => driver.join_capture(stream, capture, &heads),
        _ if captured => driver.refuse_uncaptured(stream),
        Recorded::At(operation) => {
            find_mut(&mut driver.streams, "stream", stream)?.waits.push(operation);
            Ok(())
        }
        Recorded::Never => Ok(()),
    }
}

fn synchronize(mut driver: Guard, event: Handle) -> Result<()> {
    let Event { context, recorded, .. } = driver.event_of_host(event)?;
    let context = *context;
    let Recorded::At(operation) = *recorded else {
        return Ok(());
    };
    driver.refuse_unsafe()?;
    executor::finish(driver, &[operation]).healthy(context).map(drop)
}

fn query(mut driver: Guard, event: Handle) -> Result<()> {
    let Event { context, recorded, .. } = driver.event_of_host(event)?;
    let context = *context;
    let Recorded::At(operation) = *recorded else {
        return Ok(());
    };
    driver.refuse_unsafe()?;
    if !driver.queue.is_pending(operation) {
        return Ok(());
    }
    executor::advance(driver, &[operation]).healthy(context)?;
    Err(CUDA_ERROR_NOT_READY.because("the event is pending"))
}

/// The nominal milliseconds between two events: thousandths of the number of operations.
fn elapsed(start: Handle, end: Handle) -> Result<f32> {
    let driver = driver::lock()?;
    let (start, end) = (driver.event_of_host(start)?, driver.event_of_host(end)?);
    for event in [start, end] {
        let timed = event.flags & NO_TIMING == 0 && event.recorded != Recorded::Never;
        ensure!(timed, CUDA_ERROR_INVALID_HANDLE, "an event has timing disabled or was never recorded");
    }
    match (start.time, end.time) {
        (Some(start), Some(end)) => Ok((end as f32 - start as f32) * 1e-3),
        _ => Err(CUDA_ERROR_NOT_READY.because("an event is pending")),
    }
}

exports! {
    fn cuEventCreate(out: Out<Handle>, flags: u32) {
        let mut driver = driver::lock()?;
        let context = driver.current()?;
        ensure!(flags & !7 == 0, CUDA_ERROR_INVALID_VALUE, "event flags {flags:#x} are unknown");
        ensure!(flags & INTERPROCESS == 0, CUDA_ERROR_NOT_SUPPORTED, "events between processes are not emulated");
        let handle = new_handle(Kind::Event);
        out.set(handle)?;
        driver.events.insert(handle, Event { context, flags, recorded: Recorded::Never, time: None });
    }

    fn cuEventDestroy = cuEventDestroy_v2(event: Handle) {
        let mut driver = driver::lock()?;
        let context = find(&driver.events, "event", event)?.context;
        driver.healthy(context)?;
        driver.events.remove(&event);
    }

    fn cuEventRecord / cuEventRecord_ptsz(null; event: Handle, stream: Handle) {
        record(driver::lock()?, event, stream, null, 0)?;
    }

    fn cuEventRecordWithFlags / cuEventRecordWithFlags_ptsz(null; event: Handle, stream: Handle, flags: u32) {
        record(driver::lock()?, event, stream, null, flags)?;
    }

    fn cuStreamWaitEvent / cuStreamWaitEvent_ptsz(null; stream: Handle, event: Handle, flags: u32) {
        wait(driver::lock()?, stream, null, event, flags)?;
    }

    fn cuEventSynchronize(event: Handle) {
        synchronize(driver::lock()?, event)?;
    }

    fn cuEventQuery(event: Handle) {
        query(driver::lock()?, event)?;
    }

    fn cuEventElapsedTime = cuEventElapsedTime_v2(out: Out<f32>, start: Handle, end: Handle) {
        out.set(elapsed(start, end)?)?;
    }
}
