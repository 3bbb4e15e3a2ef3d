//! Measuring: every operation against its floor and its peers.
//!
//! - [`problem`] is an operation with its sizes, [`cases`] the list of them with their operands, `data` what is in those.
//! - [`verify`] holds a backend's results against the reference before anything is timed.

pub mod cases;
pub mod ceilings;
mod data;
pub mod measure;
pub mod peers;
pub mod plot;
pub mod problem;
pub mod report;
pub mod suite;
pub mod verify;
