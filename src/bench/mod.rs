//! Measuring: every operation against its floor and its peers.
//!
//! - [`problem`] is an operation with its sizes, [`cases`] the list of them with their operands, `data` what is in those.
//! - [`verify`] holds a backend's results against the reference before anything is timed.
//! - [`measure`] is the core that times, on the CPU or (`gpu`) by events; [`ceilings`] are the rates that nothing can pass.
//! - [`peers`] is what people would use instead, `cublaslt` NVIDIA's products (feature `cuda`); [`suite`] takes turns with
//!   them and makes rows.
//! - [`report`] is the table, the JSON and the comparison with an earlier run; [`plot`] draws.

pub mod cases;
pub mod ceilings;
#[cfg(feature = "cuda")]
mod clocks;
#[cfg(feature = "cuda")]
pub mod cublaslt;
mod data;
#[cfg(feature = "cuda")]
mod gpu;
pub mod measure;
pub mod peers;
pub mod plot;
pub mod problem;
pub mod report;
pub mod suite;
pub mod verify;
