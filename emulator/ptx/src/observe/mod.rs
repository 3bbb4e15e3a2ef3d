//! What execution shows: findings and counts.

mod banks;
mod counts;
mod finding;
mod tally;

pub use counts::{Counts, LineCounts};
pub use finding::{Check, Finding};
pub(crate) use tally::{Moved, Tally};
