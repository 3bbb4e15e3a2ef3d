//! GPUs, timed by events.

use std::time::Duration;

use serde_json::json;

use super::ceilings::Ceilings;
use super::clocks;
use super::measure::Timed;
use super::report::Facts;
use crate::cuda::Cuda;
use crate::cuda::ceilings::{ceiling_copy, ceiling_mma, ceiling_mma_len};
use crate::cuda::timing::Stopwatch;
use crate::error::Result;
use crate::tensor::Tensor;

/// Events on the stream, on a cold L2 cache.
impl Timed for Cuda {
    type Stopwatch = Stopwatch;

    fn stopwatch(&self) -> Result<Stopwatch> {
        Stopwatch::new(self)
    }

    fn time(&self, stopwatch: &mut Stopwatch, run: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
        stopwatch.time(self, run)
    }

    fn cache(stopwatch: &Stopwatch) -> u64 {
        stopwatch.l2()
    }

    fn ceilings(&self, stopwatch: &mut Stopwatch) -> Result<Ceilings> {
        const TURNS: usize = 20;
        // Long enough that starting and ending, about 10 µs, are nothing: a GB each way; milliseconds of products.
        let bytes = (1usize << 30).min(self.device().properties().memory as usize / 8) / 16 * 16;
        let source = Tensor::<Self, f32>::zeros(self, [bytes / 4])?;
        let mut target = Tensor::<Self, f32>::zeros(self, [bytes / 4])?;
        let mut copy_seconds = f64::INFINITY;
        for _ in 0..TURNS {
            let time = stopwatch.time(self, || ceiling_copy(self, source.view(), target.view_mut()))?;
            copy_seconds = copy_seconds.min(time.as_secs_f64());
        }
        let mut out = Tensor::<Self, f32>::zeros(self, [ceiling_mma_len(self)])?;
        let (mut flops, mut product_seconds) = (0, f64::INFINITY);
        for _ in 0..TURNS {
            let time = stopwatch.time(self, || {
                flops = ceiling_mma(self, 1 << 14, out.view_mut())?;
                Ok(())
            })?;
            product_seconds = product_seconds.min(time.as_secs_f64());
        }
        Ok(Ceilings {
            copy_gb_per_s: 2.0 * bytes as f64 / copy_seconds / 1e9,
            compute_tflop_per_s: flops as f64 / product_seconds / 1e12,
        })
    }

    fn facts(&self, stopwatch: &Stopwatch) -> Facts {
        let properties = self.device().properties();
        let [highest_sm, highest_memory] = self.highest_clocks();
        let (major, minor) = properties.capability;
        let details = json!({
            "driver": properties.driver,
            "compute_capability": format!("{major}.{minor}"),
            "multiprocessors": properties.multiprocessors,
            "memory_bytes": properties.memory,
            "l2_bytes": stopwatch.l2(),
            "highest_sm_clock_mhz": highest_sm,
            "highest_memory_clock_mhz": highest_memory,
            // Asked just after the ceilings, when the device has been busy.
            "clocks": clocks::now(self.pci_bus_id().as_deref()),
        });
        Facts::new(properties.name.clone(), details)
    }
}
