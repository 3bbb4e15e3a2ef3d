//! The measuring core: what `ironwarp bench` and criterion's benches time with.

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
    /// What it is timed with.
    type Stopwatch;

    /// Made once, as it may hold memory.
    ///
    /// # Errors
    /// [`Error::Unavailable`] where times mean nothing.
    fn stopwatch(&self) -> Result<Self::Stopwatch>;

    /// How long what `run` starts takes.
    ///
    /// # Errors
    /// As `run`.
    fn time(&self, stopwatch: &mut Self::Stopwatch, run: &mut dyn FnMut() -> Result<()>) -> Result<Duration>;

    /// Bytes that runs after each other must touch for the first to have left the caches; 0 where runs find warm caches.
    fn cache(stopwatch: &Self::Stopwatch) -> u64;

    /// The rates of this device that no operation can pass.
    ///
    /// # Errors
    /// As a launch.
    fn ceilings(&self, stopwatch: &mut Self::Stopwatch) -> Result<Ceilings>;

    /// What a figure is worth nothing without.
    fn facts(&self, stopwatch: &Self::Stopwatch) -> Facts;
}

/// Wall clock; operations run one after the other, on warm caches.
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

    fn cache((): &()) -> u64 {
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

/// As the system calls it, where it does.
fn cpu_name() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let name = info.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    name.map_or_else(|| format!("{} CPU", std::env::consts::ARCH), |(_, name)| name.to_owned())
}

/// How long to measure.
#[derive(Debug, Clone, Copy)]
pub struct Effort {
    /// Before anything counts.
    pub warm_up: Duration,
    /// For samples.
    pub budget: Duration,
    /// Samples at least, though the budget be spent.
    pub least: usize,
    /// Samples at most.
    pub most: usize,
}

impl Effort {
    /// Spends about `budget` on a measurement.
    pub fn of(budget: Duration) -> Self {
        Effort { warm_up: budget / 8, budget, least: 5, most: 2000 }
    }
}

/// What was measured, in microseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Times {
    /// The median.
    pub median_us: f64,
    /// A tenth of the samples are below.
    pub p10_us: f64,
    /// A tenth of the samples are above.
    pub p90_us: f64,
    /// How many there are.
    pub samples: usize,
}

impl Times {
    /// Of samples; none without a sample.
    pub fn of(samples: &[Duration]) -> Option<Self> {
        let mut us: Vec<f64> = samples.iter().map(|sample| sample.as_secs_f64() * 1e6).collect();
        us.sort_by(f64::total_cmp);
        // Between the two nearest samples.
        let quantile = |q: f64| {
            let place = q * us.len().saturating_sub(1) as f64;
            let (below, above) = (us.get(place.floor() as usize)?, us.get(place.ceil() as usize)?);
            Some(below + (above - below) * place.fract())
        };
        Some(Times { median_us: quantile(0.5)?, p10_us: quantile(0.1)?, p90_us: quantile(0.9)?, samples: us.len() })
    }

    /// Of rounds that took turns with something else: the mean of the medians, and the widest spread.
    pub fn join(rounds: &[Times]) -> Option<Self> {
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

/// A problem that is run again and again, each time on other operands.
pub struct Subject<'a, B: Timed> {
    backend: &'a B,
    sets: Vec<Box<dyn Prepared<B>>>,
    next: usize,
}

impl<'a, B: Timed> Subject<'a, B> {
    /// Sets of operands at most: more would only take memory.
    const MOST_SETS: usize = 8;

    /// Allocates so many sets of operands that each is out of the caches when its turn comes again, as far as there is memory.
    ///
    /// # Errors
    /// When not even one set finds room.
    pub fn new(backend: &'a B, stopwatch: &B::Stopwatch, problem: &Problem) -> Result<Self> {
        Self::of(backend, stopwatch, |seed| prepare(backend, problem, seed))
    }

    /// Of sets that `make` makes, each from a seed of its own.
    ///
    /// # Errors
    /// As `make`; lack of memory only where not even one set finds room.
    pub fn of(
        backend: &'a B,
        stopwatch: &B::Stopwatch,
        mut make: impl FnMut(u64) -> Result<Box<dyn Prepared<B>>>,
    ) -> Result<Self> {
        let mut first = make(1)?;
        let bytes = first.floor().bytes.max(1);
        let wanted = (2 * B::cache(stopwatch)).div_ceil(bytes).clamp(1, Self::MOST_SETS as u64);
        // Two at least where caches matter: what a run wrote is what the next would read.
        let wanted = if B::cache(stopwatch) > 0 { wanted.max(2) } else { 1 };
        let mut sets = vec![first];
        for seed in 2..=wanted {
            match make(seed) {
                Ok(set) => sets.push(set),
                Err(Error::OutOfDeviceMemory(_)) => break,
                Err(error) => return Err(error),
            }
        }
        Ok(Subject { backend, sets, next: 0 })
    }

    /// Fewest bytes and FLOPs of a run.
    pub fn floor(&mut self) -> crate::ops::Floor {
        self.sets[0].floor()
    }

    /// One run.
    ///
    /// # Errors
    /// As the operation.
    pub fn sample(&mut self, stopwatch: &mut B::Stopwatch) -> Result<Duration> {
        let place = self.next;
        self.next = (place + 1) % self.sets.len();
        let set = &mut self.sets[place];
        self.backend.time(stopwatch, &mut || set.run(self.backend))
    }

    /// Many runs.
    ///
    /// # Errors
    /// As the operation.
    pub fn measure(&mut self, stopwatch: &mut B::Stopwatch, effort: Effort) -> Result<Times> {
        let start = Instant::now();
        // What is loaded or made when it is first used does not count: a training step has all of its CUDA graphs after four.
        let mut runs = 0;
        while runs < 4 * self.sets.len() || start.elapsed() < effort.warm_up {
            self.sample(stopwatch)?;
            runs += 1;
        }
        let (start, mut samples) = (Instant::now(), Vec::new());
        while samples.len() < effort.least || start.elapsed() < effort.budget && samples.len() < effort.most {
            samples.push(self.sample(stopwatch)?);
        }
        Times::of(&samples).ok_or_else(|| Error::invalid("no sample was asked for"))
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
        let joined = Times::join(&[times, other]).unwrap();
        assert_eq!((joined.median_us, joined.p10_us, joined.p90_us, joined.samples), (35.0, 12.0, 46.0, 8));
    }
}
