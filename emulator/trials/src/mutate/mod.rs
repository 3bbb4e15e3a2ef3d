//! Mutants: a kernel's PTX with one barrier, wait, fence, memory order, bound or mask removed or weakened.
//!
//! A check that detects none of them checks nothing. [`mutants`] generates them as edits of the text, so each mutant is
//! PTX that any driver can load; [`survey()`] runs them and reports which were killed.
//!
//! ```
//! use emulator_trials::mutate::{Kind, mutants};
//!
//! let ptx = ".version 8.0\n.target sm_80\n.entry k() {\n  bar.sync 0;\n  ret;\n}\n";
//! let mutants = mutants(ptx, None)?;
//! assert_eq!(mutants[0].kind, Kind::RemoveBarrier);
//! assert_eq!(mutants[0].apply(ptx), ptx.replace("bar.sync 0;", ""));
//! # Ok::<(), ptx_emulator::parse::SyntaxError>(())
//! ```

mod edit;
mod generate;
mod mutant;
mod statement;
mod survey;

pub use generate::mutants;
pub use mutant::{Class, Kind, Mutant};
pub use survey::{KilledBy, Outcome, Status, Survey, SurveyError, survey};

#[cfg(test)]
mod tests;
