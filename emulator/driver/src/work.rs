//! The operations of streams and graphs, and their execution.

use std::sync::Arc;

use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_ILLEGAL_ADDRESS, CUDA_ERROR_LAUNCH_FAILED, CUDA_ERROR_LAUNCH_TIMEOUT, CUDA_ERROR_MISALIGNED_ADDRESS,
    CUDA_SUCCESS,
};
use emulator_counts::LaunchRecord;
use ptx_emulator::memory::{Memory, MemoryError};
use ptx_emulator::observe::Check;
use ptx_emulator::{Kernel, Launch, LaunchError, Limits, Settings};

use crate::boundary::{Handle, HostFunction, StreamCallback, UserData};
use crate::copy::Copy;
use crate::error::{Because, Error, Result};
use crate::export::callback;

/// An operation of a stream, or a node of a graph.
#[derive(Debug, Clone)]
pub enum Work {
    /// No work: only a point in the order.
    Nothing,
    /// Records an event.
    Event(Handle),
    /// In a graph: waits for an event that is recorded outside of the graph.
    Await(Handle),
    Launch(Arc<Grid>),
    Copy(Arc<Copy>),
    Fill(Fill),
    /// Frees memory in stream order.
    Free(u64),
    Host(HostFunction, UserData),
    Callback(StreamCallback, Handle, UserData),
}

/// A kernel launch.
#[derive(Debug)]
pub struct Grid {
    pub kernel: Arc<Kernel>,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub cluster: [u32; 3],
    pub dynamic_shared: u32,
    pub shared_limit: u32,
    /// The parameter block.
    pub params: Vec<u8>,
}

/// A memset of `height` rows.
#[derive(Debug, Clone)]
pub struct Fill {
    pub address: u64,
    pub pitch: u64,
    /// 1, 2 or 4 bytes.
    pub pattern: Vec<u8>,
    /// Number of patterns per row.
    pub width: u64,
    pub height: u64,
}

/// The state of the driver that an operation executes with.
pub struct DeviceState {
    pub memory: Arc<Memory>,
    pub limits: Limits,
    pub settings: Settings,
    /// The number of the launch, if the operation is one.
    pub launch: u64,
}

/// What the driver records after an operation.
pub enum Effect {
    None,
    Event(Handle),
    Freed(u64),
    Launched(Box<LaunchRecord>),
}

impl Grid {
    /// The launch in terms of `ptx_emulator`.
    pub fn launch(&self) -> Launch<'_> {
        Launch {
            kernel: &self.kernel,
            grid: self.grid,
            block: self.block,
            cluster: self.cluster,
            dynamic_shared: self.dynamic_shared,
            shared_limit: self.shared_limit,
            params: &self.params,
        }
    }
}

impl Work {
    /// Whether the operation calls a function of the caller.
    pub fn is_host(&self) -> bool {
        matches!(self, Work::Host(..) | Work::Callback(..))
    }

    /// Executes the operation.
    ///
    /// # Errors
    /// The error that every later call in the context returns.
    pub fn execute(&self, device: &DeviceState) -> Result<Effect> {
        match self {
            Work::Nothing | Work::Await(_) => Ok(Effect::None),
            Work::Event(event) => Ok(Effect::Event(*event)),
            Work::Launch(grid) => launch(grid, device),
            Work::Copy(copy) => copy.execute(&device.memory).map_err(out_of_bounds).map(|()| Effect::None),
            Work::Fill(fill) => fill.execute(&device.memory).map_err(out_of_bounds).map(|()| Effect::None),
            Work::Free(address) => {
                device.memory.free(*address).map_err(out_of_bounds).map(|()| Effect::Freed(*address))
            }
            Work::Host(function, data) => {
                callback(|| function.call(*data));
                Ok(Effect::None)
            }
            Work::Callback(function, stream, data) => {
                callback(|| function.call(*stream, CUDA_SUCCESS as u32, *data));
                Ok(Effect::None)
            }
        }
    }
}

impl Fill {
    fn execute(&self, memory: &Memory) -> Result<(), MemoryError> {
        (0..self.height).try_for_each(|row| memory.fill(self.address + row * self.pitch, &self.pattern, self.width))
    }
}

/// Ranges are checked when an operation is submitted, so the memory was freed before the operation was executed.
fn out_of_bounds(error: MemoryError) -> Error {
    CUDA_ERROR_ILLEGAL_ADDRESS.because(format!("an operation of a stream: {error}"))
}

fn launch(grid: &Grid, device: &DeviceState) -> Result<Effect> {
    let number = device.launch;
    match grid.launch().run(&device.memory, &device.limits, &device.settings) {
        Ok(counts) => Ok(Effect::Launched(Box::new(LaunchRecord {
            launch: number,
            kernel: grid.kernel.name.clone(),
            grid: grid.grid,
            block: grid.block,
            cluster: grid.cluster,
            dynamic_shared: grid.dynamic_shared,
            counts,
        }))),
        Err(error) => Err(code_of(&error).because(format!("launch {number}: {error}"))),
    }
}

/// The code that hardware reports for such an error, if it detects it.
fn code_of(error: &LaunchError) -> cudarc::driver::sys::CUresult {
    match error {
        LaunchError::Found(finding) => match finding.check {
            Check::Bounds => CUDA_ERROR_ILLEGAL_ADDRESS,
            Check::Alignment => CUDA_ERROR_MISALIGNED_ADDRESS,
            Check::EndlessLoop => CUDA_ERROR_LAUNCH_TIMEOUT,
            _ => CUDA_ERROR_LAUNCH_FAILED,
        },
        LaunchError::Rejected { .. } => CUDA_ERROR_LAUNCH_FAILED,
    }
}
