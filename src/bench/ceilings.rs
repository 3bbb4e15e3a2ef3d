//! The measured peak rates of a device, which bound the time of every operation from below.

use std::fmt;
use std::time::Instant;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};

use super::cases::{self, prepare};
use super::problem::Problem;
use crate::cpu::{Cpu, Real};
use crate::error::Result;
use crate::ops::Floor;

/// What limits the speed of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Bound {
    /// Memory bandwidth.
    Memory,
    /// Arithmetic throughput.
    Compute,
}

impl fmt::Display for Bound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(if *self == Bound::Memory { "memory" } else { "compute" })
    }
}

/// The highest measured rates of a device.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Ceilings {
    /// Rate of a large copy in GB/s; bytes read and bytes written both count.
    pub copy_gb_per_s: f64,
    /// Rate of matrix multiplication in the compute type in TFLOP/s: `mma` on registers on a GPU, the CPU backend's
    /// matmul on a CPU.
    pub compute_tflop_per_s: f64,
}

impl Ceilings {
    /// The minimum time of an operation with this floor in microseconds, and which of its two limits sets it.
    pub fn floor_us(&self, floor: Floor) -> (f64, Bound) {
        let memory = floor.bytes as f64 / (self.copy_gb_per_s * 1e3);
        let compute = floor.flops as f64 / (self.compute_tflop_per_s * 1e6);
        if compute > memory { (compute, Bound::Compute) } else { (memory, Bound::Memory) }
    }

    /// Measures a CPU with all of rayon's threads.
    pub(super) fn of_cpu<R: Real>(cpu: &Cpu<R>) -> Result<Self> {
        const RUNS: usize = 5;
        // 256 MiB: several times the last-level cache of most CPUs.
        let source = vec![1u64; 32 << 20];
        let mut target = vec![0u64; source.len()];
        let chunk = source.len().div_ceil(rayon::current_num_threads());
        let copy =
            || target.par_chunks_mut(chunk).zip(source.par_chunks(chunk)).for_each(|(t, s)| t.copy_from_slice(s));
        let seconds = fastest(RUNS, copy);
        let copy_gb_per_s = 2.0 * size_of_val(&source[..]) as f64 / seconds / 1e9;

        let matmul = cases::ALL.iter().find(|info| info.op == "matmul_forward");
        let matmul = matmul.map(|info| Problem::new(info, vec![1024; 3], "none")).expect("a matmul among the cases");
        let mut matmul = prepare(cpu, &matmul, 1)?;
        let flops = matmul.floor().flops as f64;
        matmul.run(cpu)?;
        // Errors can be ignored here: the run above returned none.
        let seconds = fastest(RUNS, || drop(matmul.run(cpu)));
        Ok(Ceilings { copy_gb_per_s, compute_tflop_per_s: flops / seconds / 1e12 })
    }
}

/// Seconds of the fastest of several runs.
fn fastest(runs: usize, mut run: impl FnMut()) -> f64 {
    let mut time = || {
        let start = Instant::now();
        run();
        start.elapsed().as_secs_f64()
    };
    (0..runs).map(|_| time()).fold(f64::INFINITY, f64::min)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_larger_of_two_times_is_the_floor() {
        let ceilings = Ceilings { copy_gb_per_s: 4000.0, compute_tflop_per_s: 800.0 };
        // 4 MB at 4 TB/s, 1.6 GFLOP at 800 TFLOP/s.
        let floor = |bytes, flops| ceilings.floor_us(Floor { bytes, flops });
        assert_eq!(floor(4_000_000, 0), (1.0, Bound::Memory));
        assert_eq!(floor(4_000_000, 1_600_000_000), (2.0, Bound::Compute));
    }
}
