//! Device memory.

use std::sync::MutexGuard;

use super::report::uninitialised;
use super::{Fault, Manner, Reach};
use crate::exec::block::{Core, Lent};
use crate::exec::warp::Warp;
use crate::ir::{Space, Window};
use crate::lower::space_of_address;
use crate::memory::Allocation;
use crate::memory::page::{PAGE, Page};
use crate::observe::Check;
use crate::race::shadow::Accessor;
use crate::registers::each_lane;

/// A page of device memory, locked while consecutive lanes fall into it: (allocation, index, page).
type Held<'g> = (&'g Allocation, usize, MutexGuard<'g, Option<Box<Page>>>);

impl<'g> Core<'g> {
    pub fn global_lanes(
        &mut self,
        warp: &mut Warp,
        reach: Reach,
        manner: Manner,
        lent: &mut Lent,
        mut visit: impl FnMut(usize, &mut Page, usize),
    ) -> Result<(), Fault> {
        let grid = self.grid;
        let size = reach.size as usize;
        let checks = grid.settings.checks;
        let stamp = if checks { self.stamp(warp, &grid.stamps, reach, manner.kind())? } else { 0 };
        let mut held: Option<Held> = None;
        for lane in each_lane(reach.mask) {
            let address = reach.addresses[lane as usize];
            let near = held.as_ref().map(|(allocation, ..)| *allocation);
            let allocation = match near.filter(|allocation| allocation.holds(address, size)) {
                Some(allocation) => allocation,
                None => self.find(address, size, manner, lane)?,
            };
            let offset = address - allocation.base;
            let (index, at) = ((offset / PAGE as u64) as usize, (offset % PAGE as u64) as usize);
            let same = matches!(&held, Some((of, page, _)) if std::ptr::eq(*of, allocation) && *page == index);
            if !same {
                held = None;
                if allocation.read_only && manner.writes() {
                    let message =
                        format!("{} of read-only memory: {}", manner.verb(), self.grid.memory.describe(address));
                    return Err(Fault::new(Check::Bounds, lane, message));
                }
                allocation.touch();
            }
            let (_, _, guard) = held.get_or_insert_with(|| (allocation, index, allocation.page(index)));
            let page = guard.get_or_insert_with(|| allocation.blank_page());
            if checks {
                let mut accessor = Accessor {
                    block: self.block,
                    warp: warp.index,
                    lane,
                    stamp,
                    views: &warp.views,
                    stamps: &grid.stamps,
                    known: lent.known,
                    shared: false,
                };
                if let Err(conflict) = page.shadow.access(grid.number, at, size, &mut accessor, manner.access()) {
                    return Err(self.race(lane, address, size, manner, conflict, grid.memory.describe(address)));
                }
                if manner == Manner::ReadOnly && page.shadow.was_written(at) {
                    let place = grid.memory.describe(address);
                    let message =
                        format!("ld.global.nc of {size} bytes that this launch writes: {address:#x}, {place}");
                    return Err(Fault::new(Check::Race, lane, message));
                }
                if manner.reads() && !page.is_written(at, size) {
                    return Err(uninitialised(lane, address, size, &grid.memory.describe(address)));
                }
            }
            visit(lane as usize, page, at);
            if manner.writes() {
                page.mark_written(at, size);
            }
        }
        Ok(())
    }

    pub fn find(&self, address: u64, size: usize, manner: Manner, lane: u32) -> Result<&'g Allocation, Fault> {
        match self.allocation(address, size) {
            Some(allocation) => Ok(allocation),
            None => {
                let (verb, place) = (manner.verb(), self.grid.memory.describe_range(address, size as u64));
                Err(Fault::new(Check::Bounds, lane, format!("{verb} of {size} bytes at {address:#x}: {place}")))
            }
        }
    }

    /// `isspacep`. Parameters count as global memory too, as their window lies inside its.
    pub fn lies_in(&self, address: u64, window: Window) -> bool {
        let space = space_of_address(address);
        let constant = || self.allocation(address, 1).is_some_and(|allocation| allocation.read_only);
        match window {
            Window::Const => space == Space::Global && constant(),
            Window::Space(Space::Global) => space == Space::Param || space == Space::Global && !constant(),
            Window::Space(wanted) => space == wanted,
        }
    }

    /// The allocation that holds a whole range.
    pub fn allocation(&self, address: u64, size: usize) -> Option<&'g Allocation> {
        let all = &self.grid.allocations;
        let after = all.partition_point(|allocation| allocation.base <= address);
        all[..after].last().map(|allocation| &**allocation).filter(|allocation| allocation.holds(address, size))
    }
}
