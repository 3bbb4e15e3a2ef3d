//! What kernels do, counted: on the emulated GPU and from the machine code, without a time.
//!
//! - [`counts`] runs a problem on the emulated GPU and sets what it moved beside the floor.
//! - [`occupancy`] and [`sass`] say what the built kernels take, and of which instructions their main loop is made.
//! - [`check`] holds counts against those of a file, and names the lines that differ.
//! - [`report`] prints: a table, annotated source, a page.

pub mod check;
pub mod counts;
pub mod occupancy;
pub mod report;
pub mod sass;
mod sources;
