//! The emulated GPU: shared by the tests of this program, or had alone by those that change or count something.
//!
//! `IRONWARP_TEST_DEVICE=cuda` or `cuda:N` puts a GPU of the real driver in its place. Nobody can have that alone, as it
//! neither counts nor obeys: tests that would, say so and end.

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

/// The GPU, together with other tests.
pub struct Shared {
    turn: Option<RwLockReadGuard<'static, ()>>,
}

thread_local! {
    /// Whether the thread has its turn: a second one would wait for a test that wants to be alone, which waits for the first.
    static HAS_TURN: Cell<bool> = const { Cell::new(false) };
}

/// The GPU, for tests that launch and read.
pub fn shared() -> Shared {
    let first = !HAS_TURN.replace(true);
    Shared { turn: first.then(|| USE.read().unwrap_or_else(PoisonError::into_inner)) }
}

impl Drop for Shared {
    fn drop(&mut self) {
        if self.turn.is_some() {
            HAS_TURN.set(false);
        }
    }
}

impl Deref for Shared {
    type Target = Cuda;

    fn deref(&self) -> &Cuda {
        device()
    }
}

/// A device in a context of its own, for tests to which it matters what else that holds or does.
pub fn own() -> Cuda {
    // cudarc finds the driver that the first device has loaded.
    let ordinal = shared().device().properties().ordinal;
    Cuda::with_context(&CudaContext::new_non_primary(ordinal, 0).unwrap()).unwrap()
}

/// The emulated GPU and its settings, without other tests.
pub struct Alone {
    _turn: RwLockWriteGuard<'static, ()>,
}

/// The emulated GPU, for tests that count, or change how it runs; where tests use a real one there is none, and the test's
/// log says so.
pub fn alone() -> Option<Alone> {
    if real_gpu().is_some() {
        skip("the emulated GPU");
        return None;
    }
    let turn = USE.write().unwrap_or_else(PoisonError::into_inner);
    device();
    Some(Alone { _turn: turn })
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

    /// Another order of everything that is unordered.
    pub fn set_seed(&self, seed: u64) {
        self.emulation().set_seed(seed).unwrap();
    }

    /// Warp instructions that a launch may execute.
    pub fn set_step_budget(&self, steps: u64) {
        self.emulation().set_step_budget(steps).unwrap();
    }

    /// Whether findings are not printed, for those that are meant to be.
    pub fn set_quiet(&self, quiet: bool) {
        self.emulation().set_quiet(quiet).unwrap();
    }

    /// What the launches of `run` counted.
    pub fn count(&self, run: impl FnOnce()) -> Counts {
        let counted = self.emulation().count(self, || {
            run();
            Ok(())
        });
        Counts { launches: counted.unwrap().1 }
    }
}

/// Counts of launches.
pub struct Counts {
    pub launches: Vec<LaunchRecord>,
}

impl Counts {
    /// Accesses to device memory.
    pub fn global(&self) -> Traffic {
        self.launches.iter().map(|launch| launch.counts.global()).sum()
    }

    /// Passes over shared memory's banks that conflicts cost.
    pub fn bank_conflicts(&self) -> u64 {
        self.launches.iter().map(|launch| launch.counts.bank_conflicts).sum()
    }

    /// Warp instructions of the launch with the most.
    pub fn most_instructions(&self) -> u64 {
        self.launches.iter().map(|launch| launch.counts.warp_instructions).max().unwrap_or(0)
    }

    /// The launched kernels, in order.
    pub fn kernels(&self) -> Vec<&str> {
        self.launches.iter().map(|launch| launch.kernel.as_str()).collect()
    }
}
