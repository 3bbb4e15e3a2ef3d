//! PTX, executed on the CPU and checked.
//!
//! `parse` (text → [`ast`]) → `lower` (names resolved, registers placed) → `exec` (blocks, warps, 32 lanes at a time)
//! → `observe` (findings and counts). The crate knows of no CUDA types; the driver library is built on it.

#![forbid(unsafe_code)]

pub mod alu;
pub mod ast;
pub mod device;
mod exec;
mod ir;
mod launch;
mod lower;
pub mod memory;
mod module;
pub mod mutate;
pub mod observe;
pub mod parse;
mod place;
mod race;
pub mod registers;

pub use device::{Arch, Limits};
pub use launch::{Launch, LaunchError, Settings};
pub use module::{Global, Kernel, LoadError, Module, Param};
