//! Data races, judged by meaning: two accesses race unless barriers, fences or atomics order them, whatever order
//! happened to run.
//!
//! Every access leaves a *mark* in the shadow of the bytes it touched ([`shadow`]). A mark names a *stamp* (block, warp,
//! time and instruction: [`stamp`], in a [`table`]) and a lane. A thread's [`clock`] says which stamps it is ordered behind. The
//! scheme is FastTrack's (Flanagan and Freund, 2009), with one clock a block instead of one a thread.

pub mod clock;
mod crowd;
pub mod shadow;
pub mod stamp;
pub mod table;

#[cfg(test)]
mod tests;
