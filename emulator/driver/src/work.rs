//! What an operation does when its time has come.

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
use crate::driver::Driver;
use crate::error::{Because, Error, Result};
use crate::export::callback;

/// An operation of a stream, or a node of a graph.
#[derive(Debug, Clone)]
pub enum Work {
    /// Something to wait for.
    Nothing,
    /// An event is recorded.
    Event(Handle),
    /// In a graph: an event recorded elsewhere is waited for.
    Await(Handle),
    Launch(Arc<Grid>),
    Copy(Arc<Copy>),
    Fill(Fill),
    /// Stream-ordered freeing.
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
    /// Patterns a row.
    pub width: u64,
    pub height: u64,
}

/// What executing needs of the driver.
pub struct Device {
    pub memory: Arc<Memory>,
    limits: Limits,
    settings: Settings,
    /// The number of the launch, should this be one.
    number: u64,
}

/// What the driver must note afterwards.
pub enum Effect {
    None,
    Event(Handle),
    Freed(u64),
    Launched(Box<LaunchRecord>),
}

impl Device {
    /// Each operation gets a seed of its own, so that two launches of a kernel do not run alike.
    pub fn new(driver: &mut Driver, work: &Work) -> Self {
        let Driver { settings, random, memory, limits, record, .. } = driver;
        Self {
            memory: memory.clone(),
            limits: *limits,
            settings: Settings {
                seed: random.next(),
                checks: settings.checks,
                threads: settings.threads,
                step_budget: settings.step_budget,
            },
            number: if let Work::Launch(_) = work { record.begin_launch() } else { 0 },
        }
    }
}

impl Grid {
    /// As the executing crate wants it.
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
    /// A function of the caller's.
    pub fn is_host(&self) -> bool {
        matches!(self, Work::Host(..) | Work::Callback(..))
    }

    /// Does it.
    ///
    /// # Errors
    /// What the context has to answer from now on.
    pub fn execute(&self, device: &Device) -> Result<Effect> {
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

/// Ranges are checked when an operation is submitted, so here the memory was freed before the operation's turn.
fn out_of_bounds(error: MemoryError) -> Error {
    CUDA_ERROR_ILLEGAL_ADDRESS.because(format!("an operation of a stream: {error}"))
}

fn launch(grid: &Grid, device: &Device) -> Result<Effect> {
    let number = device.number;
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

/// What hardware would answer, had it noticed.
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
