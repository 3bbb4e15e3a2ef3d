//! Operations that are queued, and their order.
//!
//! Each operation names the pending ones that must come before it: the previous one of its stream, the events that its
//! stream waits for, and those that the default stream's rules add.

use std::collections::{BTreeMap, BTreeSet};

use crate::boundary::Handle;
use crate::work::Work;

/// If more operations than this are pending, submitting one executes another one first.
const LIMIT: usize = 1 << 14;

/// The pending operations.
#[derive(Debug, Default)]
pub struct Queue {
    operations: BTreeMap<u64, Operation>,
    /// Operations that do not wait for others.
    ready: BTreeSet<u64>,
    next: u64,
    ended: u64,
    /// The operations of the last query, and how many operations it executed.
    queried: (Vec<u64>, u32),
}

#[derive(Debug)]
struct Operation {
    context: Handle,
    /// The operations that must come before this one, including those that have ended.
    needs: Vec<u64>,
    /// How many of them have not ended.
    missing: usize,
    /// The operations that wait for this one.
    dependents: Vec<u64>,
    /// `None` from when the execution starts.
    work: Option<Work>,
}

impl Queue {
    /// Queues an operation after others, some of which may have ended already.
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

    /// The pending operations of a context.
    pub fn of_context(&self, context: Handle) -> Vec<u64> {
        self.operations.iter().filter(|(_, operation)| operation.context == context).map(|(&id, _)| id).collect()
    }

    /// All pending operations.
    pub fn all(&self) -> Vec<u64> {
        self.operations.keys().copied().collect()
    }

    pub fn is_full(&self) -> bool {
        self.operations.len() > LIMIT
    }

    /// Drops the pending operations of a context, which do not execute after a failure.
    pub fn abandon(&mut self, context: Handle) {
        for id in self.of_context(context) {
            self.end(id);
        }
    }

    /// The oldest pending operation.
    pub fn oldest(&self) -> Option<u64> {
        self.operations.first_key_value().map(|(&id, _)| id)
    }

    /// The operations that can start now.
    pub fn ready(&self) -> impl Iterator<Item = u64> {
        self.ready.iter().copied()
    }

    /// How many operations a query executes: one, and twice as many as before if it repeats the last query.
    pub fn steps_of_query(&mut self, targets: &[u64]) -> u32 {
        let (before, steps) = &self.queried;
        let steps = if before == targets { steps.saturating_mul(2) } else { 1 };
        self.queried = (targets.to_vec(), steps);
        steps
    }

    /// The targets and all pending operations that must come before them.
    pub fn closure(&self, targets: &[u64]) -> BTreeSet<u64> {
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

    /// Takes the work of an operation whose execution starts, with its context.
    pub fn start(&mut self, id: u64) -> Option<(Handle, Work)> {
        self.ready.remove(&id);
        let operation = self.operations.get_mut(&id)?;
        Some((operation.context, operation.work.take()?))
    }

    /// How many operations have ended, which serves as the time of events.
    pub fn now(&self) -> u64 {
        self.ended
    }

    /// Removes an operation, which has ended or is dropped.
    pub fn end(&mut self, id: u64) {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closure_of_a_target_and_the_ready_operations() {
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
