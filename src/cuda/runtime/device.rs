//! A CUDA device: its context and stream, the one launch, and what happens when the driver reports an error.
//!
//! Every kernel goes through one stream, in the order of the calls; copies ahead have another, which marks order with it.
//!
//! An error of which nothing is known to be left intact **latches** the device: it is reported with the kernels it may
//! belong to, and every later call answers the same, without asking the driver. What is harmless (no room for an
//! allocation, a kernel file that does not load) is reported and leaves the device usable.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, Instant};

use bytemuck::Pod;
use cudarc::driver::sys::CUdevice_attribute_enum::CU_DEVICE_ATTRIBUTE_MULTIPROCESSOR_COUNT;
use cudarc::driver::sys::CUresult::CUDA_ERROR_STREAM_CAPTURE_INVALIDATED;
use cudarc::driver::{CudaContext, CudaEvent, CudaStream, DeviceRepr, DriverError, LaunchConfig, PushKernelArg};

use super::driver;
use super::faults::Fault;
use super::graph::{Recorder, no_captures};
use super::memory::{Account, Workspace};
use super::modules::Modules;
use super::transfers::Staging;
use crate::cuda::launch::spec::{Grid, Kernel, Sizes};
use crate::memory::Category;
use crate::{Error, Result};

/// The oldest compute capability that the kernels are for.
const OLDEST: (u32, u32) = (8, 0);

/// What a device is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Properties {
    /// As the driver calls it.
    pub name: String,
    /// Its index among the driver's devices.
    pub ordinal: usize,
    /// Compute capability, such as (9, 0).
    pub capability: (u32, u32),
    /// Multiprocessors.
    pub sm_count: usize,
    /// Bytes of memory.
    pub memory: u64,
    /// CUDA version of the driver, such as `13.0`.
    pub driver: String,
}

impl Properties {
    /// Whether it is the emulated device, whose times mean nothing.
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
pub struct Device {
    // Fields are dropped in this order: what the driver holds for us, before its context.
    workspace: Mutex<Workspace>,
    staging: Staging,
    modules: Modules,
    /// Recorded at the end of what is waited for.
    end: CudaEvent,
    stream: Arc<CudaStream>,
    /// Runs nothing: launches that are recorded are captured in it.
    recording_stream: Arc<CudaStream>,
    properties: Properties,
    account: Arc<Account>,
    recorder: Arc<Recorder>,
    launched: Mutex<Launched>,
    lost: OnceLock<String>,
    timeout: Mutex<Duration>,
    wait_each: AtomicBool,
}

impl Device {
    /// Device `ordinal` of the driver, with its primary context.
    ///
    /// # Errors
    /// [`Error::Unavailable`], one line: no driver, or one too old; no such device, or one too old.
    pub fn open(ordinal: usize) -> Result<Self> {
        let count = driver::require()?;
        if ordinal >= count {
            return Err(Error::Unavailable(format!(
                "no GPU {ordinal}: the CUDA driver found {count}, the first of them is cuda:0"
            )));
        }
        let context = CudaContext::new(ordinal)
            .map_err(|error| Error::Unavailable(format!("GPU {ordinal} cannot be used: {}", Fault::from(error))))?;
        // SAFETY: what runs goes through one stream, but for copies that our own events order: cudarc's have nothing to do.
        #[allow(unsafe_code)]
        unsafe {
            context.disable_event_tracking();
        }
        Self::with_context(&context)
    }

    /// A device by a context that exists: for programs that bring their own. Its settings stay as they are.
    ///
    /// # Errors
    /// [`Error::Unavailable`] as [`Device::open`].
    pub fn with_context(context: &Arc<CudaContext>) -> Result<Self> {
        let _alone = no_captures()?;
        let unusable = |fault: Fault| Error::Unavailable(format!("GPU {} cannot be used: {fault}", context.ordinal()));
        let fault = |error: DriverError| unusable(error.into());
        let properties = Properties::of(context).map_err(fault)?;
        let (Properties { name, .. }, (major, minor)) = (&properties, properties.capability);
        if properties.capability < OLDEST {
            return Err(Error::Unavailable(format!(
                "the GPU is too old: {name} has compute capability {major}.{minor}, {}.{} or newer is needed; the CPU \
                 backend works without",
                OLDEST.0, OLDEST.1
            )));
        }
        Ok(Device {
            workspace: Mutex::default(),
            modules: Modules::new(context.clone(), properties.capability),
            end: context.new_event(None).map_err(fault)?,
            stream: context.new_stream().map_err(fault)?,
            staging: Staging::new(context.new_stream().map_err(fault)?),
            recording_stream: context.new_stream().map_err(fault)?,
            properties,
            account: Arc::default(),
            recorder: Arc::default(),
            launched: Mutex::default(),
            lost: OnceLock::new(),
            timeout: Mutex::new(timeout()?),
            wait_each: AtomicBool::new(std::env::var_os("IRONWARP_CUDA_SYNC").is_some_and(|value| value != "0")),
        })
    }

    /// What it is.
    pub fn properties(&self) -> &Properties {
        &self.properties
    }

    /// The stream that all kernels go through, for programs that add their own.
    pub fn stream(&self) -> &Arc<CudaStream> {
        &self.stream
    }

    /// Bytes of its memory that nobody has, if the driver tells.
    pub fn free_memory(&self) -> Option<u64> {
        self.free_and_total().map(|(free, _)| free)
    }

    pub(in crate::cuda) fn free_and_total(&self) -> Option<(u64, u64)> {
        self.stream.context().mem_get_info().ok().map(|(free, total)| (free as u64, total as u64))
    }

    /// Bytes held by tensors and the workspace, by what for.
    pub fn held(&self) -> Vec<(Category, u64)> {
        self.account.held()
    }

    /// The most bytes that tensors and the workspace have held at a time.
    pub fn peak_memory(&self) -> u64 {
        self.account.peak()
    }

    /// Loads `ptx` in place of `kernels/<stem>.cu` from now on: to try a variant of a kernel.
    ///
    /// It must have the same entry points with the same parameters.
    pub fn replace_kernels(&self, stem: &str, ptx: &str) {
        self.modules.replace(stem, ptx);
    }

    /// Waits for each launch when it is made, so that an error names the very kernel. IRONWARP_CUDA_SYNC=1 sets it for
    /// every device.
    pub fn set_launch_blocking(&self, wait: bool) {
        self.wait_each.store(wait, Ordering::Relaxed);
    }

    /// How long [`Device::synchronize`] waits for kernels before it takes them for hanging: IRONWARP_CUDA_TIMEOUT seconds,
    /// ten minutes if that is not set.
    pub fn set_timeout(&self, timeout: Duration) {
        *self.timeout.lock().unwrap_or_else(PoisonError::into_inner) = timeout;
    }

    /// Waits for everything that was queued.
    ///
    /// # Errors
    /// [`Error::DeviceLost`] when something of it failed, or has not ended within the timeout.
    pub fn synchronize(&self) -> Result<()> {
        self.usable()?;
        self.not_recording()?;
        self.queued(&"the end of the queue", self.end.record(&self.stream))?;
        let start = Instant::now();
        let timeout = *self.timeout.lock().unwrap_or_else(PoisonError::into_inner);
        let mut pause = Duration::ZERO;
        // Asked again and again, as a driver waits for a kernel that hangs for ever.
        while !self.ended()? {
            if start.elapsed() > timeout {
                return Err(self.lose(format!(
                    "{} did not end within {} s (IRONWARP_CUDA_TIMEOUT)",
                    self.launched(),
                    timeout.as_secs_f64()
                )));
            }
            // Short steps end within microseconds; long ones need not be watched closely.
            pause = (pause + Duration::from_micros(1)).min(Duration::from_micros(200));
            std::thread::sleep(pause);
        }
        *self.launched() = Launched::default();
        Ok(())
    }

    fn ended(&self) -> Result<bool> {
        self.end.try_is_complete().map_err(|error| self.lose(format!("{} in {}", Words(error.into()), self.launched())))
    }

    /// Launches a kernel. This is the one place where kernels are launched; a recording queues again what was launched here.
    ///
    /// `params` holds addresses of the device's tensors, made by [`super::memory::Operand`] while the caller borrows them.
    pub(in crate::cuda) fn launch<P: Pod>(
        &self,
        kernel: &Kernel<P>,
        grid: Grid,
        sizes: impl Into<Sizes>,
        params: &P,
    ) -> Result<()> {
        self.usable()?;
        let sizes = sizes.into();
        let spec = &kernel.spec;
        let refuse = |rule: &str, found: String| {
            Err(Error::Precondition { operation: spec.name, rule: rule.into(), found: format!("{found}; {sizes}") })
        };
        // Every architecture's limits.
        let (Ok(x @ 1..=0x7fff_ffff), Ok(y @ 1..=0xffff)) = (u32::try_from(grid.x), u32::try_from(grid.y)) else {
            return refuse("1 <= grid <= (2147483647, 65535)", format!("grid = ({}, {})", grid.x, grid.y));
        };
        if grid.dynamic_shared > spec.dynamic_shared {
            let rule = format!("dynamic shared memory <= {}", spec.dynamic_shared);
            return refuse(&rule, format!("{} bytes", grid.dynamic_shared));
        }
        let function = match self.modules.get(spec) {
            Ok(function) => function,
            Err(failure) if failure.fault.is_harmless() => return Err(failure.into()),
            Err(failure) => return Err(self.lose(format!("{}, for {} ({sizes})", failure.message, spec.name))),
        };
        let config = LaunchConfig {
            grid_dim: (x, y, 1),
            block_dim: (spec.threads, 1, 1),
            shared_mem_bytes: grid.dynamic_shared,
        };
        let passed = Passed(*params);
        let is_recorded = self.recorder.is_mine();
        let stream = if is_recorded { &self.recording_stream } else { &self.stream };
        let mut launch = stream.launch_builder(&function);
        launch.arg(&passed);
        // SAFETY: the kernel takes one parameter of this type, as `tests/contract.rs` sees to. Its addresses are of tensors
        // that check() has found long enough; tensors are freed in the stream's order, so none goes before the kernel ends,
        // and a recording keeps those of its kernels.
        #[allow(unsafe_code)]
        let outcome = unsafe { launch.launch(config) };
        if is_recorded {
            self.recorder.launched(&function, spec.name, sizes);
            return match outcome {
                // The capture was given up, and the work will be done without it.
                Err(error) if Fault::from(error).is(CUDA_ERROR_STREAM_CAPTURE_INVALIDATED) => {
                    self.recorder.give_up();
                    Ok(())
                }
                outcome => self.queued(&format_args!("{} ({sizes}), to be recorded", spec.name), outcome).map(drop),
            };
        }
        self.note_launch(spec.name, sizes);
        self.queued(&format_args!("{} ({sizes})", spec.name), outcome)?;
        if self.waits_for_each_launch() { self.synchronize() } else { Ok(()) }
    }

    /// The the workspace, for the launches of one operation: `bytes` at the address that the guard has.
    ///
    /// While the guard is held no other operation uses it, and those that come after are behind this one in the stream.
    pub(in crate::cuda) fn workspace(&self, bytes: usize) -> Result<MutexGuard<'_, Workspace>> {
        self.usable()?;
        let mut workspace = self.workspace.lock().unwrap_or_else(PoisonError::into_inner);
        workspace.grow(self, bytes)?;
        Ok(workspace)
    }

    pub(in crate::cuda) fn note_launch(&self, kernel: &'static str, sizes: Sizes) {
        self.launched().push(kernel, sizes);
    }

    pub(in crate::cuda) fn waits_for_each_launch(&self) -> bool {
        self.wait_each.load(Ordering::Relaxed)
    }

    pub(in crate::cuda) fn recording_stream(&self) -> &Arc<CudaStream> {
        &self.recording_stream
    }

    pub(in crate::cuda) fn recorder(&self) -> &Arc<Recorder> {
        &self.recorder
    }

    /// That the calling thread does not record: for what a recording cannot hold.
    pub(in crate::cuda) fn not_recording(&self) -> Result<()> {
        if self.recorder.is_mine() {
            return Err(Error::invalid("only operations can be recorded: no copies, no waiting, no other recordings"));
        }
        Ok(())
    }

    pub(in crate::cuda) fn staging(&self) -> &Staging {
        &self.staging
    }

    pub(in crate::cuda) fn account(&self) -> &Arc<Account> {
        &self.account
    }

    /// That the device was not lost.
    pub(in crate::cuda) fn usable(&self) -> Result<()> {
        match self.lost.get() {
            None => Ok(()),
            Some(message) => Err(Error::DeviceLost(message.clone())),
        }
    }

    /// The outcome of a call that was to queue work: without it, what follows in the stream cannot be right.
    pub(in crate::cuda) fn queued<T>(&self, what: &dyn fmt::Display, outcome: Result<T, DriverError>) -> Result<T> {
        outcome.map_err(|error| self.lose(format!("{} at {what}{}", Words(error.into()), self.launched().before())))
    }

    /// The outcome of a call that queues nothing.
    pub(in crate::cuda) fn asked<T>(
        &self,
        what: &dyn fmt::Display,
        outcome: Result<T, DriverError>,
    ) -> Result<T, Refusal> {
        outcome.map_err(|error| match Fault::from(error) {
            fault if fault.is_harmless() => Refusal::Harmless(fault),
            fault => Refusal::Lost(self.lose(format!("{} at {what}{}", Words(fault), self.launched().before()))),
        })
    }

    fn lose(&self, message: String) -> Error {
        // The first error is the one that tells.
        Error::DeviceLost(self.lost.get_or_init(|| message).clone())
    }

    fn launched(&self) -> MutexGuard<'_, Launched> {
        self.launched.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Device {
    fn drop(&mut self) {
        let timeout = *self.timeout.get_mut().unwrap_or_else(PoisonError::into_inner);
        self.staging.finish(self.lost.get().is_some(), timeout);
    }
}

/// Why a call that queues nothing failed.
pub(in crate::cuda) enum Refusal {
    Harmless(Fault),
    Lost(Error),
}

/// A kernel's parameter, as cudarc takes it.
#[repr(transparent)]
struct Passed<P>(P);

// SAFETY: plain bytes, of the layout that the kernel was compiled with: bindgen's of kernels/params.h.
#[allow(unsafe_code)]
unsafe impl<P: Pod> DeviceRepr for Passed<P> {}

/// A fault, and what the emulated driver knows of it.
struct Words(Fault);

impl fmt::Display for Words {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)?;
        match driver::emulator_text() {
            Some(text) => write!(f, " [{text}]"),
            None => Ok(()),
        }
    }
}

/// Kernels since the last time that everything had ended: one of them is to blame for an error.
#[derive(Debug, Default)]
struct Launched {
    last: Vec<(&'static str, Sizes)>,
    count: usize,
}

impl Launched {
    /// More would tell nobody which it was.
    const KEPT: usize = 8;

    fn push(&mut self, kernel: &'static str, sizes: Sizes) {
        if self.last.len() == Self::KEPT {
            self.last.remove(0);
        }
        self.last.push((kernel, sizes));
        self.count += 1;
    }

    fn before(&self) -> String {
        if self.count == 0 { String::new() } else { format!(", or in {self}") }
    }
}

impl fmt::Display for Launched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kernels: Vec<String> = self.last.iter().map(|(kernel, sizes)| format!("{kernel} ({sizes})")).collect();
        match &kernels[..] {
            [] => f.write_str("what was queued"),
            [kernel] => f.write_str(kernel),
            kernels => {
                let (count, which) = (self.count, if self.count > kernels.len() { ", the last being" } else { ":" });
                let kernels = kernels.join(", ");
                write!(f, "one of {count} kernels{which} {kernels}; IRONWARP_CUDA_SYNC=1 tells which")
            }
        }
    }
}

/// How long kernels may take: IRONWARP_CUDA_TIMEOUT seconds, ten minutes if that is not set.
fn timeout() -> Result<Duration> {
    let Ok(text) = std::env::var("IRONWARP_CUDA_TIMEOUT") else { return Ok(Duration::from_secs(600)) };
    let seconds = text.parse().ok().filter(|seconds| *seconds > 0.0);
    seconds
        .and_then(|seconds| Duration::try_from_secs_f64(seconds).ok())
        .ok_or_else(|| Error::invalid(format!("IRONWARP_CUDA_TIMEOUT='{text}': expected seconds, such as 600 or 0.5")))
}
