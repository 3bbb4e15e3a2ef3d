//! Execution: blocks over the host's cores, warps in a seeded random order, 32 lanes at a time.

pub mod access;
mod atomic;
mod block;
mod copy;
mod exchange;
mod matrix;
mod step;
mod sync;
mod warp;

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::device::Limits;
use crate::ir::Program;
use crate::launch::{Launch, Settings};
use crate::memory::{Allocation, Memory};
use crate::module::Kernel;
use crate::observe::{Check, Counts, Finding, Tally, count};
use crate::race::shadow::KnownReaders;
use crate::race::stamp::Stamps;
use block::{Block, Progress};
use sync::SyncVariable;

/// Numbers launches, so that a page's shadow knows which one it belongs to.
static LAUNCHES: AtomicU64 = AtomicU64::new(1);
/// Warp instructions that a block may execute before others get their turn.
const SLICE: u64 = 100_000;
/// Slices after which another block is begun beside one that does not end.
const PATIENCE: u32 = 16;

/// What all blocks of a launch share.
pub struct Grid<'a> {
    pub launch: &'a Launch<'a>,
    pub kernel: &'a Kernel,
    pub program: &'a Program,
    pub settings: &'a Settings,
    pub limits: &'a Limits,
    pub memory: &'a Memory,
    pub allocations: Vec<Arc<Allocation>>,
    pub number: u64,
    /// Stamps of accesses to device memory.
    pub stamps: Stamps,
    /// What is published through addresses in device memory.
    pub published: Mutex<HashMap<u64, SyncVariable>>,
    /// Something was published: atomics need look.
    pub any_published: AtomicBool,
    steps: AtomicU64,
    next_block: AtomicU64,
    stop: AtomicBool,
    finding: Mutex<Option<Box<Finding>>>,
}

/// Runs a launch that was checked.
pub fn run(launch: &Launch, memory: &Memory, limits: &Limits, settings: &Settings) -> Result<Counts, Box<Finding>> {
    let program = &launch.kernel.program;
    let grid = Grid {
        launch,
        kernel: launch.kernel,
        program,
        settings,
        limits,
        memory,
        allocations: memory.snapshot(),
        number: LAUNCHES.fetch_add(1, Ordering::Relaxed),
        stamps: Stamps::new(),
        published: Mutex::default(),
        any_published: AtomicBool::new(false),
        steps: AtomicU64::new(0),
        next_block: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        finding: Mutex::new(None),
    };
    let workers = settings.threads.max(1).min(grid.blocks().min(1024) as usize);
    let resident = (launch.resident_blocks(limits) as usize / workers).max(1);
    let mut tally = Tally::new(program);
    if workers == 1 {
        grid.work(resident, &mut tally);
    } else {
        let tallies = std::thread::scope(|scope| {
            let work = || {
                let mut tally = Tally::new(program);
                grid.work(resident, &mut tally);
                tally
            };
            let handles: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
            handles.into_iter().map(|handle| handle.join()).collect::<Vec<_>>()
        });
        for result in tallies {
            match result {
                Ok(part) => tally.add(&part),
                // A worker's panic is a mistake of the emulator, and the caller must see it.
                Err(panic) => std::panic::resume_unwind(panic),
            }
        }
    }
    let finding = grid.finding.lock().unwrap_or_else(PoisonError::into_inner).take();
    let mut counts = count(launch, &tally);
    for allocation in grid.allocations.iter().filter(|allocation| allocation.take_touched()) {
        allocation.each_page(|page| {
            let (read, written, either) = page.shadow.touched(grid.number);
            counts.unique_read_bytes += read;
            counts.unique_written_bytes += written;
            counts.unique_bytes += either;
            page.shadow.clear();
        });
    }
    match finding {
        Some(finding) => Err(finding),
        None => Ok(counts),
    }
}

impl Grid<'_> {
    fn blocks(&self) -> u64 {
        self.launch.grid.iter().map(|&extent| u64::from(extent)).product()
    }

    /// The `i`-th block to start: every block once, in an order that the seed decides.
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

    fn work(&self, resident: usize, tally: &mut Tally) {
        let blocks = self.blocks();
        let mut active: VecDeque<Block> = VecDeque::new();
        let mut idle: Vec<Block> = Vec::new();
        let mut known = KnownReaders::default();
        let (mut left, mut another) = (true, true);
        loop {
            // A second block is begun only beside one that waits for others, or that may do so in a way not seen here.
            if left && (active.is_empty() || another && active.len() < resident) {
                let next = self.next_block.fetch_add(1, Ordering::Relaxed);
                left = next < blocks;
                if left {
                    let mut block = idle.pop().unwrap_or_else(|| Block::new(self));
                    block.start(self.block_at(next));
                    active.push_front(block);
                }
            }
            let Some(mut block) = active.pop_front() else { return };
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            match block.run(SLICE, tally, &mut known) {
                Ok(Progress::Done) => {
                    idle.push(block);
                    another = false;
                }
                Ok(progress) => {
                    another = progress == Progress::Waiting || block.slices % PATIENCE == 0;
                    active.push_back(block);
                }
                Err(finding) => {
                    self.stop.store(true, Ordering::Relaxed);
                    self.finding.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(finding);
                    return;
                }
            }
        }
    }

    /// Counts steps against the budget; `false` when it is spent.
    fn spend(&self, steps: u64) -> bool {
        self.steps.fetch_add(steps, Ordering::Relaxed) + steps <= self.settings.step_budget
    }

    /// `kernels/x.cu:12`, or the line of the PTX.
    pub fn source(&self, pc: u32) -> String {
        self.program.place_and_caller(pc)
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
}

/// Coordinates of a linear index, x fastest.
pub fn unflatten(index: u32, extents: [u32; 3]) -> [u32; 3] {
    let [x, y, _] = extents;
    [index % x, index / x % y, index / x / y]
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// SplitMix64: small, and good enough to shuffle with.
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    pub fn new(seed: u64, stream: u64) -> Self {
        let mut rng = Rng(seed ^ stream.wrapping_mul(0xD6E8_FEB8_6659_FD93));
        rng.next();
        rng
    }

    #[inline]
    pub fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ z >> 31
    }

    /// Below `bound`, which is not 0.
    #[inline]
    pub fn below(&mut self, bound: u32) -> u32 {
        (((self.next() >> 32) * u64::from(bound)) >> 32) as u32
    }
}
