//! Ironwarp: hand-written CUDA kernels for GPT-2 with Rust bindings, and the GPT-2 trainer built on them.

pub mod error;
pub mod model;
mod storage;
pub mod train;

pub use error::{Error, Result};
