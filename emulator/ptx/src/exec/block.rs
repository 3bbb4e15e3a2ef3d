//! A block: its warps, its shared memory, its barriers, and the order in which the warps run.

use std::collections::HashMap;

use super::sync::{Barrier, SyncVariable};
use super::warp::{State, Warp};
use super::{Grid, Rng};
use crate::ir::{BarrierKind, Op};
use crate::memory::page::{PAGE, Page};
use crate::observe::{Check, Finding, Tally};
use crate::race::clock::View;
use crate::race::shadow::KnownReaders;
use crate::race::stamp::Stamps;
use crate::registers::{LANES, each_lane};

/// Barriers of a block.
pub const BARRIERS: usize = 16;
/// Warp instructions that a warp executes at most before another may be chosen.
const TURN: u32 = 256;

/// A block.
pub struct Block<'g> {
    core: Core<'g>,
    warps: Vec<Warp>,
    /// Slices used up.
    pub slices: u32,
}

/// All of a block but its warps.
pub struct Core<'g> {
    pub grid: &'g Grid<'g>,
    pub block: u32,
    pub shared: Vec<Option<Box<Page>>>,
    pub shared_bytes: u32,
    /// Tells this block's shadows from those of the block that used the memory before.
    pub shadow_number: u64,
    pub stamps: Stamps,
    pub known: KnownReaders,
    pub published: HashMap<u64, SyncVariable>,
    pub barriers: Vec<Barrier>,
    /// Barriers to look at, a bit each.
    pub changed: u32,
    pub time: u32,
    pub rng: Rng,
    /// Warp instructions executed.
    pub steps: u64,
    /// Strong accesses that changed nothing, since the last that did: the block waits for another.
    pub polls: u32,
}

/// How far a block has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// The slice is used up.
    Sliced,
    /// It does nothing but look whether others are done.
    Waiting,
}

/// So many polls, and a block lets others go first.
const POLLS: u32 = 32;

/// What a worker lends to the block that it runs.
pub struct Lent<'a> {
    pub tally: &'a mut Tally,
    pub known: &'a mut KnownReaders,
}

impl<'g> Block<'g> {
    pub fn new(grid: &'g Grid<'g>) -> Self {
        let threads: u32 = grid.launch.block.iter().product();
        let shared_bytes = grid.launch.shared_end();
        let core = Core {
            grid,
            block: 0,
            shared: (0..(shared_bytes as usize).div_ceil(PAGE)).map(|_| None).collect(),
            shared_bytes,
            shadow_number: 0,
            stamps: Stamps::new(),
            known: KnownReaders::default(),
            published: HashMap::new(),
            barriers: (0..BARRIERS).map(|_| Barrier::default()).collect(),
            changed: 0,
            time: 1,
            rng: Rng::new(0, 0),
            steps: 0,
            polls: 0,
        };
        let warps = (0..threads.div_ceil(LANES as u32)).map(|index| Warp::new(grid, index)).collect();
        Self { core, warps, slices: 0 }
    }

    /// Becomes block `block`, at its beginning.
    pub fn start(&mut self, block: u32) {
        self.slices = 0;
        let core = &mut self.core;
        core.block = block;
        for page in core.shared.iter_mut().flatten() {
            page.forget(0, PAGE);
        }
        core.shadow_number += 1;
        core.stamps.clear();
        core.known.clear();
        core.published.clear();
        core.barriers.iter_mut().for_each(|barrier| *barrier = Barrier::default());
        core.changed = 0;
        core.polls = 0;
        core.time = 1;
        core.rng = Rng::new(core.grid.settings.seed, u64::from(block) + 1);
        for warp in &mut self.warps {
            warp.start(core.grid, block);
        }
    }

    /// Executes up to about `slice` warp instructions.
    pub fn run(&mut self, slice: u64, tally: &mut Tally, known: &mut KnownReaders) -> Result<Progress, Box<Finding>> {
        let mut lent = Lent { tally, known };
        let end = self.core.steps + slice;
        let mut ready = Vec::with_capacity(self.warps.len());
        while self.core.steps < end {
            ready.clear();
            ready.extend((0..self.warps.len()).filter(|&warp| self.warps[warp].is_ready()));
            if ready.is_empty() {
                if self.warps.iter().all(|warp| warp.alive() == 0) {
                    return self.left_over().map_or(Ok(Progress::Done), Err);
                }
                return Err(self.deadlock());
            }
            let warp = ready[self.core.rng.below(ready.len() as u32) as usize];
            let turn = 1 + self.core.rng.below(TURN);
            let before = self.core.steps;
            self.core.run_warp(&mut self.warps[warp], turn, &mut lent)?;
            if !self.core.grid.spend(self.core.steps - before) {
                return Err(self.endless(warp));
            }
            while self.core.changed != 0 {
                let id = self.core.changed.trailing_zeros();
                self.core.changed &= self.core.changed - 1;
                self.look_at_barrier(id)?;
            }
            if self.core.polls >= POLLS {
                self.core.polls = 0;
                return Ok(Progress::Waiting);
            }
        }
        self.slices += 1;
        Ok(Progress::Sliced)
    }

    /// Releases a barrier's threads if all that it waits for have come.
    fn look_at_barrier(&mut self, id: u32) -> Result<(), Box<Finding>> {
        let Block { core, warps, .. } = self;
        let barrier = &mut core.barriers[id as usize];
        if barrier.arrivals.is_empty() {
            return Ok(());
        }
        let everyone = barrier.threads.is_none();
        let complete = match barrier.threads {
            None => {
                let arrived: u32 = barrier.arrivals.iter().map(|arrival| arrival.mask.count_ones()).sum();
                arrived >= warps.iter().map(|warp| warp.alive().count_ones()).sum()
            }
            Some(threads) => {
                let arrived: u32 = barrier.arrivals.iter().map(|arrival| arrival.counted).sum();
                if arrived > threads {
                    let last = &barrier.arrivals[barrier.arrivals.len() - 1];
                    let thread = last.warp * LANES as u32 + last.mask.trailing_zeros();
                    let message = format!("{arrived} threads came to barrier {id}, which waits for {threads}");
                    return Err(core.grid.finding(Check::Barrier, core.block, thread, last.pc, message));
                }
                arrived == threads
            }
        };
        if !complete {
            return Ok(());
        }
        let barrier = std::mem::take(barrier);
        let mut joined = View::default();
        for arrival in &barrier.arrivals {
            if everyone { joined.join_others(&arrival.view) } else { joined.join(&arrival.view) }
        }
        if everyone {
            // All threads know all that any did: that folds into one number.
            joined = joined.after_barrier(core.time);
            core.time += 1;
            // No set of readers from before can be met again.
            core.known.clear();
        }
        for warp in warps.iter_mut() {
            let mut waiting = 0;
            for group in &mut warp.groups {
                if group.state == State::Barrier(id) {
                    waiting |= group.mask;
                    if let Op::Barrier { kind, to: Some(to), .. } = core.grid.program.code[group.pc as usize].op {
                        match kind {
                            BarrierKind::Count => {
                                warp.registers.set32(to, group.mask, &[barrier.votes; LANES]);
                            }
                            BarrierKind::And => {
                                let all = barrier.votes == barrier.voters;
                                warp.registers.set_pred(to, group.mask, if all { u32::MAX } else { 0 });
                            }
                            _ => warp.registers.set_pred(to, group.mask, if barrier.votes > 0 { u32::MAX } else { 0 }),
                        }
                    }
                    group.state = State::Ready;
                    group.pc += 1;
                }
            }
            if everyone {
                warp.views.set(joined.clone());
                warp.now = core.time;
            } else if waiting != 0 {
                warp.views.update(waiting, warp.alive(), |view| view.join(&joined));
            }
        }
        Ok(())
    }

    /// Nothing can go on: says where every warp stands.
    fn deadlock(&self) -> Box<Finding> {
        let mut first = None;
        let mut places = Vec::new();
        for warp in self.warps.iter().filter(|warp| warp.alive() != 0) {
            for group in &warp.groups {
                let what = match group.state {
                    State::Ready => "runs".to_owned(),
                    State::Converge(lanes) => {
                        format!("waits for lanes {:#010x} to come to the same instruction", lanes & !group.mask)
                    }
                    State::WarpBarrier(members) => format!("waits at bar.warp.sync for lanes {members:#010x}"),
                    State::Barrier(id) => {
                        let barrier = &self.core.barriers[id as usize];
                        let come: u32 = barrier.arrivals.iter().map(|arrival| arrival.mask.count_ones()).sum();
                        let of = barrier.threads.map_or("all".to_owned(), |threads| threads.to_string());
                        format!("waits at barrier {id}, to which {come} of {of} threads came")
                    }
                };
                let thread = warp.index * LANES as u32 + group.mask.trailing_zeros();
                let diverged = matches!(group.state, State::Converge(_));
                if first.is_none_or(|(_, _, earlier): (u32, u32, bool)| diverged && !earlier) {
                    first = Some((thread, group.pc, diverged));
                }
                let lanes =
                    if group.mask == warp.present { String::new() } else { format!(" lanes {:#010x}", group.mask) };
                places.push(format!("warp {}{lanes} {what} at {}", warp.index, self.core.grid.source(group.pc)));
            }
        }
        let (thread, pc, diverged) = first.unwrap_or_default();
        let title = if diverged { "divergence" } else { "deadlock" };
        self.core.grid.finding(Check::Barrier, self.core.block, thread, pc, format!("{title}: {}", places.join("; ")))
    }

    /// An arrival at a barrier that nobody completed before the block ended: it was for nobody.
    fn left_over(&self) -> Option<Box<Finding>> {
        let mut barriers = self.core.barriers.iter().enumerate();
        let (id, barrier) = barriers.find(|(_, barrier)| !barrier.arrivals.is_empty())?;
        let first = &barrier.arrivals[0];
        let thread = first.warp * LANES as u32 + first.mask.trailing_zeros();
        let come: u32 = barrier.arrivals.iter().map(|arrival| arrival.mask.count_ones()).sum();
        let of = barrier.threads.map_or("all".to_owned(), |threads| threads.to_string());
        let message = format!("the block ended while {come} of {of} threads had come to barrier {id}");
        Some(self.core.grid.finding(Check::Barrier, self.core.block, thread, first.pc, message))
    }

    fn endless(&self, warp: usize) -> Box<Finding> {
        let warp = &self.warps[warp];
        let (pc, mask) = warp.groups.first().map_or((0, 1), |group| (group.pc, group.mask));
        let thread = warp.index * LANES as u32 + each_lane(mask).next().unwrap_or(0);
        let budget = self.core.grid.settings.step_budget;
        let message = format!("an endless loop: the launch's budget of {budget} warp instructions is spent");
        self.core.grid.finding(Check::EndlessLoop, self.core.block, thread, pc, message)
    }
}
