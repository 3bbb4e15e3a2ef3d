//! The correct kernels: shapes, inputs and references, with one file per kernel file.

mod chained_scan;
mod collatz;
mod grid_sum;
mod histogram;
mod matmul;
mod partial_warp;
mod producer_consumer;
mod relay;
mod reverse;
mod row_sum;
mod transpose;
mod warp_sort;

use ptx_emulator::Settings;

use crate::mutate::Outcome;
use crate::{CORRECT, Case, Device, Failure, ptx};

/// A kernel and its cases. The kernel's file has its name.
#[derive(Debug, Clone)]
pub struct Trial {
    pub kernel: &'static str,
    pub cases: Vec<Case>,
}

/// All trials, in the order of their names.
pub fn trials() -> Vec<Trial> {
    vec![
        Trial { kernel: "chained_scan", cases: chained_scan::cases() },
        Trial { kernel: "collatz", cases: collatz::cases() },
        Trial { kernel: "grid_sum", cases: grid_sum::cases() },
        Trial { kernel: "histogram", cases: histogram::cases() },
        Trial { kernel: "matmul", cases: matmul::cases() },
        Trial { kernel: "partial_warp", cases: partial_warp::cases() },
        Trial { kernel: "producer_consumer", cases: producer_consumer::cases() },
        Trial { kernel: "relay", cases: relay::cases() },
        Trial { kernel: "reverse", cases: reverse::cases() },
        Trial { kernel: "row_sum", cases: row_sum::cases() },
        Trial { kernel: "transpose", cases: transpose::cases() },
        Trial { kernel: "warp_sort", cases: warp_sort::cases() },
    ]
}

/// A step budget far above the steps of any case.
const STEP_BUDGET: u64 = 200_000;

/// Settings for a run that gives the same bits when it is repeated, whatever the kernel does.
pub fn settings(seed: u64) -> Settings {
    Settings { seed, threads: 1, step_budget: STEP_BUDGET, ..Settings::default() }
}

impl Trial {
    /// The kernel's PTX.
    pub fn ptx(&self) -> &'static str {
        ptx(CORRECT, self.kernel)
    }

    /// Runs all cases with the PTX `ptx`; returns everything that they write, or the first error or finding.
    pub fn outcome(&self, ptx: &str, seed: u64) -> Outcome {
        let device = match Device::load(ptx) {
            Ok(device) => device,
            Err(error) => return Outcome::Invalid(error.to_string()),
        };
        let mut bits = Vec::new();
        for case in &self.cases {
            match device.run(self.kernel, case, &settings(seed)) {
                Ok(done) => bits.extend(done.bits()),
                Err(Failure::Launch(error)) => return Outcome::Stopped(format!("{}: {error}", case.shape)),
                Err(error @ Failure::Load(_)) => return Outcome::Invalid(error.to_string()),
            }
        }
        Outcome::Bits(bits)
    }
}

/// A one-dimensional launch.
fn case(shape: String, purpose: &'static str, grid: u32, block: u32, args: Vec<crate::Arg>) -> Case {
    Case { shape, purpose, grid: [grid, 1, 1], block: [block, 1, 1], dynamic_shared: 0, args }
}

/// A bound on the rounding error of an f32 sum of terms with these magnitudes, in any order with at most `depth`
/// additions in a row.
fn sum_tolerance(magnitudes: impl Iterator<Item = f64>, depth: usize) -> f64 {
    magnitudes.sum::<f64>() * depth as f64 * f64::from(f32::EPSILON) / 2.0
}
