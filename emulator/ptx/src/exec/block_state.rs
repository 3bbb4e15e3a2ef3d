//! The state of a block apart from its warps.

use std::collections::HashMap;

use super::barrier::Barrier;
use super::grid::Grid;
use super::random::Rng;
use super::sync_variable::SyncVariable;
use crate::memory::page::{PAGE_BYTES, Page};
use crate::observe::Tally;
use crate::race::epoch_table::EpochTable;
use crate::race::shadow::ReaderCache;

/// Barriers of a block.
pub const BARRIERS: usize = 16;

/// A block: its shared memory, its barriers, and what the checks know of it.
pub struct BlockState<'g> {
    pub grid: &'g Grid<'g>,
    pub block: u32,
    pub shared: Vec<Option<Box<Page>>>,
    pub shared_bytes: u32,
    /// Tells this block's shadows from those of the block that used the memory before.
    pub shadow_number: u64,
    /// Epochs of accesses to shared memory.
    pub epochs: EpochTable,
    pub cache: ReaderCache,
    /// What is published through addresses in shared memory.
    pub published: HashMap<u64, SyncVariable>,
    pub barriers: Vec<Barrier>,
    /// Barriers whose state has changed, one bit each.
    pub changed: u32,
    pub time: u32,
    pub rng: Rng,
    /// Warp instructions executed.
    pub steps: u64,
    /// Strong accesses without effect since the last one with an effect: many of them show that the block is waiting
    /// for another block.
    pub polls: u32,
}

/// Scratch state of a worker, which the block that the worker executes uses.
pub struct Scratch<'a> {
    pub tally: &'a mut Tally,
    pub cache: &'a mut ReaderCache,
}

impl<'g> BlockState<'g> {
    pub fn new(grid: &'g Grid<'g>) -> Self {
        let shared_bytes = grid.launch.shared_end();
        BlockState {
            grid,
            block: 0,
            shared: (0..(shared_bytes as usize).div_ceil(PAGE_BYTES)).map(|_| None).collect(),
            shared_bytes,
            shadow_number: 0,
            epochs: EpochTable::new(),
            cache: ReaderCache::default(),
            published: HashMap::new(),
            barriers: (0..BARRIERS).map(|_| Barrier::default()).collect(),
            changed: 0,
            time: 1,
            rng: Rng::new(0, 0),
            steps: 0,
            polls: 0,
        }
    }

    /// Resets the state to the beginning of block `block`.
    pub fn start(&mut self, block: u32) {
        self.block = block;
        for page in self.shared.iter_mut().flatten() {
            page.forget(0, PAGE_BYTES);
        }
        self.shadow_number += 1;
        self.epochs.clear();
        self.cache.clear();
        self.published.clear();
        self.barriers.iter_mut().for_each(|barrier| *barrier = Barrier::default());
        self.changed = 0;
        self.polls = 0;
        self.time = 1;
        self.rng = Rng::new(self.grid.settings.seed, u64::from(block) + 1);
    }
}
