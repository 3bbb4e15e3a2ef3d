//! Copies to the device that run beside its kernels, by way of page-locked memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cudarc::driver::sys::CU_MEMHOSTALLOC_WRITECOMBINED;
use cudarc::driver::{CudaEvent, CudaStream, result};

use super::device::{Device, Refusal};
use super::graph::Recorder;
use super::memory::Allocation;
use crate::error::{Error, Result};

/// A point in the order of what a device does.
#[derive(Debug)]
pub struct Event {
    event: CudaEvent,
    /// Whose it is.
    device: Arc<Recorder>,
}

/// A stream for copies, and page-locked memory for what is under way in it.
pub(in crate::cuda) struct Staging {
    stream: Arc<CudaStream>,
    pieces: Mutex<Vec<Piece>>,
}

/// Page-locked memory, and the last copy out of it.
struct Piece {
    /// The driver's, given back when the piece is dropped; taken out where it must stay. None where there was none to be had:
    /// the copy then is out of the caller's memory, which the driver has read when the call returns.
    bytes: Option<&'static mut [u8]>,
    end: CudaEvent,
    /// Kept until the copy has ended.
    destination: Option<Arc<Allocation>>,
}

impl Piece {
    fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len())
    }

    fn has_ended(&self, start: Instant, timeout: Duration) -> bool {
        loop {
            match self.end.try_is_complete() {
                Ok(false) if start.elapsed() < timeout => std::thread::sleep(Duration::from_micros(200)),
                answer => return answer.is_ok_and(|ended| ended),
            }
        }
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let Some(bytes) = self.bytes.take() else { return };
        let context = self.end.context();
        context.record_err(context.bind_to_thread());
        // SAFETY: allocated by `Device::piece`; no copy reads it, or `Staging::finish` would have taken it out.
        #[allow(unsafe_code)]
        context.record_err(unsafe { result::free_host(bytes.as_mut_ptr().cast()) });
    }
}

impl Staging {
    pub fn new(stream: Arc<CudaStream>) -> Self {
        Staging { stream, pieces: Mutex::default() }
    }

    /// Before the memory is given back: what is under way reads it. Where the device is lost, nobody can tell when that
    /// ends, and the memory stays until the context is gone.
    pub fn finish(&mut self, is_lost: bool, timeout: Duration) {
        let start = Instant::now();
        let pieces = self.pieces.get_mut().unwrap_or_else(PoisonError::into_inner);
        for mut piece in pieces.drain(..) {
            if is_lost || !piece.has_ended(start, timeout) {
                piece.bytes = None;
            }
        }
    }
}

impl Device {
    fn event(&self) -> Result<CudaEvent> {
        let event = self.asked(&"making an event", self.stream().context().new_event(None));
        event.map_err(|refusal| match refusal {
            Refusal::Harmless(fault) => Error::Unavailable(format!("no event can be had: {fault}")),
            Refusal::Lost(error) => error,
        })
    }

    /// Everything that was queued up to now.
    pub(in crate::cuda) fn record_event(&self) -> Result<Event> {
        self.usable()?;
        self.not_recording()?;
        let event = self.event()?;
        self.queued(&"a mark in the queue", event.record(self.stream()))?;
        Ok(Event { event, device: self.recorder().clone() })
    }

    /// The event of a mark, which must be this device's.
    fn own<'a>(&self, Event { event, device }: &'a Event) -> Result<&'a CudaEvent> {
        if Arc::ptr_eq(device, self.recorder()) {
            return Ok(event);
        }
        Err(Error::invalid("a mark orders the work of the device that made it, and no other's"))
    }

    /// What is queued from now on comes after the mark.
    pub(in crate::cuda) fn wait_event(&self, mark: &Event) -> Result<()> {
        self.usable()?;
        self.not_recording()?;
        self.queued(&"waiting for a mark", self.stream().wait(self.own(mark)?))
    }

    /// Copies to `address` in a live allocation once the mark is passed, beside what is queued meanwhile.
    pub(in crate::cuda) fn copy_beside(
        &self,
        src: &[u8],
        (address, destination): (u64, &Arc<Allocation>),
        after: &Event,
    ) -> Result<Event> {
        self.usable()?;
        let after = self.own(after)?;
        let Staging { stream, pieces } = self.staging();
        let what = format!("copying {} bytes to the device", src.len());
        let end = self.event()?;
        let mut piece = self.piece(src.len())?;
        let from = match piece.bytes.as_deref_mut() {
            Some(bytes) => {
                bytes[..src.len()].copy_from_slice(src);
                &bytes[..src.len()]
            }
            None => src,
        };
        self.queued(&what, stream.wait(after))?;
        // SAFETY: the piece and the destination are kept until the copy has ended.
        #[allow(unsafe_code)]
        let copied = unsafe { result::memcpy_htod_async(address, from, stream.cu_stream()) };
        piece.destination = Some(destination.clone());
        let recorded = copied.and_then(|()| piece.end.record(stream)).and_then(|()| end.record(stream));
        pieces.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
        self.queued(&what, recorded)?;
        Ok(Event { event: end, device: self.recorder().clone() })
    }

    /// Page-locked memory of at least so many bytes that no copy reads any more, or none if the host has no more of it.
    fn piece(&self, len: usize) -> Result<Piece> {
        let context = self.stream().context();
        self.queued(&"a copy to the device", context.bind_to_thread())?;
        let mut pieces = self.staging().pieces.lock().unwrap_or_else(PoisonError::into_inner);
        // From the oldest on, which are the first to end.
        for index in 0..pieces.len() {
            if !self.queued(&"a copy to the device", pieces[index].end.try_is_complete())? {
                break;
            }
            pieces[index].destination = None;
            if pieces[index].len() >= len {
                return Ok(pieces.remove(index));
            }
        }
        pieces.retain(|piece| piece.bytes.is_some() || piece.destination.is_some());
        drop(pieces);
        let what = format!("{len} bytes of page-locked memory");
        let end = self.event()?;
        // SAFETY: of the driver's, and of this length; the piece alone has it.
        #[allow(unsafe_code)]
        let bytes = unsafe {
            result::malloc_host(len.max(1), CU_MEMHOSTALLOC_WRITECOMBINED)
                .map(|start| std::slice::from_raw_parts_mut(start.cast::<u8>(), len.max(1)))
        };
        let bytes = match self.asked(&format_args!("allocating {what}"), bytes) {
            Ok(bytes) => Some(bytes),
            Err(Refusal::Harmless(_)) => None,
            Err(Refusal::Lost(error)) => return Err(error),
        };
        Ok(Piece { bytes, end, destination: None })
    }
}
