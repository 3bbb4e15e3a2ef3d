//! Events: points in the order of a device's work.

use cudarc::driver::CudaEvent;

use super::latch::QueryError;
use super::stream::{Stream, StreamId};
use crate::{Error, Result};

/// A point in the order of a device's work. It works with the device that recorded it only.
#[derive(Debug)]
pub struct Event {
    event: CudaEvent,
    stream: StreamId,
}

/// Creates an event that is not recorded yet.
pub(super) fn create(stream: &Stream) -> Result<CudaEvent> {
    let event = stream.latch.check_query(&"creating an event", stream.context().new_event(None));
    event.map_err(|error| match error {
        QueryError::Recoverable(fault) => Error::Unavailable(format!("cannot create an event: {fault}")),
        QueryError::Fatal(error) => error,
    })
}

impl Event {
    /// An event that `event` has been recorded as, for the device of `stream`.
    pub(super) fn recorded(event: CudaEvent, stream: &Stream) -> Self {
        Event { event, stream: stream.id }
    }

    /// Records an event behind all work enqueued so far.
    pub(super) fn record(stream: &Stream) -> Result<Self> {
        stream.ensure_ready()?;
        let event = create(stream)?;
        stream.latch.check_enqueue(&"recording an event", event.record(stream.compute()))?;
        Ok(Event::recorded(event, stream))
    }

    /// Makes all work enqueued from now on wait for the event.
    pub(super) fn wait(&self, stream: &Stream) -> Result<()> {
        stream.ensure_ready()?;
        stream.latch.check_enqueue(&"enqueuing a wait for an event", stream.compute().wait(self.of(stream)?))
    }

    /// The driver's event, if `stream`'s device recorded it.
    pub(super) fn of(&self, stream: &Stream) -> Result<&CudaEvent> {
        if self.stream == stream.id {
            return Ok(&self.event);
        }
        Err(Error::invalid("an event can only be used with the device that recorded it"))
    }
}
