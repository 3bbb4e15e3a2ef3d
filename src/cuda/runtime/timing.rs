//! Execution times, measured on the device.

use std::ffi::CStr;
use std::time::Duration;

use cudarc::driver::sys::CUdevice_attribute_enum::{
    CU_DEVICE_ATTRIBUTE_CLOCK_RATE, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE,
};
use cudarc::driver::sys::CUevent_flags_enum::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaEvent, sys};

use super::device::Cuda;
use super::latch::QueryError;
use super::storage::Buffer;
use crate::error::{Error, Result};
use crate::tensor::Storage;

/// Measures the time of work between two events, with a cold L2 cache.
pub struct Stopwatch {
    start: CudaEvent,
    end: CudaEvent,
    /// Written before each measurement, so that L2 holds no operand of the work.
    flush: Buffer<i32>,
    l2: u64,
}

impl Stopwatch {
    /// A stopwatch for a device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] on the emulated device, whose execution times mean nothing.
    pub fn new(cuda: &Cuda) -> Result<Self> {
        let device = cuda.device();
        let name = &device.properties().name;
        if device.properties().is_emulated() {
            return Err(Error::Unavailable(format!(
                "{name} cannot be timed: it counts what kernels do, which `ironwarp profile` shows"
            )));
        }
        let context = device.stream().context();
        let checked = |outcome| match outcome {
            Ok(value) => Ok(value),
            Err(QueryError::Fatal(error)) => Err(error),
            Err(QueryError::Recoverable(fault)) => Err(Error::Unavailable(format!("{name} cannot be timed: {fault}"))),
        };
        let latch = &device.stream.latch;
        let event = || checked(latch.check_query(&"creating an event", context.new_event(Some(CU_EVENT_DEFAULT))));
        let l2 = latch.check_query(&"querying the size of L2", context.attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE));
        let l2 = match l2 {
            Ok(bytes) => bytes.max(0) as u64,
            Err(QueryError::Fatal(error)) => return Err(error),
            // Larger than the L2 of any GPU.
            Err(QueryError::Recoverable(_)) => 256 << 20,
        };
        let flush = cuda.zeros((2 * l2 / 4).max(1) as usize)?;
        Ok(Stopwatch { start: event()?, end: event()?, flush, l2 })
    }

    /// Size of the device's L2 cache in bytes.
    pub fn l2(&self) -> u64 {
        self.l2
    }

    /// Measures how long the device takes for the work that `run` enqueues. The flush of L2 before it keeps the device busy
    /// while the host enqueues, so that gaps between launches are not measured, provided that the host is fast enough.
    ///
    /// # Errors
    /// The errors of `run`, and of the wait for its work.
    pub fn time(&mut self, cuda: &Cuda, run: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let device = cuda.device();
        cuda.clear(&mut self.flush)?;
        let latch = &device.stream.latch;
        latch.check_enqueue(&"recording the start of a measurement", self.start.record(device.stream()))?;
        run()?;
        latch.check_enqueue(&"recording the end of a measurement", self.end.record(device.stream()))?;
        device.synchronize()?;
        let milliseconds = latch.check_enqueue(&"reading a measurement", self.start.elapsed_ms(&self.end))?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

impl Cuda {
    /// The PCI bus id of the device, such as `00000000:3B:00.0`, if the driver says.
    pub fn pci_bus_id(&self) -> Option<String> {
        let mut text = [0u8; 32];
        let ordinal = self.device().properties().ordinal as i32;
        // SAFETY: writes a zero-terminated string of at most `text.len()` bytes.
        #[allow(unsafe_code)]
        let answer = unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr().cast(), text.len() as i32, ordinal) };
        answer.result().ok()?;
        CStr::from_bytes_until_nul(&text).ok()?.to_str().ok().map(str::to_owned)
    }

    /// The highest clocks of SMs and memory in MHz; 0 if the driver does not say.
    pub fn highest_clocks(&self) -> [u32; 2] {
        let context = self.device().stream().context();
        [CU_DEVICE_ATTRIBUTE_CLOCK_RATE, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE]
            .map(|attribute| context.attribute(attribute).map_or(0, |khz| khz.max(0) as u32 / 1000))
    }
}
