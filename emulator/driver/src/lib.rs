//! A CUDA driver library without a GPU.
//!
//! It exports what `libcuda.so` exports and executes kernels with [`ptx_emulator`]. The README of this crate says what the
//! library is for, how it differs from a driver, and what can be configured.
//!
//! Each layer uses only those above it:
//!
//! - `boundary`: the types through which all memory of a caller is accessed; `error`, `codes` and `report`: result codes
//!   and messages.
//! - `export`: what every exported function does first; `fault`: injected faults; `settings`: the environment.
//! - `object`: the objects of the API as data, and `work`: the operations of streams.
//! - `queue`: operations that have not been executed.
//! - `driver`: the state, behind one lock; `executor`: executes the operations that a call waits for.
//! - `entries`: the exported functions of the API; `control`: the library's own functions.
//!
//! The lock is not held while a kernel or a host function runs, so other threads may call the driver meanwhile. One
//! kernel, copy or fill executes at a time, on the thread that waits for it; a kernel uses all cores by itself. Host
//! functions run on threads of their own.

mod boundary;
mod codes;
mod control;
mod copy;
mod driver;
mod entries;
mod error;
mod executor;
mod export;
mod fault;
mod fault_rule;
mod function_names;
mod handle;
mod launch_shape;
mod object;
mod queue;
mod random;
mod record;
mod report;
mod settings;
mod work;
