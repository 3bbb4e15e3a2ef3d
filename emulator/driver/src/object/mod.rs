//! The objects of the driver API as data. They do not know the driver's state; `entries` has the functions that use them.

pub mod allocation;
pub mod capture;
pub mod context;
pub mod event;
pub mod function;
pub mod graph;
pub mod library;
pub mod module;
pub mod pinned;
pub mod pool;
pub mod stream;
