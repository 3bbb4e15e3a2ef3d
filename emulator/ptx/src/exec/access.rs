//! Loads and stores: where an address lies, whether the access may be made, and what it moves.

use std::sync::MutexGuard;

use super::block::{Core, Lent};
use super::sync::Strong;
use super::warp::Warp;
use crate::ir::{Address, Elements, Op, Order, Scope, Space, Target, Window};
use crate::lower::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_BASE, SHARED_WINDOW, WINDOW, space_of_address};
use crate::memory::Allocation;
use crate::memory::page::{PAGE, POISON, Page};
use crate::observe::{Check, Moved};
use crate::race::shadow::{Access, Accessor, Conflict, Kind, Stamp, mark};
use crate::registers::{LANES, Lanes32, Src, each_lane, lanes_where};

/// Sixteen bytes for every lane: what an access moves at most.
pub type Values = [[u8; 16]; LANES];

/// An asynchronous copy that has been waited for: where it was begun and where its bytes go.
#[derive(Clone, Copy)]
pub struct Settled {
    pub site: u32,
    pub pc: u32,
    pub to: u64,
}

/// Why an access must not be made.
#[derive(Debug)]
pub struct Fault {
    pub lane: u32,
    pub check: Check,
    pub message: String,
}

impl Fault {
    pub fn new(check: Check, lane: u32, message: String) -> Self {
        Self { lane, check, message }
    }

    /// An operand that means nothing.
    pub fn operand(lane: u32, message: String) -> Self {
        Self::new(Check::Trap, lane, message)
    }
}

/// One instruction's access to one memory.
#[derive(Clone, Copy)]
pub struct Reach<'a> {
    pub site: u32,
    pub pc: u32,
    pub mask: u32,
    pub addresses: &'a [u64; LANES],
    /// Bytes a lane.
    pub size: u32,
}

/// A page of device memory, locked while consecutive lanes fall into it: (allocation, index, page).
type Held<'g> = (&'g Allocation, usize, MutexGuard<'g, Option<Box<Page>>>);

/// How memory is accessed, in full.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    Read,
    /// Through the read-only path: nothing in the launch may have written there.
    ReadOnly,
    Write,
    StrongRead,
    StrongWrite,
    Atomic,
    /// By an asynchronous copy, some time before its wait.
    ReadAhead,
}

impl Manner {
    fn access(self) -> Access {
        match self {
            Manner::Read | Manner::ReadOnly | Manner::ReadAhead => Access::Read,
            Manner::Write => Access::Write,
            Manner::StrongRead => Access::StrongRead,
            Manner::StrongWrite | Manner::Atomic => Access::Atomic,
        }
    }

    fn kind(self) -> Kind {
        match self.access() {
            _ if self == Manner::ReadAhead => Kind::Pending,
            Access::Read | Access::Write => Kind::Plain,
            Access::StrongRead => Kind::StrongRead,
            Access::Atomic => Kind::Atomic,
        }
    }

    fn reads(self) -> bool {
        !matches!(self, Manner::Write | Manner::StrongWrite)
    }

    fn writes(self) -> bool {
        matches!(self, Manner::Write | Manner::StrongWrite | Manner::Atomic)
    }

    fn verb(self) -> &'static str {
        match self {
            Manner::Read | Manner::ReadOnly | Manner::StrongRead | Manner::ReadAhead => "read",
            Manner::Write | Manner::StrongWrite => "write",
            Manner::Atomic => "atomic",
        }
    }
}

impl Warp {
    /// The lanes' addresses in the space of the access.
    pub fn addresses(&self, address: &Address) -> [u64; LANES] {
        let offset = address.offset as u64;
        match (address.base, address.wide) {
            (Src::Bits(base), _) => [base.wrapping_add(offset); LANES],
            (base, true) => {
                let mut addresses = self.registers.get64(base);
                addresses.iter_mut().for_each(|address| *address = address.wrapping_add(offset));
                addresses
            }
            // Addresses of 32 bits wrap around as such.
            (base, false) => {
                let base: Lanes32 = self.registers.get32(base);
                std::array::from_fn(|lane| u64::from(base[lane].wrapping_add(offset as u32)))
            }
        }
    }
}

impl<'g> Core<'g> {
    /// `ld`: the bytes that each lane reads.
    pub fn load(
        &mut self,
        warp: &mut Warp,
        target: &Target,
        elements: Elements,
        read_only: bool,
        (mask, pc): (u32, u32),
        lent: &mut Lent,
    ) -> Result<Values, Fault> {
        let addresses = warp.addresses(&target.address);
        let manner = match target.order {
            _ if read_only => Manner::ReadOnly,
            Order::Weak => Manner::Read,
            _ => Manner::StrongRead,
        };
        let mut values: Values = [[0; 16]; LANES];
        let size = (elements.bytes * elements.count) as usize;
        self.by_space(target.space, mask, &addresses, |core, space, mask, addresses| {
            let reach = Reach { site: target.site, pc, mask, addresses, size: size as u32 };
            core.each_lane(warp, space, reach, manner, lent, |lane, bytes| {
                move_bytes(&mut values[lane], bytes);
            })
        })?;
        if manner == Manner::StrongRead {
            let how = Strong { order: target.order, scope: target.scope, loads: true, stores: false, atomic: false };
            self.order_all(warp, target, mask, &addresses, how);
        }
        Ok(values)
    }

    /// `st`
    pub fn store(
        &mut self,
        warp: &mut Warp,
        target: &Target,
        size: u32,
        values: &Values,
        (mask, pc): (u32, u32),
        lent: &mut Lent,
    ) -> Result<(), Fault> {
        let addresses = warp.addresses(&target.address);
        let mut manner = Manner::Write;
        if target.order != Order::Weak {
            manner = Manner::StrongWrite;
            let how = Strong { order: target.order, scope: target.scope, loads: false, stores: true, atomic: false };
            self.order_all(warp, target, mask, &addresses, how);
        }
        self.by_space(target.space, mask, &addresses, |core, space, mask, addresses| {
            let reach = Reach { site: target.site, pc, mask, addresses, size };
            core.each_lane(warp, space, reach, manner, lent, |lane, bytes| {
                move_bytes(bytes, &values[lane]);
            })
        })
    }

    /// An atomic: `change` turns a lane's bytes into new ones.
    pub fn update(
        &mut self,
        warp: &mut Warp,
        target: &Target,
        size: u32,
        (mask, pc): (u32, u32),
        lent: &mut Lent,
        mut change: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Fault> {
        let addresses = warp.addresses(&target.address);
        // Published before and looked up after, so that whoever's update comes later, on any core, sees what came before.
        let publish = Strong { order: target.order, scope: target.scope, loads: false, stores: true, atomic: true };
        let look_up = Strong { loads: true, stores: false, ..publish };
        self.order_all(warp, target, mask, &addresses, publish);
        self.by_space(target.space, mask, &addresses, |core, space, mask, addresses| {
            if !matches!(space, Space::Global | Space::Shared) {
                return Err(Fault::operand(mask.trailing_zeros(), "an atomic on local memory or parameters".into()));
            }
            let reach = Reach { site: target.site, pc, mask, addresses, size };
            core.each_lane(warp, space, reach, Manner::Atomic, lent, &mut change)
        })?;
        self.order_all(warp, target, mask, &addresses, look_up);
        Ok(())
    }

    fn order_all(&mut self, warp: &mut Warp, target: &Target, mask: u32, addresses: &[u64; LANES], how: Strong) {
        for lane in each_lane(mask) {
            let address = addresses[lane as usize];
            let shared = match target.space {
                Space::Shared => true,
                Space::Generic => address.wrapping_sub(SHARED_WINDOW) < WINDOW,
                _ => false,
            };
            let address = if target.space == Space::Generic && shared { address - SHARED_WINDOW } else { address };
            self.order(warp, lane, address, shared, how);
        }
    }

    /// Splits a generic access by the spaces that its addresses lie in.
    fn by_space(
        &mut self,
        space: Space,
        mask: u32,
        addresses: &[u64; LANES],
        mut go: impl FnMut(&mut Self, Space, u32, &[u64; LANES]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if space != Space::Generic {
            return go(self, space, mask, addresses);
        }
        let windows = [(Space::Shared, SHARED_WINDOW), (Space::Local, LOCAL_WINDOW), (Space::Param, PARAM_WINDOW)];
        let mut rest = mask;
        for (space, base) in windows {
            let inside = lanes_where(mask, |lane| addresses[lane as usize].wrapping_sub(base) < WINDOW);
            if inside != 0 {
                rest &= !inside;
                go(self, space, inside, &addresses.map(|address| address.wrapping_sub(base)))?;
            }
        }
        if rest == 0 { Ok(()) } else { go(self, Space::Global, rest, addresses) }
    }

    /// Checks and makes an access of every lane: `visit` sees the lane's bytes, to read or to write.
    fn each_lane(
        &mut self,
        warp: &mut Warp,
        space: Space,
        reach: Reach,
        manner: Manner,
        lent: &mut Lent,
        mut visit: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Fault> {
        let size = reach.size;
        self.check_alignment(space, reach, manner)?;
        match space {
            Space::Shared => {
                lent.tally.shared(&reach, manner.writes());
                self.shared_lanes(warp, reach, manner, |lane, page, offset| {
                    visit(lane, page.bytes_mut(offset, size as usize))
                })
            }
            Space::Local => self.local_lanes(warp, reach, manner, visit),
            Space::Param => self.param_lanes(reach, manner, visit),
            _ => {
                let moved = if manner == Manner::Atomic {
                    Moved::Atomic
                } else if manner.writes() {
                    Moved::Stored
                } else {
                    Moved::Loaded
                };
                lent.tally.global(&reach, moved);
                self.global_lanes(warp, reach, manner, lent, |lane, page, offset| {
                    visit(lane, page.bytes_mut(offset, size as usize));
                })
            }
        }
    }

    fn global_lanes(
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
        let stamp = if checks { self.device_stamp(warp, reach.site, reach.pc, reach.mask, manner.kind())? } else { 0 };
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
            let page = guard.get_or_insert_with(Page::boxed);
            if checks {
                let mut accessor = Accessor {
                    block: self.block,
                    warp: warp.index,
                    lane,
                    stamp,
                    views: &warp.views,
                    stamps: &grid.stamps,
                    sets: lent.sets,
                    keep_lanes: false,
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

    fn find(&self, address: u64, size: usize, manner: Manner, lane: u32) -> Result<&'g Allocation, Fault> {
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
    fn allocation(&self, address: u64, size: usize) -> Option<&'g Allocation> {
        let all = &self.grid.allocations;
        let after = all.partition_point(|allocation| allocation.base <= address);
        all[..after].last().map(|allocation| &**allocation).filter(|allocation| allocation.holds(address, size))
    }

    fn shared_lanes(
        &mut self,
        warp: &mut Warp,
        reach: Reach,
        manner: Manner,
        mut visit: impl FnMut(usize, &mut Page, usize),
    ) -> Result<(), Fault> {
        let size = reach.size as usize;
        let checks = self.grid.settings.checks;
        let stamp = if checks { self.shared_stamp(warp, reach.site, reach.pc, reach.mask, manner.kind())? } else { 0 };
        for lane in each_lane(reach.mask) {
            let address = reach.addresses[lane as usize];
            let at = self.shared_place(address, size, manner, lane)?;
            let Core { shared, stamps, sets, block, shadow_number, .. } = self;
            let page = shared[at / PAGE].get_or_insert_with(Page::boxed);
            if checks {
                let mut accessor = Accessor {
                    block: *block,
                    warp: warp.index,
                    lane,
                    stamp,
                    views: &warp.views,
                    stamps,
                    sets,
                    keep_lanes: true,
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
    fn shared_place(&self, address: u64, size: usize, manner: Manner, lane: u32) -> Result<usize, Fault> {
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

    fn check_alignment(&self, space: Space, reach: Reach, manner: Manner) -> Result<(), Fault> {
        let Reach { size, addresses, mask, .. } = reach;
        let unaligned = lanes_where(mask, |lane| addresses[lane as usize] & u64::from(size - 1) != 0);
        if unaligned == 0 {
            return Ok(());
        }
        let lane = unaligned.trailing_zeros();
        let (verb, address) = (manner.verb(), addresses[lane as usize]);
        let place = self.name(space, address);
        let message = format!("{verb} of {size} bytes at {address:#x}, which is no multiple of {size}: {place}");
        Err(Fault::new(Check::Alignment, lane, message))
    }

    /// What lies at an address of a space, in words.
    fn name(&self, space: Space, address: u64) -> String {
        match space {
            Space::Shared => self.shared_name(address),
            Space::Local => {
                format!("byte {address} of {} bytes of local memory a thread", self.grid.program.local_bytes)
            }
            Space::Param => format!("byte {address} of {} bytes of parameters", self.grid.launch.params.len()),
            _ => self.grid.memory.describe(address),
        }
    }

    fn shared_name(&self, address: u64) -> String {
        let offset = address.wrapping_sub(u64::from(SHARED_BASE)) as i64;
        format!("byte {offset} of the block's {} bytes of shared memory", self.shared_bytes)
    }

    fn local_lanes(
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

    fn param_lanes(&self, reach: Reach, manner: Manner, mut visit: impl FnMut(usize, &mut [u8])) -> Result<(), Fault> {
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

    /// Checks the source of an asynchronous copy, of which each lane reads `sizes` bytes when it is waited for. Until then
    /// nobody may write there. Gives the stamp of the reads, for `Stamps::finish`; 0 if there are none.
    pub fn read_ahead(
        &mut self,
        warp: &mut Warp,
        reach: Reach,
        sizes: &[u32; LANES],
        lent: &mut Lent,
    ) -> Result<u32, Fault> {
        // Each copy has a stamp of its own, as each is finished on its own.
        warp.stamps[reach.site as usize][0] = (0, 0);
        let whole = lanes_where(reach.mask, |lane| sizes[lane as usize] == reach.size);
        self.each_lane(warp, Space::Global, Reach { mask: whole, ..reach }, Manner::ReadAhead, lent, |_, _| ())?;
        for lane in each_lane(reach.mask & !whole) {
            let (address, end) = (reach.addresses[lane as usize], sizes[lane as usize]);
            if end > 0 {
                self.check_alignment(Space::Global, Reach { mask: 1 << lane, ..reach }, Manner::ReadAhead)?;
            }
            // A part is read in the largest aligned pieces.
            let mut done = 0;
            while done < end {
                let size = 1 << (end - done).ilog2().min(if done == 0 { 4 } else { done.trailing_zeros() });
                let addresses = [address + u64::from(done); LANES];
                let piece = Reach { mask: 1 << lane, addresses: &addresses, size, ..reach };
                self.each_lane(warp, Space::Global, piece, Manner::ReadAhead, lent, |_, _| ())?;
                done += size;
            }
        }
        Ok(warp.stamps[reach.site as usize][0].1)
    }

    /// Reads device memory that was checked before.
    pub fn read_late(&self, address: u64, out: &mut [u8]) {
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
    pub fn mark_pending(&mut self, warp: &mut Warp, reach: Reach, lent: &mut Lent) -> Result<(), Fault> {
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

    /// Writes a copy's bytes, as if the waiting lane had stored them.
    pub fn settle(&mut self, warp: &mut Warp, lane: u32, copy: Settled, bytes: &[u8]) -> Result<(), Fault> {
        let Settled { site, pc, to } = copy;
        let at = (to - u64::from(SHARED_BASE)) as usize;
        if self.grid.settings.checks {
            let stamp = self.shared_stamp(warp, site, pc, 1 << lane, Kind::Plain)?;
            if let Some(page) = &mut self.shared[at / PAGE] {
                page.shadow.settle(self.shadow_number, at % PAGE, bytes.len(), mark(stamp, lane));
            }
        }
        if let Some(page) = &mut self.shared[at / PAGE] {
            page.store(at % PAGE, bytes);
        }
        Ok(())
    }

    fn device_stamp(&self, warp: &mut Warp, site: u32, pc: u32, mask: u32, kind: Kind) -> Result<u32, Fault> {
        let [(time, stamp), _] = &mut warp.stamps[site as usize];
        if *time != warp.now {
            let narrow = kind != Kind::Plain && self.is_narrow(pc);
            let new = Stamp { block: self.block, warp: warp.index, time: warp.now, pc, kind, narrow };
            (*time, *stamp) = (warp.now, self.grid.stamps.stamp(new).ok_or_else(|| too_long(mask))?);
        }
        Ok(*stamp)
    }

    /// Whether a strong access is for its block alone.
    fn is_narrow(&self, pc: u32) -> bool {
        match &self.grid.program.code[pc as usize].op {
            Op::Load { target, .. } | Op::Store { target, .. } | Op::Atomic { target, .. } => {
                target.scope == Scope::Block
            }
            _ => false,
        }
    }

    fn shared_stamp(&self, warp: &mut Warp, site: u32, pc: u32, mask: u32, kind: Kind) -> Result<u32, Fault> {
        let [_, (time, stamp)] = &mut warp.stamps[site as usize];
        if *time != warp.now {
            // All that share this memory are in one block.
            let new = Stamp { block: self.block, warp: warp.index, time: warp.now, pc, kind, narrow: false };
            (*time, *stamp) = (warp.now, self.stamps.stamp(new).ok_or_else(|| too_long(mask))?);
        }
        Ok(*stamp)
    }

    /// A race, both sides named; or a touch of a copy's target before its wait.
    fn race(&self, lane: u32, address: u64, size: usize, manner: Manner, with: Conflict, place: String) -> Fault {
        let Conflict { other, lane: other_lane, was_read } = with;
        let block = super::unflatten(other.block, self.grid.launch.grid);
        let whose = match other_lane {
            Some(lane) => {
                let [x, y, z] = super::unflatten(other.warp * LANES as u32 + lane, self.grid.launch.block);
                format!("thread ({x}, {y}, {z})")
            }
            None => format!("lanes of warp {}", other.warp),
        };
        let [x, y, z] = block;
        let whose = if other.block == self.block { whose } else { format!("{whose} of block ({x}, {y}, {z})") };
        let at = self.grid.source(other.pc);
        let verb = manner.verb();
        if other.kind == Kind::Pending {
            let end = if was_read { "source" } else { "target" };
            let message = format!(
                "{verb} of {size} bytes at {address:#x} ({place}), the {end} of a cp.async by {whose} at {at} that was not waited for"
            );
            return Fault::new(Check::AsyncProxy, lane, message);
        }
        let earlier = match other.kind {
            Kind::Atomic if matches!(self.grid.program.code[other.pc as usize].op, Op::Store { .. }) => "strong write",
            Kind::Atomic => "atomic",
            _ if was_read => "read",
            _ => "write",
        };
        let strong = other.kind != Kind::Plain && manner.kind() != Kind::Plain;
        let why = if strong { "one of them is for its own block alone" } else { "nothing orders them" };
        let message = format!(
            "{verb} of {size} bytes at {address:#x} ({place}) races with the {earlier} by {whose} at {at}: {why}"
        );
        Fault::new(Check::Race, lane, message)
    }
}

/// Copies as many bytes as the shorter side has: 1, 2, 4, 8 or 16, each a move of its own rather than a call.
#[inline(always)]
fn move_bytes(to: &mut [u8], from: &[u8]) {
    match to.len().min(from.len()) {
        16 => to[..16].copy_from_slice(&from[..16]),
        8 => to[..8].copy_from_slice(&from[..8]),
        4 => to[..4].copy_from_slice(&from[..4]),
        2 => to[..2].copy_from_slice(&from[..2]),
        size => to[..size].copy_from_slice(&from[..size]),
    }
}

fn uninitialised(lane: u32, address: u64, size: usize, place: &str) -> Fault {
    let message = format!("read of {size} bytes at {address:#x} that nothing wrote: {place}");
    Fault::new(Check::Initialised, lane, message)
}

fn too_long(mask: u32) -> Fault {
    let message = "the launch is too long for the race check: too many accesses between barriers; make it smaller";
    Fault::new(Check::Launch, mask.trailing_zeros(), message.into())
}
