//! Device memory: allocations, their accounting, and the workspace of operations.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUresult::CUDA_ERROR_OUT_OF_MEMORY;
use cudarc::driver::sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
use cudarc::driver::{CudaContext, CudaSlice, DevicePtr};

use super::capture::{self, CaptureState, RelaxedCaptureMode, bind};
use super::latch::QueryError;
use super::stream::Stream;
use crate::cuda::launch::device_ptr::DevPtr;
use crate::error::{Error, OutOfDeviceMemory, Result};
use crate::memory::Category;

/// The bytes of device memory that each category holds.
#[derive(Debug, Default)]
pub(super) struct Accounting {
    ledger: Mutex<Ledger>,
    /// Memory that was dropped while the program captured its stream. It is freed at the next allocation after the capture.
    to_free: Mutex<Vec<CudaSlice<u8>>>,
}

#[derive(Debug)]
struct Ledger {
    /// Category of the allocations that follow.
    current: Category,
    held: BTreeMap<Category, u64>,
    /// The largest total so far.
    peak: u64,
}

impl Default for Ledger {
    fn default() -> Self {
        Ledger { current: Category::Other, held: BTreeMap::new(), peak: 0 }
    }
}

impl Accounting {
    fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.ledger.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn add(&self, category: Category, bytes: u64) {
        let mut ledger = self.ledger();
        *ledger.held.entry(category).or_default() += bytes;
        ledger.peak = ledger.peak.max(ledger.held.values().sum());
    }

    fn remove(&self, category: Category, bytes: u64) {
        if let Some(held) = self.ledger().held.get_mut(&category) {
            *held -= bytes;
        }
    }

    fn to_free(&self) -> MutexGuard<'_, Vec<CudaSlice<u8>>> {
        self.to_free.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Frees what was dropped during a capture. cudarc frees in whichever context is current.
    fn free_dropped(&self, context: &CudaContext) {
        let mut dropped = self.to_free();
        if !dropped.is_empty() {
            bind(context);
            dropped.clear();
        }
    }

    pub fn set_current(&self, category: Category) {
        self.ledger().current = category;
    }

    pub fn current(&self) -> Category {
        self.ledger().current
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

/// An allocation of device memory, freed in stream order when it is dropped.
#[derive(Debug)]
pub(super) struct Allocation {
    /// Taken out when the allocation is dropped.
    bytes: Option<CudaSlice<u8>>,
    len: usize,
    /// Whether the program made the stream and may capture it.
    may_be_captured: bool,
    ptr: DevPtr<u8>,
    accounting: Arc<Accounting>,
    capture: Arc<CaptureState>,
    category: Category,
}

impl Allocation {
    /// Allocates uninitialised memory.
    pub fn new(stream: &Stream, accounting: &Arc<Accounting>, bytes: usize, category: Category) -> Result<Arc<Self>> {
        stream.latch.ensure_usable()?;
        // The memory would belong to the program's graph.
        if stream.is_captured_by_program()? {
            return Err(Error::invalid(format!(
                "{bytes} bytes for {category} cannot be allocated while the program captures the stream: allocate them \
                 before the capture"
            )));
        }
        accounting.free_dropped(stream.context());
        // The driver has no allocation of 0 bytes, and Rust has none of more than isize::MAX.
        let len = bytes.max(1);
        let attempt = if isize::try_from(len).is_err() {
            None
        } else {
            let _mode = RelaxedCaptureMode::enter(stream.context());
            // SAFETY: any bytes are valid values of the tensors' element types. `zeros` and `adopt` initialise the memory,
            // kernels write a workspace before they read it, and `uninitialised` documents what its tensors contain.
            #[allow(unsafe_code)]
            let allocated = unsafe { stream.compute().alloc::<u8>(len) };
            match stream.latch.check_query(&format_args!("allocating {len} bytes for {category}"), allocated) {
                Ok(bytes) => Some(bytes),
                Err(QueryError::Recoverable(fault)) if fault.is(CUDA_ERROR_OUT_OF_MEMORY) => None,
                Err(QueryError::Recoverable(fault)) => {
                    return Err(Error::Unavailable(format!("cannot allocate {len} bytes for {category}: {fault}")));
                }
                Err(QueryError::Fatal(error)) => return Err(error),
            }
        };
        let Some(slice) = attempt else {
            return Err(Error::OutOfDeviceMemory(Box::new(OutOfDeviceMemory {
                requested: len as u64,
                category,
                free_and_total: stream.free_and_total(),
                held: accounting.held(),
            })));
        };
        accounting.add(category, len as u64);
        // cudarc's guard would order the accesses of other streams. Only the stream of transfers accesses this memory as
        // well; our events order it, and it keeps the destinations of its copies alive.
        let ptr = DevPtr::from_address(slice.device_ptr(stream.compute()).0);
        Ok(Arc::new(Allocation {
            bytes: Some(slice),
            len,
            may_be_captured: stream.is_owned_by_program(),
            ptr,
            accounting: accounting.clone(),
            capture: stream.capture.clone(),
            category,
        }))
    }

    /// The memory as cudarc has it.
    pub fn bytes(&self) -> &CudaSlice<u8> {
        self.bytes.as_ref().expect("present until the allocation is dropped")
    }

    /// Number of bytes.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Pointer to the first byte.
    pub fn ptr(&self) -> DevPtr<u8> {
        self.ptr
    }

    /// Pointer to the first byte for the next launch: if that is captured, the graph keeps the allocation alive.
    pub fn ptr_for_launch(self: &Arc<Self>) -> DevPtr<u8> {
        self.capture.keep_alive(self.ptr.address(), self);
        self.ptr
    }
}

impl Drop for Allocation {
    fn drop(&mut self) {
        self.accounting.remove(self.category, self.len() as u64);
        let Some(bytes) = self.bytes.take() else { return };
        // cudarc frees in whichever context is current, and another one may be current in this thread.
        bind(bytes.context());
        // A graph cannot free memory that was allocated outside of it.
        let is_captured = || bytes.stream().capture_status() != Ok(CU_STREAM_CAPTURE_STATUS_NONE);
        if self.may_be_captured && is_captured() {
            self.accounting.to_free().push(bytes);
        }
    }
}

/// Memory that operations need while they run; one operation uses it at a time.
#[derive(Debug, Default)]
pub(in crate::cuda) struct Workspace {
    source: Option<Source>,
    /// Whether a graph that the program captures contains the address.
    is_in_program_graph: bool,
    /// Earlier allocations that graphs of the program contain, and which therefore live as long as the device.
    retained: Vec<Arc<Allocation>>,
}

/// Where a workspace comes from.
#[derive(Debug)]
enum Source {
    /// An allocation of its own. It grows to the largest request.
    Own(Arc<Allocation>),
    /// Memory of the program, which does not grow.
    Lent { ptr: DevPtr<u8>, bytes: usize },
}

impl Workspace {
    /// Uses memory of the program from now on, or with `None` memory of its own.
    pub(super) fn replace(&mut self, lent: Option<(DevPtr<u8>, usize)>) {
        let previous = std::mem::replace(&mut self.source, lent.map(|(ptr, bytes)| Source::Lent { ptr, bytes }));
        match previous {
            Some(Source::Own(allocation)) if self.is_in_program_graph => self.retained.push(allocation),
            _ => {}
        }
        self.is_in_program_graph = false;
    }

    pub(super) fn reserve(&mut self, stream: &Stream, accounting: &Arc<Accounting>, bytes: usize) -> Result<()> {
        let is_captured = stream.is_captured_by_program()?;
        match &self.source {
            Some(Source::Lent { bytes: lent, .. }) if *lent < bytes => {
                return Err(Error::invalid(format!(
                    "the lent workspace has {lent} bytes, but the operation needs {bytes}"
                )));
            }
            Some(Source::Lent { .. }) => {}
            Some(Source::Own(allocation)) if allocation.len() >= bytes => {}
            // The memory would belong to the program's graph.
            Some(Source::Own(_)) | None if is_captured => {
                return Err(Error::invalid(format!(
                    "a workspace of {bytes} bytes cannot be allocated while the program captures the stream: run the \
                     operation once before the capture, or call Device::reserve_workspace"
                )));
            }
            Some(Source::Own(_)) | None => {
                // The old allocation is freed first. That is in stream order, after the kernels that use it.
                self.replace(None);
                self.source = Some(Source::Own(Allocation::new(stream, accounting, bytes, Category::Workspace)?));
            }
        }
        self.is_in_program_graph |= is_captured;
        Ok(())
    }

    /// Pointer to the first byte, aligned to 256 bytes as all allocations of the driver are; null before the first use.
    pub fn ptr<T>(&self) -> DevPtr<T> {
        match &self.source {
            None => DevPtr::NULL,
            Some(Source::Own(allocation)) => allocation.ptr_for_launch().cast(),
            Some(Source::Lent { ptr, .. }) => {
                capture::note_external();
                ptr.cast()
            }
        }
    }
}
