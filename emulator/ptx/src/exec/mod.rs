//! Execution: blocks are distributed over the host's cores, warps run in a seeded random order, 32 lanes at a time.

mod access;
mod atomic;
mod barrier;
mod block;
mod block_state;
mod copies;
mod copy;
mod exchange;
mod fault;
mod grid;
mod matrix;
mod random;
mod step;
mod sync;
mod sync_variable;
mod warp;

use std::collections::VecDeque;

use crate::device::Limits;
use crate::error::LaunchError;
use crate::launch::{Launch, Settings};
use crate::memory::Memory;
use crate::observe::{Counts, Tally, count};
use crate::race::shadow::ReaderCache;
use block::{Block, Progress};
use grid::Grid;

/// Warp instructions that a block executes at most before its worker may continue with another block.
const SLICE: u64 = 100_000;
/// After this many slices of a block that does not end, the worker starts another block in addition.
const SLICES_BEFORE_NEXT_BLOCK: u32 = 16;

impl Launch<'_> {
    /// Executes the launch to its end.
    ///
    /// # Errors
    /// [`LaunchError::Rejected`] as [`Launch::check`], [`LaunchError::Found`] for the first finding.
    pub fn run(&self, memory: &Memory, limits: &Limits, settings: &Settings) -> Result<Counts, LaunchError> {
        self.check(limits)?;
        let grid = Grid::new(self, memory, limits, settings);
        let tally = run_workers(&grid);
        let counts = counts(&grid, &tally);
        match grid.take_finding() {
            Some(finding) => Err(LaunchError::Found(finding)),
            None => Ok(counts),
        }
    }
}

/// Executes all blocks; returns the counts of all workers.
fn run_workers(grid: &Grid) -> Tally {
    let workers = grid.settings.threads.max(1).min(grid.blocks().min(1024) as usize);
    let resident = (grid.launch.resident_blocks(grid.limits) as usize / workers).max(1);
    let mut tally = Tally::new(grid.program);
    if workers == 1 {
        work(grid, resident, &mut tally);
        return tally;
    }
    let tallies = std::thread::scope(|scope| {
        let worker = || {
            let mut tally = Tally::new(grid.program);
            work(grid, resident, &mut tally);
            tally
        };
        let handles: Vec<_> = (0..workers).map(|_| scope.spawn(worker)).collect();
        handles.into_iter().map(|handle| handle.join()).collect::<Vec<_>>()
    });
    for result in tallies {
        match result {
            Ok(part) => tally.add(&part),
            // A worker's panic is a bug of the emulator, and the caller must see it.
            Err(panic) => std::panic::resume_unwind(panic),
        }
    }
    tally
}

/// The launch's counts. Clears the shadows of the pages that the launch accessed.
fn counts(grid: &Grid, tally: &Tally) -> Counts {
    let mut counts = Counts {
        kernel: grid.kernel.name.clone(),
        grid: grid.launch.grid,
        block: grid.launch.block,
        shared_bytes_per_block: grid.launch.shared_bytes(),
        ..count(grid.program, tally)
    };
    for allocation in grid.allocations.iter().filter(|allocation| allocation.take_touched()) {
        allocation.each_page(|page| {
            let (read, written, either) = page.shadow.touched(grid.number);
            counts.unique_read_bytes += read;
            counts.unique_written_bytes += written;
            counts.unique_bytes += either;
            page.shadow.clear();
        });
    }
    counts
}

/// One worker: executes blocks until none is left, at most `resident` of them at the same time.
fn work(grid: &Grid, resident: usize, tally: &mut Tally) {
    let mut active: VecDeque<Block> = VecDeque::new();
    let mut idle: Vec<Block> = Vec::new();
    let mut cache = ReaderCache::default();
    let (mut blocks_left, mut start_another) = (true, true);
    loop {
        // A second block is started only while the first one waits for other blocks, or may wait for them in a way that
        // is not recognised here.
        if blocks_left && (active.is_empty() || start_another && active.len() < resident) {
            let next = grid.next_block();
            blocks_left = next.is_some();
            if let Some(next) = next {
                let mut block = idle.pop().unwrap_or_else(|| Block::new(grid));
                block.start(next);
                active.push_front(block);
            }
        }
        let Some(mut block) = active.pop_front() else { return };
        if grid.is_stopped() {
            return;
        }
        match block.run(SLICE, tally, &mut cache) {
            Ok(Progress::Done) => {
                idle.push(block);
                start_another = false;
            }
            Ok(progress) => {
                start_another = progress == Progress::Waiting || block.slices % SLICES_BEFORE_NEXT_BLOCK == 0;
                active.push_back(block);
            }
            Err(finding) => return grid.stop(finding),
        }
    }
}
