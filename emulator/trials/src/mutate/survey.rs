//! Running mutants.

use std::fmt;
use std::num::NonZero;
use std::sync::Mutex;
use std::thread;

use super::mutant::{Class, Mutant};

/// The outcome of running a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The run completed; the bits of its outputs.
    Bits(Vec<u8>),
    /// The run was stopped by a finding, or the launch was rejected.
    Stopped(String),
    /// The text did not load.
    Invalid(String),
}

/// What killed a mutant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum KilledBy {
    /// A finding, with its message.
    Finding(String),
    WrongBits,
}

/// Whether a mutant was killed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Status {
    /// `seed` is the first one that killed the mutant.
    Killed {
        seed: u64,
        by: KilledBy,
    },
    Survived,
}

/// Mutants and whether they were killed. `Display` writes a table and the survivors; `{:#}` also writes every mutant.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    pub results: Vec<(Mutant, Status)>,
}

/// Why a survey is not possible.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SurveyError {
    /// The original text does not run to the end.
    #[error("the original, seed {seed}: {message}")]
    Original { seed: u64, message: String },
    /// The original text's results depend on the seed, so they cannot be compared with a mutant's.
    #[error("the original gives different bits with seed {seed} than with seed {first}")]
    Nondeterministic { first: u64, seed: u64 },
    /// A mutant is not valid PTX.
    #[error("{mutant}: {message}")]
    Invalid { mutant: Box<Mutant>, message: String },
}

/// Runs each of the mutants of `ptx` with one seed after another until a seed kills it.
///
/// `run(text, seed)` runs a text, each time with the same inputs. Mutants may loop endlessly, so it must set a step budget.
/// It is called from several threads.
///
/// # Errors
/// [`SurveyError`]: the original is stopped or gives different bits, or a mutant does not load.
pub fn survey(
    ptx: &str,
    mutants: &[Mutant],
    seeds: &[u64],
    run: impl Fn(&str, u64) -> Outcome + Sync,
) -> Result<Survey, SurveyError> {
    let mut expected = None;
    for &seed in seeds {
        match (run(ptx, seed), &expected) {
            (Outcome::Bits(bits), None) => expected = Some((seed, bits)),
            (Outcome::Bits(bits), Some((_, first))) if bits == *first => {}
            (Outcome::Bits(_), &Some((first, _))) => return Err(SurveyError::Nondeterministic { first, seed }),
            (Outcome::Stopped(message) | Outcome::Invalid(message), _) => {
                return Err(SurveyError::Original { seed, message });
            }
        }
    }
    let expected = expected.map(|(_, bits)| bits).unwrap_or_default();
    let run_mutant = |mutant: &Mutant| {
        let text = mutant.apply(ptx);
        for &seed in seeds {
            let by = match run(&text, seed) {
                Outcome::Bits(bits) if bits == expected => continue,
                Outcome::Bits(_) => KilledBy::WrongBits,
                Outcome::Stopped(message) => KilledBy::Finding(message),
                Outcome::Invalid(message) => {
                    return Err(SurveyError::Invalid { mutant: Box::new(mutant.clone()), message });
                }
            };
            return Ok(Status::Killed { seed, by });
        }
        Ok(Status::Survived)
    };
    let mut results = in_parallel(mutants, &run_mutant);
    results.sort_by_key(|(index, _)| *index);
    let results = results.into_iter().zip(mutants).map(|((_, status), mutant)| Ok((mutant.clone(), status?)));
    Ok(Survey { results: results.collect::<Result<_, SurveyError>>()? })
}

/// Calls `run` for each mutant; returns the results with the mutants' indices, in any order.
fn in_parallel<R: Send>(mutants: &[Mutant], run: &(impl Fn(&Mutant) -> R + Sync)) -> Vec<(usize, R)> {
    let waiting = Mutex::new(mutants.iter().enumerate());
    let work = || {
        let mut done = Vec::new();
        // A poisoned lock means that another worker panicked, and the scope passes that on.
        while let Some((index, mutant)) = waiting.lock().ok().and_then(|mut waiting| waiting.next()) {
            done.push((index, run(mutant)));
        }
        done
    };
    let workers = thread::available_parallelism().map_or(1, NonZero::get);
    thread::scope(|scope| {
        let workers: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        let results = workers.into_iter().map(|worker| worker.join());
        results.flat_map(|result| result.unwrap_or_else(|panic| std::panic::resume_unwind(panic))).collect()
    })
}

impl Survey {
    /// Mutants that no seed killed.
    pub fn survivors(&self) -> impl Iterator<Item = &Mutant> {
        self.results.iter().filter(|(_, status)| *status == Status::Survived).map(|(mutant, _)| mutant)
    }

    /// (killed, total) of a class.
    pub fn of_class(&self, class: Class) -> (usize, usize) {
        let of_class = || self.results.iter().filter(|(mutant, _)| mutant.kind.class() == class);
        (of_class().filter(|(_, status)| *status != Status::Survived).count(), of_class().count())
    }

    /// (killed, total) of all mutants.
    pub fn total(&self) -> (usize, usize) {
        Class::ALL
            .into_iter()
            .map(|class| self.of_class(class))
            .fold((0, 0), |(k, t), (killed, total)| (k + killed, t + total))
    }

    /// Adds the mutants of another kernel.
    pub fn merge(&mut self, other: Survey) {
        self.results.extend(other.results);
    }
}

impl fmt::Display for Survey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            for (mutant, status) in &self.results {
                match status {
                    Status::Killed { seed, by: KilledBy::Finding(message) } => {
                        writeln!(f, "{mutant}\n    seed {seed}: {message}")?;
                    }
                    Status::Killed { seed, by: KilledBy::WrongBits } => {
                        writeln!(f, "{mutant}\n    seed {seed}: wrong bits")?
                    }
                    Status::Survived => writeln!(f, "{mutant}\n    survived")?,
                }
            }
            writeln!(f)?;
        }
        writeln!(f, "{:<8} {:>7} {:>7}", "class", "killed", "mutants")?;
        for class in Class::ALL {
            let (killed, total) = self.of_class(class);
            writeln!(f, "{:<8} {killed:>7} {total:>7}", format!("{class:?}"))?;
        }
        let (killed, total) = self.total();
        writeln!(f, "{:<8} {killed:>7} {total:>7}", "all")?;
        if killed < total {
            writeln!(f, "\nsurvivors:")?;
        }
        self.survivors().try_for_each(|mutant| writeln!(f, "  {mutant}"))
    }
}
