//! Loads and stores: where an address lies, whether the access may be made, and what it moves.

mod global;
mod on_chip;
pub mod report;

use super::block::{Core, Lent};
use super::sync::Strong;
use super::warp::Warp;
use crate::ir::{Address, Elements, Order, Space, Target};
use crate::lower::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW};
use crate::observe::{Check, Moved};
use crate::race::shadow::Access;
use crate::race::stamp::{Kind, Stamp, Stamps};
use crate::registers::{LANES, Lanes32, Src, each_lane, lanes_where};

/// Sixteen bytes for every lane: what an access moves at most.
pub type Values = [[u8; 16]; LANES];

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
    pub fn access(self) -> Access {
        match self {
            Manner::Read | Manner::ReadOnly | Manner::ReadAhead => Access::Read,
            Manner::Write => Access::Write,
            Manner::StrongRead => Access::StrongRead,
            Manner::StrongWrite => Access::StrongWrite,
            Manner::Atomic => Access::Atomic,
        }
    }

    pub fn kind(self) -> Kind {
        match self.access() {
            _ if self == Manner::ReadAhead => Kind::Pending,
            _ if self == Manner::ReadOnly => Kind::ReadOnly,
            Access::Read | Access::Write => Kind::Plain,
            Access::StrongRead => Kind::StrongRead,
            Access::StrongWrite | Access::Atomic => Kind::Atomic,
        }
    }

    pub fn reads(self) -> bool {
        !matches!(self, Manner::Write | Manner::StrongWrite)
    }

    pub fn writes(self) -> bool {
        matches!(self, Manner::Write | Manner::StrongWrite | Manner::Atomic)
    }

    pub fn verb(self) -> &'static str {
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
            self.polls += u32::from(target.space != Space::Shared);
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
        self.polls = 0;
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
            let mut changed = false;
            core.each_lane(warp, space, reach, Manner::Atomic, lent, |lane, bytes| {
                let mut before = [0; 8];
                before[..bytes.len()].copy_from_slice(bytes);
                change(lane, bytes);
                changed |= before[..bytes.len()] != *bytes;
            })?;
            core.polls = if changed || space == Space::Shared { 0 } else { core.polls + 1 };
            Ok(())
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

    /// The stamp of an access in one of the two memories, the same until the warp's next release.
    pub fn stamp(&self, warp: &mut Warp, stamps: &Stamps, reach: Reach, kind: Kind) -> Result<u32, Fault> {
        let memory = usize::from(std::ptr::eq(stamps, &self.stamps));
        let (time, stamp) = &mut warp.stamps[reach.site as usize][memory];
        if stamps.is_full() {
            return Err(report::too_long(reach.mask));
        }
        if *time == warp.now {
            stamps.add_lanes(*stamp, reach.mask);
        } else {
            let narrow = kind != Kind::Plain && self.is_narrow(reach.pc);
            let (block, warp_index, pc) = (self.block, warp.index, reach.pc);
            let new = Stamp { block, warp: warp_index, time: warp.now, pc, kind, narrow, lanes: reach.mask };
            (*time, *stamp) = (warp.now, stamps.stamp(new).ok_or_else(|| report::too_long(reach.mask))?);
        }
        Ok(*stamp)
    }

    /// Checks and makes an access of every lane: `visit` sees the lane's bytes, to read or to write.
    pub fn each_lane(
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
