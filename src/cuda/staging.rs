//! Copies to the device that run beside its kernels, by way of page-locked memory.

use std::sync::{Arc, Mutex, PoisonError};

use cudarc::driver::{CudaEvent, CudaStream, PinnedHostSlice, result};

use super::device::{Device, Refusal};
use super::memory::Allocation;
use crate::error::{Error, Result};

/// A point in the order of what the device does.
#[derive(Debug)]
pub struct Mark(CudaEvent);

/// A stream for copies, and page-locked memory for what is under way in it.
pub(super) struct Staging {
    stream: Arc<CudaStream>,
    pieces: Mutex<Vec<Piece>>,
}

/// Page-locked memory, and the last copy out of it.
struct Piece {
    bytes: PinnedHostSlice<u8>,
    end: CudaEvent,
    /// Kept until the copy has ended.
    destination: Option<Arc<Allocation>>,
}

impl Staging {
    pub fn new(stream: Arc<CudaStream>) -> Self {
        Staging { stream, pieces: Mutex::default() }
    }

    /// Before the memory is given back: what is under way reads it. Where the device is lost, nobody can tell when that
    /// ends, and the memory stays.
    pub fn finish(&mut self, is_lost: bool) {
        let pieces = std::mem::take(self.pieces.get_mut().unwrap_or_else(PoisonError::into_inner));
        if is_lost || (!pieces.is_empty() && self.stream.synchronize().is_err()) {
            pieces.into_iter().for_each(|piece| std::mem::forget(piece.bytes));
        }
    }
}

impl Device {
    fn event(&self) -> Result<CudaEvent> {
        self.answer("an event", self.asked(&"making an event", self.stream().context().new_event(None)))
    }

    /// What was asked for, or why it cannot be had.
    fn answer<T>(&self, what: &str, outcome: Result<T, Refusal>) -> Result<T> {
        outcome.map_err(|refusal| match refusal {
            Refusal::Harmless(fault) => Error::Unavailable(format!("{what} cannot be had: {fault}")),
            Refusal::Lost(error) => error,
        })
    }

    /// Everything that was queued up to now.
    pub(super) fn mark(&self) -> Result<Mark> {
        self.usable()?;
        let event = self.event()?;
        self.queued(&"a mark in the queue", event.record(self.stream()))?;
        Ok(Mark(event))
    }

    /// What is queued from now on comes after the mark.
    pub(super) fn wait_for(&self, Mark(event): &Mark) -> Result<()> {
        self.usable()?;
        self.queued(&"waiting for a mark", self.stream().wait(event))
    }

    /// Copies to `address` in a live allocation once the mark is passed, beside what is queued meanwhile.
    pub(super) fn copy_beside(
        &self,
        src: &[u8],
        (address, destination): (u64, &Arc<Allocation>),
        Mark(after): &Mark,
    ) -> Result<Mark> {
        self.usable()?;
        let Staging { stream, pieces } = self.staging();
        let what = format!("copying {} bytes to the device", src.len());
        let mut piece = self.piece(src.len())?;
        let bytes = self.queued(&what, piece.bytes.as_mut_slice())?;
        bytes[..src.len()].copy_from_slice(src);
        self.queued(&what, stream.wait(after))?;
        let end = self.event()?;
        // SAFETY: the piece and the destination are kept until the copy has ended.
        #[allow(unsafe_code)]
        let copied = unsafe { result::memcpy_htod_async(address, &bytes[..src.len()], stream.cu_stream()) };
        piece.destination = Some(destination.clone());
        let recorded = copied.and_then(|()| piece.end.record(stream)).and_then(|()| end.record(stream));
        pieces.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
        self.queued(&what, recorded)?;
        Ok(Mark(end))
    }

    /// Page-locked memory of at least so many bytes that no copy reads any more.
    fn piece(&self, len: usize) -> Result<Piece> {
        let mut pieces = self.staging().pieces.lock().unwrap_or_else(PoisonError::into_inner);
        let mut free = None;
        for (index, piece) in pieces.iter_mut().enumerate() {
            if self.queued(&"a copy to the device", piece.end.try_is_complete())? {
                piece.destination = None;
                if piece.bytes.len() >= len {
                    free = Some(index);
                }
            }
        }
        if let Some(index) = free {
            return Ok(pieces.swap_remove(index));
        }
        drop(pieces);
        let what = format!("{len} bytes of page-locked memory");
        // SAFETY: written before it is read.
        #[allow(unsafe_code)]
        let bytes = unsafe { self.stream().context().alloc_pinned::<u8>(len.max(1)) };
        let bytes = self.answer(&what, self.asked(&format_args!("allocating {what}"), bytes))?;
        Ok(Piece { bytes, end: self.event()?, destination: None })
    }
}
