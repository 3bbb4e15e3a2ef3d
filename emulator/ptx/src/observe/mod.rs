//! The results of an execution: findings and counts.

mod banks;
mod counts;
mod finding;
mod tally;

pub(crate) use counts::count;
pub use emulator_counts::{Counts, LineCounts, Traffic};
pub use finding::{Check, Finding};
pub(crate) use tally::{Tally, TrafficKind, WarpAccess};
