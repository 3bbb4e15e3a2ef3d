//! Device memory: tensors' buffers, what they are accounted to, and the addresses that kernels get.

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
use cudarc::driver::{CudaContext, CudaSlice, DevicePtr, result};
use half::bf16;

use super::Cuda;
use super::device::{Device, Refusal};
use super::graph::Recorder;
use super::transfers::Event;
use crate::error::{Error, OutOfDeviceMemory, Result};
use crate::memory::Category;
use crate::tensor::{Element, Shape, Storage, Tensor, View, ViewMut};

/// Who holds how much of a device's memory.
#[derive(Debug, Default)]
pub(in crate::cuda) struct Account(Mutex<Ledger>);

#[derive(Debug)]
struct Ledger {
    current: Category,
    held: BTreeMap<Category, u64>,
    /// The most that was held at a time.
    peak: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { current: Category::Other, held: BTreeMap::new(), peak: 0 }
    }
}

impl Account {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, category: Category, bytes: u64) {
        let mut ledger = self.ledger();
        *ledger.held.entry(category).or_default() += bytes;
        ledger.peak = ledger.peak.max(ledger.held.values().sum());
    }

    pub fn peak(&self) -> u64 {
        self.ledger().peak
    }

    pub fn held(&self) -> Vec<(Category, u64)> {
        self.ledger()
            .held
            .iter()
            .filter(|(_, bytes)| **bytes > 0)
            .map(|(&category, &bytes)| (category, bytes))
            .collect()
    }
}

/// Bytes of device memory, given back when dropped, in the stream's order.
#[derive(Debug)]
pub(in crate::cuda) struct Allocation {
    // Given back by its own Drop, after ours.
    bytes: CudaSlice<u8>,
    address: u64,
    account: Arc<Account>,
    recorder: Arc<Recorder>,
    category: Category,
}

impl Allocation {
    /// Uninitialised memory.
    fn new(device: &Device, bytes: usize, category: Category) -> Result<Arc<Self>> {
        device.usable()?;
        let stream = device.stream();
        // The driver has no allocation of nothing, and Rust none beyond isize.
        let len = bytes.max(1);
        let attempt = if isize::try_from(len).is_err() {
            None
        } else {
            // SAFETY: of device memory any bytes are values of what tensors hold. `zeros` and `adopt` fill it; the workspace is a
            // kernel's own; `uninitialised` says what it is.
            #[allow(unsafe_code)]
            let allocated = unsafe { stream.alloc::<u8>(len) };
            match device.asked(&format_args!("allocating {len} bytes for {category}"), allocated) {
                Ok(bytes) => Some(bytes),
                Err(Refusal::Harmless(fault)) if fault.is(CUDA_ERROR_OUT_OF_MEMORY) => None,
                Err(Refusal::Harmless(fault)) => {
                    return Err(Error::Unavailable(format!("{len} bytes for {category} cannot be allocated: {fault}")));
                }
                Err(Refusal::Lost(error)) => return Err(error),
            }
        };
        let Some(slice) = attempt else {
            return Err(Error::OutOfDeviceMemory(Box::new(OutOfDeviceMemory {
                requested: len as u64,
                category,
                free_and_total: device.free_and_total(),
                held: device.held(),
            })));
        };
        let account = device.account().clone();
        account.add(category, len as u64);
        // The guard would order other streams' uses; the one other has our marks for that, and keeps what it writes to.
        let address = slice.device_ptr(stream).0;
        Ok(Arc::new(Allocation { bytes: slice, address, account, recorder: device.recorder().clone(), category }))
    }

    /// Of the first byte.
    pub fn address(&self) -> u64 {
        self.address
    }

    /// [`Allocation::address`], for a kernel that is about to be launched: a recording keeps the memory.
    fn address_for_launch(self: &Arc<Self>) -> u64 {
        self.recorder.keep(self);
        self.address
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        if let Some(held) = self.account.ledger().held.get_mut(&self.category) {
            *held -= self.bytes.len() as u64;
        }
        // cudarc frees without looking which context is current, and the thread may be another.
        bind(self.bytes.context());
    }
}

/// Makes the context current. An error that cudarc has kept is left for the next call to report.
fn bind(context: &CudaContext) {
    let kept = context.bind_to_thread();
    if kept.is_err() {
        context.record_err(context.bind_to_thread());
        context.record_err(kept);
    }
}

/// A tensor's memory.
#[derive(Debug)]
pub struct Buffer<E> {
    allocation: Arc<Allocation>,
    len: usize,
    element: PhantomData<E>,
}

impl<E: Element> Buffer<E> {
    fn new(device: &Device, len: usize) -> Result<Self> {
        let category = device.account().ledger().current;
        let allocation = Allocation::new(device, len.saturating_mul(E::BYTES), category)?;
        Ok(Buffer { allocation, len, element: PhantomData })
    }
}

/// Exclusive access to a part of a buffer.
#[derive(Debug)]
pub struct SliceMut<'a, E> {
    allocation: &'a Arc<Allocation>,
    /// Of its first element, in bytes from that of the allocation.
    offset: u64,
    len: usize,
    exclusive: PhantomData<&'a mut [E]>,
}

impl Storage for Cuda {
    type Compute = bf16;
    type Accum = f32;
    const VECTOR: usize = 8;
    type Buffer<E: Element> = Buffer<E>;
    type SliceMut<'a, E: Element> = SliceMut<'a, E>;

    fn account_to(&self, category: Category) {
        self.device().account().ledger().current = category;
    }

    fn zeros<E: Element>(&self, len: usize) -> Result<Buffer<E>> {
        let mut buffer = Buffer::new(self.device(), len)?;
        self.clear(&mut buffer)?;
        Ok(buffer)
    }

    fn adopt<E: Element>(&self, data: Vec<E>) -> Result<Buffer<E>> {
        let buffer = Buffer::new(self.device(), data.len())?;
        self.copy_in(&data, buffer.allocation.address())?;
        Ok(buffer)
    }

    fn slice_mut<E: Element>(buffer: &mut Buffer<E>) -> SliceMut<'_, E> {
        SliceMut { allocation: &buffer.allocation, offset: 0, len: buffer.len, exclusive: PhantomData }
    }

    fn split_at_mut<'a, E: Element>(
        slice: Self::SliceMut<'a, E>,
        mid: usize,
    ) -> (Self::SliceMut<'a, E>, Self::SliceMut<'a, E>) {
        assert!(mid <= slice.len, "{mid} is past the end of {} elements", slice.len);
        let SliceMut { allocation, offset, len, .. } = slice;
        let part = |offset, len| SliceMut { allocation, offset, len, exclusive: PhantomData };
        (part(offset, mid), part(offset + (mid * E::BYTES) as u64, len - mid))
    }

    fn reborrow<'b, E: Element>(slice: &'b mut SliceMut<'_, E>) -> SliceMut<'b, E> {
        let SliceMut { allocation, offset, len, .. } = *slice;
        SliceMut { allocation, offset, len, exclusive: PhantomData }
    }

    fn upload<E: Element>(&self, src: &[E], dst: ViewMut<'_, Self, E>) -> Result<()> {
        assert_eq!(src.len(), dst.shape().len(), "elements for {}", dst.shape());
        let SliceMut { allocation, offset, .. } = dst.into_slice();
        self.copy_in(src, allocation.address() + offset)
    }

    fn download<E: Element>(&self, src: View<'_, Self, E>, dst: &mut [E]) -> Result<()> {
        assert_eq!(src.shape().len(), dst.len(), "room for {}", src.shape());
        let device = self.device();
        device.not_recording()?;
        // First, as the copy itself would wait without an end for a kernel that hangs.
        device.synchronize()?;
        if dst.is_empty() {
            return Ok(());
        }
        let context = device.stream().context();
        let bytes: &mut [u8] = bytemuck::cast_slice_mut(dst);
        let what = format!("copying {} bytes from the device", bytes.len());
        device.queued(&what, context.bind_to_thread())?;
        // SAFETY: the view is inside of a live buffer, and as long as `dst`. The copy has ended before this returns: one to
        // pageable memory does not return earlier, and the stream is waited for.
        #[allow(unsafe_code)]
        let copied = unsafe { result::memcpy_dtoh_async(bytes, src.address(), device.stream().cu_stream()) };
        device.queued(&what, copied)?;
        device.synchronize()
    }

    type Event = Event;

    fn record_event(&self) -> Result<Event> {
        self.device().record_event()
    }

    fn upload_async<E: Element>(&self, mark: &Event, src: &[E], dst: ViewMut<'_, Self, E>) -> Result<Event> {
        assert_eq!(src.len(), dst.shape().len(), "elements for {}", dst.shape());
        self.device().not_recording()?;
        let SliceMut { allocation, offset, .. } = dst.into_slice();
        self.device().copy_beside(bytemuck::cast_slice(src), (allocation.address() + offset, allocation), mark)
    }

    fn wait_event(&self, mark: &Event) -> Result<()> {
        self.device().wait_event(mark)
    }
}

impl Cuda {
    /// A tensor that nothing has written: for what is overwritten before it is read, or used in part. On a GPU it holds
    /// what was there before; on the emulated one, reading it is a finding.
    ///
    /// # Errors
    /// When the memory cannot be had.
    pub fn uninitialised<E: Element>(&self, shape: impl Into<Shape>) -> Result<Tensor<Cuda, E>> {
        let shape = shape.into();
        let buffer = Buffer::new(self.device(), shape.len())?;
        let len = buffer.len;
        Ok(Tensor::from_buffer(buffer, len, shape))
    }

    /// Fills a buffer with zeros.
    pub(in crate::cuda) fn clear<E: Element>(&self, buffer: &mut Buffer<E>) -> Result<()> {
        let device = self.device();
        device.usable()?;
        device.not_recording()?;
        let (bytes, stream) = (buffer.allocation.bytes.len(), device.stream());
        let what = format!("clearing {bytes} bytes");
        device.queued(&what, stream.context().bind_to_thread())?;
        // SAFETY: all of a live allocation, to which the caller has exclusive access.
        #[allow(unsafe_code)]
        let cleared = unsafe { result::memset_d8_async(buffer.allocation.address(), 0, bytes, stream.cu_stream()) };
        device.queued(&what, cleared)
    }

    /// Copies to an address of a live buffer with room for it.
    fn copy_in<E: Element>(&self, src: &[E], address: u64) -> Result<()> {
        let device = self.device();
        device.usable()?;
        device.not_recording()?;
        if src.is_empty() {
            return Ok(());
        }
        let bytes: &[u8] = bytemuck::cast_slice(src);
        let what = format!("copying {} bytes to the device", bytes.len());
        device.queued(&what, device.stream().context().bind_to_thread())?;
        // SAFETY: callers pass the address of a live buffer, or of a part of one, of this length. Pageable memory has been
        // read when the call returns.
        #[allow(unsafe_code)]
        let copied = unsafe { result::memcpy_htod_async(address, bytes, device.stream().cu_stream()) };
        device.queued(&what, copied)
    }
}

/// An operand of a kernel: something with an address on the device.
pub(crate) trait Operand: Sized {
    /// Of its first element. Valid for as long as the operand is borrowed, and for the kernels queued meanwhile.
    fn address(self) -> u64;

    /// The address, which must be a multiple of 16: for kernels that access vectors.
    fn aligned(self, operation: &'static str, name: &str) -> Result<u64> {
        let address = self.address();
        if address.is_multiple_of(16) {
            return Ok(address);
        }
        Err(Error::Precondition {
            operation,
            rule: format!("{name} 16-byte aligned"),
            found: format!("{name} begins {} bytes past a multiple of 16", address % 16),
        })
    }
}

impl<E: Element> Operand for View<'_, Cuda, E> {
    fn address(self) -> u64 {
        self.buffer().allocation.address_for_launch() + (self.offset() * E::BYTES) as u64
    }
}

impl<E: Element> Operand for ViewMut<'_, Cuda, E> {
    fn address(self) -> u64 {
        let SliceMut { allocation, offset, .. } = self.into_slice();
        allocation.address_for_launch() + offset
    }
}

/// Memory for what operations need while they run. It grows to the largest need, and is used by one at a time.
#[derive(Debug, Default)]
pub(in crate::cuda) struct Workspace(Option<Arc<Allocation>>);

impl Workspace {
    pub fn grow(&mut self, device: &Device, bytes: usize) -> Result<()> {
        if self.0.as_ref().is_none_or(|allocation| allocation.bytes.len() < bytes) {
            // Freed first, in the stream's order: the kernels that use it are before.
            self.0 = None;
            self.0 = Some(Allocation::new(device, bytes, Category::Workspace)?);
        }
        Ok(())
    }

    /// Of the first byte: a multiple of 256, as the driver allocates. 0 before the first use.
    pub fn address(&self) -> u64 {
        self.0.as_ref().map_or(0, Allocation::address_for_launch)
    }
}
