//! The interpreter: executes a warp's instructions.

use super::access::LaneBytes;
use super::atomic::Atomic;
use super::block_state::{BlockState, Scratch};
use super::copy::CopyOperands;
use super::fault::Fault;
use super::sync::BarrierOperands;
use super::warp::{Group, State, Warp};
use crate::ir::{Call, ClockPart, Elements, Instr, Op, Track};
use crate::observe::{Check, Finding};
use crate::registers::{LANES, Src, each_lane, lanes_where};

/// On average one in this many backward branches of diverged lanes lets other lanes run, because lanes of a warp may wait
/// for each other.
const YIELD: u32 = 16;

/// How a group continues.
enum Next {
    /// With the next instruction.
    Advance,
    Jump(u32),
    /// The group has been split, waits, or has ended.
    Changed,
}

impl BlockState<'_> {
    /// Executes up to `max_steps` instructions of a warp.
    pub fn run_warp(&mut self, warp: &mut Warp, max_steps: u32, scratch: &mut Scratch) -> Result<(), Box<Finding>> {
        let mut left = max_steps;
        let mut chosen = None;
        while left > 0 {
            let Some(group) = chosen.take().or_else(|| warp.lowest()) else { return Ok(()) };
            let converged = warp.groups.len() == 1;
            loop {
                let pc = warp.groups[group].pc;
                self.steps += 1;
                left = left.saturating_sub(1);
                match self.step(warp, group, pc, scratch) {
                    Ok(Next::Advance) => warp.groups[group].pc = pc + 1,
                    Ok(Next::Jump(target)) => {
                        warp.groups[group].pc = target;
                        if !converged && target <= pc && self.rng.below(YIELD) == 0 {
                            chosen = self.any_ready(warp);
                            break;
                        }
                    }
                    Ok(Next::Changed) => {
                        warp.merge();
                        break;
                    }
                    Err(fault) => return Err(self.finding(warp, pc, fault)),
                }
                if !converged {
                    warp.merge();
                    break;
                }
                if left == 0 {
                    return Ok(());
                }
            }
            if self.changed != 0 {
                return Ok(());
            }
        }
        Ok(())
    }

    /// A random one of the ready groups.
    fn any_ready(&mut self, warp: &Warp) -> Option<usize> {
        let ready: Vec<usize> = (0..warp.groups.len()).filter(|&i| warp.groups[i].state == State::Ready).collect();
        (!ready.is_empty()).then(|| ready[self.rng.below(ready.len() as u32) as usize])
    }

    fn finding(&self, warp: &Warp, pc: u32, fault: Fault) -> Box<Finding> {
        let thread = warp.index * LANES as u32 + fault.lane;
        self.grid.finding(fault.check, self.block, thread, pc, fault.message)
    }

    #[inline]
    fn step(&mut self, warp: &mut Warp, group: usize, pc: u32, scratch: &mut Scratch) -> Result<Next, Fault> {
        let program = self.grid.program;
        let Some(instr) = program.code.get(pc as usize) else {
            return Err(Fault::operand(0, "the program counter is past the end of the code".into()));
        };
        let running = warp.groups[group].mask;
        let mut mask = running;
        if let Some(guard) = instr.guard {
            let lanes = warp.registers.pred[guard.slot as usize];
            mask &= if guard.negated { !lanes } else { lanes };
        }
        if instr.track != u32::MAX && self.grid.settings.checks {
            track(warp, &program.tracks[instr.track as usize], &program.tracked, running, mask)?;
        }
        scratch.tally.executed[pc as usize] += 1;
        scratch.tally.lanes[pc as usize] += u64::from(mask.count_ones());
        if let Op::Alu(alu) = &instr.op {
            if mask != 0 {
                alu.execute(&mut warp.registers, mask);
            }
            return Ok(Next::Advance);
        }
        if mask == 0 && !matches!(instr.op, Op::Branch { .. }) {
            return Ok(Next::Advance);
        }
        self.step_other(warp, group, pc, instr, mask, scratch)
    }

    fn step_other(
        &mut self,
        warp: &mut Warp,
        group: usize,
        pc: u32,
        instr: &Instr,
        mask: u32,
        scratch: &mut Scratch,
    ) -> Result<Next, Fault> {
        let at = (mask, pc);
        match &instr.op {
            Op::Load { target, elements, to, read_only } => {
                let values = self.load(warp, target, *elements, *read_only, at, scratch)?;
                put(warp, *elements, to, mask, &values);
            }
            Op::Store { target, elements, from } => {
                let values = take(warp, *elements, from);
                self.store(warp, target, elements.bytes * elements.count, &values, at, scratch)?;
            }
            Op::Atomic { target, op, ty, to, operands } => {
                let atomic = Atomic { target, op: *op, ty: *ty, to: *to, operands };
                self.atomic(warp, atomic, at, scratch)?;
            }
            Op::Branch { .. } | Op::BranchTable { .. } | Op::Call(_) | Op::Return | Op::Exit | Op::Trap { .. } => {
                return self.transfer(warp, group, pc, &instr.op, mask, scratch);
            }
            Op::Barrier { .. } | Op::WarpBarrier { .. } => {
                return self.wait_at(warp, group, pc, &instr.op, mask, scratch);
            }
            Op::Shuffle { members, .. }
            | Op::Vote { members, .. }
            | Op::Match { members, .. }
            | Op::Redux { members, .. }
            | Op::Elect { members, .. } => {
                let needed = warp.members(*members, mask)?;
                if !converged(warp, group, mask, needed, scratch, pc) {
                    return Ok(Next::Changed);
                }
                warp.exchange(&instr.op, mask)?;
            }
            Op::LoadMatrix { .. } | Op::StoreMatrix { .. } | Op::MoveMatrix { .. } | Op::Mma(_) => {
                if !converged(warp, group, mask, warp.alive(), scratch, pc) {
                    return Ok(Next::Changed);
                }
                if mask != u32::MAX {
                    return Err(Fault::new(
                        Check::Barrier,
                        mask.trailing_zeros(),
                        format!("a matrix instruction needs all 32 lanes, but only {mask:#010x} execute it"),
                    ));
                }
                match &instr.op {
                    Op::LoadMatrix { target, count, transposed, to } => {
                        self.load_matrix(warp, target, (*count, *transposed, to), pc, scratch)?;
                    }
                    Op::StoreMatrix { target, count, transposed, from } => {
                        self.store_matrix(warp, target, (*count, *transposed, from), pc, scratch)?;
                    }
                    Op::MoveMatrix { to, value } => warp.move_matrix(*to, *value),
                    Op::Mma(mma) => {
                        scratch.tally.tensor_flops += 2 * 16 * 8 * u64::from(mma.k);
                        warp.mma(mma);
                    }
                    _ => {}
                }
            }
            Op::Fence { scope } => {
                warp.fence(mask, *scope, self.block, &mut self.time);
            }
            Op::IsSpace { to, address, window } => {
                let addresses = warp.registers.get64(*address);
                let lanes = lanes_where(mask, |lane| self.is_in_window(addresses[lane as usize], *window));
                warp.registers.set_pred(*to, mask, lanes);
            }
            Op::Clock { to, part } => match part {
                ClockPart::Whole => warp.registers.set64(*to, mask, &[self.steps; LANES]),
                ClockPart::Low => warp.registers.set32(*to, mask, &[self.steps as u32; LANES]),
                ClockPart::High => warp.registers.set32(*to, mask, &[(self.steps >> 32) as u32; LANES]),
            },
            Op::ActiveMask { to } => warp.registers.set32(*to, mask, &[mask; LANES]),
            Op::CopyAsync { to, from, bytes, source_bytes, ignore } => {
                let mut sizes = source_bytes.map_or([*bytes; LANES], |src| warp.registers.get32(src));
                if let Some((src, negated)) = ignore {
                    let ignored = warp.registers.get_pred(*src) ^ if *negated { u32::MAX } else { 0 };
                    each_lane(ignored).for_each(|lane| sizes[lane as usize] = 0);
                }
                let copy = CopyOperands { to, from, bytes: *bytes, source_bytes: sizes, mask, pc };
                self.issue_copies(warp, copy, scratch)?;
            }
            Op::CopyCommit => warp.copies.commit(mask),
            Op::CopyWait { pending } => self.complete_copies(warp, mask, *pending)?,
            Op::Nothing | Op::Alu(_) => {}
        }
        Ok(Next::Advance)
    }

    /// Branches, calls, returns and exits.
    fn transfer(
        &mut self,
        warp: &mut Warp,
        group: usize,
        pc: u32,
        op: &Op,
        mask: u32,
        scratch: &mut Scratch,
    ) -> Result<Next, Fault> {
        let running = warp.groups[group].mask;
        match op {
            Op::Branch { target } => match mask {
                0 => return Ok(Next::Advance),
                _ if mask == running => return Ok(Next::Jump(*target)),
                _ => {
                    scratch.tally.divergent_branches += 1;
                    split(warp, group, mask, *target, pc + 1);
                }
            },
            Op::BranchTable { index, targets } => {
                let indices = warp.registers.get32(*index);
                let mut rest = mask;
                if mask != running {
                    split(warp, group, running & !mask, pc + 1, pc);
                }
                while rest != 0 {
                    let lane = rest.trailing_zeros();
                    let index = indices[lane as usize];
                    let same = lanes_where(rest, |lane| indices[lane as usize] == index);
                    let Some(&target) = targets.get(index as usize) else {
                        return Err(Fault::operand(lane, format!("brx.idx {index} of {} targets", targets.len())));
                    };
                    rest &= !same;
                    if rest == 0 {
                        warp.groups[group].pc = target;
                    } else {
                        scratch.tally.divergent_branches += 1;
                        split(warp, group, same, target, pc);
                    }
                }
            }
            Op::Call(call) => {
                if mask != running {
                    split(warp, group, running & !mask, pc + 1, pc);
                }
                warp.defined[call.tracked.clone()].iter_mut().for_each(|lanes| *lanes &= !mask);
                pass(warp, &call.arguments, mask);
                let group = &mut warp.groups[group];
                group.stack.push(pc);
                group.pc = call.target;
            }
            Op::Return => {
                if mask != running {
                    split(warp, group, running & !mask, pc + 1, pc);
                }
                let Some(from) = warp.groups[group].stack.pop() else {
                    return Err(Fault::operand(mask.trailing_zeros(), "ret outside of a function".into()));
                };
                if let Op::Call(call) = &self.grid.program.code[from as usize].op {
                    let Call { results, .. } = &**call;
                    pass(warp, results, mask);
                }
                warp.groups[group].pc = from + 1;
            }
            Op::Exit => {
                if mask == running {
                    warp.groups.swap_remove(group);
                } else {
                    warp.groups[group].mask &= !mask;
                    warp.groups[group].pc = pc + 1;
                }
                warp.exit(mask);
                self.release_warp_barriers(warp);
                // Barriers for all threads of the block no longer wait for the exited ones.
                self.changed = u32::MAX >> (32 - self.barriers.len());
            }
            _ => {
                let assertion = matches!(op, Op::Trap { assertion: true });
                let message = if assertion { "an assertion of the kernel failed" } else { "trap" };
                return Err(Fault::operand(mask.trailing_zeros(), message.into()));
            }
        }
        Ok(Next::Changed)
    }

    /// Barriers of the block and of the warp.
    fn wait_at(
        &mut self,
        warp: &mut Warp,
        group: usize,
        pc: u32,
        op: &Op,
        mask: u32,
        scratch: &mut Scratch,
    ) -> Result<Next, Fault> {
        let running = warp.groups[group].mask;
        match *op {
            Op::Barrier { kind, aligned, id, threads, predicate, .. } => {
                if aligned && !converged(warp, group, mask, warp.alive(), scratch, pc) {
                    return Ok(Next::Changed);
                }
                scratch.tally.barriers += 1;
                if mask != running {
                    split(warp, group, running & !mask, pc + 1, pc);
                }
                let votes = predicate
                    .map_or(0, |(src, negated)| warp.registers.get_pred(src) ^ if negated { u32::MAX } else { 0 });
                let at = BarrierOperands { kind, aligned, id, threads, votes, mask, pc };
                let arrived = self.arrive(warp, group, at);
                arrived.map_err(|(lane, message)| Fault::new(Check::Barrier, lane, message))?;
                if kind == crate::ir::BarrierKind::Arrive {
                    warp.groups[group].pc = pc + 1;
                }
            }
            Op::WarpBarrier { members } => {
                let named = warp.registers.get32(members);
                warp.members(members, mask)?;
                if mask != running {
                    split(warp, group, running & !mask, pc + 1, pc);
                }
                let first = mask.trailing_zeros();
                let members = named[first as usize];
                let same = lanes_where(mask, |lane| named[lane as usize] == members);
                if same != mask {
                    split(warp, group, mask & !same, pc, pc);
                }
                warp.groups[group].state = State::WarpBarrier(members);
                self.release_warp_barriers(warp);
            }
            _ => {}
        }
        Ok(Next::Changed)
    }

    /// Releases the lanes at a `bar.warp.sync` that all members have reached.
    fn release_warp_barriers(&mut self, warp: &mut Warp) {
        for i in 0..warp.groups.len() {
            let State::WarpBarrier(members) = warp.groups[i].state else { continue };
            let waiting = warp.groups.iter().filter(|group| group.state == State::WarpBarrier(members));
            let arrived = waiting.fold(0, |mask, group| mask | group.mask);
            if members & warp.alive() & !arrived == 0 {
                warp.synchronise(arrived, &mut self.time);
                for group in warp.groups.iter_mut().filter(|group| group.state == State::WarpBarrier(members)) {
                    group.state = State::Ready;
                    group.pc += 1;
                }
            }
        }
    }
}

/// Whether all `needed` lanes have reached the instruction. Otherwise the group waits for them, except for its lanes whose
/// guard is false, which continue.
fn converged(warp: &mut Warp, group: usize, mask: u32, needed: u32, scratch: &mut Scratch, pc: u32) -> bool {
    if needed & !mask == 0 {
        return true;
    }
    // The instruction is executed, and counted, once all lanes have reached it.
    scratch.tally.executed[pc as usize] -= 1;
    scratch.tally.lanes[pc as usize] -= u64::from(mask.count_ones());
    let passing = warp.groups[group].mask & !mask;
    if passing != 0 {
        split(warp, group, passing, pc + 1, pc);
    }
    warp.groups[group].state = State::Converge(needed);
    false
}

/// Splits a group: the lanes of `mask` continue at `target`, the others at `rest`.
fn split(warp: &mut Warp, group: usize, mask: u32, target: u32, rest: u32) {
    let stack = warp.groups[group].stack.clone();
    warp.groups.push(Group { pc: target, mask, stack, state: State::Ready });
    warp.groups[group].mask &= !mask;
    warp.groups[group].pc = rest;
}

/// Checks that the instruction's tracked source registers were written, and records those that it writes.
fn track(warp: &mut Warp, track: &Track, names: &[String], running: u32, mask: u32) -> Result<(), Fault> {
    let mut known = u32::MAX;
    // The guard is read by every lane, the other operands by the lanes for which the guard is true.
    let guard = track.guard.iter().map(|&register| (register, running));
    let operands = track.reads.iter().map(|&register| (register, mask));
    for (position, (register, readers)) in guard.chain(operands).enumerate() {
        let is_guard = position == 0 && track.guard.is_some();
        let missing = readers & !warp.defined[register as usize];
        if missing != 0 && (is_guard || !track.copies) {
            let (lane, name) = (missing.trailing_zeros(), &names[register as usize]);
            let message = format!("read of {name}, which nothing wrote on this path");
            return Err(Fault::new(Check::Initialised, lane, message));
        }
        if !is_guard {
            known &= warp.defined[register as usize];
        }
    }
    for &register in &track.writes {
        let defined = &mut warp.defined[register as usize];
        *defined = if track.copies { *defined & !mask | known & mask } else { *defined | mask };
    }
    Ok(())
}

/// Copies a call's parameters or results within the lanes' local memory.
fn pass(warp: &mut Warp, parts: &[(u32, u32, u32)], mask: u32) {
    let each = warp.local.len() / LANES;
    for &(from, to, size) in parts {
        for lane in each_lane(mask) {
            let base = lane as usize * each;
            let (from, to, size) = (base + from as usize, base + to as usize, size as usize);
            warp.local.copy_within(from..from + size, to);
            for i in 0..size {
                let written = warp.local_written[(from + i) / 64] >> ((from + i) % 64) & 1;
                let word = &mut warp.local_written[(to + i) / 64];
                *word = *word & !(1 << ((to + i) % 64)) | written << ((to + i) % 64);
            }
        }
    }
}

/// Writes loaded bytes to registers.
fn put(warp: &mut Warp, elements: Elements, to: &[u32; 4], mask: u32, values: &LaneBytes) {
    let Elements { bytes, count, signed, wide, narrow } = elements;
    for (i, &slot) in to[..count as usize].iter().enumerate() {
        let at = i * bytes as usize;
        if bytes == 4 && !wide {
            let word = |lane: usize| u32::from_le_bytes([0, 1, 2, 3].map(|b| values[lane][at + b]));
            warp.registers.set32(slot, mask, &std::array::from_fn(word));
            continue;
        }
        let element = |lane: usize| {
            let mut word = [0; 8];
            word[..bytes as usize].copy_from_slice(&values[lane][at..at + bytes as usize]);
            let (bits, unused) = (u64::from_le_bytes(word), 64 - 8 * bytes);
            if signed { ((bits << unused) as i64 >> unused) as u64 } else { bits }
        };
        if wide {
            warp.registers.set64(slot, mask, &std::array::from_fn(element));
        } else {
            let cut = if narrow { 0xFFFF } else { u32::MAX };
            warp.registers.set32(slot, mask, &std::array::from_fn(|lane| element(lane) as u32 & cut));
        }
    }
}

/// Reads the bytes to store from registers.
fn take(warp: &Warp, elements: Elements, from: &[Src; 4]) -> LaneBytes {
    let Elements { bytes, count, wide, .. } = elements;
    let size = bytes as usize;
    let mut values: LaneBytes = [[0; 16]; LANES];
    for (i, &source) in from[..count as usize].iter().enumerate() {
        if wide {
            for (value, bits) in values.iter_mut().zip(warp.registers.get64(source)) {
                value[i * size..][..size].copy_from_slice(&bits.to_le_bytes()[..size]);
            }
        } else {
            for (value, bits) in values.iter_mut().zip(warp.registers.get32(source)) {
                value[i * size..][..size].copy_from_slice(&bits.to_le_bytes()[..size.min(4)]);
            }
        }
    }
    values
}
