//! Timing of GPUs by CUDA events.

use std::time::Duration;

use serde_json::json;

use super::ceilings::Ceilings;
use super::clocks;
use super::measure::Timed;
use super::report::Facts;
use crate::cuda::Cuda;
use crate::cuda::ceilings::{ceiling_copy, ceiling_mma, ceiling_mma_len};
use crate::cuda::runtime::timing::Stopwatch;
use crate::error::Result;
use crate::tensor::Tensor;

/// Timed by events on the stream, with a cold L2 cache.
impl Timed for Cuda {
    type Stopwatch = Stopwatch;

    fn stopwatch(&self) -> Result<Stopwatch> {
        Stopwatch::new(self)
    }

    fn time(&self, stopwatch: &mut Stopwatch, run: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
        stopwatch.time(self, run)
    }

    fn cache_bytes(stopwatch: &Stopwatch) -> u64 {
        stopwatch.l2()
    }

    fn ceilings(&self, stopwatch: &mut Stopwatch) -> Result<Ceilings> {
        const RUNS: usize = 20;
        // Long enough that launch overhead, about 10 µs, is negligible: a copy of 1 GiB, and milliseconds of mma.
        let bytes = (1usize << 30).min(self.device().properties().memory as usize / 8) / 16 * 16;
        let source = Tensor::<Self, f32>::zeros(self, [bytes / 4])?;
        let mut target = Tensor::<Self, f32>::zeros(self, [bytes / 4])?;
        let mut copy_seconds = f64::INFINITY;
        for _ in 0..RUNS {
            let time = stopwatch.time(self, || ceiling_copy(self, source.view(), target.view_mut()))?;
            copy_seconds = copy_seconds.min(time.as_secs_f64());
        }
        let mut out = Tensor::<Self, f32>::zeros(self, [ceiling_mma_len(self)])?;
        let (mut flops, mut mma_seconds) = (0, f64::INFINITY);
        for _ in 0..RUNS {
            let time = stopwatch.time(self, || {
                flops = ceiling_mma(self, 1 << 14, out.view_mut())?;
                Ok(())
            })?;
            mma_seconds = mma_seconds.min(time.as_secs_f64());
        }
        Ok(Ceilings {
            copy_gb_per_s: 2.0 * bytes as f64 / copy_seconds / 1e9,
            compute_tflop_per_s: flops as f64 / mma_seconds / 1e12,
        })
    }

    fn facts(&self, stopwatch: &Stopwatch) -> Facts {
        let properties = self.device().properties();
        let [highest_sm, highest_memory] = self.highest_clocks();
        let (major, minor) = properties.capability;
        let details = json!({
            "driver": properties.driver,
            "compute_capability": format!("{major}.{minor}"),
            "multiprocessors": properties.sm_count,
            "memory_bytes": properties.memory,
            "l2_bytes": stopwatch.l2(),
            "highest_sm_clock_mhz": highest_sm,
            "highest_memory_clock_mhz": highest_memory,
            // Queried just after the ceilings were measured, so that the device is not idle.
            "clocks": clocks::now(self.pci_bus_id().as_deref()),
        });
        Facts::new(properties.name.clone(), details)
    }
}
