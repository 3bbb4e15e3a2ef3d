//! Data races by the memory model: two accesses race unless barriers, fences or atomics order them, whatever order they
//! happened to execute in.
//!
//! Every access leaves an [epoch reference](epoch::EpochRef) in the [`shadow`] of the bytes that it accessed: the
//! id of an [`Epoch`](epoch::Epoch) (block, warp, time and instruction, kept in an [epoch table](epoch_table)) and a
//! lane. A thread's [`clock`] says which epochs happened before the thread's next access. Readers that are not
//! ordered among each other form sets ([`read_set`] for device memory).
//!
//! The scheme is that of FastTrack (Flanagan and Freund, 2009), with one clock per block instead of one per thread.

pub mod clock;
pub mod epoch;
pub mod epoch_table;
mod read_set;
pub mod shadow;
mod table;

#[cfg(test)]
mod tests;
