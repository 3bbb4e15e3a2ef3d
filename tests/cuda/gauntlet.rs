//! What a family of kernels is put through: a thousand schedules, and mutants.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::CudaContext;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::launch::images::IMAGES;
use ptx_emulator::mutate::{Class, Kind, Mutant, Outcome, Survey, mutants, survey};

use crate::emulator::{Alone, alone, shared};
use crate::environment::{project, real_gpu};

/// Orders of blocks and warps in which the bits must be the same.
const SCHEDULES: u64 = 1000;
/// Runs on a real GPU, which has orders of its own.
const RUNS: usize = 20;
/// Of them, those that a mutant must survive to count as a survivor.
const SEEDS: [u64; 4] = [0, 1, 2, 3];
/// A mutant whose launch executes so many times the warp instructions of its trial's largest has an endless loop.
const STEPS_TOO_MANY: u64 = 4;

/// A small piece of work whose outputs depend on nothing but the kernels.
pub struct Trial {
    /// What the shape is there for.
    pub why: &'static str,
    /// The kernels that it launches.
    pub kernels: &'static [&'static str],
    /// Runs the operations on new tensors; all that they wrote. Errors panic.
    pub run: Box<Run>,
}

/// A trial, behind the warp instructions that a mutant's launch may execute in it.
type Priced<'a> = (u64, &'a Trial);

/// Runs operations; all that they wrote.
pub type Run = dyn Fn(&Cuda) -> Vec<Vec<f64>> + Sync;

/// Mutants that do what the kernel does.
pub struct Equivalent {
    /// How many, so that one more at the same place is no longer excused.
    pub count: usize,
    /// The kernel, or a part of the names of several.
    pub kernel: &'static str,
    pub kind: Kind,
    /// A part of the source line, or of the one that calls it.
    pub line: &'static str,
    /// Why there is nothing to find.
    pub why: &'static str,
}

/// An [`Equivalent`], as a row of a list.
pub const fn equivalent(
    count: usize,
    kernel: &'static str,
    kind: Kind,
    line: &'static str,
    why: &'static str,
) -> Equivalent {
    Equivalent { count, kernel, kind, line, why }
}

fn bits(outputs: &[Vec<f64>]) -> Vec<u8> {
    // A NaN's sign and payload are the emulator's choice, as they are a GPU's.
    let canonical = |x: f64| if x.is_nan() { f64::NAN } else { x };
    outputs.iter().flatten().flat_map(|&x| canonical(x).to_bits().to_le_bytes()).collect()
}

/// Every trial gives the same bits in every order of blocks and warps; on a real GPU, in those that it happens to take.
pub fn assert_any_schedule(family: &str, trials: &[Trial]) {
    if real_gpu().is_some() {
        return assert_runs_agree(family, trials);
    }
    let Some(cuda) = alone() else { return };
    for trial in trials {
        let mut first = None;
        for seed in 0..SCHEDULES {
            cuda.set_seed(seed);
            let now = bits(&(trial.run)(&cuda));
            let first = first.get_or_insert_with(|| now.clone());
            assert!(*first == now, "{family}, {}: other bits with seed {seed}", trial.why);
        }
    }
    println!("{family}: {} trials, {SCHEDULES} schedules each, same bits", trials.len());
}

fn assert_runs_agree(family: &str, trials: &[Trial]) {
    let cuda = shared();
    for trial in trials {
        let first = bits(&(trial.run)(&cuda));
        for run in 1..RUNS {
            assert!(first == bits(&(trial.run)(&cuda)), "{family}, {}: other bits in run {run}", trial.why);
        }
    }
    println!("{family}: {} trials, {RUNS} runs each, same bits", trials.len());
}

/// Mutants of every kernel of the family are found out, but for the equivalent ones.
pub fn assert_mutants_die(stem: &'static str, trials: &[Trial], equivalents: &[Equivalent]) {
    assert_classes_die(stem, &Class::ALL, trials, equivalents);
}

/// [`assert_mutants_die`] for mutants of some classes.
pub fn assert_classes_die(stem: &'static str, classes: &[Class], trials: &[Trial], equivalents: &[Equivalent]) {
    let Some(cuda) = alone() else { return };
    cuda.set_quiet(true);
    // With the steps that a launch may have; those first that find a mutant out soonest.
    let budget = |trial: &Trial| STEPS_TOO_MANY * cuda.count(|| drop((trial.run)(&cuda))).most_instructions();
    let mut trials: Vec<Priced<'_>> = trials.iter().map(|trial| (budget(trial), trial)).collect();
    trials.sort_by_key(|(budget, _)| *budget);
    let image = IMAGES.iter().find(|image| image.stem == stem).unwrap_or_else(|| panic!("{stem} was not built"));
    let kernels: BTreeSet<&str> = trials.iter().flat_map(|(_, trial)| trial.kernels).copied().collect();
    let built = ironwarp::cuda::kernels().filter(|spec| spec.stem == stem).map(|spec| spec.name);
    assert_eq!(kernels, built.collect(), "kernels with a trial");
    let hook = std::panic::take_hook();
    // Most mutants end in a panic, of an assertion or of an error: that is what they are for.
    std::panic::set_hook(Box::new(|_| {}));
    let surveyed: Result<Vec<Survey>, String> =
        kernels.iter().map(|kernel| survey_kernel(&cuda, image.ptx, stem, kernel, classes, &trials)).collect();
    std::panic::set_hook(hook);
    let mut total = Survey::default();
    surveyed.unwrap_or_else(|error| panic!("{stem}: {error}")).into_iter().for_each(|survey| total.join(survey));

    println!("{stem}\n{total}");
    let excuse = |mutant: &Mutant| equivalents.iter().position(|equivalent| equivalent.excuses(mutant));
    let unexcused: Vec<String> = total.survivors().filter(|m| excuse(m).is_none()).map(ToString::to_string).collect();
    assert!(unexcused.is_empty(), "{stem}: survived:\n{}", unexcused.join("\n"));
    let mut counts = vec![0; equivalents.len()];
    total.survivors().filter_map(excuse).for_each(|index| counts[index] += 1);
    let wrong: Vec<String> = equivalents
        .iter()
        .zip(&counts)
        .filter(|(equivalent, count)| equivalent.count != **count)
        .map(|(Equivalent { count, kernel, kind, line, .. }, found)| {
            format!("{kernel}, {kind:?}, {line:?}: {found} survived, {count} are listed")
        })
        .collect();
    assert!(wrong.is_empty(), "{stem}:\n{}\n{counts:?}", wrong.join("\n"));
}

/// The text without the entry points that no trial of the kernel names.
fn named(ptx: &str, kernel: &str, trials: &[Priced<'_>]) -> String {
    let of_kernel = trials.iter().filter(|(_, trial)| trial.kernels.contains(&kernel));
    let names: BTreeSet<&str> = of_kernel.flat_map(|(_, trial)| trial.kernels).copied().collect();
    let mut parts = ptx.split(".visible .entry ");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        // What is behind an entry point belongs to the file.
        let (entry, rest) = part.split_once("\n}\n").unwrap_or((part, ""));
        if entry.split_once('(').is_some_and(|(name, _)| names.contains(name)) {
            text += &format!(".visible .entry {entry}\n}}\n");
        }
        text += rest;
    }
    text
}

fn survey_kernel(
    alone: &Alone,
    ptx: &str,
    stem: &str,
    kernel: &str,
    classes: &[Class],
    trials: &[Priced<'_>],
) -> Result<Survey, String> {
    // What the original gives, trial by trial; the lock is also what lets one run at a time.
    let original: Mutex<Vec<Vec<u8>>> = Mutex::default();
    let run = |ptx: &str, seed| {
        let mut original = original.lock().unwrap_or_else(PoisonError::into_inner);
        alone.set_seed(seed);
        let of_kernel = trials.iter().filter(|(_, trial)| trial.kernels.contains(&kernel));
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            // A context for each: a finding ends it.
            let context = CudaContext::new_non_primary(0, 0).unwrap();
            let cuda = Cuda::with_context(&context).unwrap();
            cuda.device().replace_kernels(stem, ptx);
            let mut all = Vec::new();
            for (index, (budget, trial)) in of_kernel.enumerate() {
                alone.set_step_budget(*budget);
                let now = bits(&(trial.run)(&cuda));
                let same = original.get(index).is_none_or(|original| *original == now);
                all.push(now);
                if !same {
                    break; // found out
                }
            }
            all
        }));
        match attempt {
            Ok(all) => {
                if original.is_empty() {
                    original.clone_from(&all);
                }
                Outcome::Bits(all.concat())
            }
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                Outcome::Stopped(text.unwrap_or_else(|| "a panic without words".into()))
            }
        }
    };
    // Loading a large file is most of a run. Some trials launch kernels that they do not name: those need all of it.
    let named = named(ptx, kernel, trials);
    let enough = mutants(&named, Some(kernel)).is_ok() && matches!(run(&named, SEEDS[0]), Outcome::Bits(_));
    let ptx = if enough { &named } else { ptx };
    let mut mutants = mutants(ptx, Some(kernel)).map_err(|error| error.to_string())?;
    mutants.retain(|mutant| classes.contains(&mutant.kind.class()));
    survey(ptx, &mutants, &SEEDS, run).map_err(|error| format!("{kernel}: {error}"))
}

impl Equivalent {
    fn excuses(&self, mutant: &Mutant) -> bool {
        assert!(!self.why.is_empty());
        let line = |place: &String| {
            let (file, line) = place.rsplit_once(':')?;
            let text = std::fs::read_to_string(project().join(file)).ok()?;
            text.lines().nth(line.parse::<usize>().ok()? - 1).map(str::to_owned)
        };
        let mut lines = [Some(&mutant.source), mutant.called_from.as_ref()].into_iter().flatten().filter_map(line);
        mutant.function.contains(self.kernel) && mutant.kind == self.kind && lines.any(|line| line.contains(self.line))
    }
}
