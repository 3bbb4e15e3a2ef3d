//! `cp.async`: issued at once, executed as late as its wait allows.

use super::access::AccessKind;
use super::block_state::{BlockState, Scratch};
use super::copies::{AsyncCopy, UNCOMMITTED};
use super::fault::Fault;
use super::warp::Warp;
use crate::address_space::SHARED_BASE;
use crate::ir::{Space, Target};
use crate::memory::page::{PAGE_BYTES, POISON};
use crate::observe::{TrafficKind, WarpAccess};
use crate::race::epoch::{Epoch, EpochKind, lane_ref};
use crate::registers::{LANES, each_lane, lanes_where};

/// A `cp.async` instruction with its operands read.
pub struct CopyOperands<'a> {
    pub to: &'a Target,
    pub from: &'a Target,
    pub bytes: u32,
    pub source_bytes: [u32; LANES],
    pub mask: u32,
    pub pc: u32,
}

impl BlockState<'_> {
    /// Issues copies: checks both ends and marks the targets as pending.
    pub fn issue_copies(&mut self, warp: &mut Warp, copy: CopyOperands, scratch: &mut Scratch) -> Result<(), Fault> {
        let CopyOperands { to, from, bytes, source_bytes, mask, pc } = copy;
        let (targets, sources) = (warp.addresses(&to.address), warp.addresses(&from.address));
        for lane in each_lane(mask) {
            if source_bytes[lane as usize] > bytes {
                let size = source_bytes[lane as usize];
                return Err(Fault::operand(lane, format!("cp.async of {bytes} bytes from a source of {size}")));
            }
        }
        let source = WarpAccess { site: from.site, pc, mask, addresses: &sources, size: bytes };
        let read_epoch = self.check_source(warp, source, &source_bytes, scratch)?;
        self.mark_pending(warp, WarpAccess { site: to.site, pc, mask, addresses: &targets, size: bytes }, scratch)?;
        for lane in each_lane(mask) {
            let i = lane as usize;
            warp.copies.in_flight.push(AsyncCopy {
                lane,
                group: UNCOMMITTED,
                to: targets[i],
                from: sources[i],
                bytes,
                source_bytes: source_bytes[i],
                read_epoch,
                site: from.site,
                pc,
            });
        }
        Ok(())
    }

    /// Executes the copies of the lanes of `mask` that `wait_group pending`, or `wait_all` for `None`, waits for.
    pub fn complete_copies(&mut self, warp: &mut Warp, mask: u32, pending: Option<u32>) -> Result<(), Fault> {
        for copy in warp.copies.take_completed(mask, pending) {
            // The lanes of one instruction share the read's epoch: it stays pending until the last of them has waited.
            let shares_epoch = |other: &AsyncCopy| other.read_epoch == copy.read_epoch;
            if copy.read_epoch != 0 && !warp.copies.in_flight.iter().any(shares_epoch) {
                self.grid.epochs.complete(copy.read_epoch, warp.now);
            }
            self.execute_copy(warp, &copy)?;
        }
        Ok(())
    }

    /// Checks the sources of asynchronous copies, of which each lane reads `sizes` bytes when it waits. Until then no
    /// thread may write there. Returns the id of the reads' epoch, for [`EpochTable::complete`]; 0 if nothing is read.
    ///
    /// [`EpochTable::complete`]: crate::race::epoch_table::EpochTable::complete
    fn check_source(
        &mut self,
        warp: &mut Warp,
        request: WarpAccess,
        sizes: &[u32; LANES],
        scratch: &mut Scratch,
    ) -> Result<u32, Fault> {
        // Each copy has an epoch of its own, as each completes on its own.
        warp.epochs[request.site as usize][0] = (0, 0);
        let reading = lanes_where(request.mask, |lane| sizes[lane as usize] > 0);
        let whole = lanes_where(reading, |lane| sizes[lane as usize] == request.size);
        let request = WarpAccess { mask: reading, ..request };
        self.check_alignment(Space::Global, request, AccessKind::AsyncRead)?;
        scratch.tally.global(&request, TrafficKind::Load);
        self.global_lanes(warp, WarpAccess { mask: whole, ..request }, AccessKind::AsyncRead, scratch, |_, _, _| ())?;
        for lane in each_lane(reading & !whole) {
            let (address, end) = (request.addresses[lane as usize], sizes[lane as usize]);
            // A source shorter than the copy is read in the largest aligned pieces.
            let mut done = 0;
            while done < end {
                let size = 1 << (end - done).ilog2().min(if done == 0 { 4 } else { done.trailing_zeros() });
                let addresses = [address + u64::from(done); LANES];
                let piece = WarpAccess { mask: 1 << lane, addresses: &addresses, size, ..request };
                self.global_lanes(warp, piece, AccessKind::AsyncRead, scratch, |_, _, _| ())?;
                done += size;
            }
        }
        Ok(warp.epochs[request.site as usize][0].1)
    }

    /// Reads device memory that was checked when the copy was issued.
    fn read_source(&self, address: u64, out: &mut [u8]) {
        out.fill(POISON);
        if let Some(allocation) = self.allocation(address, out.len()) {
            let offset = address - allocation.base;
            let page = allocation.page((offset / PAGE_BYTES as u64) as usize);
            if let Some(page) = &*page {
                out.copy_from_slice(page.bytes((offset % PAGE_BYTES as u64) as usize, out.len()));
            }
        }
    }

    /// Marks shared memory as the target of pending copies: no thread may access it until they have been waited for.
    fn mark_pending(&mut self, warp: &mut Warp, request: WarpAccess, scratch: &mut Scratch) -> Result<(), Fault> {
        let poison = |_: usize, bytes: &mut [u8]| bytes.fill(POISON);
        self.access_lanes(warp, Space::Shared, request, AccessKind::Write, scratch, poison)?;
        if !self.grid.settings.checks {
            return Ok(());
        }
        let epoch = Epoch {
            block: self.block,
            warp: warp.index,
            time: warp.now,
            pc: request.pc,
            kind: EpochKind::Pending,
            block_scope: false,
            lanes: request.mask,
        };
        let pending = self.epochs.push(epoch).ok_or_else(|| Fault::launch_too_long(request.mask))?;
        for lane in each_lane(request.mask) {
            let at = (request.addresses[lane as usize] - u64::from(SHARED_BASE)) as usize;
            if let Some(page) = &mut self.shared[at / PAGE_BYTES] {
                let (offset, size) = (at % PAGE_BYTES, request.size as usize);
                page.shadow.set_writer(self.shadow_number, offset, size, lane_ref(pending, lane));
            }
        }
        Ok(())
    }

    /// Executes a copy, as if the waiting lane stored the bytes.
    fn execute_copy(&mut self, warp: &mut Warp, copy: &AsyncCopy) -> Result<(), Fault> {
        let mut bytes = [0u8; 16];
        self.read_source(copy.from, &mut bytes[..copy.source_bytes as usize]);
        let (size, at) = (copy.bytes as usize, (copy.to - u64::from(SHARED_BASE)) as usize);
        if self.grid.settings.checks {
            let request = WarpAccess {
                site: copy.site,
                pc: copy.pc,
                mask: 1 << copy.lane,
                addresses: &[copy.to; LANES],
                size: copy.bytes,
            };
            let epoch = self.epoch(warp, &self.epochs, request, EpochKind::Plain)?;
            if let Some(page) = &mut self.shared[at / PAGE_BYTES] {
                page.shadow.set_writer(self.shadow_number, at % PAGE_BYTES, size, lane_ref(epoch, copy.lane));
            }
        }
        if let Some(page) = &mut self.shared[at / PAGE_BYTES] {
            page.store(at % PAGE_BYTES, &bytes[..size]);
        }
        Ok(())
    }
}
