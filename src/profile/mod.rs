//! What the built kernels say of themselves before they are timed: occupancy, and machine code.

pub mod occupancy;
pub mod sass;
