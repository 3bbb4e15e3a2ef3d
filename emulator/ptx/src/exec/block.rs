//! A block: executes its warps in a random order and completes its barriers.

use super::block_state::{BlockState, Scratch};
use super::grid::Grid;
use super::warp::{State, Warp};
use crate::ir::{BarrierKind, Op};
use crate::observe::{Check, Finding, Tally};
use crate::race::clock::View;
use crate::race::shadow::ReaderCache;
use crate::registers::{LANES, each_lane};

/// Instructions that a warp executes at most before another warp may be chosen.
const MAX_WARP_STEPS: u32 = 256;

/// Strong accesses without effect after which a block lets other blocks run.
const POLL_LIMIT: u32 = 32;

/// A block.
pub struct Block<'g> {
    state: BlockState<'g>,
    warps: Vec<Warp>,
    /// Number of slices that the block has used up.
    pub slices: u32,
}

/// How far a block has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    Done,
    /// The slice is used up.
    Sliced,
    /// The block only polls memory that other blocks write.
    Waiting,
}

impl<'g> Block<'g> {
    pub fn new(grid: &'g Grid<'g>) -> Self {
        let threads: u32 = grid.launch.block.iter().product();
        let warps = (0..threads.div_ceil(LANES as u32)).map(|index| Warp::new(grid, index)).collect();
        Self { state: BlockState::new(grid), warps, slices: 0 }
    }

    /// Resets the state to the beginning of block `block`.
    pub fn start(&mut self, block: u32) {
        self.slices = 0;
        self.state.start(block);
        for warp in &mut self.warps {
            warp.start(self.state.grid, block);
        }
    }

    /// Executes up to about `slice` warp instructions.
    pub fn run(&mut self, slice: u64, tally: &mut Tally, cache: &mut ReaderCache) -> Result<Progress, Box<Finding>> {
        let mut scratch = Scratch { tally, cache };
        let end = self.state.steps + slice;
        let mut ready = Vec::with_capacity(self.warps.len());
        while self.state.steps < end {
            ready.clear();
            ready.extend((0..self.warps.len()).filter(|&warp| self.warps[warp].is_ready()));
            if ready.is_empty() {
                if self.warps.iter().all(|warp| warp.alive() == 0) {
                    return self.incomplete_barrier().map_or(Ok(Progress::Done), Err);
                }
                return Err(self.deadlock());
            }
            let warp = ready[self.state.rng.below(ready.len() as u32) as usize];
            let max_steps = 1 + self.state.rng.below(MAX_WARP_STEPS);
            let before = self.state.steps;
            self.state.run_warp(&mut self.warps[warp], max_steps, &mut scratch)?;
            if !self.state.grid.spend(self.state.steps - before) {
                return Err(self.endless_loop(warp));
            }
            while self.state.changed != 0 {
                let id = self.state.changed.trailing_zeros();
                self.state.changed &= self.state.changed - 1;
                self.complete_barrier(id)?;
            }
            if self.state.polls >= POLL_LIMIT {
                self.state.polls = 0;
                return Ok(Progress::Waiting);
            }
        }
        self.slices += 1;
        Ok(Progress::Sliced)
    }

    /// Releases a barrier's threads if all that it waits for have arrived.
    fn complete_barrier(&mut self, id: u32) -> Result<(), Box<Finding>> {
        let Block { state, warps, .. } = self;
        let barrier = &mut state.barriers[id as usize];
        if barrier.arrivals.is_empty() {
            return Ok(());
        }
        let whole_block = barrier.threads.is_none();
        let complete = match barrier.threads {
            None => barrier.arrived() >= warps.iter().map(|warp| warp.alive().count_ones()).sum(),
            Some(threads) => {
                let arrived: u32 = barrier.arrivals.iter().map(|arrival| arrival.counted).sum();
                if arrived > threads {
                    let last = &barrier.arrivals[barrier.arrivals.len() - 1];
                    let thread = last.warp * LANES as u32 + last.mask.trailing_zeros();
                    let message = format!("{arrived} threads arrived at barrier {id}, which waits for {threads}");
                    return Err(state.grid.finding(Check::Barrier, state.block, thread, last.pc, message));
                }
                arrived == threads
            }
        };
        if !complete {
            return Ok(());
        }
        let barrier = std::mem::take(barrier);
        let mut merged = View::default();
        for arrival in &barrier.arrivals {
            if whole_block { merged.merge_others(&arrival.view) } else { merged.merge(&arrival.view) }
        }
        if whole_block {
            // Every thread knows everything that any thread of the block did: one number expresses that.
            merged = merged.after_barrier(state.time);
            state.time += 1;
            // Reader sets from before the barrier cannot occur again.
            state.cache.clear();
        }
        for warp in warps.iter_mut() {
            let mut waiting = 0;
            for group in &mut warp.groups {
                if group.state == State::Barrier(id) {
                    waiting |= group.mask;
                    if let Op::Barrier { kind, to: Some(to), .. } = state.grid.program.code[group.pc as usize].op {
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
            if whole_block {
                warp.views.set(merged.clone());
                warp.now = state.time;
            } else if waiting != 0 {
                warp.views.update(waiting, warp.alive(), |view| view.merge(&merged));
            }
        }
        Ok(())
    }

    /// No warp can continue: reports what every warp waits for.
    fn deadlock(&self) -> Box<Finding> {
        let mut first = None;
        let mut waiting = Vec::new();
        for warp in self.warps.iter().filter(|warp| warp.alive() != 0) {
            for group in &warp.groups {
                let what = match group.state {
                    State::Ready => "runs".to_owned(),
                    State::Converge(lanes) => {
                        format!("waits for lanes {:#010x} to reach the same instruction", lanes & !group.mask)
                    }
                    State::WarpBarrier(members) => format!("waits at bar.warp.sync for lanes {members:#010x}"),
                    State::Barrier(id) => {
                        let barrier = &self.state.barriers[id as usize];
                        let (arrived, expected) = (barrier.arrived(), barrier.expected());
                        format!("waits at barrier {id}, at which {arrived} of {expected} threads arrived")
                    }
                };
                let thread = warp.index * LANES as u32 + group.mask.trailing_zeros();
                let diverged = matches!(group.state, State::Converge(_));
                if first.is_none_or(|(_, _, earlier): (u32, u32, bool)| diverged && !earlier) {
                    first = Some((thread, group.pc, diverged));
                }
                let lanes =
                    if group.mask == warp.present { String::new() } else { format!(" lanes {:#010x}", group.mask) };
                waiting.push(format!("warp {}{lanes} {what} at {}", warp.index, self.state.grid.source(group.pc)));
            }
        }
        let (thread, pc, diverged) = first.unwrap_or_default();
        let title = if diverged { "divergence" } else { "deadlock" };
        let message = format!("{title}: {}", waiting.join("; "));
        self.state.grid.finding(Check::Barrier, self.state.block, thread, pc, message)
    }

    /// The finding for a barrier with arrivals that was not completed before the block ended.
    fn incomplete_barrier(&self) -> Option<Box<Finding>> {
        let mut barriers = self.state.barriers.iter().enumerate();
        let (id, barrier) = barriers.find(|(_, barrier)| !barrier.arrivals.is_empty())?;
        let first = &barrier.arrivals[0];
        let thread = first.warp * LANES as u32 + first.mask.trailing_zeros();
        let (arrived, expected) = (barrier.arrived(), barrier.expected());
        let message = format!("the block ended when {arrived} of {expected} threads had arrived at barrier {id}");
        Some(self.state.grid.finding(Check::Barrier, self.state.block, thread, first.pc, message))
    }

    fn endless_loop(&self, warp: usize) -> Box<Finding> {
        let warp = &self.warps[warp];
        let (pc, mask) = warp.groups.first().map_or((0, 1), |group| (group.pc, group.mask));
        let thread = warp.index * LANES as u32 + each_lane(mask).next().unwrap_or(0);
        let budget = self.state.grid.settings.step_budget;
        let message = format!("an endless loop: the launch's budget of {budget} warp instructions is exhausted");
        self.state.grid.finding(Check::EndlessLoop, self.state.block, thread, pc, message)
    }
}
