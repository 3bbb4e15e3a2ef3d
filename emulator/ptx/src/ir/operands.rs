//! The register operands of an instruction.

use super::instr::{Instr, Op};
use super::types::{AtomicOp, BarrierKind, ClockPart, Target, VoteMode};
use crate::registers::{Class, Src};

/// Whether an operand is read or written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    Read,
    Write,
}

impl Instr {
    /// Visits every register operand, the guard first. `alu` holds the register classes of an ALU instruction's results and
    /// sources.
    pub fn registers(&mut self, alu: (&[Class], &[Class]), visit: &mut dyn FnMut(&mut u32, Class, Role)) {
        use Class::{B32, B64, Pred};
        if let Some(guard) = &mut self.guard {
            visit(&mut guard.slot, Pred, Role::Read);
        }
        let read = |src: &mut Src, class: Class, visit: &mut dyn FnMut(&mut u32, Class, Role)| {
            if let Src::Slot(slot) = src {
                visit(slot, class, Role::Read);
            }
        };
        let width = |wide: bool| if wide { B64 } else { B32 };
        let address = |target: &mut Target, visit: &mut dyn FnMut(&mut u32, Class, Role)| {
            read(&mut target.address.base, width(target.address.wide), visit);
        };
        match &mut self.op {
            Op::Alu(op) => {
                for (src, &class) in op.sources.iter_mut().zip(alu.1) {
                    read(src, class, visit);
                }
                for (slot, &class) in op.results.iter_mut().zip(alu.0) {
                    visit(slot, class, Role::Write);
                }
            }
            Op::Load { target, elements, to, .. } => {
                address(target, visit);
                for slot in &mut to[..elements.count as usize] {
                    visit(slot, width(elements.wide), Role::Write);
                }
            }
            Op::Store { target, elements, from } => {
                address(target, visit);
                for src in &mut from[..elements.count as usize] {
                    read(src, width(elements.wide), visit);
                }
            }
            Op::Atomic { target, op, ty, to, operands } => {
                address(target, visit);
                let class = width(ty.bytes() == 8);
                read(&mut operands[0], class, visit);
                if *op == AtomicOp::CompareAndSwap {
                    read(&mut operands[1], class, visit);
                }
                if let Some(slot) = to {
                    visit(slot, class, Role::Write);
                }
            }
            Op::IsSpace { to, address, .. } => {
                read(address, B64, visit);
                visit(to, Pred, Role::Write);
            }
            Op::Clock { to, part } => visit(to, width(*part == ClockPart::Whole), Role::Write),
            Op::BranchTable { index, .. } => read(index, B32, visit),
            Op::Branch { .. } | Op::Call(_) | Op::Return | Op::Exit | Op::Trap { .. } | Op::Nothing => {}
            Op::Fence { .. } | Op::CopyCommit | Op::CopyWait { .. } => {}
            Op::Barrier { kind, id, threads, predicate, to, .. } => {
                read(id, B32, visit);
                for src in [threads.as_mut(), predicate.as_mut().map(|(src, _)| src)].into_iter().enumerate() {
                    if let (position, Some(src)) = src {
                        read(src, if position == 0 { B32 } else { Pred }, visit);
                    }
                }
                if let Some(slot) = to {
                    visit(slot, if *kind == BarrierKind::Count { B32 } else { Pred }, Role::Write);
                }
            }
            Op::WarpBarrier { members } => read(members, B32, visit),
            Op::Shuffle { to, in_range, value, lane, clamp, members, .. } => {
                for src in [value, lane, clamp, members] {
                    read(src, B32, visit);
                }
                visit(to, B32, Role::Write);
                if let Some(slot) = in_range {
                    visit(slot, Pred, Role::Write);
                }
            }
            Op::Vote { mode, to, predicate, members, .. } => {
                read(predicate, Pred, visit);
                read(members, B32, visit);
                visit(to, if *mode == VoteMode::Ballot { B32 } else { Pred }, Role::Write);
            }
            Op::Match { wide, to, matched, value, members, .. } => {
                read(value, width(*wide), visit);
                read(members, B32, visit);
                visit(to, B32, Role::Write);
                if let Some(slot) = matched {
                    visit(slot, Pred, Role::Write);
                }
            }
            Op::Redux { to, value, members, .. } => {
                read(value, B32, visit);
                read(members, B32, visit);
                visit(to, B32, Role::Write);
            }
            Op::ActiveMask { to } => visit(to, B32, Role::Write),
            Op::Elect { to, elected, members } => {
                read(members, B32, visit);
                if let Some(slot) = to {
                    visit(slot, B32, Role::Write);
                }
                visit(elected, Pred, Role::Write);
            }
            Op::LoadMatrix { target, count, to, .. } => {
                address(target, visit);
                for slot in &mut to[..*count as usize] {
                    visit(slot, B32, Role::Write);
                }
            }
            Op::StoreMatrix { target, count, from, .. } => {
                address(target, visit);
                for src in &mut from[..*count as usize] {
                    read(src, B32, visit);
                }
            }
            Op::MoveMatrix { to, value } => {
                read(value, B32, visit);
                visit(to, B32, Role::Write);
            }
            Op::Mma(mma) => {
                for src in mma.a.iter_mut().chain(&mut mma.b).chain(&mut mma.c) {
                    read(src, B32, visit);
                }
                for slot in &mut mma.d {
                    visit(slot, B32, Role::Write);
                }
            }
            Op::CopyAsync { to, from, source_bytes, ignore, .. } => {
                address(to, visit);
                address(from, visit);
                if let Some(src) = source_bytes {
                    read(src, B32, visit);
                }
                if let Some((src, _)) = ignore {
                    read(src, Pred, visit);
                }
            }
        }
    }
}
