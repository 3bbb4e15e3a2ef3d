//! The stream of a device: the one place that launches kernels, and the one that waits for them.
//!
//! Every kernel runs in one stream, in the order of the calls. While a thread captures, its launches go to a second stream
//! that executes nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytemuck::Pod;
use cudarc::driver::sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
use cudarc::driver::sys::CUstreamCaptureStatus::CU_STREAM_CAPTURE_STATUS_NONE;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DeviceRepr, DriverError, LaunchConfig, PushKernelArg};

use super::capture::{CaptureState, RelaxedCaptureMode};
use super::faults::Fault;
use super::latch::ErrorLatch;
use super::modules::Modules;
use crate::cuda::launch::spec::{Grid, Kernel, Sizes};
use crate::{Error, Result};

/// Identifies a stream within the process: events and graphs work with the stream that made them only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct StreamId(u64);

impl StreamId {
    fn next() -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        StreamId(NEXT.fetch_add(1, Ordering::Relaxed))
    }
}

/// The stream of a device, its kernels and its error latch.
pub(super) struct Stream {
    pub id: StreamId,
    pub latch: ErrorLatch,
    pub modules: Arc<Modules>,
    pub capture: Arc<CaptureState>,
    /// Recorded by [`Stream::synchronize`] behind the work that it waits for.
    end: CudaEvent,
    compute: Arc<CudaStream>,
    /// Whether the program made `compute` and may capture it.
    is_owned_by_program: bool,
    /// Captures launches, and executes nothing.
    capturing: Arc<CudaStream>,
    timeout: Mutex<Duration>,
    launch_blocking: AtomicBool,
}

impl Stream {
    /// Enqueues in the stream that is `owned_by_program`, or else in a new one.
    pub fn new(
        context: &Arc<CudaContext>,
        owned_by_program: Option<&Arc<CudaStream>>,
        modules: Arc<Modules>,
        timeout: Duration,
    ) -> Result<Self, DriverError> {
        Ok(Stream {
            id: StreamId::next(),
            latch: ErrorLatch::default(),
            modules,
            capture: Arc::default(),
            end: context.new_event(None)?,
            compute: owned_by_program.map_or_else(|| context.new_stream(), |stream| Ok(stream.clone()))?,
            is_owned_by_program: owned_by_program.is_some(),
            capturing: context.new_stream()?,
            timeout: Mutex::new(timeout),
            launch_blocking: AtomicBool::new(std::env::var_os("IRONWARP_CUDA_SYNC").is_some_and(|value| value != "0")),
        })
    }

    /// The driver's stream in which kernels run.
    pub fn compute(&self) -> &Arc<CudaStream> {
        &self.compute
    }

    /// The driver's stream that captures launches.
    pub fn capturing(&self) -> &Arc<CudaStream> {
        &self.capturing
    }

    pub fn context(&self) -> &Arc<CudaContext> {
        self.compute.context()
    }

    /// Bytes of device memory, free and in total, if the driver says.
    pub fn free_and_total(&self) -> Option<(u64, u64)> {
        self.context().mem_get_info().ok().map(|(free, total)| (free as u64, total as u64))
    }

    pub fn set_launch_blocking(&self, blocking: bool) {
        self.launch_blocking.store(blocking, Ordering::Relaxed);
    }

    pub fn is_launch_blocking(&self) -> bool {
        self.launch_blocking.load(Ordering::Relaxed)
    }

    pub fn set_timeout(&self, timeout: Duration) {
        *self.timeout.lock().unwrap_or_else(PoisonError::into_inner) = timeout;
    }

    pub fn timeout(&self) -> Duration {
        *self.timeout.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Fails if the device is poisoned, or if its work is captured: for work that a graph cannot contain.
    pub fn ensure_ready(&self) -> Result<()> {
        self.latch.ensure_usable()?;
        self.ensure_not_capturing()
    }

    /// Whether the program made the stream, and may capture it.
    pub fn is_owned_by_program(&self) -> bool {
        self.is_owned_by_program
    }

    /// Whether the program captures the stream into a graph of its own.
    pub fn is_captured_by_program(&self) -> Result<bool> {
        if !self.is_owned_by_program {
            return Ok(false);
        }
        let status = self.compute.capture_status();
        let status = self.latch.check_captured(&"querying whether the stream is captured", status)?;
        Ok(status != CU_STREAM_CAPTURE_STATUS_NONE)
    }

    /// Fails if the calling thread captures operations, or the program its stream.
    pub fn ensure_not_capturing(&self) -> Result<()> {
        if self.capture.is_mine() || self.is_captured_by_program()? {
            return Err(Error::invalid(
                "only operations can be captured: copies, allocations, waits and nested captures are not allowed",
            ));
        }
        Ok(())
    }

    /// Waits until all enqueued work has completed.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] if some of the work failed or does not complete within the timeout.
    pub fn synchronize(&self) -> Result<()> {
        self.ensure_ready()?;
        self.latch.check_enqueue(&"recording the end of the stream", self.end.record(&self.compute))?;
        let _mode = RelaxedCaptureMode::enter(self.context());
        let start = Instant::now();
        let timeout = self.timeout();
        let mut pause = Duration::ZERO;
        // The event is polled: cuStreamSynchronize would never return from a kernel that hangs.
        while !self.latch.check_completion(self.end.try_is_complete())? {
            if start.elapsed() > timeout {
                return Err(self.latch.poison_hang(timeout.as_secs_f64()));
            }
            // Short work completes within microseconds; long work is polled less often.
            pause = (pause + Duration::from_micros(1)).min(Duration::from_micros(200));
            std::thread::sleep(pause);
        }
        self.latch.clear_launches();
        Ok(())
    }

    /// Launches a kernel. This is the only place that launches kernels; a graph replays what was launched here.
    ///
    /// `params` holds addresses of the device's tensors, taken by [`Operand`](super::Operand) from views that the caller
    /// borrows.
    pub fn launch<P: Pod>(&self, kernel: &Kernel<P>, grid: Grid, sizes: impl Into<Sizes>, params: &P) -> Result<()> {
        self.latch.ensure_usable()?;
        let sizes = sizes.into();
        let spec = &kernel.spec;
        let config = launch_config(kernel, grid, &sizes)?;
        let function = match self.modules.get(spec) {
            Ok(function) => function,
            Err(failure) if failure.fault.is_recoverable() => return Err(failure.into()),
            Err(failure) => {
                return Err(self.latch.poison(format!("{}, for {} ({sizes})", failure.message, spec.name)));
            }
        };
        let params = LaunchParams(*params);
        let is_captured = self.capture.is_mine();
        let stream = if is_captured { &self.capturing } else { &self.compute };
        let mut launch = stream.launch_builder(&function);
        launch.arg(&params);
        // SAFETY: the kernel takes one parameter of this type; `tests/contract.rs` compares its size with the PTX. Its
        // addresses belong to tensors whose lengths check() has verified. Tensors are freed in stream order, so that none is
        // freed before the kernel ends, and a graph keeps the tensors of its kernels alive.
        #[allow(unsafe_code)]
        let outcome = unsafe { launch.launch(config) };
        if is_captured {
            self.capture.note_launch(&function, spec.name, sizes);
            return match outcome {
                // The capture was invalidated. Its work will be executed uncaptured.
                Err(error) if Fault::from(error).is(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED) => {
                    self.capture.invalidate();
                    Ok(())
                }
                outcome => {
                    self.latch.check_enqueue(&format_args!("capturing {} ({sizes})", spec.name), outcome).map(drop)
                }
            };
        }
        self.latch.note_launch(spec.name, sizes);
        let context = format_args!("launching {} ({sizes})", spec.name);
        if self.is_owned_by_program {
            self.latch.check_captured(&context, outcome)?;
        } else {
            self.latch.check_enqueue(&context, outcome)?;
        }
        if self.is_launch_blocking() && !self.is_captured_by_program()? { self.synchronize() } else { Ok(()) }
    }
}

/// The driver's launch configuration, checked against the limits of every architecture and against the kernel's contract.
fn launch_config<P: Pod>(Kernel { spec, .. }: &Kernel<P>, grid: Grid, sizes: &Sizes) -> Result<LaunchConfig> {
    let violated = |rule: &str, found: String| {
        Err(Error::Precondition { operation: spec.name, rule: rule.into(), found: format!("{found}; {sizes}") })
    };
    let (Ok(x @ 1..=0x7fff_ffff), Ok(y @ 1..=0xffff)) = (u32::try_from(grid.x), u32::try_from(grid.y)) else {
        return violated("1 <= grid <= (2147483647, 65535)", format!("grid = ({}, {})", grid.x, grid.y));
    };
    if grid.dynamic_shared > spec.dynamic_shared {
        let rule = format!("dynamic shared memory <= {}", spec.dynamic_shared);
        return violated(&rule, format!("{} bytes", grid.dynamic_shared));
    }
    Ok(LaunchConfig { grid_dim: (x, y, 1), block_dim: (spec.threads, 1, 1), shared_mem_bytes: grid.dynamic_shared })
}

/// A parameter struct in the form in which cudarc takes kernel arguments.
#[repr(transparent)]
struct LaunchParams<P>(P);

// SAFETY: plain data with the layout that the kernel was compiled with; bindgen generates it from kernels/params.h.
#[allow(unsafe_code)]
unsafe impl<P: Pod> DeviceRepr for LaunchParams<P> {}
