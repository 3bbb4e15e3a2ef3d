//! Host-to-device transfers that overlap with kernels, through page-locked memory.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use cudarc::driver::sys::CU_MEMHOSTALLOC_WRITECOMBINED;
use cudarc::driver::{CudaEvent, CudaStream, result};

use super::capture::RelaxedCaptureMode;
use super::event::{self, Event};
use super::latch::QueryError;
use super::memory::Allocation;
use super::stream::Stream;
use crate::cuda::launch::device_ptr::DevPtr;
use crate::error::Result;

/// A stream for copies, and the page-locked buffers of the copies in flight.
pub(super) struct Transfers {
    copies: Arc<CudaStream>,
    /// In the order of their copies, the oldest first.
    buffers: Mutex<Vec<PinnedBuffer>>,
}

/// A page-locked host buffer, and the last copy out of it.
struct PinnedBuffer {
    /// Owned by the driver and freed when the buffer is dropped; taken out where it must outlive the buffer. `None` if the
    /// host had no page-locked memory left: the copy then reads the caller's memory, and has read it when the call returns.
    bytes: Option<&'static mut [u8]>,
    /// Recorded behind the copy.
    end: CudaEvent,
    /// The allocation that the copy writes, kept alive until the copy has ended.
    destination: Option<Arc<Allocation>>,
}

impl PinnedBuffer {
    fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len())
    }

    /// Waits for the last copy and returns whether it ended before the timeout.
    fn wait(&self, start: Instant, timeout: Duration) -> bool {
        let _mode = RelaxedCaptureMode::enter(self.end.context());
        loop {
            match self.end.try_is_complete() {
                Ok(false) if start.elapsed() < timeout => std::thread::sleep(Duration::from_micros(200)),
                answer => return answer.is_ok_and(|ended| ended),
            }
        }
    }

    /// Allocates a page-locked buffer of `len` bytes.
    fn new(stream: &Stream, len: usize) -> Result<Self> {
        let end = event::create(stream)?;
        // SAFETY: the driver's allocation has this length, and only the new buffer refers to it.
        #[allow(unsafe_code)]
        let bytes = unsafe {
            result::malloc_host(len.max(1), CU_MEMHOSTALLOC_WRITECOMBINED)
                .map(|start| std::slice::from_raw_parts_mut(start.cast::<u8>(), len.max(1)))
        };
        let context = format_args!("allocating {len} bytes of page-locked memory");
        let bytes = match stream.latch.check_query(&context, bytes) {
            Ok(bytes) => Some(bytes),
            Err(QueryError::Recoverable(_)) => None,
            Err(QueryError::Fatal(error)) => return Err(error),
        };
        Ok(PinnedBuffer { bytes, end, destination: None })
    }
}

impl Drop for PinnedBuffer {
    fn drop(&mut self) {
        let Some(bytes) = self.bytes.take() else { return };
        let context = self.end.context();
        context.record_err(context.bind_to_thread());
        let _mode = RelaxedCaptureMode::enter(context);
        // SAFETY: allocated by `PinnedBuffer::new`. No copy reads it any more, or `Transfers::finish` would have taken it
        // out.
        #[allow(unsafe_code)]
        context.record_err(unsafe { result::free_host(bytes.as_mut_ptr().cast()) });
    }
}

impl Transfers {
    pub fn new(copies: Arc<CudaStream>) -> Self {
        Transfers { copies, buffers: Mutex::default() }
    }

    /// Waits for all copies, so that their buffers can be freed. If the device is poisoned, no event tells when its copies
    /// end, and the buffers live until the context is destroyed.
    pub fn finish(&mut self, is_poisoned: bool, timeout: Duration) {
        let start = Instant::now();
        let buffers = self.buffers.get_mut().unwrap_or_else(PoisonError::into_inner);
        for mut buffer in buffers.drain(..) {
            if is_poisoned || !buffer.wait(start, timeout) {
                buffer.bytes = None;
            }
        }
    }

    /// Copies `src` to `dst`, an address in `destination`, concurrently with the kernels: the copy waits for `after` only.
    /// Returns an event that is recorded behind the copy. `src` may be changed on return.
    pub fn copy_h2d_async(
        &self,
        stream: &Stream,
        src: &[u8],
        dst: DevPtr<u8>,
        destination: &Arc<Allocation>,
        after: &Event,
    ) -> Result<Event> {
        stream.latch.ensure_usable()?;
        let after = after.of(stream)?;
        let context = format!("copying {} bytes to the device", src.len());
        let end = event::create(stream)?;
        let mut buffer = self.buffer(stream, src.len())?;
        let from = match buffer.bytes.as_deref_mut() {
            Some(bytes) => {
                bytes[..src.len()].copy_from_slice(src);
                &bytes[..src.len()]
            }
            None => src,
        };
        stream.latch.check_enqueue(&context, self.copies.wait(after))?;
        // SAFETY: buffer and destination are kept until the copy has ended.
        #[allow(unsafe_code)]
        let copied = unsafe { result::memcpy_htod_async(dst.address(), from, self.copies.cu_stream()) };
        buffer.destination = Some(destination.clone());
        let recorded = copied.and_then(|()| buffer.end.record(&self.copies)).and_then(|()| end.record(&self.copies));
        self.buffers.lock().unwrap_or_else(PoisonError::into_inner).push(buffer);
        stream.latch.check_enqueue(&context, recorded)?;
        Ok(Event::recorded(end, stream))
    }

    /// Returns a buffer of at least `len` bytes whose last copy has ended.
    fn buffer(&self, stream: &Stream, len: usize) -> Result<PinnedBuffer> {
        let _mode = RelaxedCaptureMode::enter(stream.context());
        let enqueue = |outcome| stream.latch.check_enqueue(&"preparing a copy to the device", outcome);
        stream.latch.check_enqueue(&"preparing a copy to the device", stream.context().bind_to_thread())?;
        let mut buffers = self.buffers.lock().unwrap_or_else(PoisonError::into_inner);
        // Copies end in order, so the search stops at the first that is in flight.
        for index in 0..buffers.len() {
            if !enqueue(buffers[index].end.try_is_complete())? {
                break;
            }
            buffers[index].destination = None;
            if buffers[index].len() >= len {
                return Ok(buffers.remove(index));
            }
        }
        buffers.retain(|buffer| buffer.bytes.is_some() || buffer.destination.is_some());
        drop(buffers);
        PinnedBuffer::new(stream, len)
    }
}
