//! Checks of a kernel family: the same bits in every schedule, and mutants that must be killed.

use std::collections::BTreeSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Mutex, PoisonError};

use cudarc::driver::CudaContext;
use emulator_trials::mutate::{Kind, Mutant, Outcome, Survey, mutants, survey};
use emulator_trials::tier;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::launch::images::IMAGES;

use crate::emulator::{Alone, alone, shared};
use crate::environment::{project, real_gpu};

/// Schedules, orders of blocks and warps, in which the bits must be the same: in a sampled and in a thorough run.
const SCHEDULES: [u64; 2] = [25, 1000];
/// Runs on a real GPU, which schedules blocks and warps by itself.
const RUNS: usize = 20;
/// Schedules in which a mutant must survive to count as a survivor.
const SEEDS: [u64; 4] = [0, 1, 2, 3];
/// A mutant loops endlessly if a launch executes this many times the warp instructions of its trial's largest launch.
const STEP_BUDGET_FACTOR: u64 = 4;
/// A sampled run tries every 8th mutant of a kind, and at least one of each kind and kernel.
const SAMPLE_STEP: usize = 8;

/// A small piece of work whose outputs depend on the kernels alone.
pub struct Trial {
    /// Why this shape is tried.
    pub why: &'static str,
    /// The kernels that it launches.
    pub kernels: &'static [&'static str],
    /// Runs the operations on new tensors and returns all that they wrote. Errors panic.
    pub run: Box<Run>,
}

/// Runs operations and returns all that they wrote.
pub type Run = dyn Fn(&Cuda) -> Vec<Vec<f64>> + Sync;

/// A trial, and the warp instructions that a mutant's launch may execute in it.
struct Budgeted<'a> {
    steps: u64,
    trial: &'a Trial,
}

/// Mutants whose results are those of the original kernel.
pub struct Equivalent {
    /// How many survive, so that another survivor at the same source line is not excused.
    pub count: usize,
    /// The kernel, or a part of the names of several.
    pub kernel: &'static str,
    pub kind: Kind,
    /// A part of the source line, or of the line that calls its function.
    pub line: &'static str,
    /// Why the change has no effect.
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
    // CUDA does not specify the sign and payload of a NaN.
    let canonical = |x: f64| if x.is_nan() { f64::NAN } else { x };
    outputs.iter().flatten().flat_map(|&x| canonical(x).to_bits().to_le_bytes()).collect()
}

/// Fails unless every trial gives the same bits in every schedule; on a real GPU, in repeated runs.
pub fn assert_schedules_agree(family: &str, trials: &[Trial]) {
    if real_gpu().is_some() {
        return assert_runs_agree(family, trials);
    }
    let Some(cuda) = alone() else { return };
    let schedules = tier::choose(SCHEDULES[0], SCHEDULES[1]);
    for trial in trials {
        let mut first = None;
        for seed in 0..schedules {
            cuda.set_seed(seed);
            let now = bits(&(trial.run)(&cuda));
            let first = first.get_or_insert_with(|| now.clone());
            assert!(*first == now, "{family}, {}: schedule {seed} gives other bits than schedule 0", trial.why);
        }
    }
    println!("{family}: {} trials, {schedules} schedules each, same bits", trials.len());
}

fn assert_runs_agree(family: &str, trials: &[Trial]) {
    let cuda = shared();
    for trial in trials {
        let first = bits(&(trial.run)(&cuda));
        for run in 1..RUNS {
            let now = bits(&(trial.run)(&cuda));
            assert!(first == now, "{family}, {}: run {run} gives other bits than run 0", trial.why);
        }
    }
    println!("{family}: {} trials, {RUNS} runs each, same bits", trials.len());
}

/// Fails unless every mutant of the family's kernels is killed, except the equivalent ones. A sampled run tries a part of
/// the mutants, and so finds at most the listed number of each equivalent.
pub fn assert_mutants_killed(stem: &'static str, trials: &[Trial], equivalents: &[Equivalent]) {
    let Some(cuda) = alone() else { return };
    cuda.set_quiet(true);
    let steps = |trial: &Trial| STEP_BUDGET_FACTOR * cuda.count(|| drop((trial.run)(&cuda))).most_instructions();
    let mut trials: Vec<Budgeted<'_>> = trials.iter().map(|trial| Budgeted { steps: steps(trial), trial }).collect();
    // The cheapest trials come first: most mutants die in the first trial.
    trials.sort_by_key(|trial| trial.steps);
    let image = IMAGES.iter().find(|image| image.stem == stem).unwrap_or_else(|| panic!("{stem} was not built"));
    let kernels: BTreeSet<&str> = trials.iter().flat_map(|budgeted| budgeted.trial.kernels).copied().collect();
    let built = ironwarp::cuda::kernels().filter(|spec| spec.stem == stem).map(|spec| spec.name);
    assert_eq!(kernels, built.collect(), "kernels with a trial");
    let hook = std::panic::take_hook();
    // Most mutants end in a panic, by an assertion or an error, and are killed by it.
    std::panic::set_hook(Box::new(|_| {}));
    let numbered = kernels.iter().enumerate();
    let surveyed: Result<Vec<Survey>, String> =
        numbered.map(|(number, kernel)| survey_kernel(&cuda, image.ptx, stem, (number, kernel), &trials)).collect();
    std::panic::set_hook(hook);
    let mut total = Survey::default();
    surveyed.unwrap_or_else(|error| panic!("{stem}: {error}")).into_iter().for_each(|survey| total.merge(survey));

    println!("{stem}\n{total}");
    let excuse = |mutant: &Mutant| equivalents.iter().position(|equivalent| equivalent.excuses(mutant));
    let unexcused: Vec<String> = total.survivors().filter(|m| excuse(m).is_none()).map(ToString::to_string).collect();
    assert!(unexcused.is_empty(), "{stem}: survived:\n{}", unexcused.join("\n"));
    let mut counts = vec![0; equivalents.len()];
    total.survivors().filter_map(excuse).for_each(|index| counts[index] += 1);
    let right = |listed: usize, survived: usize| if tier::thorough() { survived == listed } else { survived <= listed };
    let wrong: Vec<String> = equivalents
        .iter()
        .zip(&counts)
        .filter(|(equivalent, survived)| !right(equivalent.count, **survived))
        .map(|(Equivalent { count, kernel, kind, line, .. }, survived)| {
            format!("{kernel}, {kind:?}, {line:?}: {survived} survived, {count} are listed")
        })
        .collect();
    assert!(wrong.is_empty(), "{stem}:\n{}\n{counts:?}", wrong.join("\n"));
}

/// The trials of a kernel.
fn of_kernel<'a>(trials: &'a [Budgeted<'a>], kernel: &str) -> impl Iterator<Item = &'a Budgeted<'a>> {
    trials.iter().filter(move |budgeted| budgeted.trial.kernels.contains(&kernel))
}

/// The PTX without the entry points that no trial of the kernel names.
fn reduced(ptx: &str, kernel: &str, trials: &[Budgeted<'_>]) -> String {
    let names: BTreeSet<&str> = of_kernel(trials, kernel).flat_map(|of| of.trial.kernels).copied().collect();
    let mut pieces = ptx.split(".visible .entry ");
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        // The text after an entry point, such as debug sections, belongs to the whole file.
        let (entry, rest) = piece.split_once("\n}\n").unwrap_or((piece, ""));
        if entry.split_once('(').is_some_and(|(name, _)| names.contains(name)) {
            text += &format!(".visible .entry {entry}\n}}\n");
        }
        text += rest;
    }
    text
}

/// Runs the mutants of a kernel, which is the `number`-th of its file.
fn survey_kernel(
    alone: &Alone,
    ptx: &str,
    stem: &str,
    (number, kernel): (usize, &str),
    trials: &[Budgeted<'_>],
) -> Result<Survey, String> {
    // The results of the original, by trial. Holding the lock also keeps runs from overlapping.
    let original: Mutex<Vec<Vec<u8>>> = Mutex::default();
    let run = |ptx: &str, seed| {
        let mut original = original.lock().unwrap_or_else(PoisonError::into_inner);
        alone.set_seed(seed);
        let attempt = catch_unwind(AssertUnwindSafe(|| {
            // A new context for each run: a finding makes a context unusable.
            let context = CudaContext::new_non_primary(0, 0).unwrap();
            let cuda = Cuda::with_context(&context).unwrap();
            cuda.device().replace_kernels(stem, ptx);
            let mut all = Vec::new();
            for (index, Budgeted { steps, trial }) in of_kernel(trials, kernel).enumerate() {
                alone.set_step_budget(*steps);
                let now = bits(&(trial.run)(&cuda));
                let same = original.get(index).is_none_or(|original| *original == now);
                all.push(now);
                if !same {
                    break; // The mutant is killed.
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
                Outcome::Stopped(text.unwrap_or_else(|| "a panic without a message".into()))
            }
        }
    };
    // Loading the PTX of a large file takes most of a run, so the other entry points are left out where possible. Some
    // trials launch kernels that they do not name: those need the whole file.
    let reduced = reduced(ptx, kernel, trials);
    let enough = mutants(&reduced, Some(kernel)).is_ok() && matches!(run(&reduced, SEEDS[0]), Outcome::Bits(_));
    let ptx = if enough { &reduced } else { ptx };
    let mutants = mutants(ptx, Some(kernel)).map_err(|error| error.to_string())?;
    // Kernels of a file are often instances of one template, with the same mutants: the offset makes their samples differ.
    let mutants = tier::sample(mutants, |mutant| mutant.kind, SAMPLE_STEP, number);
    survey(ptx, &mutants, &SEEDS, run).map_err(|error| format!("{kernel}: {error}"))
}

impl Equivalent {
    fn excuses(&self, mutant: &Mutant) -> bool {
        assert!(!self.why.is_empty());
        let line = |location: &String| {
            let (file, line) = location.rsplit_once(':')?;
            let text = std::fs::read_to_string(project().join(file)).ok()?;
            text.lines().nth(line.parse::<usize>().ok()? - 1).map(str::to_owned)
        };
        let mut lines = [Some(&mutant.source), mutant.called_from.as_ref()].into_iter().flatten().filter_map(line);
        mutant.function.contains(self.kernel) && mutant.kind == self.kind && lines.any(|line| line.contains(self.line))
    }
}
