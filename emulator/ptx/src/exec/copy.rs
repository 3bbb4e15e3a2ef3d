//! `cp.async`: begun at once, done as late as its wait allows.

use super::access::report::too_long;
use super::access::{Fault, Manner, Reach};
use super::block::{Core, Lent};
use super::warp::Warp;
use crate::ir::{Space, Target};
use crate::lower::SHARED_BASE;
use crate::memory::page::{PAGE, POISON};
use crate::observe::Moved;
use crate::race::stamp::{Kind, Stamp, mark};
use crate::registers::{LANES, each_lane, lanes_where};

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
            // The lanes of one instruction share the stamp: it stands until the last of them has waited.
            let shared = |other: &Copy| other.reading == copy.reading;
            if copy.reading != 0 && !warp.copies.pending.iter().any(shared) {
                self.grid.stamps.finish(copy.reading, warp.now);
            }
            self.settle(warp, &copy)?;
        }
        Ok(())
    }

    /// Checks the source of an asynchronous copy, of which each lane reads `sizes` bytes when it is waited for. Until then
    /// nobody may write there. Gives the stamp of the reads, for `Stamps::finish`; 0 if there are none.
    fn read_ahead(
        &mut self,
        warp: &mut Warp,
        reach: Reach,
        sizes: &[u32; LANES],
        lent: &mut Lent,
    ) -> Result<u32, Fault> {
        // Each copy has a stamp of its own, as each is finished on its own.
        warp.stamps[reach.site as usize][0] = (0, 0);
        let reading = lanes_where(reach.mask, |lane| sizes[lane as usize] > 0);
        let whole = lanes_where(reading, |lane| sizes[lane as usize] == reach.size);
        let reach = Reach { mask: reading, ..reach };
        self.check_alignment(Space::Global, reach, Manner::ReadAhead)?;
        lent.tally.global(&reach, Moved::Loaded);
        self.global_lanes(warp, Reach { mask: whole, ..reach }, Manner::ReadAhead, lent, |_, _, _| ())?;
        for lane in each_lane(reading & !whole) {
            let (address, end) = (reach.addresses[lane as usize], sizes[lane as usize]);
            // A part is read in the largest aligned pieces.
            let mut done = 0;
            while done < end {
                let size = 1 << (end - done).ilog2().min(if done == 0 { 4 } else { done.trailing_zeros() });
                let addresses = [address + u64::from(done); LANES];
                let piece = Reach { mask: 1 << lane, addresses: &addresses, size, ..reach };
                self.global_lanes(warp, piece, Manner::ReadAhead, lent, |_, _, _| ())?;
                done += size;
            }
        }
        Ok(warp.stamps[reach.site as usize][0].1)
    }

    /// Reads device memory that was checked before.
    fn read_late(&self, address: u64, out: &mut [u8]) {
        out.fill(POISON);
        if let Some(allocation) = self.allocation(address, out.len()) {
            let offset = address - allocation.base;
            let page = allocation.page((offset / PAGE as u64) as usize);
            if let Some(page) = &*page {
                out.copy_from_slice(page.bytes((offset % PAGE as u64) as usize, out.len()));
            }
        }
    }

    /// Marks shared memory as the target of asynchronous copies: nobody may touch it until they are waited for.
    fn mark_pending(&mut self, warp: &mut Warp, reach: Reach, lent: &mut Lent) -> Result<(), Fault> {
        self.each_lane(warp, Space::Shared, reach, Manner::Write, lent, |_, bytes| bytes.fill(POISON))?;
        if !self.grid.settings.checks {
            return Ok(());
        }
        let stamp = Stamp {
            block: self.block,
            warp: warp.index,
            time: warp.now,
            pc: reach.pc,
            kind: Kind::Pending,
            narrow: false,
            lanes: reach.mask,
        };
        let pending = self.stamps.stamp(stamp).ok_or_else(|| too_long(reach.mask))?;
        for lane in each_lane(reach.mask) {
            let at = (reach.addresses[lane as usize] - u64::from(SHARED_BASE)) as usize;
            if let Some(page) = &mut self.shared[at / PAGE] {
                page.shadow.settle(self.shadow_number, at % PAGE, reach.size as usize, mark(pending, lane));
            }
        }
        Ok(())
    }

    /// Makes a copy, as if the waiting lane had stored the bytes.
    fn settle(&mut self, warp: &mut Warp, copy: &Copy) -> Result<(), Fault> {
        let mut bytes = [0u8; 16];
        self.read_late(copy.from, &mut bytes[..copy.source_bytes as usize]);
        let (size, at) = (copy.bytes as usize, (copy.to - u64::from(SHARED_BASE)) as usize);
        if self.grid.settings.checks {
            let reach = Reach {
                site: copy.site,
                pc: copy.pc,
                mask: 1 << copy.lane,
                addresses: &[copy.to; LANES],
                size: copy.bytes,
            };
            let stamp = self.stamp(warp, &self.stamps, reach, Kind::Plain)?;
            if let Some(page) = &mut self.shared[at / PAGE] {
                page.shadow.settle(self.shadow_number, at % PAGE, size, mark(stamp, copy.lane));
            }
        }
        if let Some(page) = &mut self.shared[at / PAGE] {
            page.store(at % PAGE, &bytes[..size]);
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
