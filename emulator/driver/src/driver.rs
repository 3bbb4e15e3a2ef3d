//! The state of the driver, behind one lock that is released while an operation executes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_CONTEXT_IS_DESTROYED, CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_INVALID_HANDLE,
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_INITIALIZED,
};
use ptx_emulator::Limits;
use ptx_emulator::memory::Memory;

use crate::boundary::{Device, Handle};
use crate::error::{Because, Error, Result, ensure};
use crate::fault;
use crate::handle::{Kind, new_handle};
use crate::object::allocation::Owned;
use crate::object::capture::Capture;
use crate::object::context::{self, Context, Primary};
use crate::object::event::Event;
use crate::object::function::Function;
use crate::object::graph::{Executable, Graph};
use crate::object::library::{Kernel, Library};
use crate::object::module::Module;
use crate::object::pinned::Pinned;
use crate::object::pool::Pool;
use crate::object::stream::Stream;
use crate::queue::Queue;
use crate::random::Random;
use crate::record::Record;
use crate::report;
use crate::settings::{self, Settings};

/// The state of the driver.
pub struct Driver {
    initialised: bool,
    /// A kernel, copy or fill is executing, without holding the lock. Only one executes at a time.
    pub running: bool,
    /// Number of host functions that are running.
    pub callbacks: u32,
    pub settings: Settings,
    pub limits: Limits,
    pub memory: Arc<Memory>,
    pub random: Random,
    pub queue: Queue,
    pub record: Record,
    pub primary: Primary,
    pub contexts: BTreeMap<Handle, Context>,
    /// Contexts that were destroyed, to distinguish them from invalid handles.
    pub destroyed: BTreeSet<Handle>,
    pub streams: BTreeMap<Handle, Stream>,
    pub events: BTreeMap<Handle, Event>,
    pub modules: BTreeMap<Handle, Module>,
    pub functions: BTreeMap<Handle, Function>,
    pub libraries: BTreeMap<Handle, Library>,
    pub kernels: BTreeMap<Handle, Kernel>,
    pub graphs: BTreeMap<Handle, Graph>,
    pub executables: BTreeMap<Handle, Executable>,
    pub captures: BTreeMap<u64, Capture>,
    pub pools: BTreeMap<Handle, Pool>,
    pub default_pool: Handle,
    pub current_pool: Handle,
    pub allocations: BTreeMap<u64, Owned>,
    pub pinned: Pinned,
}

/// The lock on the state.
pub type Guard = MutexGuard<'static, Driver>;

static DRIVER: LazyLock<Mutex<Driver>> = LazyLock::new(|| Mutex::new(Driver::new(Settings::default())));
/// Notified whenever an operation has ended.
static PROGRESS: Condvar = Condvar::new();

/// Locks the state, for functions that require `cuInit`.
///
/// # Errors
/// `cuInit` was not called.
pub fn lock() -> Result<Guard> {
    let driver = lock_any();
    ensure!(driver.initialised, CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called, or failed");
    Ok(driver)
}

/// Checks that `cuInit` was called, for functions that check their arguments before they lock the state.
///
/// # Errors
/// `cuInit` was not called.
pub fn ready() -> Result<()> {
    lock().map(drop)
}

/// Locks the state, whether or not `cuInit` was called.
pub fn lock_any() -> Guard {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits until an operation ends.
pub fn wait(driver: Guard) -> Guard {
    PROGRESS.wait(driver).unwrap_or_else(PoisonError::into_inner)
}

/// Wakes the threads in [`wait`].
pub fn notify() {
    PROGRESS.notify_all();
}

/// `cuInit`: reads the environment.
///
/// # Errors
/// A flag is set, or a variable of the environment has an invalid value.
pub fn initialise(flags: u32) -> Result<()> {
    ensure!(flags == 0, CUDA_ERROR_INVALID_VALUE, "flags are {flags:#x} but must be 0");
    let mut driver = lock_any();
    if driver.initialised {
        return Ok(());
    }
    let settings = settings::from_process().map_err(|error| {
        report::print(&error);
        CUDA_ERROR_INVALID_VALUE.because(error)
    })?;
    *driver = Driver::new(settings);
    driver.initialised = true;
    Ok(())
}

/// Resets the state to that at the start of the process, and reads the environment again.
pub fn reset() -> Result<(), String> {
    let mut driver = lock_any();
    while driver.is_busy() {
        driver = wait(driver);
    }
    let settings = settings::from_process()?;
    fault::set(settings.faults.clone());
    *driver = Driver::new(settings);
    Ok(())
}

impl Driver {
    fn new(settings: Settings) -> Self {
        let default_pool = new_handle(Kind::Pool);
        Self {
            initialised: false,
            running: false,
            callbacks: 0,
            limits: settings
                .arch
                .limits()
                .unwrap_or_else(|| unreachable!("settings allow only architectures with limits")),
            memory: Arc::new(Memory::new(settings.memory)),
            random: Random::new(settings.seed),
            queue: Queue::default(),
            record: Record::new(settings.counts.clone()),
            settings,
            primary: Primary::default(),
            contexts: BTreeMap::new(),
            destroyed: BTreeSet::new(),
            streams: BTreeMap::new(),
            events: BTreeMap::new(),
            modules: BTreeMap::new(),
            functions: BTreeMap::new(),
            libraries: BTreeMap::new(),
            kernels: BTreeMap::new(),
            graphs: BTreeMap::new(),
            executables: BTreeMap::new(),
            captures: BTreeMap::new(),
            pools: BTreeMap::from([(default_pool, Pool::default())]),
            default_pool,
            current_pool: default_pool,
            allocations: BTreeMap::new(),
            pinned: Pinned::default(),
        }
    }

    /// Whether an operation executes, which calls [`notify`] when it ends.
    pub fn is_busy(&self) -> bool {
        self.running || self.callbacks > 0
    }

    /// The calling thread's current context.
    ///
    /// # Errors
    /// There is none, it was destroyed, or it has an error.
    pub fn current(&self) -> Result<Handle> {
        let Some(top) = context::top() else {
            return Err(CUDA_ERROR_INVALID_CONTEXT.because("no context is current to this thread"));
        };
        self.healthy(top)
    }

    /// Checks a context.
    ///
    /// # Errors
    /// The context was destroyed, or an operation in it has failed: then the error of that operation.
    pub fn healthy(&self, context: Handle) -> Result<Handle> {
        match &self.context(context)?.failed {
            Some(failed) => Err(failed.clone()),
            None => Ok(context),
        }
    }

    /// A live context.
    pub fn context(&self, handle: Handle) -> Result<&Context> {
        self.contexts.get(&handle).ok_or_else(|| self.no_context(handle))
    }

    pub fn context_mut(&mut self, handle: Handle) -> Result<&mut Context> {
        if !self.contexts.contains_key(&handle) {
            return Err(self.no_context(handle));
        }
        self.contexts.get_mut(&handle).ok_or_else(|| not_live("context", handle))
    }

    fn no_context(&self, handle: Handle) -> Error {
        if self.destroyed.contains(&handle) {
            return CUDA_ERROR_CONTEXT_IS_DESTROYED.because(format!("context {handle:#x} was destroyed"));
        }
        CUDA_ERROR_INVALID_CONTEXT.because(format!("{handle:#x} is not a context"))
    }
}

/// The object of a handle.
///
/// # Errors
/// The handle is invalid.
pub fn find<'a, T>(table: &'a BTreeMap<Handle, T>, what: &str, handle: Handle) -> Result<&'a T> {
    table.get(&handle).ok_or_else(|| not_live(what, handle))
}

/// [`find`] for a mutable object.
pub fn find_mut<'a, T>(table: &'a mut BTreeMap<Handle, T>, what: &str, handle: Handle) -> Result<&'a mut T> {
    table.get_mut(&handle).ok_or_else(|| not_live(what, handle))
}

fn not_live(what: &str, handle: Handle) -> Error {
    CUDA_ERROR_INVALID_HANDLE.because(format!("{handle:#x} is not a live {what}"))
}

/// Checks a device ordinal.
pub fn check_device(device: Device) -> Result<()> {
    ensure!(device == 0, CUDA_ERROR_INVALID_DEVICE, "device {device} does not exist: the only device is 0");
    Ok(())
}

/// The answer of `cuDriverGetVersion`, which may be called before `cuInit`.
pub fn driver_version() -> i32 {
    let driver = lock_any();
    if driver.initialised {
        return driver.settings.driver_version;
    }
    drop(driver);
    settings::from_process().map_or_else(|_| Settings::default().driver_version, |settings| settings.driver_version)
}
