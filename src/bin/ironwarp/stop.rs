//! SIGINT and SIGTERM during `ironwarp train`.
//!
//! Before training begins there is nothing to save, and reading the data may take minutes: the first signal ends the
//! process. Afterwards the first signal asks the run to save after the current step, and a later one ends the process.

use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use ironwarp::train::checkpoint::RunFolder;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use signal_hook::low_level;

use crate::output;

/// Exit status of a process that a signal ends, SIGINT or SIGTERM: the status that shells report for SIGINT.
const KILLED: i32 = 130;

/// Time after the first signal in which further signals are ignored. One request to stop often arrives as several signals:
/// `timeout` signals the process and its group, and a scheduler each process of a job.
const REPEATS: Duration = Duration::from_secs(1);

/// Deletes what the preparation of a run created.
type CleanUp = Box<dyn FnOnce() + Send>;

/// What the thread that waits for signals shares with the run.
pub struct Stop {
    requested: AtomicBool,
    /// Present until training begins.
    preparation: Mutex<Option<CleanUp>>,
}

impl Stop {
    /// Starts a thread that waits for signals; the main thread may be blocked in a read or in a long step.
    pub fn watch() -> Result<Arc<Self>> {
        let stop = Arc::new(Stop { requested: AtomicBool::new(false), preparation: Mutex::new(Some(Box::new(|| {}))) });
        let shared = stop.clone();
        let mut signals = Signals::new([SIGINT, SIGTERM]).context("cannot handle signals")?;
        let wait = move || {
            let mut first = None;
            for _ in signals.forever() {
                shared.end_preparation();
                shared.requested.store(true, Ordering::Relaxed);
                if first.get_or_insert_with(Instant::now).elapsed() > REPEATS {
                    output::note("ended by a second signal; the steps since the last checkpoint are lost");
                    low_level::exit(KILLED);
                }
            }
        };
        thread::Builder::new().name("signals".into()).spawn(wait).context("cannot handle signals")?;
        Ok(stop)
    }

    /// Opens the run folder. A signal before [`Stop::begin_training`] deletes it if it is new.
    pub fn open_folder(&self, dir: &Path) -> Result<RunFolder> {
        // Locked while the folder is created, so that a signal cannot come between creating and registering it.
        let mut preparation = self.preparation();
        let folder = RunFolder::open(dir)?;
        *preparation = Some(Box::new(folder.clean_up()));
        Ok(folder)
    }

    /// From now on, a signal lets the run save first.
    pub fn begin_training(&self) {
        *self.preparation() = None;
    }

    /// Whether a signal has asked the run to stop.
    pub fn is_requested(&self) -> bool {
        self.requested.load(Ordering::Relaxed)
    }

    /// Ends the process if training has not begun.
    fn end_preparation(&self) {
        // Locked until the end of the process, so that training cannot begin meanwhile.
        let mut preparation = self.preparation();
        if let Some(clean_up) = preparation.take() {
            clean_up();
            output::note("ended by a signal before the first step; nothing was trained");
            low_level::exit(KILLED);
        }
    }

    fn preparation(&self) -> MutexGuard<'_, Option<CleanUp>> {
        self.preparation.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
