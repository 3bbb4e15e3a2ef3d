//! The exported functions of the driver API, one file per object or group.

mod capture;
mod context;
mod copy;
mod device;
mod error;
mod event;
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
mod stream;
mod unsupported;
