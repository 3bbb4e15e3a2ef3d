//! A CUDA driver library without a GPU.
//!
//! It exports what `libcuda.so` exports and executes kernels with [`ptx_emulator`]. The README beside this crate says
//! what it is for, what it does differently from a driver, and what can be set.
//!
//! - `boundary` holds all that touches a caller's memory; `export` is the gate that every entry passes.
//! - One file a driver object holds the object, its logic in safe code, and its entries.
//! - `driver` is the state, behind one lock; `queue` decides when an operation executes, `work` what it does.
//!
//! No lock is held while a kernel or a host function runs: other threads may call the driver meanwhile. One kernel, copy
//! or fill runs at a time, on the thread that waits for it; a kernel uses all cores by itself. Host functions run on
//! threads of their own.

mod boundary;
mod capture;
mod context;
mod control;
mod copy;
mod device;
mod driver;
mod error;
mod event;
mod export;
mod fault;
mod function;
mod graph;
mod launch;
mod library;
mod memory;
mod memset;
mod module;
mod occupancy;
mod pinned;
mod pointer_info;
mod pool;
mod proc_address;
mod queue;
mod random;
mod record;
mod settings;
mod stream;
mod unsupported;
mod work;
