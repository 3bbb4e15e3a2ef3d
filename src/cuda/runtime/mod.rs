//! The device at run time. Each layer uses only those listed before it:
//!
//! - `faults`, `latch`: result codes of the driver, and the latch that keeps a poisoned device poisoned; [`driver`] finds
//!   and loads the driver.
//! - `modules`: loaded kernels. `capture`: what a capturing thread's launches use.
//! - `stream`: the one launch and the one wait. `event`: points in the stream's order.
//! - `memory`: allocations, accounting, the workspace. `transfers`: host-to-device copies that overlap with kernels.
//!   `graph`: capture and replay.
//! - [`device`]: a facade over them, and the handle [`Cuda`]. `storage`: tensors on it. `external`: memory shared with
//!   the program's own CUDA code.
//! - [`timing`] measures on a GPU; [`emulation`] counts on the emulated one.

pub mod device;
pub mod driver;
pub mod emulation;
pub mod timing;

mod capture;
mod event;
mod external;
mod faults;
mod graph;
mod latch;
mod memory;
mod modules;
mod storage;
mod stream;
mod transfers;

pub use device::Cuda;
pub use event::Event;
pub use graph::Graph;
pub(crate) use storage::Operand;
pub use storage::{Buffer, SliceMut};
