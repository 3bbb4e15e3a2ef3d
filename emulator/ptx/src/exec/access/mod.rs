//! Loads and stores: where an address lies, whether the access is allowed, and which bytes it moves.

mod global;
mod kind;
mod on_chip;
mod report;

use super::block_state::{BlockState, Scratch};
use super::fault::Fault;
use super::sync::StrongAccess;
use super::warp::Warp;
use crate::address_space::{LOCAL_WINDOW, PARAM_WINDOW, SHARED_WINDOW, WINDOW_BYTES};
use crate::ir::{Address, Elements, Order, Space, Target};
use crate::observe::{TrafficKind, WarpAccess};
use crate::race::epoch::{Epoch, EpochKind};
use crate::race::epoch_table::EpochTable;
use crate::registers::{LANES, Lanes32, Src, each_lane, lanes_where};
pub use kind::AccessKind;

/// Sixteen bytes for every lane: the most that one access moves.
pub type LaneBytes = [[u8; 16]; LANES];

impl Warp {
    /// The lanes' addresses, in the state space of the access.
    pub fn addresses(&self, address: &Address) -> [u64; LANES] {
        let offset = address.offset as u64;
        match (address.base, address.wide) {
            (Src::Bits(base), _) => [base.wrapping_add(offset); LANES],
            (base, true) => {
                let mut addresses = self.registers.get64(base);
                addresses.iter_mut().for_each(|address| *address = address.wrapping_add(offset));
                addresses
            }
            // 32-bit addresses wrap around at 32 bits.
            (base, false) => {
                let base: Lanes32 = self.registers.get32(base);
                std::array::from_fn(|lane| u64::from(base[lane].wrapping_add(offset as u32)))
            }
        }
    }
}

impl<'g> BlockState<'g> {
    /// `ld`: returns the bytes that each lane reads.
    pub fn load(
        &mut self,
        warp: &mut Warp,
        target: &Target,
        elements: Elements,
        read_only: bool,
        (mask, pc): (u32, u32),
        scratch: &mut Scratch,
    ) -> Result<LaneBytes, Fault> {
        let addresses = warp.addresses(&target.address);
        let kind = match target.order {
            _ if read_only => AccessKind::ReadOnly,
            Order::Weak => AccessKind::Read,
            _ => AccessKind::StrongRead,
        };
        let mut values: LaneBytes = [[0; 16]; LANES];
        let size = (elements.bytes * elements.count) as usize;
        self.by_space(target.space, mask, &addresses, |state, space, mask, addresses| {
            let request = WarpAccess { site: target.site, pc, mask, addresses, size: size as u32 };
            state.access_lanes(warp, space, request, kind, scratch, |lane, bytes| {
                move_bytes(&mut values[lane], bytes);
            })
        })?;
        if kind == AccessKind::StrongRead {
            self.polls += u32::from(target.space != Space::Shared);
            let strong =
                StrongAccess { order: target.order, scope: target.scope, loads: true, stores: false, atomic: false };
            self.order_all(warp, target, mask, &addresses, strong);
        }
        Ok(values)
    }

    /// `st`
    pub fn store(
        &mut self,
        warp: &mut Warp,
        target: &Target,
        size: u32,
        values: &LaneBytes,
        (mask, pc): (u32, u32),
        scratch: &mut Scratch,
    ) -> Result<(), Fault> {
        let addresses = warp.addresses(&target.address);
        self.polls = 0;
        let mut kind = AccessKind::Write;
        if target.order != Order::Weak {
            kind = AccessKind::StrongWrite;
            let strong =
                StrongAccess { order: target.order, scope: target.scope, loads: false, stores: true, atomic: false };
            self.order_all(warp, target, mask, &addresses, strong);
        }
        self.by_space(target.space, mask, &addresses, |state, space, mask, addresses| {
            let request = WarpAccess { site: target.site, pc, mask, addresses, size };
            state.access_lanes(warp, space, request, kind, scratch, |lane, bytes| {
                move_bytes(bytes, &values[lane]);
            })
        })
    }

    /// `atom` and `red`: `change` replaces a lane's bytes by new ones.
    pub fn update(
        &mut self,
        warp: &mut Warp,
        target: &Target,
        size: u32,
        (mask, pc): (u32, u32),
        scratch: &mut Scratch,
        mut change: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Fault> {
        let addresses = warp.addresses(&target.address);
        // Publishing precedes the update and the lookup follows it, so that of two updates on different host threads the
        // later one observes what the earlier one published.
        let publish =
            StrongAccess { order: target.order, scope: target.scope, loads: false, stores: true, atomic: true };
        let look_up = StrongAccess { loads: true, stores: false, ..publish };
        self.order_all(warp, target, mask, &addresses, publish);
        self.by_space(target.space, mask, &addresses, |state, space, mask, addresses| {
            if !matches!(space, Space::Global | Space::Shared) {
                return Err(Fault::operand(mask.trailing_zeros(), "an atomic on local memory or parameters".into()));
            }
            let request = WarpAccess { site: target.site, pc, mask, addresses, size };
            let mut changed = false;
            state.access_lanes(warp, space, request, AccessKind::Atomic, scratch, |lane, bytes| {
                let mut before = [0; 8];
                before[..bytes.len()].copy_from_slice(bytes);
                change(lane, bytes);
                changed |= before[..bytes.len()] != *bytes;
            })?;
            state.polls = if changed || space == Space::Shared { 0 } else { state.polls + 1 };
            Ok(())
        })?;
        self.order_all(warp, target, mask, &addresses, look_up);
        Ok(())
    }

    /// [`BlockState::order`] for every lane of `mask`.
    fn order_all(
        &mut self,
        warp: &mut Warp,
        target: &Target,
        mask: u32,
        addresses: &[u64; LANES],
        access: StrongAccess,
    ) {
        for lane in each_lane(mask) {
            let address = addresses[lane as usize];
            let shared = match target.space {
                Space::Shared => true,
                Space::Generic => address.wrapping_sub(SHARED_WINDOW) < WINDOW_BYTES,
                _ => false,
            };
            let address = if target.space == Space::Generic && shared { address - SHARED_WINDOW } else { address };
            self.order(warp, lane, address, shared, access);
        }
    }

    /// Splits a generic access by the state spaces of its addresses.
    fn by_space(
        &mut self,
        space: Space,
        mask: u32,
        addresses: &[u64; LANES],
        mut access: impl FnMut(&mut Self, Space, u32, &[u64; LANES]) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if space != Space::Generic {
            return access(self, space, mask, addresses);
        }
        let windows = [(Space::Shared, SHARED_WINDOW), (Space::Local, LOCAL_WINDOW), (Space::Param, PARAM_WINDOW)];
        let mut rest = mask;
        for (space, base) in windows {
            let inside = lanes_where(mask, |lane| addresses[lane as usize].wrapping_sub(base) < WINDOW_BYTES);
            if inside != 0 {
                rest &= !inside;
                access(self, space, inside, &addresses.map(|address| address.wrapping_sub(base)))?;
            }
        }
        if rest == 0 { Ok(()) } else { access(self, Space::Global, rest, addresses) }
    }

    /// The id of the epoch of an access to one of the two memories. It stays the same until the warp's next release.
    pub fn epoch(
        &self,
        warp: &mut Warp,
        epochs: &EpochTable,
        request: WarpAccess,
        kind: EpochKind,
    ) -> Result<u32, Fault> {
        let memory = usize::from(std::ptr::eq(epochs, &self.epochs));
        let (time, id) = &mut warp.epochs[request.site as usize][memory];
        if epochs.is_full() {
            return Err(Fault::launch_too_long(request.mask));
        }
        if *time == warp.now {
            epochs.add_lanes(*id, request.mask);
        } else {
            let block_scope = kind != EpochKind::Plain && self.has_block_scope(request.pc);
            let (block, pc, lanes) = (self.block, request.pc, request.mask);
            let new = Epoch { block, warp: warp.index, time: warp.now, pc, kind, block_scope, lanes };
            (*time, *id) = (warp.now, epochs.push(new).ok_or_else(|| Fault::launch_too_long(request.mask))?);
        }
        Ok(*id)
    }

    /// Checks and performs the access of every lane: `visit` gets the lane's bytes, to read or to write them.
    pub fn access_lanes(
        &mut self,
        warp: &mut Warp,
        space: Space,
        request: WarpAccess,
        kind: AccessKind,
        scratch: &mut Scratch,
        mut visit: impl FnMut(usize, &mut [u8]),
    ) -> Result<(), Fault> {
        let size = request.size;
        self.check_alignment(space, request, kind)?;
        match space {
            Space::Shared => {
                scratch.tally.shared(&request, kind.writes());
                self.shared_lanes(warp, request, kind, |lane, page, offset| {
                    visit(lane, page.bytes_mut(offset, size as usize))
                })
            }
            Space::Local => self.local_lanes(warp, request, kind, visit),
            Space::Param => self.param_lanes(request, kind, visit),
            _ => {
                let traffic = if kind == AccessKind::Atomic {
                    TrafficKind::Atomic
                } else if kind.writes() {
                    TrafficKind::Store
                } else {
                    TrafficKind::Load
                };
                scratch.tally.global(&request, traffic);
                self.global_lanes(warp, request, kind, scratch, |lane, page, offset| {
                    visit(lane, page.bytes_mut(offset, size as usize));
                })
            }
        }
    }
}

/// Copies as many bytes as the shorter side has. Each of the sizes 1, 2, 4, 8 and 16 is a move of its own, which the
/// compiler inlines instead of calling memcpy.
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
