//! The emulated GPU: shared by the tests of this program, or had alone by those that change or count something.
//!
//! `IRONWARP_TEST_DEVICE=cuda` or `cuda:N` puts a GPU of the real driver in its place. Nobody can have that alone, as it
//! neither counts nor obeys: tests that would, say so and end.

// The emulator's own entries are called by name; each use says why it is sound.
#![allow(unsafe_code)]

use std::cell::Cell;
use std::ops::Deref;
use std::sync::{OnceLock, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use ironwarp::cuda::{Cuda, driver};
use libloading::Library;
use serde_json::Value;

use crate::place::{real_gpu, skip};

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

fn library() -> &'static Library {
    static LIBRARY: OnceLock<Library> = OnceLock::new();
    // SAFETY: loaded already, by the backend; nothing is initialised again.
    LIBRARY.get_or_init(|| unsafe { Library::new(driver::find_emulator().unwrap()) }.unwrap())
}

/// A function of the emulator's own, by name.
fn entry<F: Copy>(name: &str) -> F {
    // SAFETY: each caller names a function with its type.
    *unsafe { library().get::<F>(name.as_bytes()) }.unwrap_or_else(|error| panic!("{name}: {error}"))
}

impl Alone {
    /// Another order of everything that is unordered.
    pub fn set_seed(&self, seed: u64) {
        entry::<extern "C" fn(u64)>("ironwarp_emulator_set_seed")(seed);
    }

    /// Warp instructions that a launch may execute.
    pub fn set_step_budget(&self, steps: u64) {
        entry::<extern "C" fn(u64)>("ironwarp_emulator_set_step_budget")(steps);
    }

    /// Whether findings are not printed, for those that are meant to be.
    pub fn set_quiet(&self, quiet: bool) {
        entry::<extern "C" fn(i32)>("ironwarp_emulator_set_quiet")(quiet.into());
    }

    /// What the launches of `run` counted.
    pub fn count(&self, run: impl FnOnce()) -> Counts {
        self.synchronize();
        entry::<extern "C" fn()>("ironwarp_emulator_clear_counts")();
        run();
        self.synchronize();
        let text: extern "C" fn(*mut u8, usize) -> usize = entry("ironwarp_emulator_all_counts");
        let mut buffer = vec![0; text(std::ptr::null_mut(), 0) + 1];
        text(buffer.as_mut_ptr(), buffer.len());
        buffer.pop();
        let launches: Vec<Value> = serde_json::from_slice(&buffer).unwrap();
        Counts { launches }
    }

    fn synchronize(&self) {
        self.device().synchronize().unwrap();
    }
}

/// Counts of launches.
pub struct Counts {
    launches: Vec<Value>,
}

impl Counts {
    /// A count summed over the launches: `["global_loads", "bytes"]`.
    pub fn sum(&self, path: &[&str]) -> u64 {
        let of_launch = |launch: &Value| {
            let value = path.iter().fold(&launch["counts"], |value, key| &value[key]);
            value.as_u64().unwrap_or_else(|| panic!("no count {path:?} in {launch}"))
        };
        self.launches.iter().map(of_launch).sum()
    }

    /// Bytes that lanes asked of device memory, to read and to write.
    pub fn global_bytes(&self) -> u64 {
        self.over_kinds("bytes")
    }

    /// Sectors of 32 bytes that requests touched.
    pub fn sectors(&self) -> u64 {
        self.over_kinds("sectors")
    }

    /// Requests of device memory, a warp's instruction each.
    pub fn requests(&self) -> u64 {
        self.over_kinds("requests")
    }

    /// Passes over shared memory's banks that conflicts cost.
    pub fn bank_conflicts(&self) -> u64 {
        self.sum(&["bank_conflicts"])
    }

    fn over_kinds(&self, count: &str) -> u64 {
        ["global_loads", "global_stores", "global_atomics"].iter().map(|kind| self.sum(&[kind, count])).sum()
    }

    /// The launched kernels, in order.
    pub fn kernels(&self) -> Vec<&str> {
        self.launches.iter().map(|launch| launch["kernel"].as_str().unwrap()).collect()
    }
}
