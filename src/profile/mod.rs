//! Profiles of kernels without a GPU: counts from the emulated GPU, and resources and instructions from the machine
//! code. There are no times.
//!
//! - [`counts`] runs a problem on the emulated GPU and compares the bytes that it requests with the floor (minimum
//!   bytes).
//! - [`occupancy`] computes the theoretical occupancy of the compiled kernels, and [`sass`] reads the instruction mix
//!   of their main loop.
//! - [`check`] compares counts with those of a file, and names the lines that differ.
//! - [`report`] prints profiles as a table, as annotated source and as an HTML page.
//!
//! ```
//! use ironwarp::bench::cases;
//! use ironwarp::cuda::Cuda;
//! use ironwarp::profile::counts::Profiler;
//!
//! let gpu = Cuda::emulated()?;
//! let info = cases::select(&["gelu_forward".into()])?[0];
//! let profile = Profiler::new(&gpu)?.profile(info, &info.small()[0])?;
//! assert_eq!(profile.kernels[0].kernel, "gelu_forward");
//! # Ok::<(), ironwarp::Error>(())
//! ```

pub mod check;
pub mod counts;
pub mod occupancy;
pub mod report;
pub mod sass;
mod sources;
