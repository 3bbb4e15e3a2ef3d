//! One mutant: what it changes, and where.

use std::fmt;
use std::ops::Range;

/// What a mutant breaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Class {
    /// Barriers of the block and of the warp.
    Barrier,
    /// Waits for asynchronous copies.
    Wait,
    Fence,
    /// Memory orders and scopes of loads, stores and atomics.
    Order,
    /// Guards, skips and integer comparisons.
    Bound,
    /// Selections between two values, and sizes of asynchronous copies.
    Mask,
}

impl Class {
    /// All classes, in order.
    pub const ALL: [Class; 6] = [Class::Barrier, Class::Wait, Class::Fence, Class::Order, Class::Bound, Class::Mask];
}

/// What a mutant changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `bar` or `barrier`, waiting or arriving: removed.
    RemoveBarrier,
    /// `bar.sync` → `bar.warp.sync` of all lanes.
    NarrowBarrier,
    /// `bar.warp.sync`: removed.
    RemoveWarpBarrier,
    /// `cp.async.wait_group`, `cp.async.wait_all`: removed.
    RemoveWait,
    /// `cp.async.wait_group N` → N + 1.
    RaiseWait,
    /// `cp.async.commit_group`: removed.
    RemoveCommit,
    /// `fence`, `membar`: removed.
    RemoveFence,
    /// `fence`, `membar` → block scope.
    NarrowFence,
    /// `acquire`, `release`, `acq_rel` → `relaxed`.
    Relax,
    /// `relaxed`, `volatile` load or store → weak.
    Weaken,
    /// The scope of a load, store or atomic → block scope.
    NarrowScope,
    /// A guarded instruction → executed by all lanes.
    RemoveGuard,
    /// A guarded forward branch, return or exit: never taken.
    NeverLeave,
    /// `lt` ↔ `le`, `gt` ↔ `ge` on integers.
    ShiftComparison,
    /// `selp` → always the first value.
    SelectFirst,
    /// `selp` → always the second value.
    SelectSecond,
    /// `cp.async` with a source size or an ignore-source predicate → copies the whole source.
    FullSource,
}

impl Kind {
    pub fn class(self) -> Class {
        match self {
            Kind::RemoveBarrier | Kind::NarrowBarrier | Kind::RemoveWarpBarrier => Class::Barrier,
            Kind::RemoveWait | Kind::RaiseWait | Kind::RemoveCommit => Class::Wait,
            Kind::RemoveFence | Kind::NarrowFence => Class::Fence,
            Kind::Relax | Kind::Weaken | Kind::NarrowScope => Class::Order,
            Kind::RemoveGuard | Kind::NeverLeave | Kind::ShiftComparison => Class::Bound,
            Kind::SelectFirst | Kind::SelectSecond | Kind::FullSource => Class::Mask,
        }
    }
}

/// One small edit of a PTX text. `Display` describes the mutant on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    pub kind: Kind,
    /// The function whose code the mutant changes: a kernel, or a function that a kernel calls.
    pub function: String,
    /// The source line from `.loc`, `kernels/reduce.cu:41`; without a `.loc` the line of the PTX.
    pub source: String,
    /// For inlined code, the source line of the call.
    pub called_from: Option<String>,
    /// Line of the PTX, from 1.
    pub ptx_line: u32,
    /// The original instruction.
    pub before: String,
    /// The changed instruction; empty if the instruction is removed.
    pub after: String,
    pub(super) range: Range<usize>,
    pub(super) replacement: String,
}

impl Mutant {
    /// Applies the edit to `ptx`, the text that the mutant was generated from. Line numbers do not change.
    pub fn apply(&self, ptx: &str) -> String {
        [&ptx[..self.range.start], &self.replacement, &ptx[self.range.end..]].concat()
    }
}

impl fmt::Display for Mutant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Mutant { kind, function, source, ptx_line, before, after, .. } = self;
        write!(f, "{kind:?} in {function} at {source}")?;
        if let Some(caller) = &self.called_from {
            write!(f, ", called from {caller}")?;
        }
        let after = if after.is_empty() { "nothing" } else { after };
        write!(f, " (PTX line {ptx_line}): `{before}` → {after}")
    }
}
