//! The state that all blocks of a launch share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use super::random::Rng;
use super::sync_variable::SyncVariable;
use crate::device::Limits;
use crate::ir::Program;
use crate::launch::{Launch, Settings};
use crate::memory::{Allocation, Memory};
use crate::module::Kernel;
use crate::observe::{Check, Finding};
use crate::race::epoch_table::EpochTable;

/// Numbers launches, so that a page's shadow can tell which launch it belongs to.
static LAUNCHES: AtomicU64 = AtomicU64::new(1);

/// One launch while it executes.
pub struct Grid<'a> {
    pub launch: &'a Launch<'a>,
    pub kernel: &'a Kernel,
    pub program: &'a Program,
    pub settings: &'a Settings,
    pub limits: &'a Limits,
    pub memory: &'a Memory,
    pub allocations: Vec<Arc<Allocation>>,
    pub number: u64,
    /// Epochs of accesses to device memory.
    pub epochs: EpochTable,
    /// What is published through addresses in device memory.
    pub published: Mutex<HashMap<u64, SyncVariable>>,
    /// Whether anything was published, so that atomics can skip the lookup in `published`.
    pub any_published: AtomicBool,
    steps: AtomicU64,
    next_block: AtomicU64,
    stopped: AtomicBool,
    finding: Mutex<Option<Box<Finding>>>,
}

impl<'a> Grid<'a> {
    /// `launch` must have passed [`Launch::check`].
    pub fn new(launch: &'a Launch<'a>, memory: &'a Memory, limits: &'a Limits, settings: &'a Settings) -> Self {
        Grid {
            launch,
            kernel: launch.kernel,
            program: &launch.kernel.program,
            settings,
            limits,
            memory,
            allocations: memory.snapshot(),
            number: LAUNCHES.fetch_add(1, Ordering::Relaxed),
            epochs: EpochTable::new(),
            published: Mutex::default(),
            any_published: AtomicBool::new(false),
            steps: AtomicU64::new(0),
            next_block: AtomicU64::new(0),
            stopped: AtomicBool::new(false),
            finding: Mutex::new(None),
        }
    }

    /// Number of blocks.
    pub fn blocks(&self) -> u64 {
        self.launch.grid.iter().map(|&extent| u64::from(extent)).product()
    }

    /// The next block to start; `None` when every block has been started.
    pub fn next_block(&self) -> Option<u32> {
        let next = self.next_block.fetch_add(1, Ordering::Relaxed);
        (next < self.blocks()).then(|| self.block_at(next))
    }

    /// The `i`-th block to start. Every block is started once, in an order that the seed determines.
    fn block_at(&self, i: u64) -> u32 {
        let blocks = self.blocks();
        let mut rng = Rng::new(self.settings.seed, u64::MAX);
        let mut step = (rng.next() % blocks) | 1;
        while gcd(step, blocks) != 1 {
            step += 2;
        }
        let first = rng.next() % blocks;
        ((u128::from(i) * u128::from(step) + u128::from(first)) % u128::from(blocks)) as u32
    }

    /// Counts steps against the budget; `false` when the budget is exhausted.
    pub fn spend(&self, steps: u64) -> bool {
        self.steps.fetch_add(steps, Ordering::Relaxed) + steps <= self.settings.step_budget
    }

    /// The source line of an instruction: `kernels/x.cu:12`, or the line of the PTX.
    pub fn source(&self, pc: u32) -> String {
        self.program.source_and_caller(pc)
    }

    /// A finding in a thread of a block.
    pub fn finding(&self, check: Check, block: u32, thread: u32, pc: u32, message: String) -> Box<Finding> {
        Box::new(Finding {
            check,
            kernel: self.kernel.name.clone(),
            source: self.source(pc),
            block: unflatten(block, self.launch.grid),
            thread: unflatten(thread, self.launch.block),
            message,
        })
    }

    /// Stops the launch. The first finding is kept.
    pub fn stop(&self, finding: Box<Finding>) {
        self.stopped.store(true, Ordering::Relaxed);
        self.finding.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(finding);
    }

    pub fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// The finding that stopped the launch.
    pub fn take_finding(&self) -> Option<Box<Finding>> {
        self.finding.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// Coordinates of a linear index, x fastest.
pub fn unflatten(index: u32, extents: [u32; 3]) -> [u32; 3] {
    let [x, y, _] = extents;
    [index % x, index / x % y, index / x / y]
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}
