//! Executes PTX on the CPU and checks every access, barrier and fence.
//!
//! A text passes through these stages:
//!
//! - [`parse`]: text to [`ast`];
//! - `lower`: resolves names, decodes instructions and allocates registers, which gives the program of `ir`;
//! - `exec`: executes blocks and warps, 32 lanes at a time, with the arithmetic of [`alu`], the bytes of [`memory`] and
//!   the race check of `race`;
//! - [`observe`]: the findings and counts of an execution.
//!
//! The crate knows no CUDA types; the driver library is built on it.
//!
//! ```
//! use ptx_emulator::memory::Memory;
//! use ptx_emulator::{Arch, Launch, Module, Settings};
//!
//! let ptx = "
//!     .version 8.0
//!     .target sm_80
//!     .address_size 64
//!     .visible .entry store(.param .u64 out) {
//!         .reg .b64 %rd<2>;
//!         ld.param.u64 %rd1, [out];
//!         st.global.u32 [%rd1], 7;
//!         ret;
//!     }";
//! let memory = Memory::new(1 << 20);
//! let limits = Arch::SM_80.limits().unwrap();
//! let module = Module::load(ptx, Arch::SM_80, &memory)?;
//! let out = memory.allocate(4)?;
//! let launch = Launch {
//!     kernel: module.kernel("store").unwrap(),
//!     grid: [1; 3],
//!     block: [1; 3],
//!     cluster: [1; 3],
//!     dynamic_shared: 0,
//!     shared_limit: 48 << 10,
//!     params: &out.to_le_bytes(),
//! };
//! let counts = launch.run(&memory, &limits, &Settings::default())?;
//! assert_eq!(counts.global_stores.bytes, 4);
//! let mut bytes = [0; 4];
//! memory.read(out, &mut bytes)?;
//! assert_eq!(bytes, [7, 0, 0, 0]);
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```

#![forbid(unsafe_code)]

mod address_space;
pub mod alu;
pub mod ast;
pub mod device;
mod error;
mod exec;
mod ir;
mod launch;
mod lower;
pub mod memory;
mod module;
pub mod observe;
pub mod parse;
mod race;
pub mod registers;
pub mod source_map;

pub use device::{Arch, Limits};
pub use error::{LaunchError, LoadError};
pub use launch::{Launch, Settings};
pub use module::{Global, Kernel, Module, Param};
