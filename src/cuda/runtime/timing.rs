//! Times of what runs on the device, taken on the device.

use std::ffi::CStr;
use std::time::Duration;

use cudarc::driver::sys::CUdevice_attribute_enum::{
    CU_DEVICE_ATTRIBUTE_CLOCK_RATE, CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE,
};
use cudarc::driver::sys::CUevent_flags_enum::CU_EVENT_DEFAULT;
use cudarc::driver::{CudaEvent, sys};

use super::Cuda;
use super::device::Refusal;
use super::memory::Buffer;
use crate::error::{Error, Result};
use crate::tensor::Storage;

/// Times work between two events, on a cold L2 cache.
pub struct Stopwatch {
    start: CudaEvent,
    end: CudaEvent,
    /// Written before each time, so that nothing of the work's operands is left in L2.
    flush: Buffer<i32>,
    l2: u64,
}

impl Stopwatch {
    /// For a device.
    ///
    /// # Errors
    /// [`Error::Unavailable`] on the emulated device, whose times mean nothing.
    pub fn new(cuda: &Cuda) -> Result<Self> {
        let device = cuda.device();
        let name = &device.properties().name;
        if device.properties().is_emulated() {
            return Err(Error::Unavailable(format!(
                "{name} has no times: it counts what kernels do, which `ironwarp profile` shows"
            )));
        }
        let context = device.stream().context();
        let answered = |outcome| match outcome {
            Ok(value) => Ok(value),
            Err(Refusal::Lost(error)) => Err(error),
            Err(Refusal::Harmless(fault)) => Err(Error::Unavailable(format!("{name} cannot be timed: {fault}"))),
        };
        let event = || answered(device.asked(&"making an event", context.new_event(Some(CU_EVENT_DEFAULT))));
        let l2 = device.asked(&"asking for the size of L2", context.attribute(CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE));
        let l2 = match l2 {
            Ok(bytes) => bytes.max(0) as u64,
            Err(Refusal::Lost(error)) => return Err(error),
            // More than any GPU has.
            Err(Refusal::Harmless(_)) => 256 << 20,
        };
        let flush = cuda.zeros((2 * l2 / 4).max(1) as usize)?;
        Ok(Stopwatch { start: event()?, end: event()?, flush, l2 })
    }

    /// Bytes of the device's L2 cache.
    pub fn l2(&self) -> u64 {
        self.l2
    }

    /// How long the device takes for what `run` queues. The flush before it keeps the device busy while the host queues, so
    /// that gaps between launches are not counted as far as the host is quick enough.
    ///
    /// # Errors
    /// As `run`, and as waiting for it.
    pub fn time(&mut self, cuda: &Cuda, run: impl FnOnce() -> Result<()>) -> Result<Duration> {
        let device = cuda.device();
        cuda.clear(&mut self.flush)?;
        device.queued(&"the start of a time", self.start.record(device.stream()))?;
        run()?;
        device.queued(&"the end of a time", self.end.record(device.stream()))?;
        device.synchronize()?;
        let milliseconds = device.queued(&"reading a time", self.start.elapsed_ms(&self.end))?;
        Ok(Duration::from_secs_f64(f64::from(milliseconds.max(0.0)) / 1e3))
    }
}

impl Cuda {
    /// Its place on the PCI bus, such as `00000000:3B:00.0`; none where the driver does not say.
    pub fn pci_bus_id(&self) -> Option<String> {
        let mut text = [0u8; 32];
        let ordinal = self.device().properties().ordinal as i32;
        // SAFETY: writes a zero-terminated text of at most so many bytes.
        #[allow(unsafe_code)]
        let answer = unsafe { sys::cuDeviceGetPCIBusId(text.as_mut_ptr().cast(), text.len() as i32, ordinal) };
        answer.result().ok()?;
        CStr::from_bytes_until_nul(&text).ok()?.to_str().ok().map(str::to_owned)
    }

    /// Highest clocks of the multiprocessors and of the memory in MHz, as the driver says; 0 where it does not.
    pub fn highest_clocks(&self) -> [u32; 2] {
        let context = self.device().stream().context();
        [CU_DEVICE_ATTRIBUTE_CLOCK_RATE, CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE]
            .map(|attribute| context.attribute(attribute).map_or(0, |khz| khz.max(0) as u32 / 1000))
    }
}
