//! Register allocation by a linear scan over live intervals: PTX declares thousands of registers, few of which are live at
//! the same time.
//!
//! Liveness also shows which registers some path reads before it writes them. Only those are tracked during execution;
//! for all others the code itself proves that no uninitialised value is read.

use std::collections::{BTreeSet, HashMap};

use super::state::{Lowering, Result, Virtual};
use crate::ir::{Mix, Op, Role, Track};
use crate::registers::Class;

/// A bit set.
#[derive(Clone, PartialEq)]
struct Bits(Vec<u64>);

impl Bits {
    fn new(len: usize) -> Self {
        Bits(vec![0; len.div_ceil(64)])
    }

    fn insert(&mut self, i: usize) {
        self.0[i / 64] |= 1 << (i % 64);
    }

    fn contains(&self, i: usize) -> bool {
        self.0[i / 64] >> (i % 64) & 1 == 1
    }

    fn each(&self, mut visit: impl FnMut(usize)) {
        for (word, &bits) in self.0.iter().enumerate() {
            let mut bits = bits;
            while bits != 0 {
                visit(word * 64 + bits.trailing_zeros() as usize);
                bits &= bits - 1;
            }
        }
    }
}

/// A basic block.
struct Block {
    start: usize,
    end: usize,
    next: Vec<usize>,
}

/// The registers of one instruction, by their numbers within the function.
#[derive(Default)]
struct Uses {
    reads: Vec<usize>,
    writes: Vec<usize>,
}

impl Lowering<'_> {
    /// Replaces virtual registers by slots; returns the number of registers that a thread needs, in 32-bit units.
    pub(super) fn allocate_registers(&mut self, starts: &[u32]) -> Result<u32> {
        self.alu_classes.resize(self.program.code.len(), Default::default());
        let mut slots: HashMap<Virtual, u32> = HashMap::new();
        // Special registers come first and keep their slots for the whole program.
        let mut used = [0u32; 3];
        for (_, slot) in &mut self.program.specials {
            slots.insert(Virtual { class: Class::B32, index: *slot }, used[0]);
            *slot = used[0];
            used[0] += 1;
        }
        let mut registers = 0;
        let mut tracked = Vec::with_capacity(starts.len());
        for (number, &start) in starts.iter().enumerate() {
            let end = starts.get(number + 1).map_or(self.program.code.len(), |&end| end as usize);
            let (before, first) = (used, self.program.tracked.len());
            self.allocate_function(start as usize, end, &mut slots, &mut used);
            registers += used[0] - before[0] + 2 * (used[1] - before[1]);
            tracked.push(first..self.program.tracked.len());
        }
        for instr in &mut self.program.code {
            if let Op::Call(call) = &mut instr.op {
                call.tracked = tracked[starts.partition_point(|&start| start < call.target)].clone();
            }
        }
        self.program.slots = used.map(|used| used as usize);
        Ok(registers)
    }

    fn allocate_function(&mut self, start: usize, end: usize, slots: &mut HashMap<Virtual, u32>, used: &mut [u32; 3]) {
        let mut dense: HashMap<Virtual, usize> = HashMap::new();
        let mut registers: Vec<Virtual> = Vec::new();
        let mut uses: Vec<Uses> = Vec::with_capacity(end - start);
        for pc in start..end {
            let mut of_instr = Uses::default();
            self.visit(pc, &mut |index, class, role| {
                let register = Virtual { class, index: *index };
                // Special registers already have slots.
                if slots.contains_key(&register) {
                    return;
                }
                let number = *dense.entry(register).or_insert_with(|| {
                    registers.push(register);
                    registers.len() - 1
                });
                match role {
                    Role::Read => of_instr.reads.push(number),
                    Role::Write => of_instr.writes.push(number),
                }
            });
            uses.push(of_instr);
        }
        let blocks = self.blocks(start, end);
        let (live_in, live_out) = self.liveness(&blocks, &uses, start, registers.len());
        let tracked = self.possibly_uninitialised(start, &uses, live_in[0].clone());
        self.track(start, &uses, &tracked, &registers);

        let mut intervals = intervals(&blocks, &uses, start, registers.len(), &live_in, &live_out);
        tracked.each(|number| intervals[number] = (2 * start, 2 * end + 2));
        for (number, slot) in scan(&intervals, &registers, used).into_iter().enumerate() {
            slots.insert(registers[number], slot);
        }
        for pc in start..end {
            self.visit(pc, &mut |index, class, _| {
                if let Some(&slot) = slots.get(&Virtual { class, index: *index }) {
                    *index = slot;
                }
            });
        }
    }

    fn visit(&mut self, pc: usize, visit: &mut dyn FnMut(&mut u32, Class, Role)) {
        let (results, sources) = &self.alu_classes[pc];
        self.program.code[pc].registers((results, sources), visit);
    }

    fn blocks(&self, start: usize, end: usize) -> Vec<Block> {
        let code = &self.program.code;
        let mut leaders = BTreeSet::from([start]);
        let targets = |pc: usize| -> Vec<usize> {
            match &code[pc].op {
                Op::Branch { target } => vec![*target as usize],
                Op::BranchTable { targets, .. } => targets.iter().map(|&target| target as usize).collect(),
                _ => Vec::new(),
            }
        };
        let ends = |pc: usize| {
            matches!(code[pc].op, Op::Branch { .. } | Op::BranchTable { .. } | Op::Exit | Op::Return | Op::Trap { .. })
        };
        for pc in start..end {
            if ends(pc) {
                leaders.extend(targets(pc));
                leaders.insert(pc + 1);
            }
        }
        leaders.retain(|&leader| leader < end);
        let leaders: Vec<usize> = leaders.into_iter().collect();
        let block_of = |pc: usize| leaders.binary_search(&pc).ok();
        let mut blocks = Vec::with_capacity(leaders.len());
        for (number, &first) in leaders.iter().enumerate() {
            let past = leaders.get(number + 1).copied().unwrap_or(end);
            let last = past - 1;
            let mut next: Vec<usize> = targets(last).into_iter().filter_map(block_of).collect();
            if !ends(last) || code[last].guard.is_some() {
                next.extend(block_of(past));
            }
            blocks.push(Block { start: first, end: past, next });
        }
        blocks
    }

    fn liveness(&self, blocks: &[Block], uses: &[Uses], start: usize, count: usize) -> (Vec<Bits>, Vec<Bits>) {
        let mut read_first = vec![Bits::new(count); blocks.len()];
        let mut written = vec![Bits::new(count); blocks.len()];
        for (number, block) in blocks.iter().enumerate() {
            for pc in block.start..block.end {
                for &register in &uses[pc - start].reads {
                    if !written[number].contains(register) {
                        read_first[number].insert(register);
                    }
                }
                // A guarded write may leave the old value unchanged.
                if self.program.code[pc].guard.is_none() {
                    uses[pc - start].writes.iter().for_each(|&register| written[number].insert(register));
                }
            }
        }
        let mut live_in = read_first.clone();
        let mut live_out = vec![Bits::new(count); blocks.len()];
        let mut changed = true;
        while changed {
            changed = false;
            for number in (0..blocks.len()).rev() {
                for &next in &blocks[number].next {
                    for word in 0..live_in[next].0.len() {
                        live_out[number].0[word] |= live_in[next].0[word];
                    }
                }
                for word in 0..live_in[number].0.len() {
                    let live = read_first[number].0[word] | live_out[number].0[word] & !written[number].0[word];
                    changed |= live != live_in[number].0[word];
                    live_in[number].0[word] = live;
                }
            }
        }
        (live_in, live_out)
    }

    /// The registers that are live at the function's entry, and those to which a move may copy them.
    fn possibly_uninitialised(&self, start: usize, uses: &[Uses], mut tracked: Bits) -> Bits {
        let mut before = None;
        while before.as_ref() != Some(&tracked) {
            before = Some(tracked.clone());
            for (at, uses) in uses.iter().enumerate() {
                if self.copies(start + at) && uses.reads.iter().any(|&register| tracked.contains(register)) {
                    uses.writes.iter().for_each(|&register| tracked.insert(register));
                }
            }
        }
        tracked
    }

    /// Whether an instruction only moves bits, so that its result is uninitialised if its source is.
    fn copies(&self, pc: usize) -> bool {
        self.program.sources[pc].mix == Mix::Move || self.selects.contains(&pc)
    }

    /// Records which instructions read or write tracked registers.
    fn track(&mut self, start: usize, uses: &[Uses], tracked: &Bits, registers: &[Virtual]) {
        let mut numbers: HashMap<usize, u32> = HashMap::new();
        tracked.each(|register| {
            numbers.insert(register, self.program.tracked.len() as u32);
            let name = self.names.get(&registers[register]).cloned();
            self.program.tracked.push(name.unwrap_or_else(|| "a register".into()));
        });
        if numbers.is_empty() {
            return;
        }
        for (at, uses) in uses.iter().enumerate() {
            let of = |list: &[usize]| list.iter().filter_map(|r| numbers.get(r).copied()).collect::<Vec<u32>>();
            let (mut reads, writes) = (of(&uses.reads), of(&uses.writes));
            let guard = self.program.code[start + at].guard.and_then(|guard| {
                let register = Virtual { class: Class::Pred, index: guard.slot };
                let number = registers.iter().position(|&known| known == register)?;
                numbers.get(&number).copied()
            });
            // The guard is visited first.
            if guard.is_some() {
                reads.remove(0);
            }
            if guard.is_none() && reads.is_empty() && writes.is_empty() {
                continue;
            }
            let copies = self.copies(start + at);
            self.program.code[start + at].track = self.program.tracks.len() as u32;
            self.program.tracks.push(Track { guard, reads, writes, copies });
        }
    }
}

/// The live interval of each register: the first and last position at which it holds a value. An instruction reads at
/// 2·pc and writes at 2·pc + 1.
fn intervals(
    blocks: &[Block],
    uses: &[Uses],
    start: usize,
    count: usize,
    live_in: &[Bits],
    live_out: &[Bits],
) -> Vec<(usize, usize)> {
    let mut intervals = vec![(usize::MAX, 0); count];
    let mut extend = |register: usize, position: usize| {
        let (first, last) = &mut intervals[register];
        *first = (*first).min(position);
        *last = (*last).max(position);
    };
    for (number, block) in blocks.iter().enumerate() {
        live_in[number].each(|register| extend(register, 2 * block.start));
        live_out[number].each(|register| extend(register, 2 * block.end));
        for pc in block.start..block.end {
            let Uses { reads, writes } = &uses[pc - start];
            // With several results, the first must not overwrite a source of the second.
            let read_until = 2 * pc + usize::from(writes.len() > 1);
            reads.iter().for_each(|&register| extend(register, read_until));
            writes.iter().for_each(|&register| extend(register, 2 * pc + 1));
        }
    }
    intervals
}

/// Assigns a slot to every register; registers whose intervals do not overlap may share a slot.
fn scan(intervals: &[(usize, usize)], registers: &[Virtual], used: &mut [u32; 3]) -> Vec<u32> {
    let mut order: Vec<usize> = (0..intervals.len()).collect();
    order.sort_by_key(|&register| intervals[register].0);
    let mut slots = vec![0; intervals.len()];
    let mut free: [Vec<u32>; 3] = Default::default();
    let mut active: [BTreeSet<(usize, u32)>; 3] = Default::default();
    for register in order {
        let (first, last) = intervals[register];
        let class = registers[register].class as usize;
        while let Some(&(end, slot)) = active[class].first() {
            if end >= first {
                break;
            }
            active[class].pop_first();
            free[class].push(slot);
        }
        let slot = free[class].pop().unwrap_or_else(|| {
            used[class] += 1;
            used[class] - 1
        });
        active[class].insert((last, slot));
        slots[register] = slot;
    }
    slots
}
