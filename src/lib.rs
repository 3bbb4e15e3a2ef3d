//! Ironwarp: hand-written CUDA kernels for GPT-2 with Rust bindings, and a GPT-2 trainer built on them.

#[cfg(feature = "bench")]
pub mod bench;
pub mod cpu;
#[cfg(feature = "cuda")]
pub mod cuda;
pub mod error;
mod files;
pub mod memory;
pub mod model;
pub mod ops;
#[cfg(all(feature = "bench", feature = "cuda"))]
pub mod profile;
pub mod tensor;
#[cfg(feature = "train")]
pub mod text;
#[cfg(feature = "train")]
pub mod train;

pub use error::{Error, Result};
