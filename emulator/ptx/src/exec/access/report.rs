//! The findings about accesses: alignment and races.

use super::kind::AccessKind;
use crate::address_space::SHARED_BASE;
use crate::exec::block_state::BlockState;
use crate::exec::fault::Fault;
use crate::exec::grid::unflatten;
use crate::ir::{Op, Scope, Space};
use crate::observe::{Check, WarpAccess};
use crate::race::epoch::EpochKind;
use crate::race::shadow::Conflict;
use crate::registers::{LANES, lanes_where};

impl<'g> BlockState<'g> {
    /// Checks that every lane's address is a multiple of the access's size.
    pub fn check_alignment(&self, space: Space, request: WarpAccess, kind: AccessKind) -> Result<(), Fault> {
        let WarpAccess { size, addresses, mask, .. } = request;
        let unaligned = lanes_where(mask, |lane| addresses[lane as usize] & u64::from(size - 1) != 0);
        if unaligned == 0 {
            return Ok(());
        }
        let lane = unaligned.trailing_zeros();
        let (name, address) = (kind.name(), addresses[lane as usize]);
        let location = self.describe(space, address);
        let message = format!("{name} of {size} bytes at {address:#x}, which is not a multiple of {size}: {location}");
        Err(Fault::new(Check::Alignment, lane, message))
    }

    /// Describes an address of a state space in words.
    pub fn describe(&self, space: Space, address: u64) -> String {
        match space {
            Space::Shared => self.describe_shared(address),
            Space::Local => {
                format!("byte {address} of {} bytes of local memory per thread", self.grid.program.local_bytes)
            }
            Space::Param => format!("byte {address} of {} bytes of parameters", self.grid.launch.params.len()),
            _ => self.grid.memory.describe(address),
        }
    }

    pub fn describe_shared(&self, address: u64) -> String {
        let offset = address.wrapping_sub(u64::from(SHARED_BASE)) as i64;
        format!("byte {offset} of the block's {} bytes of shared memory", self.shared_bytes)
    }

    /// Whether a strong access has block scope (`.cta`).
    pub fn has_block_scope(&self, pc: u32) -> bool {
        match &self.grid.program.code[pc as usize].op {
            Op::Load { target, .. } | Op::Store { target, .. } | Op::Atomic { target, .. } => {
                target.scope == Scope::Block
            }
            _ => false,
        }
    }

    /// The fault for a race, which names both accesses, or for an access to either end of a copy before its wait.
    pub fn race(
        &self,
        lane: u32,
        address: u64,
        size: usize,
        kind: AccessKind,
        conflict: Conflict,
        location: String,
    ) -> Fault {
        let Conflict { other, lane: other_lane, was_read } = conflict;
        let block = unflatten(other.block, self.grid.launch.grid);
        let who = match other_lane {
            Some(lane) => {
                let [x, y, z] = unflatten(other.warp * LANES as u32 + lane, self.grid.launch.block);
                format!("thread ({x}, {y}, {z})")
            }
            None => format!("lanes of warp {}", other.warp),
        };
        let [x, y, z] = block;
        let who = if other.block == self.block { who } else { format!("{who} of block ({x}, {y}, {z})") };
        let source = self.grid.source(other.pc);
        let access = format!("{} of {size} bytes at {address:#x} ({location})", kind.name());
        if other.kind == EpochKind::ReadOnly {
            let message = format!(
                "{access} that {who} reads with ld.global.nc at {source}: such memory must not change during the launch"
            );
            return Fault::new(Check::Race, lane, message);
        }
        if other.kind == EpochKind::Pending {
            let end = if was_read { "source" } else { "target" };
            let message = format!("{access}, the {end} of a cp.async by {who} at {source} that was not waited for");
            return Fault::new(Check::AsyncProxy, lane, message);
        }
        let earlier = match other.kind {
            EpochKind::Atomic if matches!(self.grid.program.code[other.pc as usize].op, Op::Store { .. }) => {
                "strong write"
            }
            EpochKind::Atomic => "atomic",
            _ if was_read => "read",
            _ => "write",
        };
        let both_strong = other.kind != EpochKind::Plain && kind.epoch_kind() != EpochKind::Plain;
        let why = if both_strong { "one of them has block scope (.cta)" } else { "nothing orders them" };
        let message = format!("{access} races with the {earlier} by {who} at {source}: {why}");
        Fault::new(Check::Race, lane, message)
    }
}
