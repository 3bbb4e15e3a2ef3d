//! `cp.async`: begun at once, done as late as its wait allows.

use super::access::{Fault, Reach, Settled};
use super::block::{Core, Lent};
use super::warp::Warp;
use crate::ir::Target;
use crate::registers::{LANES, each_lane};

/// Not committed yet.
const OPEN: u32 = u32::MAX;

/// Copies of a warp that nobody has waited for.
#[derive(Default)]
pub struct Copies {
    pending: Vec<Copy>,
    /// Groups that each lane has committed.
    committed: [u32; LANES],
}

struct Copy {
    lane: u32,
    group: u32,
    to: u64,
    from: u64,
    /// Bytes written; those past `source_bytes` are zero.
    bytes: u32,
    source_bytes: u32,
    /// Stamp of the read of its source.
    reading: u32,
    site: u32,
    pc: u32,
}

/// A `cp.async` with its operands read.
pub struct CopyAsync<'a> {
    pub to: &'a Target,
    pub from: &'a Target,
    pub bytes: u32,
    pub source_bytes: [u32; LANES],
    pub mask: u32,
    pub pc: u32,
}

impl Core<'_> {
    /// Checks the copies' ends and marks their targets as unfinished.
    pub fn begin_copies(&mut self, warp: &mut Warp, copy: CopyAsync, lent: &mut Lent) -> Result<(), Fault> {
        let CopyAsync { to, from, bytes, source_bytes, mask, pc } = copy;
        let (targets, sources) = (warp.addresses(&to.address), warp.addresses(&from.address));
        for lane in each_lane(mask) {
            if source_bytes[lane as usize] > bytes {
                let have = source_bytes[lane as usize];
                return Err(Fault::operand(lane, format!("cp.async of {bytes} bytes from a source of {have}")));
            }
        }
        let source = Reach { site: from.site, pc, mask, addresses: &sources, size: bytes };
        let reading = self.read_ahead(warp, source, &source_bytes, lent)?;
        self.mark_pending(warp, Reach { site: to.site, pc, mask, addresses: &targets, size: bytes }, lent)?;
        for lane in each_lane(mask) {
            let i = lane as usize;
            warp.copies.pending.push(Copy {
                lane,
                group: OPEN,
                to: targets[i],
                from: sources[i],
                bytes,
                source_bytes: source_bytes[i],
                reading,
                site: from.site,
                pc,
            });
        }
        Ok(())
    }

    /// Does the copies of the lanes of `mask` that `wait_group pending` (or `wait_all`) waits for.
    pub fn finish_copies(&mut self, warp: &mut Warp, mask: u32, pending: Option<u32>) -> Result<(), Fault> {
        let committed = warp.copies.committed;
        let due = |copy: &Copy| {
            let newest = committed[copy.lane as usize];
            let waited = match pending {
                None => true,
                Some(pending) => copy.group != OPEN && copy.group.saturating_add(pending) < newest,
            };
            mask >> copy.lane & 1 == 1 && waited
        };
        let (due, rest): (Vec<Copy>, Vec<Copy>) = std::mem::take(&mut warp.copies.pending).into_iter().partition(due);
        warp.copies.pending = rest;
        for copy in due {
            let mut bytes = [0u8; 16];
            let source = &mut bytes[..copy.source_bytes as usize];
            self.read_late(copy.from, source);
            let Copy { lane, reading, site, pc, to, .. } = copy;
            if reading != 0 {
                self.grid.stamps.finish(reading, warp.now);
            }
            self.settle(warp, lane, Settled { site, pc, to }, &bytes[..copy.bytes as usize])?;
        }
        Ok(())
    }
}

impl Copies {
    /// The lanes' open copies become a group.
    pub fn commit(&mut self, mask: u32) {
        for copy in &mut self.pending {
            if copy.group == OPEN && mask >> copy.lane & 1 == 1 {
                copy.group = self.committed[copy.lane as usize];
            }
        }
        for lane in each_lane(mask) {
            self.committed[lane as usize] += 1;
        }
    }
}
