//! Operations that are queued, and their execution: as late as the model allows, in a seeded random order.
//!
//! Each operation names the pending ones that must come before it: the one before it in its stream, the events its
//! stream waits for, what the default stream's rules add. Nothing executes until a call has to wait for it. Then the
//! operations that call needs are executed, in a random one of the orders that are allowed; with a seed other than 0,
//! others that happen to be ready slip in between. So a missing event, wait or synchronisation shows as wrong data.

use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::thread::Builder;

use cudarc::driver::sys::CUresult::{CUDA_ERROR_OPERATING_SYSTEM, CUDA_ERROR_UNKNOWN};

use crate::boundary::Handle;
use crate::driver::{self, Guard};
use crate::error::{Because, Error, Result, say};
use crate::work::{Device, Effect, Work};

/// More pending operations than this, and submitting one executes another first.
const LIMIT: usize = 1 << 14;

/// What is pending.
#[derive(Debug, Default)]
pub struct Queue {
    operations: BTreeMap<u64, Operation>,
    /// Operations that nothing holds up.
    ready: BTreeSet<u64>,
    next: u64,
    ended: u64,
    /// The operations last polled for, and how many a further poll executes.
    polled: (Vec<u64>, u32),
}

#[derive(Debug)]
struct Operation {
    context: Handle,
    /// What must come before; those that have ended stay listed.
    needs: Vec<u64>,
    /// How many of them have not ended.
    missing: usize,
    /// Who waits for this one.
    dependents: Vec<u64>,
    /// Taken when execution begins.
    work: Option<Work>,
}

impl Queue {
    /// Queues an operation after others; those that have ended already hold nothing up.
    pub fn add(&mut self, context: Handle, needs: impl IntoIterator<Item = u64>, work: Work) -> u64 {
        self.next += 1;
        let id = self.next;
        let needs: BTreeSet<u64> = needs.into_iter().filter(|need| self.is_pending(*need)).collect();
        for need in &needs {
            if let Some(operation) = self.operations.get_mut(need) {
                operation.dependents.push(id);
            }
        }
        if needs.is_empty() {
            self.ready.insert(id);
        }
        let missing = needs.len();
        let needs = needs.into_iter().collect();
        self.operations.insert(id, Operation { context, needs, missing, dependents: Vec::new(), work: Some(work) });
        id
    }

    pub fn is_pending(&self, id: u64) -> bool {
        self.operations.contains_key(&id)
    }

    /// All that is pending in a context.
    pub fn of_context(&self, context: Handle) -> Vec<u64> {
        self.operations.iter().filter(|(_, operation)| operation.context == context).map(|(&id, _)| id).collect()
    }

    /// All that is pending.
    pub fn all(&self) -> Vec<u64> {
        self.operations.keys().copied().collect()
    }

    pub fn is_full(&self) -> bool {
        self.operations.len() > LIMIT
    }

    /// Drops what is pending in a context: after a failure nothing of it executes any more.
    pub fn abandon(&mut self, context: Handle) {
        for id in self.of_context(context) {
            self.end(id);
        }
    }

    /// The targets and everything that must come before them.
    fn closure(&self, targets: &[u64]) -> BTreeSet<u64> {
        let mut found = BTreeSet::new();
        let mut open = targets.to_vec();
        while let Some(id) = open.pop() {
            if let Some(operation) = self.operations.get(&id)
                && found.insert(id)
            {
                open.extend(&operation.needs);
            }
        }
        found
    }

    fn start(&mut self, id: u64) -> Option<(Handle, Work)> {
        self.ready.remove(&id);
        let operation = self.operations.get_mut(&id)?;
        Some((operation.context, operation.work.take()?))
    }

    /// How many operations have ended: what stands for time.
    pub fn now(&self) -> u64 {
        self.ended
    }

    fn end(&mut self, id: u64) {
        self.ended += 1;
        self.ready.remove(&id);
        let Some(operation) = self.operations.remove(&id) else {
            return;
        };
        for dependent in operation.dependents {
            if let Some(waiting) = self.operations.get_mut(&dependent) {
                waiting.missing -= 1;
                if waiting.missing == 0 {
                    self.ready.insert(dependent);
                }
            }
        }
    }
}

/// Executes until none of `targets` is pending. Failures are left in their contexts.
pub fn finish(mut driver: Guard, targets: &[u64]) -> Guard {
    let needed = driver.queue.closure(targets);
    while targets.iter().any(|&target| driver.queue.is_pending(target)) {
        let progress;
        (driver, progress) = step(driver, &needed);
        if !progress {
            assert!(driver.is_busy(), "operations are pending that nothing can start");
            driver = driver::wait(driver);
        }
    }
    driver
}

/// Polling makes progress: the first poll executes one of the operations that `targets` need, each further one twice as
/// many as the one before, unless none can begin.
pub fn advance(mut driver: Guard, targets: &[u64]) -> Guard {
    let needed = driver.queue.closure(targets);
    let (before, count) = &driver.queue.polled;
    let count = if before == targets { count.saturating_mul(2) } else { 1 };
    driver.queue.polled = (targets.to_vec(), count);
    for _ in 0..count {
        let progress;
        (driver, progress) = step(driver, &needed);
        if !progress {
            break;
        }
    }
    driver
}

/// Executes the oldest operations while there are too many.
pub fn relieve(mut driver: Guard) -> Guard {
    while driver.queue.is_full() {
        let oldest = driver.queue.operations.first_key_value().map(|(&id, _)| id);
        driver = finish(driver, oldest.as_slice());
    }
    driver
}

/// Executes one operation, unless none can begin now; says whether one did.
fn step(mut driver: Guard, needed: &BTreeSet<u64>) -> (Guard, bool) {
    if driver.running {
        return (driver, false);
    }
    let wander = driver.settings.seed != 0 && driver.random.below(4) == 0;
    let choice: Vec<u64> = driver.queue.ready.iter().copied().filter(|id| wander || needed.contains(id)).collect();
    if choice.is_empty() {
        return (driver, false);
    }
    let id = choice[driver.random.below(choice.len())];
    (begin(driver, id), true)
}

/// Executes one operation outside the lock. A host function gets a thread of its own: it may wait for the one that is
/// calling the driver now.
fn begin(mut driver: Guard, id: u64) -> Guard {
    let Some((context, work)) = driver.queue.start(id) else {
        return driver;
    };
    let device = Device::new(&mut driver, &work);
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

/// A panic must not leave the state busy for ever.
fn execute(work: &Work, device: &Device) -> Result<Effect> {
    catch_unwind(AssertUnwindSafe(|| work.execute(device)))
        .unwrap_or_else(|_| Err(CUDA_ERROR_UNKNOWN.because("the emulator failed while executing")))
}

impl driver::Driver {
    /// An operation has ended.
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

    /// Makes an error the context's last word.
    fn fail(&mut self, context: Handle, error: Error) {
        say(&error.to_string());
        self.record.finding = error.text.clone();
        self.queue.abandon(context);
        if let Some(context) = self.contexts.get_mut(&context) {
            context.failed = Some(error);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_target_needs_is_found_through_what_has_ended() {
        let mut queue = Queue::default();
        let a = queue.add(1, [], Work::Nothing);
        let b = queue.add(1, [a], Work::Nothing);
        let other = queue.add(2, [], Work::Nothing);
        let c = queue.add(1, [b, a], Work::Nothing);
        assert_eq!(queue.closure(&[c]), BTreeSet::from([a, b, c]));
        assert_eq!(queue.ready, BTreeSet::from([a, other]));
        assert!(queue.start(a).is_some() && queue.start(a).is_none());
        queue.end(a);
        assert_eq!(queue.ready, BTreeSet::from([b, other]));
        queue.abandon(1);
        assert_eq!(queue.all(), [other]);
        assert!(!queue.is_pending(c));
    }
}
