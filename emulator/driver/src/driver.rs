//! The state behind the entries: one lock over everything, let go while an operation executes.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, LazyLock, Mutex, MutexGuard, PoisonError};

use cudarc::driver::sys::CUresult::{
    CUDA_ERROR_CONTEXT_IS_DESTROYED, CUDA_ERROR_INVALID_CONTEXT, CUDA_ERROR_INVALID_DEVICE, CUDA_ERROR_INVALID_HANDLE,
    CUDA_ERROR_INVALID_VALUE, CUDA_ERROR_NOT_INITIALIZED,
};
use ptx_emulator::Limits;
use ptx_emulator::memory::Memory;

use crate::boundary::{Device, Handle};
use crate::capture::Capture;
use crate::context::{self, Context, Primary};
use crate::error::{Because, Error, Result, ensure, say};
use crate::event::Event;
use crate::fault;
use crate::function::Function;
use crate::graph::{Executable, Graph};
use crate::library::{Kernel, Library};
use crate::memory::Owned;
use crate::module::Module;
use crate::pinned::Pinned;
use crate::pool::Pool;
use crate::queue::Queue;
use crate::random::Random;
use crate::record::Record;
use crate::settings::{self, Settings};
use crate::stream::Stream;

/// Everything the library knows.
pub struct Driver {
    initialised: bool,
    /// A kernel, copy or fill is executing, outside the lock; one at a time.
    pub running: bool,
    /// Host functions that are running.
    pub callbacks: u32,
    pub settings: Settings,
    pub limits: Limits,
    pub memory: Arc<Memory>,
    pub random: Random,
    pub queue: Queue,
    pub record: Record,
    pub primary: Primary,
    pub contexts: BTreeMap<Handle, Context>,
    /// Contexts that are no more, to be told from those that never were.
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
/// Told whenever an operation has ended.
static PROGRESS: Condvar = Condvar::new();

/// What a handle names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    Context = 1,
    Stream,
    Event,
    Module,
    Function,
    Library,
    Kernel,
    Graph,
    Node,
    Executable,
    Pool,
}

/// A handle nobody had before: not an address of anything, so that a program which looks inside dies at once.
pub fn new_handle(kind: Kind) -> Handle {
    static NEXT: AtomicU64 = AtomicU64::new(1);
    0xEC00_0000_0000_0000 | (kind as u64) << 48 | NEXT.fetch_add(1, Ordering::Relaxed) << 4
}

/// The state, for entries that need `cuInit` before them.
///
/// # Errors
/// There was none.
pub fn lock() -> Result<Guard> {
    let driver = lock_any();
    ensure!(driver.initialised, CUDA_ERROR_NOT_INITIALIZED, "cuInit was not called, or failed");
    Ok(driver)
}

/// Whether there was a `cuInit`, for entries that look at their arguments before the state.
///
/// # Errors
/// There was none.
pub fn ready() -> Result<()> {
    lock().map(drop)
}

/// The state, initialised or not.
pub fn lock_any() -> Guard {
    DRIVER.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Waits for the end of an operation that executes.
pub fn wait(driver: Guard) -> Guard {
    PROGRESS.wait(driver).unwrap_or_else(PoisonError::into_inner)
}

/// Wakes those who [`wait`].
pub fn notify() {
    PROGRESS.notify_all();
}

/// `cuInit`: the environment is read here, and an error in it ends the matter.
pub fn initialise(flags: u32) -> Result<()> {
    ensure!(flags == 0, CUDA_ERROR_INVALID_VALUE, "flags are {flags:#x}, must be 0");
    let mut driver = lock_any();
    if driver.initialised {
        return Ok(());
    }
    let settings = settings::from_process().map_err(|wrong| {
        say(&wrong);
        CUDA_ERROR_INVALID_VALUE.because(wrong)
    })?;
    *driver = Driver::new(settings);
    driver.initialised = true;
    Ok(())
}

/// Forgets everything, as if the process had just started; the environment is read again.
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
            limits: settings.arch.limits().unwrap_or_else(|| unreachable!("settings allow only what has limits")),
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

    /// Something executes, and will [`notify`] when it ends.
    pub fn is_busy(&self) -> bool {
        self.running || self.callbacks > 0
    }

    /// The calling thread's context, which must be live and without an error.
    pub fn current(&self) -> Result<Handle> {
        let Some(top) = context::top() else {
            return Err(CUDA_ERROR_INVALID_CONTEXT.because("no context is current to this thread"));
        };
        self.healthy(top)
    }

    /// A context that is live and without an error: every call after a failed launch answers that launch's code.
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
        CUDA_ERROR_INVALID_CONTEXT.because(format!("{handle:#x} is no context"))
    }
}

/// An object of a table, whose handle may be anything.
pub fn find<'a, T>(table: &'a BTreeMap<Handle, T>, what: &str, handle: Handle) -> Result<&'a T> {
    table.get(&handle).ok_or_else(|| not_live(what, handle))
}

/// [`find`], to change it.
pub fn find_mut<'a, T>(table: &'a mut BTreeMap<Handle, T>, what: &str, handle: Handle) -> Result<&'a mut T> {
    table.get_mut(&handle).ok_or_else(|| not_live(what, handle))
}

fn not_live(what: &str, handle: Handle) -> Error {
    CUDA_ERROR_INVALID_HANDLE.because(format!("{handle:#x} is no live {what}"))
}

/// There is one device.
pub fn check_device(device: Device) -> Result<()> {
    ensure!(device == 0, CUDA_ERROR_INVALID_DEVICE, "device {device}: there is one, device 0");
    Ok(())
}

/// What `cuDriverGetVersion` answers, which may come before `cuInit`.
pub fn driver_version() -> i32 {
    let driver = lock_any();
    if driver.initialised {
        return driver.settings.driver_version;
    }
    drop(driver);
    settings::from_process().map_or_else(|_| Settings::default().driver_version, |settings| settings.driver_version)
}
