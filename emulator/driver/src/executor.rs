//! Execution of queued operations: as late as the model allows, in a seeded random order.
//!
//! Nothing executes until a call has to wait for it. Then the operations that the call needs are executed, in a random one
//! of the allowed orders. With a seed other than 0, other operations that are ready are executed in between. So a missing
//! event, wait or synchronisation shows as wrong data.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::Builder;

use cudarc::driver::sys::CUresult::{CUDA_ERROR_OPERATING_SYSTEM, CUDA_ERROR_UNKNOWN};
use ptx_emulator::Settings;

use crate::boundary::Handle;
use crate::driver::{self, Driver, Guard};
use crate::error::{Because, Error, Result};
use crate::report;
use crate::work::{DeviceState, Effect, Work};

/// Executes operations until none of `targets` is pending. A failed operation sets the error of its context.
pub fn finish(mut driver: Guard, targets: &[u64]) -> Guard {
    let needed = driver.queue.closure(targets);
    while targets.iter().any(|&target| driver.queue.is_pending(target)) {
        let progress;
        (driver, progress) = step(driver, &needed);
        if !progress {
            assert!(driver.is_busy(), "operations are pending, but none of them can start");
            driver = driver::wait(driver);
        }
    }
    driver
}

/// Makes progress for a query: the first query executes one of the operations that `targets` need, each further query of
/// the same targets twice as many as the one before, unless no operation can start.
pub fn advance(mut driver: Guard, targets: &[u64]) -> Guard {
    let needed = driver.queue.closure(targets);
    for _ in 0..driver.queue.steps_of_query(targets) {
        let progress;
        (driver, progress) = step(driver, &needed);
        if !progress {
            break;
        }
    }
    driver
}

/// Executes the oldest operations while too many are pending.
pub fn relieve(mut driver: Guard) -> Guard {
    while driver.queue.is_full() {
        let oldest = driver.queue.oldest();
        driver = finish(driver, oldest.as_slice());
    }
    driver
}

/// Executes one operation, unless none can start now; returns whether one did.
fn step(mut driver: Guard, needed: &BTreeSet<u64>) -> (Guard, bool) {
    if driver.running {
        return (driver, false);
    }
    let any = driver.settings.seed != 0 && driver.random.below(4) == 0;
    let choice: Vec<u64> = driver.queue.ready().filter(|id| any || needed.contains(id)).collect();
    if choice.is_empty() {
        return (driver, false);
    }
    let id = choice[driver.random.below(choice.len())];
    (start(driver, id), true)
}

/// Executes one operation without holding the lock. A host function runs on a thread of its own, because it may wait for
/// the thread that is calling the driver now.
fn start(mut driver: Guard, id: u64) -> Guard {
    let Some((context, work)) = driver.queue.start(id) else {
        return driver;
    };
    let device = driver.device_state(&work);
    if work.is_host() {
        driver.callbacks += 1;
        let run = move || {
            let outcome = execute(&work, &device);
            let mut driver = driver::lock_any();
            driver.callbacks -= 1;
            driver.end(id, context, outcome);
        };
        if let Err(error) = Builder::new().name("host function".into()).spawn(run) {
            driver.callbacks -= 1;
            driver.end(id, context, Err(CUDA_ERROR_OPERATING_SYSTEM.because(error.to_string())));
        }
        return driver;
    }
    driver.running = true;
    drop(driver);
    let outcome = execute(&work, &device);
    let mut driver = driver::lock_any();
    driver.running = false;
    driver.end(id, context, outcome);
    driver
}

/// Executes an operation. A panic becomes an error, so that the driver does not stay busy for ever.
fn execute(work: &Work, device: &DeviceState) -> Result<Effect> {
    catch_unwind(AssertUnwindSafe(|| work.execute(device)))
        .unwrap_or_else(|_| Err(CUDA_ERROR_UNKNOWN.because("the emulator failed while executing")))
}

impl Driver {
    /// The state that an operation executes with. Each operation has a seed of its own, so that two launches of a kernel
    /// do not execute in the same order.
    fn device_state(&mut self, work: &Work) -> DeviceState {
        DeviceState {
            memory: self.memory.clone(),
            limits: self.limits,
            settings: Settings {
                seed: self.random.next(),
                checks: self.settings.checks,
                threads: self.settings.threads,
                step_budget: self.settings.step_budget,
            },
            launch: if let Work::Launch(_) = work { self.record.begin_launch() } else { 0 },
        }
    }

    /// Records that an operation has ended.
    fn end(&mut self, id: u64, context: Handle, outcome: Result<Effect>) {
        match outcome {
            Ok(effect) => {
                self.queue.end(id);
                self.apply(id, effect);
            }
            Err(error) => self.fail(context, error),
        }
        driver::notify();
    }

    fn apply(&mut self, id: u64, effect: Effect) {
        match effect {
            Effect::None => {}
            Effect::Event(event) => self.event_happened(event, id),
            Effect::Freed(address) => {
                self.allocations.remove(&address);
            }
            Effect::Launched(launch) => self.record.launched(&launch),
        }
    }

    /// Sets the error of a context, which every later call in it returns, and drops its pending operations.
    fn fail(&mut self, context: Handle, error: Error) {
        report::print(&error.to_string());
        self.record.finding = error.text.clone();
        self.queue.abandon(context);
        if let Some(context) = self.contexts.get_mut(&context) {
            context.failed = Some(error);
        }
    }
}
