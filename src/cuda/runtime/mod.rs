//! The device at run time: driver, streams, memory, transfers, CUDA graphs, modules, timing.

pub mod device;
pub mod driver;
pub mod emulation;
pub mod timing;

mod faults;
mod graph;
mod memory;
mod modules;
mod transfers;

use std::sync::Arc;

use cudarc::driver::CudaContext;
pub use graph::Graph;
pub(crate) use memory::Operand;
pub use memory::{Buffer, SliceMut};
pub use transfers::Event;

use self::device::Device;
use crate::error::{Error, Result};

/// An NVIDIA GPU of compute capability 8.0 or newer, or the emulated one. Clones are the same device.
#[derive(Clone)]
pub struct Cuda {
    device: Arc<Device>,
}

impl Cuda {
    /// GPU `ordinal` of the CUDA driver.
    ///
    /// # Errors
    /// [`Error::Unavailable`], one line that says what was found and what is needed.
    pub fn new(ordinal: usize) -> Result<Self> {
        Ok(Cuda { device: Arc::new(Device::open(ordinal)?) })
    }

    /// The emulated GPU. The first CUDA function that a process calls decides which driver it has: this must be it.
    ///
    /// # Errors
    /// [`Error::Unavailable`] when there is no emulator, or a real driver was used before.
    pub fn emulated() -> Result<Self> {
        driver::emulate(&driver::find_emulator()?)?;
        let cuda = Self::new(0)?;
        if !cuda.device.properties().is_emulated() {
            return Err(Error::Unavailable(format!(
                "no emulated GPU: this process has used {} before",
                cuda.device.properties().name
            )));
        }
        Ok(cuda)
    }

    /// In a context of the caller's.
    ///
    /// # Errors
    /// As [`Cuda::new`].
    pub fn with_context(context: &Arc<CudaContext>) -> Result<Self> {
        Ok(Cuda { device: Arc::new(Device::with_context(context)?) })
    }

    /// The device.
    pub fn device(&self) -> &Device {
        &self.device
    }
}
