//! What is said of an access that must not be made.

use super::{Fault, Manner, Reach};
use crate::exec::block::Core;
use crate::exec::unflatten;
use crate::ir::{Op, Scope, Space};
use crate::lower::SHARED_BASE;
use crate::observe::Check;
use crate::race::shadow::Conflict;
use crate::race::stamp::Kind;
use crate::registers::{LANES, lanes_where};

impl<'g> Core<'g> {
    pub fn check_alignment(&self, space: Space, reach: Reach, manner: Manner) -> Result<(), Fault> {
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
    pub fn name(&self, space: Space, address: u64) -> String {
        match space {
            Space::Shared => self.shared_name(address),
            Space::Local => {
                format!("byte {address} of {} bytes of local memory a thread", self.grid.program.local_bytes)
            }
            Space::Param => format!("byte {address} of {} bytes of parameters", self.grid.launch.params.len()),
            _ => self.grid.memory.describe(address),
        }
    }

    pub fn shared_name(&self, address: u64) -> String {
        let offset = address.wrapping_sub(u64::from(SHARED_BASE)) as i64;
        format!("byte {offset} of the block's {} bytes of shared memory", self.shared_bytes)
    }

    /// Whether a strong access is for its block alone.
    pub fn is_narrow(&self, pc: u32) -> bool {
        match &self.grid.program.code[pc as usize].op {
            Op::Load { target, .. } | Op::Store { target, .. } | Op::Atomic { target, .. } => {
                target.scope == Scope::Block
            }
            _ => false,
        }
    }

    /// A race, both sides named; or a touch of a copy's target before its wait.
    pub fn race(&self, lane: u32, address: u64, size: usize, manner: Manner, with: Conflict, place: String) -> Fault {
        let Conflict { other, lane: other_lane, was_read } = with;
        let block = unflatten(other.block, self.grid.launch.grid);
        let whose = match other_lane {
            Some(lane) => {
                let [x, y, z] = unflatten(other.warp * LANES as u32 + lane, self.grid.launch.block);
                format!("thread ({x}, {y}, {z})")
            }
            None => format!("lanes of warp {}", other.warp),
        };
        let [x, y, z] = block;
        let whose = if other.block == self.block { whose } else { format!("{whose} of block ({x}, {y}, {z})") };
        let at = self.grid.source(other.pc);
        let verb = manner.verb();
        if other.kind == Kind::ReadOnly {
            let message = format!(
                "{verb} of {size} bytes at {address:#x} ({place}) that {whose} reads with ld.global.nc at {at}: such memory must not change during the launch"
            );
            return Fault::new(Check::Race, lane, message);
        }
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

pub fn uninitialised(lane: u32, address: u64, size: usize, place: &str) -> Fault {
    let message = format!("read of {size} bytes at {address:#x} that nothing wrote: {place}");
    Fault::new(Check::Initialised, lane, message)
}

pub fn too_long(mask: u32) -> Fault {
    let message = "the launch is too long for the race check: too many accesses between barriers; make it smaller";
    Fault::new(Check::Launch, mask.trailing_zeros(), message.into())
}
