//! The emulated GPU: shared by the tests of this program, or exclusive to a test that changes its settings or reads its
//! counters.
//!
//! `IRONWARP_TEST_DEVICE=cuda` or `cuda:N` replaces it by a GPU of the real driver, which has neither settings nor counters:
//! tests that need exclusive use are skipped there, and print so.

use std::cell::Cell;
use std::ops::Deref;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use cudarc::driver::CudaContext;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::runtime::emulation::{Emulation, LaunchRecord, Traffic};

use crate::environment::{real_gpu, skip};

static USE: RwLock<()> = RwLock::new(());

fn device() -> &'static Cuda {
    static DEVICE: OnceLock<Cuda> = OnceLock::new();
    DEVICE.get_or_init(|| real_gpu().map_or_else(Cuda::emulated, Cuda::new).unwrap())
}

/// The GPU, shared with other tests.
pub struct Shared {
    lock: Option<RwLockReadGuard<'static, ()>>,
}

thread_local! {
    /// Whether the thread already holds the read lock. A second one could deadlock: it would wait for a queued writer, which
    /// waits for the first.
    static HOLDS_LOCK: Cell<bool> = const { Cell::new(false) };
}

/// The GPU, for tests that launch and read.
pub fn shared() -> Shared {
    let first = !HOLDS_LOCK.replace(true);
    Shared { lock: first.then(|| USE.read().unwrap_or_else(PoisonError::into_inner)) }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.lock.is_some() {
            HOLDS_LOCK.set(false);
        }
    }
}

impl Deref for Shared {
    type Target = Cuda;

    fn deref(&self) -> &Cuda {
        device()
    }
}

/// A device in a new context, for tests whose result depends on everything that the context holds or runs.
pub fn own() -> Cuda {
    // The shared device loads the driver that cudarc then finds.
    let ordinal = shared().device().properties().ordinal;
    Cuda::with_context(&CudaContext::new_non_primary(ordinal, 0).unwrap()).unwrap()
}

/// The emulated GPU and its settings, while no other test uses it.
pub struct Alone {
    _lock: RwLockWriteGuard<'static, ()>,
}

/// The emulated GPU, for tests that read its counters or change its settings; none where tests use a real GPU, which the
/// test's log states.
pub fn alone() -> Option<Alone> {
    if real_gpu().is_some() {
        skip("the emulated GPU");
        return None;
    }
    let lock = USE.write().unwrap_or_else(PoisonError::into_inner);
    device();
    Some(Alone { _lock: lock })
}

impl Deref for Alone {
    type Target = Cuda;

    fn deref(&self) -> &Cuda {
        device()
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        self.set_seed(0);
        self.set_step_budget(1 << 31);
        self.set_quiet(false);
    }
}

impl Alone {
    fn emulation(&self) -> Emulation {
        Emulation::of(self).unwrap()
    }

    /// Selects a schedule: the order of everything that CUDA leaves unordered.
    pub fn set_seed(&self, seed: u64) {
        self.emulation().set_seed(seed).unwrap();
    }

    /// Limits the warp instructions that a launch may execute.
    pub fn set_step_budget(&self, steps: u64) {
        self.emulation().set_step_budget(steps).unwrap();
    }

    /// Suppresses the printing of findings, for tests that provoke them.
    pub fn set_quiet(&self, quiet: bool) {
        self.emulation().set_quiet(quiet).unwrap();
    }

    /// The counters of the launches in `run`.
    pub fn count(&self, run: impl FnOnce()) -> Counts {
        let counted = self.emulation().count(self, || {
            run();
            Ok(())
        });
        Counts { launches: counted.unwrap().1 }
    }
}

/// Counters of launches.
pub struct Counts {
    pub launches: Vec<LaunchRecord>,
}

impl Counts {
    /// Accesses to device memory.
    pub fn global(&self) -> Traffic {
        self.launches.iter().map(|launch| launch.counts.global()).sum()
    }

    /// Additional passes over the banks of shared memory, due to conflicts.
    pub fn bank_conflicts(&self) -> u64 {
        self.launches.iter().map(|launch| launch.counts.bank_conflicts).sum()
    }

    /// Warp instructions of the launch that executes the most.
    pub fn most_instructions(&self) -> u64 {
        self.launches.iter().map(|launch| launch.counts.warp_instructions).max().unwrap_or(0)
    }

    /// The launched kernels, in order.
    pub fn kernels(&self) -> Vec<&str> {
        self.launches.iter().map(|launch| launch.kernel.as_str()).collect()
    }
}
