//! Profiles of kernels without a GPU: counts from the emulated GPU, and resources and instructions from the machine
//! code. There are no times.
//!
//! - [`counts`] runs a problem on the emulated GPU and compares the bytes that it requests with the floor (minimum
//!   bytes).
//! - [`occupancy`] computes the theoretical occupancy of the compiled kernels, and [`sass`] reads the instruction mix
//!   of their main loop.
//! - [`check`] compares counts with those of a file, and names the lines that differ.
//! - [`report`] prints profiles as a table, as annotated source and as an HTML page.

pub mod check;
pub mod counts;
pub mod occupancy;
pub mod report;
pub mod sass;
mod sources;
