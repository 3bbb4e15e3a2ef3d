//! The state of a barrier of a block.

use crate::race::clock::View;

/// A barrier at which threads have arrived.
#[derive(Default)]
pub struct Barrier {
    pub arrivals: Vec<Arrival>,
    /// Number of threads that the barrier waits for; `None` for all threads of the block.
    pub threads: Option<u32>,
    /// Whether the barrier reduces a predicate. Reducing and non-reducing arrivals must not be mixed.
    pub reduces: bool,
    /// For reductions: how many threads contributed a predicate.
    pub voters: u32,
    /// For reductions: how many of the predicates were true.
    pub votes: u32,
}

/// Lanes of a warp that arrived together.
pub struct Arrival {
    pub warp: u32,
    pub mask: u32,
    pub pc: u32,
    /// Threads that the arrival counts for.
    pub counted: u32,
    /// What the lanes knew when they arrived.
    pub view: View,
}

impl Barrier {
    /// Number of threads that have arrived.
    pub fn arrived(&self) -> u32 {
        self.arrivals.iter().map(|arrival| arrival.mask.count_ones()).sum()
    }

    /// The number of threads that the barrier waits for, in words.
    pub fn expected(&self) -> String {
        expected(self.threads)
    }
}

/// A barrier's number of threads, in words: `64`, or `all`.
pub fn expected(threads: Option<u32>) -> String {
    threads.map_or("all".to_owned(), |threads| threads.to_string())
}
