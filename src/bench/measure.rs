//! The timing loop that `ironwarp bench` and criterion's benches share.

use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};
use serde_json::json;

use super::cases::{Prepared, prepare};
use super::ceilings::Ceilings;
use super::problem::Problem;
use super::report::Facts;
use crate::cpu::Cpu;
use crate::cpu::Real;
use crate::error::{Error, Result};
use crate::ops::Backend;

/// A backend that can be timed.
pub trait Timed: Backend + Clone + 'static {
    /// What a run is timed with.
    type Stopwatch;

    /// Creates the stopwatch. One is created for all measurements, because it may allocate memory.
    ///
    /// # Errors
    /// [`Error::Unavailable`] on a device whose times are meaningless.
    fn stopwatch(&self) -> Result<Self::Stopwatch>;

    /// The time of the work that `run` starts.
    ///
    /// # Errors
    /// Those of `run`.
    fn time(&self, stopwatch: &mut Self::Stopwatch, run: &mut dyn FnMut() -> Result<()>) -> Result<Duration>;

    /// Size in bytes of the cache that must be cold at the start of a run; 0 where runs are timed on warm caches.
    fn cache_bytes(stopwatch: &Self::Stopwatch) -> u64;

    /// Measures the peak rates of the device.
    ///
    /// # Errors
    /// Those of a launch.
    fn ceilings(&self, stopwatch: &mut Self::Stopwatch) -> Result<Ceilings>;

    /// Device, software versions and settings of the run: a figure without them cannot be compared.
    fn facts(&self, stopwatch: &Self::Stopwatch) -> Facts;
}

/// Timed by wall clock; operations run one after the other, on warm caches.
impl<R: Real> Timed for Cpu<R> {
    type Stopwatch = ();

    fn stopwatch(&self) -> Result<()> {
        Ok(())
    }

    fn time(&self, (): &mut (), run: &mut dyn FnMut() -> Result<()>) -> Result<Duration> {
        let start = Instant::now();
        run()?;
        Ok(start.elapsed())
    }

    fn cache_bytes((): &()) -> u64 {
        0
    }

    fn ceilings(&self, (): &mut ()) -> Result<Ceilings> {
        Ceilings::of_cpu(self)
    }

    fn facts(&self, (): &()) -> Facts {
        let details = json!({"type": R::NAME, "threads": rayon::current_num_threads()});
        Facts::new(cpu_name(), details)
    }
}

/// The model name from /proc/cpuinfo, or the architecture if there is none.
fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| format!("{} CPU", std::env::consts::ARCH), |(_, name)| name.to_owned())
}

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Time of the warm-up, whose runs are not counted.
    pub warm_up: Duration,
    /// Time to take samples for.
    pub budget: Duration,
    /// Minimum number of samples, even if that exceeds the budget.
    pub min_samples: usize,
    /// Maximum number of samples.
    pub max_samples: usize,
}

impl Effort {
    /// Spends about `budget` on a measurement.
    pub fn of(budget: Duration) -> Self {
        Effort { warm_up: budget / 8, budget, min_samples: 5, max_samples: 2000 }
    }
}

/// Statistics of measured times, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// The median.
    pub median_us: f64,
    /// The 10th percentile.
    pub p10_us: f64,
    /// The 90th percentile.
    pub p90_us: f64,
    /// Number of samples.
    pub samples: usize,
}

impl Times {
    /// Statistics of the samples; `None` if there are none.
    pub fn of(samples: &[Duration]) -> Option<Self> {
        let mut us: Vec<f64> = samples.iter().map(|sample| sample.as_secs_f64() * 1e6).collect();
        us.sort_by(f64::total_cmp);
        // Linear interpolation between the two nearest samples.
        let quantile = |q: f64| {
            let index = q * us.len().saturating_sub(1) as f64;
            let (below, above) = (us.get(index.floor() as usize)?, us.get(index.ceil() as usize)?);
            Some(below + (above - below) * index.fract())
        };
        Some(Times { median_us: quantile(0.5)?, p10_us: quantile(0.1)?, p90_us: quantile(0.9)?, samples: us.len() })
    }

    /// Combines rounds that were interleaved with other measurements: the mean of the medians, and the widest spread.
    /// `None` if there is no round.
    pub fn combine(rounds: &[Times]) -> Option<Self> {
        let (first, n) = (rounds.first()?, rounds.len() as f64);
        let mean = |value: fn(&Times) -> f64| rounds.iter().map(value).sum::<f64>() / n;
        Some(Times {
            median_us: mean(|times| times.median_us),
            p10_us: rounds.iter().fold(first.p10_us, |least, times| least.min(times.p10_us)),
            p90_us: rounds.iter().fold(first.p90_us, |most, times| most.max(times.p90_us)),
            samples: rounds.iter().map(|times| times.samples).sum(),
        })
    }
}

/// A problem that is run repeatedly, each time on the next of several sets of operands, so that a set's values are no
/// longer in the cache.
pub struct Subject<'a, B: Timed> {
    backend: &'a B,
    sets: Vec<Box<dyn Prepared<B>>>,
    next: usize,
}

impl<'a, B: Timed> Subject<'a, B> {
    /// Maximum number of sets of operands: more would only take memory.
    const MAX_SETS: usize = 8;

    /// Allocates enough sets of operands that a set has left the cache before it is used again, or fewer if memory runs
    /// out.
    ///
    /// # Errors
    /// When the first set cannot be allocated.
    pub fn new(backend: &'a B, stopwatch: &B::Stopwatch, problem: &Problem) -> Result<Self> {
        Self::of(backend, stopwatch, |seed| prepare(backend, problem, seed))
    }

    /// Like [`Subject::new`], with sets that `make` creates, each from its own seed.
    ///
    /// # Errors
    /// Those of `make`; out of memory only when the first set cannot be allocated.
    pub fn of(
        backend: &'a B,
        stopwatch: &B::Stopwatch,
        mut make: impl FnMut(u64) -> Result<Box<dyn Prepared<B>>>,
    ) -> Result<Self> {
        let mut first = make(1)?;
        let bytes = first.floor().bytes.max(1);
        let cache = B::cache_bytes(stopwatch);
        let count = (2 * cache).div_ceil(bytes).clamp(1, Self::MAX_SETS as u64);
        // At least two where caches matter: with one, a run would read what the run before it wrote.
        let count = if cache > 0 { count.max(2) } else { 1 };
        let mut sets = vec![first];
        for seed in 2..=count {
            match make(seed) {
                Ok(set) => sets.push(set),
                Err(Error::OutOfDeviceMemory(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Subject { backend, sets, next: 0 })
    }

    /// Minimum bytes and FLOPs of a run.
    pub fn floor(&mut self) -> crate::ops::Floor {
        self.sets[0].floor()
    }

    /// The time of one run.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn sample(&mut self, stopwatch: &mut B::Stopwatch) -> Result<Duration> {
        let index = self.next;
        self.next = (index + 1) % self.sets.len();
        let set = &mut self.sets[index];
        self.backend.time(stopwatch, &mut || set.run(self.backend))
    }

    /// Warms up, and then takes samples for the given effort.
    ///
    /// # Errors
    /// Those of the operation.
    pub fn measure(&mut self, stopwatch: &mut B::Stopwatch, effort: Effort) -> Result<Times> {
        let start = Instant::now();
        // Modules are loaded and CUDA graphs are captured on first use, which must not be timed: a training step has
        // captured all of its graphs after four runs.
        let mut runs = 0;
        while runs < 4 * self.sets.len() || start.elapsed() < effort.warm_up {
            self.sample(stopwatch)?;
            runs += 1;
        }
        let (start, mut samples) = (Instant::now(), Vec::new());
        while samples.len() < effort.min_samples
            || start.elapsed() < effort.budget && samples.len() < effort.max_samples
        {
            samples.push(self.sample(stopwatch)?);
        }
        Times::of(&samples).ok_or_else(|| Error::invalid("the effort allows no sample"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_lie_between_samples() {
        let samples: Vec<Duration> = [50, 10, 40, 20, 30].map(Duration::from_micros).to_vec();
        let times = Times::of(&samples).unwrap();
        assert_eq!((times.median_us, times.p10_us, times.p90_us, times.samples), (30.0, 14.0, 46.0, 5));
        assert_eq!(Times::of(&[]), None);
        let other = Times { median_us: 40.0, p10_us: 12.0, p90_us: 41.0, samples: 3 };
        let combined = Times::combine(&[times, other]).unwrap();
        assert_eq!((combined.median_us, combined.p10_us, combined.p90_us, combined.samples), (35.0, 12.0, 46.0, 8));
    }
}
