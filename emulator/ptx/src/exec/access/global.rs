//! Device memory.

use std::sync::MutexGuard;

use super::kind::AccessKind;
use crate::address_space::space_of_address;
use crate::exec::block_state::{BlockState, Scratch};
use crate::exec::fault::Fault;
use crate::exec::warp::Warp;
use crate::ir::{Space, Window};
use crate::memory::Allocation;
use crate::memory::page::{PAGE_BYTES, Page};
use crate::observe::{Check, WarpAccess};
use crate::race::shadow::Accessor;
use crate::registers::each_lane;

/// A page of device memory, kept locked while consecutive lanes access it: (allocation, index, page).
type LockedPage<'g> = (&'g Allocation, usize, MutexGuard<'g, Option<Box<Page>>>);

impl<'g> BlockState<'g> {
    /// Checks and performs an access to device memory; `visit` gets (lane, page, offset in the page).
    pub fn global_lanes(
        &mut self,
        warp: &mut Warp,
        request: WarpAccess,
        kind: AccessKind,
        scratch: &mut Scratch,
        mut visit: impl FnMut(usize, &mut Page, usize),
    ) -> Result<(), Fault> {
        let grid = self.grid;
        let size = request.size as usize;
        let checks = grid.settings.checks;
        let epoch = if checks { self.epoch(warp, &grid.epochs, request, kind.epoch_kind())? } else { 0 };
        let mut locked: Option<LockedPage> = None;
        for lane in each_lane(request.mask) {
            let address = request.addresses[lane as usize];
            let last = locked.as_ref().map(|(allocation, ..)| *allocation);
            let allocation = match last.filter(|allocation| allocation.holds(address, size)) {
                Some(allocation) => allocation,
                None => self.find(address, size, kind, lane)?,
            };
            let offset = address - allocation.base;
            let (index, at) = ((offset / PAGE_BYTES as u64) as usize, (offset % PAGE_BYTES as u64) as usize);
            let same = matches!(&locked, Some((of, page, _)) if std::ptr::eq(*of, allocation) && *page == index);
            if !same {
                locked = None;
                if allocation.read_only && kind.writes() {
                    let message =
                        format!("{} of read-only memory: {}", kind.name(), self.grid.memory.describe(address));
                    return Err(Fault::new(Check::Bounds, lane, message));
                }
                allocation.touch();
            }
            let (_, _, guard) = locked.get_or_insert_with(|| (allocation, index, allocation.page(index)));
            let page = guard.get_or_insert_with(|| allocation.blank_page());
            if checks {
                let mut accessor = Accessor {
                    block: self.block,
                    warp: warp.index,
                    lane,
                    epoch,
                    views: &warp.views,
                    epochs: &grid.epochs,
                    cache: scratch.cache,
                    shared: false,
                };
                if let Err(conflict) = page.shadow.access(grid.number, at, size, &mut accessor, kind.access()) {
                    return Err(self.race(lane, address, size, kind, conflict, grid.memory.describe(address)));
                }
                if kind == AccessKind::ReadOnly && page.shadow.was_written(at) {
                    let location = grid.memory.describe(address);
                    let message =
                        format!("ld.global.nc of {size} bytes that this launch writes: {address:#x}, {location}");
                    return Err(Fault::new(Check::Race, lane, message));
                }
                if kind.reads() && !page.is_written(at, size) {
                    return Err(Fault::uninitialised(lane, address, size, &grid.memory.describe(address)));
                }
            }
            visit(lane as usize, page, at);
            if kind.writes() {
                page.mark_written(at, size);
            }
        }
        Ok(())
    }

    /// The allocation that a lane accesses.
    fn find(&self, address: u64, size: usize, kind: AccessKind, lane: u32) -> Result<&'g Allocation, Fault> {
        match self.allocation(address, size) {
            Some(allocation) => Ok(allocation),
            None => {
                let (name, location) = (kind.name(), self.grid.memory.describe_range(address, size as u64));
                Err(Fault::new(Check::Bounds, lane, format!("{name} of {size} bytes at {address:#x}: {location}")))
            }
        }
    }

    /// `isspacep`. Parameters count as global memory too, as their window lies inside the global one.
    pub fn is_in_window(&self, address: u64, window: Window) -> bool {
        let space = space_of_address(address);
        let constant = || self.allocation(address, 1).is_some_and(|allocation| allocation.read_only);
        match window {
            Window::Const => space == Space::Global && constant(),
            Window::Space(Space::Global) => space == Space::Param || space == Space::Global && !constant(),
            Window::Space(of) => space == of,
        }
    }

    /// The allocation that holds a whole range.
    pub fn allocation(&self, address: u64, size: usize) -> Option<&'g Allocation> {
        let all = &self.grid.allocations;
        let after = all.partition_point(|allocation| allocation.base <= address);
        all[..after].last().map(|allocation| &**allocation).filter(|allocation| allocation.holds(address, size))
    }
}
