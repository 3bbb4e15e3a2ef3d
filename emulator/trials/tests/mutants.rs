//! Mutants of the correct kernels: every one that is not equivalent to its kernel must be killed.

use emulator_trials::mutate::Kind::{self, NeverLeave, ShiftComparison};
use emulator_trials::mutate::{Mutant, Survey, mutants, survey};
use emulator_trials::trials::{Trial, trials};

/// The seeds that a mutant must survive to count as a survivor.
const SEEDS: [u64; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// Equivalent mutants: kernel, kind, text of the source line, and why the mutant does the same as the kernel.
const EQUIVALENT: &[(&str, Kind, &str, &str)] = &[
    ("matmul", NeverLeave, "from < k;", "with k = 0, one step multiplies zeros, which out-of-bounds copies write"),
    ("matmul", ShiftComparison, "from < k;", "if k is a multiple of 32, one more step multiplies such zeros"),
    ("producer_consumer", ShiftComparison, "first < len;", "a block that begins at the end passes an empty chunk"),
    ("relay", NeverLeave, "if (lane == 0) {", "all lanes set the flag, each after its own fence"),
    ("warp_sort", NeverLeave, "distance > 0;", "nvcc's test before a loop that always has a step"),
    ("warp_sort", ShiftComparison, "size <= RUN;", "nvcc compares with 33, and sizes are powers of 2"),
];

#[test]
fn mutants_are_killed() {
    let mut total = Survey::default();
    for trial in trials() {
        let mutants = mutants(trial.ptx(), Some(trial.kernel)).unwrap();
        let run = |ptx: &str, seed| trial.outcome(ptx, seed);
        let of_kernel = survey(trial.ptx(), &mutants, &SEEDS, run);
        let of_kernel = of_kernel.unwrap_or_else(|error| panic!("{}: {error}", trial.kernel));
        for survivor in of_kernel.survivors() {
            assert!(equivalent(&trial, survivor).is_some(), "survived: {survivor}");
        }
        total.merge(of_kernel);
    }
    println!("{total}");
    let unused = EQUIVALENT.iter().find(|entry| {
        !total.survivors().any(|mutant| trials().iter().any(|trial| equivalent(trial, mutant) == Some(*entry)))
    });
    assert!(unused.is_none(), "listed as equivalent, but killed: {unused:?}");
    // The survivors were checked above; without this, a run that generates no mutants would pass.
    let (_, all) = total.total();
    assert!(all > 150, "{all} mutants");
}

/// The entry of [`EQUIVALENT`] for a mutant.
fn equivalent(trial: &Trial, mutant: &Mutant) -> Option<&'static (&'static str, Kind, &'static str, &'static str)> {
    let location = mutant.called_from.as_ref().unwrap_or(&mutant.source);
    let (file, line) = location.rsplit_once(':')?;
    let text = std::fs::read_to_string(format!("{}/../../{file}", env!("CARGO_MANIFEST_DIR"))).ok()?;
    let line = text.lines().nth(line.parse::<usize>().ok()? - 1)?;
    EQUIVALENT
        .iter()
        .find(|(kernel, kind, marker, _)| *kernel == trial.kernel && *kind == mutant.kind && line.contains(marker))
}
