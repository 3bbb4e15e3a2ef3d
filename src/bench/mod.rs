//! Benchmarks: the time of every operation, compared with its floor (minimum bytes and FLOPs) and with its peers.
//!
//! - [`problem`] is an operation with its sizes, [`cases`] the list of operations with their operands, `data` the
//!   random values of the operands.
//! - [`verify`] compares a backend's results with the reference before anything is timed.
//! - [`measure`] is the timing loop: wall clock on the CPU, CUDA events on a GPU (`gpu`). [`ceilings`] are the measured
//!   peak rates of the device.
//! - [`peers`] are the libraries that people would use instead; `cublaslt` is NVIDIA's matmul library (feature `cuda`).
//!   [`suite`] interleaves them with our operations and makes the rows of the results.
//! - [`report`] is the table, the JSON and the comparison with an earlier run; `plot` (feature `plots`) draws the results.
//!
//! ```
//! use std::time::Duration;
//!
//! use ironwarp::bench::cases;
//! use ironwarp::bench::measure::{Effort, Subject};
//! use ironwarp::bench::verify::verify;
//! use ironwarp::cpu::Cpu;
//!
//! let cpu = Cpu::<f32>::new();
//! let info = cases::select(&["gelu_forward".into()])?[0];
//! let problem = &info.small()[0];
//! verify(&cpu, info, problem)?; // a wrong operation is not timed
//! let times = Subject::new(&cpu, &(), problem)?.measure(&mut (), Effort::of(Duration::from_millis(1)))?;
//! assert!(times.median_us > 0.0);
//! # Ok::<(), ironwarp::Error>(())
//! ```

pub mod cases;
pub mod ceilings;
#[cfg(feature = "cuda")]
mod clocks;
#[cfg(feature = "cuda")]
pub mod cublaslt;
mod data;
#[cfg(feature = "cuda")]
mod gpu;
pub mod measure;
pub mod peers;
#[cfg(feature = "plots")]
pub mod plot;
pub mod problem;
pub mod report;
pub mod suite;
pub mod verify;
