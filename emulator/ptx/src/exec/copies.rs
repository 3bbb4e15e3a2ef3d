//! The `cp.async` copies of a warp that are in flight.

use crate::registers::{LANES, each_lane};

/// [`AsyncCopy::group`] of a copy that has not been committed.
pub const UNCOMMITTED: u32 = u32::MAX;

/// Copies of a warp that have not been waited for.
#[derive(Default)]
pub struct Copies {
    pub in_flight: Vec<AsyncCopy>,
    /// Number of groups that each lane has committed.
    committed: [u32; LANES],
}

/// The copy of one lane.
pub struct AsyncCopy {
    pub lane: u32,
    /// Number of the group among the lane's groups, or [`UNCOMMITTED`].
    pub group: u32,
    pub to: u64,
    pub from: u64,
    /// Bytes written; those past `source_bytes` are zero.
    pub bytes: u32,
    pub source_bytes: u32,
    /// Id of the epoch of the source's read; 0 if nothing is read.
    pub read_epoch: u32,
    pub site: u32,
    pub pc: u32,
}

impl Copies {
    /// `cp.async.commit_group`: the lanes' uncommitted copies become a group.
    pub fn commit(&mut self, mask: u32) {
        for copy in &mut self.in_flight {
            if copy.group == UNCOMMITTED && mask >> copy.lane & 1 == 1 {
                copy.group = self.committed[copy.lane as usize];
            }
        }
        for lane in each_lane(mask) {
            self.committed[lane as usize] += 1;
        }
    }

    /// Removes and returns the copies that the lanes of `mask` wait for: all but those of the `pending` newest groups, or
    /// every copy for `None`.
    pub fn take_completed(&mut self, mask: u32, pending: Option<u32>) -> Vec<AsyncCopy> {
        let committed = self.committed;
        let completes = |copy: &AsyncCopy| {
            let newest = committed[copy.lane as usize];
            let waited = match pending {
                None => true,
                Some(pending) => copy.group != UNCOMMITTED && copy.group.saturating_add(pending) < newest,
            };
            mask >> copy.lane & 1 == 1 && waited
        };
        let (completed, rest) = std::mem::take(&mut self.in_flight).into_iter().partition(completes);
        self.in_flight = rest;
        completed
    }
}
