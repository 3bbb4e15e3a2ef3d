//! Tensors in device memory: buffers, copies to and from the host, and the pointers that kernels take.

use std::marker::PhantomData;
use std::sync::Arc;

use cudarc::driver::result;
use half::bf16;

use super::capture;
use super::device::{Cuda, Device};
use super::event::Event;
use super::memory::Allocation;
use crate::cuda::launch::device_ptr::DevPtr;
use crate::error::{Error, Result};
use crate::memory::Category;
use crate::tensor::{Element, Memory, Shape, Storage, Tensor, View, ViewMut};

/// The memory of a tensor.
#[derive(Debug)]
pub struct Buffer<E> {
    pub(super) allocation: Arc<Allocation>,
    len: usize,
    element: PhantomData<E>,
}

impl<E: Element> Buffer<E> {
    fn new(device: &Device, len: usize) -> Result<Self> {
        let (accounting, bytes) = (&device.accounting, len.saturating_mul(E::BYTES));
        let allocation = Allocation::new(&device.stream, accounting, bytes, accounting.current())?;
        Ok(Buffer { allocation, len, element: PhantomData })
    }
}

/// Exclusive access to a contiguous part of a buffer, or of memory of another owner.
#[derive(Debug)]
pub struct SliceMut<'a, E> {
    /// `None` for memory of another owner.
    allocation: Option<&'a Arc<Allocation>>,
    ptr: DevPtr<E>,
    len: usize,
    exclusive: PhantomData<&'a mut [E]>,
}

impl<E> SliceMut<'_, E> {
    /// Exclusive access to `len` elements of memory of another owner.
    pub(super) fn external(ptr: DevPtr<E>, len: usize) -> Self {
        SliceMut { allocation: None, ptr, len, exclusive: PhantomData }
    }

    /// Pointer to the first element.
    pub(super) fn ptr(&self) -> DevPtr<E> {
        self.ptr
    }
}

impl Storage for Cuda {
    type Compute = bf16;
    type Accum = f32;
    const VECTOR: usize = 8;
    type Buffer<E: Element> = Buffer<E>;
    type SliceMut<'a, E: Element> = SliceMut<'a, E>;
    type External = DevPtr<u8>;

    fn account_to(&self, category: Category) {
        self.device().accounting.set_current(category);
    }

    fn zeros<E: Element>(&self, len: usize) -> Result<Buffer<E>> {
        let mut buffer = Buffer::new(self.device(), len)?;
        self.clear(&mut buffer)?;
        Ok(buffer)
    }

    fn adopt<E: Element>(&self, data: Vec<E>) -> Result<Buffer<E>> {
        let buffer = Buffer::new(self.device(), data.len())?;
        self.copy_h2d(&data, buffer.allocation.ptr().cast())?;
        Ok(buffer)
    }

    fn slice_mut<E: Element>(buffer: &mut Buffer<E>) -> SliceMut<'_, E> {
        let ptr = buffer.allocation.ptr().cast();
        SliceMut { allocation: Some(&buffer.allocation), ptr, len: buffer.len, exclusive: PhantomData }
    }

    fn split_at_mut<'a, E: Element>(
        slice: Self::SliceMut<'a, E>,
        mid: usize,
    ) -> (Self::SliceMut<'a, E>, Self::SliceMut<'a, E>) {
        assert!(mid <= slice.len, "{mid} is past the end of {} elements", slice.len);
        let SliceMut { allocation, ptr, len, .. } = slice;
        let part = |ptr, len| SliceMut { allocation, ptr, len, exclusive: PhantomData };
        (part(ptr, mid), part(ptr.offset(mid), len - mid))
    }

    fn reborrow<'b, E: Element>(slice: &'b mut SliceMut<'_, E>) -> SliceMut<'b, E> {
        let SliceMut { allocation, ptr, len, .. } = *slice;
        SliceMut { allocation, ptr, len, exclusive: PhantomData }
    }

    fn upload<E: Element>(&self, src: &[E], dst: ViewMut<'_, Self, E>) -> Result<()> {
        assert_eq!(src.len(), dst.shape().len(), "elements for {}", dst.shape());
        self.copy_h2d(src, dst.into_slice().ptr())
    }

    fn download<E: Element>(&self, src: View<'_, Self, E>, dst: &mut [E]) -> Result<()> {
        assert_eq!(src.shape().len(), dst.len(), "room for {}", src.shape());
        let stream = &self.device().stream;
        stream.ensure_not_capturing()?;
        // This wait has a timeout; the copy itself would wait forever for a kernel that hangs.
        stream.synchronize()?;
        if dst.is_empty() {
            return Ok(());
        }
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(dst);
        let context = format!("copying {} bytes from the device", bytes.len());
        stream.latch.check_enqueue(&context, stream.context().bind_to_thread())?;
        // SAFETY: the view lies in a live buffer and is as long as `dst`. The copy has ended when this function returns: a
        // copy to pageable memory is synchronous, and the stream is waited for in addition.
        #[allow(unsafe_code)]
        let copied = unsafe { result::memcpy_dtoh_async(bytes, src.ptr().address(), stream.compute().cu_stream()) };
        stream.latch.check_enqueue(&context, copied)?;
        stream.synchronize()
    }

    type Event = Event;

    fn record_event(&self) -> Result<Event> {
        Event::record(&self.device().stream)
    }

    fn upload_async<E: Element>(&self, after: &Event, src: &[E], dst: ViewMut<'_, Self, E>) -> Result<Event> {
        assert_eq!(src.len(), dst.shape().len(), "elements for {}", dst.shape());
        let Device { stream, transfers, .. } = self.device();
        stream.ensure_not_capturing()?;
        let dst = dst.into_slice();
        let Some(allocation) = dst.allocation else {
            return Err(Error::invalid(
                "an asynchronous upload keeps its destination alive, which is not possible for memory of another owner",
            ));
        };
        transfers.copy_h2d_async(stream, bytemuck::cast_slice(src), dst.ptr.cast(), allocation, after)
    }

    fn wait_event(&self, event: &Event) -> Result<()> {
        event.wait(&self.device().stream)
    }
}

impl Cuda {
    /// A tensor with unspecified content, for memory that is overwritten before it is read, or used only in part. On a GPU
    /// it holds what the memory held before; the emulated GPU reports a read of it.
    ///
    /// # Errors
    /// If allocation fails.
    pub fn uninitialised<E: Element>(&self, shape: impl Into<Shape>) -> Result<Tensor<Cuda, E>> {
        let shape = shape.into();
        let buffer = Buffer::new(self.device(), shape.len())?;
        let len = buffer.len;
        Ok(Tensor::from_buffer(buffer, len, shape))
    }

    /// Fills a buffer with zeros.
    pub(super) fn clear<E: Element>(&self, buffer: &mut Buffer<E>) -> Result<()> {
        let stream = &self.device().stream;
        stream.ensure_ready()?;
        let (dst, bytes) = (buffer.allocation.ptr().address(), buffer.allocation.len());
        let context = format!("clearing {bytes} bytes");
        stream.latch.check_enqueue(&context, stream.context().bind_to_thread())?;
        // SAFETY: the range is the whole of a live allocation, to which the caller has exclusive access.
        #[allow(unsafe_code)]
        let cleared = unsafe { result::memset_d8_async(dst, 0, bytes, stream.compute().cu_stream()) };
        stream.latch.check_enqueue(&context, cleared)
    }

    /// Copies to a live buffer that has room for `src` at `dst`, in the order of the stream.
    fn copy_h2d<E: Element>(&self, src: &[E], dst: DevPtr<E>) -> Result<()> {
        let stream = &self.device().stream;
        stream.ensure_ready()?;
        if src.is_empty() {
            return Ok(());
        }
        let bytes: &[u8] = bytemuck::cast_slice(src);
        let context = format!("copying {} bytes to the device", bytes.len());
        stream.latch.check_enqueue(&context, stream.context().bind_to_thread())?;
        // SAFETY: callers pass a pointer to `src.len()` elements of a live buffer. The driver has read pageable memory when
        // the call returns.
        #[allow(unsafe_code)]
        let copied = unsafe { result::memcpy_htod_async(dst.address(), bytes, stream.compute().cu_stream()) };
        stream.latch.check_enqueue(&context, copied)
    }
}

/// An operand of a kernel: a view of a tensor on the device.
pub(crate) trait Operand: Sized {
    /// Type of its elements.
    type Element;

    /// Pointer to the first element. It is valid as long as the operand is borrowed, and for all kernels enqueued by then.
    fn ptr(self) -> DevPtr<Self::Element>;

    /// The pointer, which must be aligned to 16 bytes: for kernels that use vector accesses.
    ///
    /// # Errors
    /// [`Error::Precondition`] of `operation` with the operand's `name` if it is not aligned.
    fn aligned(self, operation: &'static str, name: &str) -> Result<DevPtr<Self::Element>> {
        let ptr = self.ptr();
        match ptr.address() % 16 {
            0 => Ok(ptr),
            past => Err(Error::Precondition {
                operation,
                rule: format!("{name} 16-byte aligned"),
                found: format!("{name} begins {past} bytes past a multiple of 16"),
            }),
        }
    }
}

impl<E: Element> Operand for View<'_, Cuda, E> {
    type Element = E;

    fn ptr(self) -> DevPtr<E> {
        let memory = match self.memory() {
            Memory::Buffer(buffer) => buffer.allocation.ptr_for_launch(),
            Memory::External(ptr) => {
                capture::note_external();
                ptr
            }
        };
        memory.cast().offset(self.offset())
    }
}

impl<E: Element> Operand for ViewMut<'_, Cuda, E> {
    type Element = E;

    fn ptr(self) -> DevPtr<E> {
        let slice = self.into_slice();
        match slice.allocation {
            Some(allocation) => {
                allocation.ptr_for_launch();
            }
            None => capture::note_external(),
        }
        slice.ptr
    }
}
