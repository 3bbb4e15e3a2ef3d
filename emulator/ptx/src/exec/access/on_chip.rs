//! Shared and local memory, and parameters.

use super::report::uninitialised;
use super::{Fault, Manner, Reach};
use crate::exec::block::Core;
use crate::exec::warp::Warp;
use crate::ir::Space;
use crate::lower::SHARED_BASE;
use crate::memory::page::{PAGE, Page};
use crate::observe::Check;
use crate::race::shadow::Accessor;
use crate::registers::each_lane;

impl<'g> Core<'g> {
    pub fn shared_lanes(
        &mut self,
        warp: &mut Warp,
        reach: Reach,
        manner: Manner,
        mut visit: impl FnMut(usize, &mut Page, usize),
    ) -> Result<(), Fault> {
        let size = reach.size as usize;
        let checks = self.grid.settings.checks;
        let stamp = if checks { self.stamp(warp, &self.stamps, reach, manner.kind())? } else { 0 };
        for lane in each_lane(reach.mask) {
            let address = reach.addresses[lane as usize];
            let at = self.shared_place(address, size, manner, lane)?;
            let Core { shared, stamps, known, block, shadow_number, .. } = self;
            let page = shared[at / PAGE].get_or_insert_with(Page::boxed);
            if checks {
                let mut accessor = Accessor {
                    block: *block,
                    warp: warp.index,
                    lane,
                    stamp,
                    views: &warp.views,
                    stamps,
                    known,
                    shared: true,
                };
                let raced = page.shadow.access(*shadow_number, at % PAGE, size, &mut accessor, manner.access());
                let written = page.is_written(at % PAGE, size);
                if let Err(conflict) = raced {
                    return Err(self.race(lane, address, size, manner, conflict, self.shared_name(address)));
                }
                if manner.reads() && !written {
                    return Err(uninitialised(lane, address, size, &self.shared_name(address)));
                }
            }
            let Some(page) = &mut self.shared[at / PAGE] else { continue };
            visit(lane as usize, page, at % PAGE);
            if manner.writes() {
                page.mark_written(at % PAGE, size);
            }
        }
        Ok(())
    }

    /// The offset of a shared address in the block's memory.
    pub fn shared_place(&self, address: u64, size: usize, manner: Manner, lane: u32) -> Result<usize, Fault> {
        let offset = address.wrapping_sub(u64::from(SHARED_BASE));
        let have = u64::from(self.shared_bytes);
        if offset >= have || have - offset < size as u64 {
            let verb = manner.verb();
            let message =
                format!("{verb} of {size} bytes at shared address {address:#x}: {}", self.shared_name(address));
            return Err(Fault::new(Check::Bounds, lane, message));
        }
        Ok(offset as usize)
    }

    pub fn local_lanes(
        &mut self,
        warp: &mut Warp,
        reach: Reach,
        manner: Manner,
        mut visit: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Fault> {
        let size = reach.size as usize;
        let each = self.grid.program.local_bytes as usize;
        for lane in each_lane(reach.mask) {
            let address = reach.addresses[lane as usize];
            let verb = manner.verb();
            if address.saturating_add(size as u64) > each as u64 {
                let message = format!("{verb} of {size} bytes: {}", self.name(Space::Local, address));
                return Err(Fault::new(Check::Bounds, lane, message));
            }
            // Every lane's part begins at a multiple of 16, so that aligned accesses stay in one word of bits.
            let at = lane as usize * each.next_multiple_of(16) + address as usize;
            let bits = (u64::MAX >> (64 - size)) << (at % 64);
            let written = &mut warp.local_written[at / 64];
            if manner.reads() && *written & bits != bits && self.grid.settings.checks {
                return Err(uninitialised(lane, address, size, &self.name(Space::Local, address)));
            }
            if manner.writes() {
                *written |= bits;
            }
            visit(lane as usize, &mut warp.local[at..at + size]);
        }
        Ok(())
    }

    pub fn param_lanes(
        &self,
        reach: Reach,
        manner: Manner,
        mut visit: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Fault> {
        let params = self.grid.launch.params;
        let size = reach.size as usize;
        for lane in each_lane(reach.mask) {
            let address = reach.addresses[lane as usize];
            if manner.writes() || address.saturating_add(size as u64) > params.len() as u64 {
                let message = format!("{} of {size} bytes: {}", manner.verb(), self.name(Space::Param, address));
                return Err(Fault::new(Check::Bounds, lane, message));
            }
            let mut bytes = [0; 16];
            bytes[..size].copy_from_slice(&params[address as usize..][..size]);
            visit(lane as usize, &mut bytes[..size]);
        }
        Ok(())
    }
}
