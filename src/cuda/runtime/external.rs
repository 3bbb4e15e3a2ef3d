//! Memory shared with a program's own CUDA code: its slices and pointers as views, and tensors as cudarc takes them.
//!
//! Nothing is copied and nothing waits. A view of a slice borrows it; the stream of the device orders what happens to the
//! memory, which is why the slice must belong to that stream ([`Cuda::with_stream`]).

use std::sync::Arc;

use cudarc::driver::sys::CUdeviceptr;
use cudarc::driver::{CudaStream, CudaView, DevicePtr, DevicePtrMut, DeviceRepr, DeviceSlice, SyncOnDrop};

use super::device::Cuda;
use super::storage::SliceMut;
use crate::cuda::launch::device_ptr::DevPtr;
use crate::error::{Error, Result};
use crate::tensor::{Element, Memory, Shape, Tensor, View, ViewMut};

// SAFETY: a transparent wrapper of the address that kernels take.
#[allow(unsafe_code)]
unsafe impl<T> DeviceRepr for DevPtr<T> {}

/// Checks that a slice can be an operand of `cuda`'s kernels with this shape.
fn check_slice<E: Element>(cuda: &Cuda, slice: &impl DeviceSlice<E>, shape: Shape) -> Result<()> {
    if slice.len() != shape.len() {
        return Err(Error::invalid(format!("a slice of {} elements cannot have the shape {shape}", slice.len())));
    }
    // This compares the contexts as well: the default streams of two contexts have one handle.
    let stream = cuda.device().stream();
    if **slice.stream() != **stream {
        return Err(Error::invalid(
            "the slice belongs to another stream than the device, so that nothing orders its use: open the device with \
             Cuda::with_stream(slice.stream())",
        ));
    }
    // cudarc makes the stream wait for its events, which were recorded outside of the capture.
    if stream.context().is_managing_stream_synchronization() && cuda.device().stream.is_captured_by_program()? {
        return Err(Error::invalid(
            "cudarc tracks slices by events, which a captured stream cannot wait for: call \
             CudaContext::disable_event_tracking, or make the views before the capture",
        ));
    }
    Ok(())
}

/// Checks the driver calls by which cudarc has ordered a slice, as it keeps their errors for itself.
fn check_order(cuda: &Cuda) -> Result<()> {
    let stream = &cuda.device().stream;
    stream.latch.check_captured(&"ordering the work of a slice", stream.context().check_err())
}

impl<'a, E: Element> View<'a, Cuda, E> {
    /// A view of device memory that the program has allocated: a `CudaSlice`, `CudaView` or [`Tensor`].
    ///
    /// Kernels read it in the order of the device's stream. cudarc's events for other streams do not include these reads:
    /// another stream that writes the slice must wait first (`CudaStream::join`).
    ///
    /// # Errors
    /// [`Error::Invalid`] if the slice does not have `shape.len()` elements, or belongs to another stream than `cuda`.
    pub fn from_slice(cuda: &Cuda, slice: &'a impl DevicePtr<E>, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        check_slice(cuda, slice, shape)?;
        let (address, read) = slice.device_ptr(cuda.device().stream());
        drop(read);
        check_order(cuda)?;
        Ok(View::from_external(DevPtr::from_address(address), shape))
    }

    /// A view of `shape.len()` elements of device memory, beginning at `ptr`.
    ///
    /// # Safety
    /// The memory must be in the device's context, have at least `shape.len()` elements, and be aligned to `E`. It must be
    /// valid, initialised, and not written by work outside of the stream's order, until all operations on the view have
    /// completed on the device. Nothing extends its life beyond `'a`.
    #[allow(unsafe_code)]
    pub unsafe fn from_raw(ptr: DevPtr<E>, shape: impl Into<Shape>) -> Self {
        View::from_external(ptr.cast(), shape.into())
    }

    /// Pointer to the first element, for the program's own kernels.
    pub fn as_dev_ptr(&self) -> DevPtr<E> {
        let memory = match self.memory() {
            Memory::Buffer(buffer) => buffer.allocation.ptr(),
            Memory::External(ptr) => ptr,
        };
        memory.cast().offset(self.offset())
    }
}

impl<'a, E: Element> ViewMut<'a, Cuda, E> {
    /// Write access to device memory that the program has allocated: a `CudaSlice`, `CudaViewMut` or [`Tensor`].
    ///
    /// As for [`View::from_slice`], the order is that of the device's stream: another stream that reads or writes the slice
    /// must wait first.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the slice does not have `shape.len()` elements, or belongs to another stream than `cuda`.
    pub fn from_slice(cuda: &Cuda, slice: &'a mut impl DevicePtrMut<E>, shape: impl Into<Shape>) -> Result<Self> {
        let shape = shape.into();
        check_slice(cuda, slice, shape)?;
        let (address, written) = slice.device_ptr_mut(cuda.device().stream());
        drop(written);
        check_order(cuda)?;
        Ok(ViewMut::from_slice_mut(SliceMut::external(DevPtr::from_address(address), shape.len()), shape))
    }

    /// Write access to `shape.len()` elements of device memory, beginning at `ptr`.
    ///
    /// # Safety
    /// The memory must be in the device's context, have at least `shape.len()` elements, and be aligned to `E`. It must be
    /// valid, and not accessed by work outside of the stream's order, until all operations on the view have completed on
    /// the device. Nothing extends its life beyond `'a`.
    #[allow(unsafe_code)]
    pub unsafe fn from_raw(ptr: DevPtr<E>, shape: impl Into<Shape>) -> Self {
        let shape = shape.into();
        ViewMut::from_slice_mut(SliceMut::external(ptr, shape.len()), shape)
    }
}

impl<E: Element> Tensor<Cuda, E> {
    /// Pointer to the first element, for the program's own kernels: a launch takes `&tensor.as_dev_ptr()` as an argument.
    pub fn as_dev_ptr(&self) -> DevPtr<E> {
        self.view().as_dev_ptr()
    }

    /// The tensor as cudarc's view of device memory. Most functions of cudarc take the tensor itself, which is simpler.
    ///
    /// # Safety
    /// The view must be used in the device's stream only: no event orders other streams, nor the end of the tensor's life.
    #[allow(unsafe_code)]
    pub unsafe fn as_cuda_view(&self) -> CudaView<'_, E>
    where
        E: DeviceRepr,
    {
        let bytes = self.buffer().allocation.bytes();
        // SAFETY: the allocation is aligned to 256 bytes, and any bytes are values of an element type.
        let view = unsafe { bytes.transmute(self.shape().len()) };
        view.expect("a tensor's allocation has room for its elements")
    }
}

impl<E: Element> DeviceSlice<E> for Tensor<Cuda, E> {
    fn len(&self) -> usize {
        self.shape().len()
    }

    fn stream(&self) -> &Arc<CudaStream> {
        self.buffer().allocation.bytes().stream()
    }
}

impl<E: Element> DevicePtr<E> for Tensor<Cuda, E> {
    fn device_ptr<'a>(&'a self, stream: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.as_dev_ptr().address(), order_after(self.stream(), stream))
    }
}

impl<E: Element> DevicePtrMut<E> for Tensor<Cuda, E> {
    fn device_ptr_mut<'a>(&'a mut self, stream: &'a CudaStream) -> (CUdeviceptr, SyncOnDrop<'a>) {
        (self.as_dev_ptr().address(), order_after(self.stream(), stream))
    }
}

/// Makes `stream` wait for the work of a tensor's own stream. That stream learns of no access in another one, so the
/// access ends before the caller goes on. Neither is possible while `stream` is captured; cudarc then reports the error at
/// its next call.
fn order_after<'a>(own: &CudaStream, stream: &'a CudaStream) -> SyncOnDrop<'a> {
    if own == stream {
        return SyncOnDrop::Record(None);
    }
    stream.context().record_err(stream.join(own));
    SyncOnDrop::sync_stream(stream)
}
