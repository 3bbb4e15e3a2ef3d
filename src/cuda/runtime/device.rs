//! A CUDA device: a facade over its stream, memory, transfers and graphs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytemuck::Pod;
use cudarc::driver::sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
use cudarc::driver::sys::CUstream;
use cudarc::driver::{CudaContext, CudaStream, DriverError};

use super::capture::{RelaxedCaptureMode, lock_captures};
use super::driver;
use super::faults::Fault;
use super::graph::Graph;
use super::memory::{Accounting, Workspace};
use super::modules::Modules;
use super::stream::Stream;
use super::transfers::Transfers;
use crate::cuda::launch::device_ptr::DevPtr;
use crate::cuda::launch::spec::{Grid, Kernel, Sizes};
use crate::memory::Category;
use crate::{Error, Result};

/// The handle of the per-thread default stream in cuda.h.
const CU_STREAM_PER_THREAD: CUstream = 2 as CUstream;

/// The oldest compute capability that the kernels support.
const OLDEST: (u32, u32) = (8, 0);

/// Properties of a device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// The driver's name for it.
    pub name: String,
    /// Its index among the driver's devices.
    pub ordinal: usize,
    /// Compute capability, such as (9, 0).
    pub capability: (u32, u32),
    /// Number of SMs (streaming multiprocessors).
    pub sm_count: usize,
    /// Size of the device memory in bytes.
    pub memory: u64,
    /// CUDA version of the driver, such as `13.0`.
    pub driver: String,
}

impl Properties {
    /// Whether it is the emulated device, whose execution times mean nothing.
    pub fn is_emulated(&self) -> bool {
        self.name.starts_with("Emulated")
    }

    fn of(context: &Arc<CudaContext>) -> Result<Self, DriverError> {
        let (major, minor) = context.compute_capability()?;
        Ok(Properties {
            name: context.name()?,
            ordinal: context.ordinal(),
            capability: (major as u32, minor as u32),
            sm_count: context.attribute(CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT)? as usize,
            memory: context.total_mem()? as u64,
            driver: driver::version(),
        })
    }
}

/// A device in use.
///
/// A driver error after which its memory is in doubt poisons the device: that error names the kernels that may have caused
/// it, and every later call returns the same error without calling the driver.
pub struct Device {
    workspace: Mutex<Workspace>,
    pub(super) transfers: Transfers,
    pub(super) accounting: Arc<Accounting>,
    pub(super) stream: Stream,
    properties: Properties,
}

impl Device {
    /// Opens device `ordinal` of the driver in its primary context.
    ///
    /// # Errors
    /// [`Error::Unavailable`], in one line: the driver is missing or too old, the device does not exist or is too old.
    pub fn open(ordinal: usize) -> Result<Self> {
        let count = driver::require()?;
        if ordinal >= count {
            return Err(Error::Unavailable(format!(
                "no GPU {ordinal}: the CUDA driver found {count}, the first of which is cuda:0"
            )));
        }
        let context = CudaContext::new(ordinal)
            .map_err(|error| Error::Unavailable(format!("GPU {ordinal} cannot be used: {}", Fault::from(error))))?;
        // SAFETY: kernels run in one stream, and our own events order the copies of the other one, so that cudarc's events
        // are not needed.
        #[allow(unsafe_code)]
        unsafe {
            context.disable_event_tracking();
        }
        Self::with_context(&context)
    }

    /// Opens a device in an existing context, for programs that have one. The context's settings are not changed.
    ///
    /// # Errors
    /// [`Error::Unavailable`] as [`Device::open`].
    pub fn with_context(context: &Arc<CudaContext>) -> Result<Self> {
        Self::build(context, None, None)
    }

    /// Opens a device that enqueues all kernels and copies in an existing stream, between the work of the program.
    ///
    /// # Errors
    /// [`Error::Unavailable`] as [`Device::open`].
    pub fn with_stream(stream: &Arc<CudaStream>) -> Result<Self> {
        Self::build(stream.context(), Some(stream), None)
    }

    fn build(
        context: &Arc<CudaContext>,
        owned_by_program: Option<&Arc<CudaStream>>,
        modules: Option<Arc<Modules>>,
    ) -> Result<Self> {
        if owned_by_program.is_some_and(|stream| stream.cu_stream() == CU_STREAM_PER_THREAD) {
            return Err(Error::invalid(
                "the per-thread default stream is another stream in each thread, so that it orders nothing: pass a stream of \
                 your own, or the default stream",
            ));
        }
        let _lock = lock_captures()?;
        let _mode = RelaxedCaptureMode::enter(context);
        let unusable = |fault: Fault| Error::Unavailable(format!("GPU {} cannot be used: {fault}", context.ordinal()));
        let fault = |error: DriverError| unusable(error.into());
        let properties = Properties::of(context).map_err(fault)?;
        let (Properties { name, .. }, (major, minor)) = (&properties, properties.capability);
        if properties.capability < OLDEST {
            return Err(Error::Unavailable(format!(
                "the GPU is too old: {name} has compute capability {major}.{minor}, but {}.{} or newer is required; the \
                 CPU backend works without a GPU",
                OLDEST.0, OLDEST.1
            )));
        }
        let modules = modules.unwrap_or_else(|| Arc::new(Modules::new(context.clone(), properties.capability)));
        let stream = Stream::new(context, owned_by_program, modules, default_timeout()?).map_err(fault)?;
        Ok(Device {
            workspace: Mutex::default(),
            transfers: Transfers::new(context.new_stream().map_err(fault)?),
            accounting: Arc::default(),
            stream,
            properties,
        })
    }

    /// Properties of the device.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The stream in which all kernels run, for programs that launch their own.
    pub fn stream(&self) -> &Arc<CudaStream> {
        self.stream.compute()
    }

    /// Bytes of free device memory, if the driver says.
    pub fn free_memory(&self) -> Option<u64> {
        self.stream.free_and_total().map(|(free, _)| free)
    }

    /// Bytes held by tensors and by the workspace, by category.
    pub fn held(&self) -> Vec<(Category, u64)> {
        self.accounting.held()
    }

    /// The largest number of bytes that tensors and the workspace have held at once.
    pub fn peak_memory(&self) -> u64 {
        self.accounting.peak()
    }

    /// Loads `ptx` instead of `kernels/<stem>.cu` from now on, to try a variant of a kernel.
    ///
    /// It must have the same entry points with the same parameters.
    pub fn replace_kernels(&self, stem: &str, ptx: &str) {
        self.stream.modules.replace(stem, ptx);
    }

    /// Makes every launch wait until its kernel has completed, so that an error names exactly this kernel.
    /// IRONWARP_CUDA_SYNC=1 does so for all devices.
    pub fn set_launch_blocking(&self, blocking: bool) {
        self.stream.set_launch_blocking(blocking);
    }

    /// Sets how long [`Device::synchronize`] waits before it reports a hang. The default is IRONWARP_CUDA_TIMEOUT seconds,
    /// or ten minutes if that is not set.
    pub fn set_timeout(&self, timeout: Duration) {
        self.stream.set_timeout(timeout);
    }

    /// Waits until all enqueued work has completed.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] if some of the work failed or does not complete within the timeout.
    pub fn synchronize(&self) -> Result<()> {
        self.stream.synchronize()
    }

    /// Launches a kernel: see [`Stream::launch`].
    pub(in crate::cuda) fn launch<P: Pod>(
        &self,
        kernel: &Kernel<P>,
        grid: Grid,
        sizes: impl Into<Sizes>,
        params: &P,
    ) -> Result<()> {
        self.stream.launch(kernel, grid, sizes, params)
    }

    /// Grows the workspace of the operations to at least `bytes` bytes. Operations grow it when they need more, except
    /// while the program captures its own stream: reserve what they need before, or run them once.
    ///
    /// # Errors
    /// If allocation fails.
    pub fn reserve_workspace(&self, bytes: usize) -> Result<()> {
        self.workspace(bytes).map(drop)
    }

    /// Makes the operations use `bytes` bytes of the program's memory as their workspace, which then never grows: an
    /// operation that needs more is refused. `cuda::workspace` says what each needs. An own workspace is freed.
    /// [`Backend::capture`](crate::ops::Backend::capture) refuses operations that use a lent workspace.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the memory is not aligned to 256 bytes.
    ///
    /// # Safety
    /// The memory must be valid until [`Device::reclaim_workspace`] has been called and the work of all operations has
    /// completed, and must not be accessed by other work meanwhile.
    #[allow(unsafe_code)]
    pub unsafe fn lend_workspace(&self, ptr: DevPtr<u8>, bytes: usize) -> Result<()> {
        if !ptr.address().is_multiple_of(256) {
            return Err(Error::invalid(format!("a workspace at {ptr:?} is not aligned to 256 bytes")));
        }
        self.lock_workspace().replace(Some((ptr, bytes)));
        Ok(())
    }

    /// Ends the use of a lent workspace for operations that are enqueued from now on: they use memory of the device's own.
    pub fn reclaim_workspace(&self) {
        self.lock_workspace().replace(None);
    }

    fn lock_workspace(&self) -> MutexGuard<'_, Workspace> {
        self.workspace.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Locks the workspace for the launches of one operation and grows it to at least `bytes` bytes.
    ///
    /// Until the guard is dropped no other operation uses the workspace. Operations that use it afterwards are enqueued
    /// behind this one.
    pub(in crate::cuda) fn workspace(&self, bytes: usize) -> Result<MutexGuard<'_, Workspace>> {
        self.stream.latch.ensure_usable()?;
        let mut workspace = self.lock_workspace();
        workspace.reserve(&self.stream, &self.accounting, bytes)?;
        Ok(workspace)
    }

    /// Captures operations: see [`Graph::capture`].
    pub(in crate::cuda) fn capture(&self, work: &mut dyn FnMut() -> Result<()>) -> Result<Option<Graph>> {
        Graph::capture(&self.stream, work)
    }

    /// Enqueues captured operations again: see [`Graph::replay`].
    pub(in crate::cuda) fn replay(&self, graph: &Graph) -> Result<()> {
        graph.replay(&self.stream)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        self.transfers.finish(self.stream.latch.is_poisoned(), self.stream.timeout());
    }
}

/// IRONWARP_CUDA_TIMEOUT in seconds, or ten minutes if it is not set.
fn default_timeout() -> Result<Duration> {
    let Ok(text) = std::env::var("IRONWARP_CUDA_TIMEOUT") else { return Ok(Duration::from_secs(600)) };
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| Error::invalid(format!("IRONWARP_CUDA_TIMEOUT='{text}': expected seconds, such as 600 or 0.5")))
}

/// An NVIDIA GPU of compute capability 8.0 or newer, or the emulated one. Clones refer to the same device.
#[derive(Clone)]
pub struct Cuda {
    device: Arc<Device>,
}

impl Cuda {
    /// Opens GPU `ordinal` of the CUDA driver.
    ///
    /// # Errors
    /// [`Error::Unavailable`], in one line that says what was found and what is required.
    pub fn new(ordinal: usize) -> Result<Self> {
        Ok(Cuda { device: Arc::new(Device::open(ordinal)?) })
    }

    /// Opens the emulated GPU. The first CUDA function that a process calls decides which driver the process uses, so this
    /// call must come first.
    ///
    /// # Errors
    /// [`Error::Unavailable`] if the emulator is not found, or the process already uses another driver.
    pub fn emulated() -> Result<Self> {
        driver::emulate(&driver::find_emulator()?)?;
        let cuda = Self::new(0)?;
        if !cuda.device.properties().is_emulated() {
            return Err(Error::Unavailable(format!(
                "no emulated GPU: this process already uses the driver of {}",
                cuda.device.properties().name
            )));
        }
        Ok(cuda)
    }

    /// Opens the device of an existing context.
    ///
    /// # Errors
    /// As [`Cuda::new`].
    pub fn with_context(context: &Arc<CudaContext>) -> Result<Self> {
        Ok(Cuda { device: Arc::new(Device::with_context(context)?) })
    }

    /// Opens the device of an existing stream. All kernels and copies are enqueued in that stream, in the order of the
    /// calls and between the work that the program enqueues itself, so that neither side has to wait for the other.
    ///
    /// If the program captures the stream, operations become part of its graph. Only what a graph cannot contain is refused:
    /// copies from and to the host, allocations and waits. See also [`Device::reserve_workspace`]. The graph contains the
    /// addresses of operands and workspace, so tensors and the last handle of the device must live longer than the graph.
    ///
    /// cudarc's event tracking is of no use to a program with one stream, and must be off while the stream is captured:
    /// `CudaContext::disable_event_tracking`.
    ///
    /// # Errors
    /// As [`Cuda::new`]; [`Error::Invalid`] for the per-thread default stream.
    pub fn with_stream(stream: &Arc<CudaStream>) -> Result<Self> {
        Ok(Cuda { device: Arc::new(Device::with_stream(stream)?) })
    }

    /// A handle to the same GPU that enqueues in another stream of the same context, with a workspace and an error latch of
    /// its own. The two share the loaded kernels.
    ///
    /// # Errors
    /// As [`Cuda::new`], and [`Error::Invalid`] if the stream belongs to another context.
    pub fn on_stream(&self, stream: &Arc<CudaStream>) -> Result<Self> {
        if stream.context().cu_ctx() != self.device.stream().context().cu_ctx() {
            return Err(Error::invalid("the stream belongs to another context than the device"));
        }
        let modules = self.device.stream.modules.clone();
        Ok(Cuda { device: Arc::new(Device::build(stream.context(), Some(stream), Some(modules))?) })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }
}
