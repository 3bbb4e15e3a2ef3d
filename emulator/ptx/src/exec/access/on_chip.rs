//! Shared memory, local memory and parameters.

use super::kind::AccessKind;
use crate::address_space::SHARED_BASE;
use crate::exec::block_state::BlockState;
use crate::exec::fault::Fault;
use crate::exec::warp::Warp;
use crate::ir::Space;
use crate::memory::page::{PAGE_BYTES, Page};
use crate::observe::{Check, WarpAccess};
use crate::race::shadow::Accessor;
use crate::registers::each_lane;

impl<'g> BlockState<'g> {
    /// Checks and performs an access to shared memory; `visit` gets (lane, page, offset in the page).
    pub fn shared_lanes(
        &mut self,
        warp: &mut Warp,
        request: WarpAccess,
        kind: AccessKind,
        mut visit: impl FnMut(usize, &mut Page, usize),
    ) -> Result<(), Fault> {
        let size = request.size as usize;
        let checks = self.grid.settings.checks;
        let epoch = if checks { self.epoch(warp, &self.epochs, request, kind.epoch_kind())? } else { 0 };
        for lane in each_lane(request.mask) {
            let address = request.addresses[lane as usize];
            let at = self.shared_offset(address, size, kind, lane)?;
            let BlockState { shared, epochs, cache, block, shadow_number, .. } = self;
            let page = shared[at / PAGE_BYTES].get_or_insert_with(Page::boxed);
            if checks {
                let mut accessor = Accessor {
                    block: *block,
                    warp: warp.index,
                    lane,
                    epoch,
                    views: &warp.views,
                    epochs,
                    cache,
                    shared: true,
                };
                let raced = page.shadow.access(*shadow_number, at % PAGE_BYTES, size, &mut accessor, kind.access());
                let written = page.is_written(at % PAGE_BYTES, size);
                if let Err(conflict) = raced {
                    return Err(self.race(lane, address, size, kind, conflict, self.describe_shared(address)));
                }
                if kind.reads() && !written {
                    return Err(Fault::uninitialised(lane, address, size, &self.describe_shared(address)));
                }
            }
            let Some(page) = &mut self.shared[at / PAGE_BYTES] else { continue };
            visit(lane as usize, page, at % PAGE_BYTES);
            if kind.writes() {
                page.mark_written(at % PAGE_BYTES, size);
            }
        }
        Ok(())
    }

    /// The offset of a shared address in the block's memory.
    fn shared_offset(&self, address: u64, size: usize, kind: AccessKind, lane: u32) -> Result<usize, Fault> {
        let offset = address.wrapping_sub(u64::from(SHARED_BASE));
        let end = u64::from(self.shared_bytes);
        if offset >= end || end - offset < size as u64 {
            let name = kind.name();
            let message =
                format!("{name} of {size} bytes at shared address {address:#x}: {}", self.describe_shared(address));
            return Err(Fault::new(Check::Bounds, lane, message));
        }
        Ok(offset as usize)
    }

    /// Checks and performs an access to local memory.
    pub fn local_lanes(
        &mut self,
        warp: &mut Warp,
        request: WarpAccess,
        kind: AccessKind,
        mut visit: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Fault> {
        let size = request.size as usize;
        let lane_bytes = self.grid.program.local_bytes as usize;
        for lane in each_lane(request.mask) {
            let address = request.addresses[lane as usize];
            if address.saturating_add(size as u64) > lane_bytes as u64 {
                let location = self.describe(Space::Local, address);
                let message = format!("{} of {size} bytes: {location}", kind.name());
                return Err(Fault::new(Check::Bounds, lane, message));
            }
            // The memory of every lane begins at a multiple of 16, so that the bits of an aligned access lie in one word.
            let at = lane as usize * lane_bytes.next_multiple_of(16) + address as usize;
            let bits = (u64::MAX >> (64 - size)) << (at % 64);
            let written = &mut warp.local_written[at / 64];
            if kind.reads() && *written & bits != bits && self.grid.settings.checks {
                return Err(Fault::uninitialised(lane, address, size, &self.describe(Space::Local, address)));
            }
            if kind.writes() {
                *written |= bits;
            }
            visit(lane as usize, &mut warp.local[at..at + size]);
        }
        Ok(())
    }

    /// Checks and performs a read of the kernel's parameters.
    pub fn param_lanes(
        &self,
        request: WarpAccess,
        kind: AccessKind,
        mut visit: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Fault> {
        let params = self.grid.launch.params;
        let size = request.size as usize;
        for lane in each_lane(request.mask) {
            let address = request.addresses[lane as usize];
            if kind.writes() || address.saturating_add(size as u64) > params.len() as u64 {
                let location = self.describe(Space::Param, address);
                let message = format!("{} of {size} bytes: {location}", kind.name());
                return Err(Fault::new(Check::Bounds, lane, message));
            }
            let mut bytes = [0; 16];
            bytes[..size].copy_from_slice(&params[address as usize..][..size]);
            visit(lane as usize, &mut bytes[..size]);
        }
        Ok(())
    }
}
