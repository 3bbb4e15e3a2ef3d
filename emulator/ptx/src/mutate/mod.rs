//! Mutants: a kernel's PTX with one barrier, wait, fence, memory order, bound or mask taken out or weakened.
//!
//! A check that finds none of them checks nothing. [`mutants`] makes them, as edits of the text, so that each is PTX for
//! any driver; [`survey()`] runs them and says which were found out.
//!
//! ```
//! use ptx_emulator::mutate::{Kind, mutants};
//!
//! let ptx = ".version 8.0\n.target sm_80\n.entry k() {\n  bar.sync 0;\n  ret;\n}\n";
//! let mutants = mutants(ptx, None)?;
//! assert_eq!(mutants[0].kind, Kind::RemoveBarrier);
//! assert_eq!(mutants[0].apply(ptx), ptx.replace("bar.sync 0;", ""));
//! # Ok::<(), ptx_emulator::parse::SyntaxError>(())
//! ```

mod edit;
mod statement;
mod survey;

use std::collections::{BTreeSet, HashMap};
use std::fmt;
use std::ops::Range;

use crate::ast::{Function, Instruction, Module, Operand, Position, Statement};
use crate::parse::{self, SyntaxError};
use crate::place::Places;
use edit::edits;
pub use survey::{Death, Fate, Outcome, Survey, SurveyError, survey};

/// What a mutant leaves out of order.
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
    /// Selections between two values, and sizes of copies.
    Mask,
}

impl Class {
    /// All, in order.
    pub const ALL: [Class; 6] = [Class::Barrier, Class::Wait, Class::Fence, Class::Order, Class::Bound, Class::Mask];
}

/// What a mutant changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    /// `bar` or `barrier`, waiting or arriving: gone.
    RemoveBarrier,
    /// `bar.sync` → `bar.warp.sync` of all lanes.
    NarrowBarrier,
    /// `bar.warp.sync`: gone.
    RemoveWarpBarrier,
    /// `cp.async.wait_group`, `cp.async.wait_all`: gone.
    RemoveWait,
    /// `cp.async.wait_group N` → N + 1.
    RaiseWait,
    /// `cp.async.commit_group`: gone.
    RemoveCommit,
    /// `fence`, `membar`: gone.
    RemoveFence,
    /// `fence`, `membar` → for the block alone.
    NarrowFence,
    /// `acquire`, `release`, `acq_rel` → `relaxed`.
    Relax,
    /// `relaxed`, `volatile` load or store → ordinary.
    Weaken,
    /// A load's, store's or atomic's scope → the block.
    NarrowScope,
    /// A guarded instruction → for all lanes.
    RemoveGuard,
    /// A guarded branch forward, or a guarded end: never taken.
    NeverLeave,
    /// `lt` ↔ `le`, `gt` ↔ `ge` on integers.
    ShiftComparison,
    /// `selp` → always its first value.
    SelectFirst,
    /// `selp` → always its second value.
    SelectSecond,
    /// `cp.async` with a source size or a predicate to ignore the source → the whole source.
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

/// One small edit of a PTX text. `Display` describes it on one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mutant {
    pub kind: Kind,
    /// The kernel, or the function that is called by one, whose code it changes.
    pub function: String,
    /// `kernels/reduce.cu:41` from `.loc`; without one, the PTX line.
    pub source: String,
    /// For an inlined function, where the kernel calls it.
    pub called_from: Option<String>,
    /// Counts from 1.
    pub ptx_line: u32,
    /// The instruction as it was, and as it is; empty if it is gone.
    pub before: String,
    pub after: String,
    range: Range<usize>,
    replacement: String,
}

impl Mutant {
    /// The mutant's text; `ptx` is what it was made from. No line moves.
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

/// All mutants of a text, in its order; `kernel` restricts them to one kernel and the functions it calls.
///
/// # Errors
/// When the text is not PTX.
pub fn mutants(ptx: &str, kernel: Option<&str>) -> Result<Vec<Mutant>, SyntaxError> {
    let module = parse::parse(ptx)?;
    let reached = kernel.map(|kernel| reached(&module, kernel));
    let mut places = Places::new(&module.files);
    let mut maker = Maker { ptx, lines: line_starts(ptx), labels: HashMap::new(), mutants: Vec::new() };
    for function in &module.functions {
        let wanted = reached.as_ref().is_none_or(|reached| reached.contains(function.name.as_str()));
        let Some(body) = function.body.as_ref().filter(|_| wanted) else { continue };
        maker.labels.clear();
        maker.note_labels(body);
        let mut at = At { function, source: None, called_from: None };
        maker.statements(body, &mut places, &mut at);
    }
    Ok(maker.mutants)
}

/// A function, and the place in it.
struct At<'a> {
    function: &'a Function,
    source: Option<String>,
    called_from: Option<String>,
}

struct Maker<'a> {
    ptx: &'a str,
    lines: Vec<usize>,
    /// Labels of the function, by name.
    labels: HashMap<&'a str, Position>,
    mutants: Vec<Mutant>,
}

impl<'a> Maker<'a> {
    fn note_labels<'m: 'a>(&mut self, body: &'m [Statement]) {
        for statement in body {
            match statement {
                Statement::Label(position, name) => drop(self.labels.insert(name, *position)),
                Statement::Block(inner) => self.note_labels(inner),
                _ => {}
            }
        }
    }

    fn statements(&mut self, body: &[Statement], places: &mut Places, at: &mut At) {
        for statement in body {
            match statement {
                &Statement::Location { file, line, column, inlined_at } => {
                    let (shown, outermost) = places.locate((file, line, column), inlined_at);
                    at.source = places.name(shown);
                    at.called_from = places.name(outermost).filter(|_| outermost != shown);
                }
                Statement::Block(inner) => self.statements(inner, places, at),
                Statement::Instruction(instruction) => self.instruction(instruction, at),
                _ => {}
            }
        }
    }

    fn instruction(&mut self, instruction: &Instruction, at: &At) {
        let start = self.offset(instruction.position);
        let Some(statement) = statement::Text::new(&self.ptx[start..]) else { return };
        let forward = self.leaves_forward(instruction);
        for (kind, new) in edits(instruction, &statement, forward) {
            let ptx_line = instruction.position.line;
            // What goes leaves its line breaks, so that no line moves.
            let kept = statement.text.matches('\n').count().saturating_sub(new.matches('\n').count());
            self.mutants.push(Mutant {
                kind,
                function: at.function.name.clone(),
                source: at.source.clone().unwrap_or_else(|| format!("PTX line {ptx_line}")),
                called_from: at.called_from.clone(),
                ptx_line,
                before: one_line(statement.text),
                after: one_line(&new),
                range: start..start + statement.text.len(),
                replacement: new + &"\n".repeat(kept),
            });
        }
    }

    /// Whether a branch goes forward.
    fn leaves_forward(&self, instruction: &Instruction) -> bool {
        let place = |position: Position| (position.line, position.column);
        match &instruction.operands[..] {
            [Operand::Name(label)] => {
                self.labels.get(label.as_str()).is_some_and(|&label| place(label) > place(instruction.position))
            }
            _ => false,
        }
    }

    fn offset(&self, position: Position) -> usize {
        self.lines[position.line as usize - 1] + position.column as usize - 1
    }
}

fn line_starts(text: &str) -> Vec<usize> {
    std::iter::once(0).chain(text.bytes().enumerate().filter(|&(_, b)| b == b'\n').map(|(i, _)| i + 1)).collect()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// A kernel's name, and those of all functions that it calls.
fn reached<'m>(module: &'m Module, kernel: &str) -> BTreeSet<&'m str> {
    let body_of = |name: &str| {
        let function = module.functions.iter().find(|f| f.name == name && f.body.is_some())?;
        Some((function.name.as_str(), function.body.as_deref().unwrap_or_default()))
    };
    let mut names = BTreeSet::new();
    let mut waiting: Vec<_> = body_of(kernel).into_iter().collect();
    while let Some((name, body)) = waiting.pop() {
        if names.insert(name) {
            let mut called = Vec::new();
            calls(body, &mut called);
            waiting.extend(called.into_iter().filter_map(body_of));
        }
    }
    names
}

/// Names that stand in calls; those that are no functions do no harm.
fn calls<'m>(body: &'m [Statement], into: &mut Vec<&'m str>) {
    for statement in body {
        match statement {
            Statement::Block(inner) => calls(inner, into),
            Statement::Instruction(call) if call.opcode[0] == "call" => {
                into.extend(call.operands.iter().filter_map(|operand| match operand {
                    Operand::Name(name) => Some(name.as_str()),
                    _ => None,
                }));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests;
