//! Mutants of the sound kernels: what can matter is found out.

use emulator_trials::mutate::Kind::{self, NeverLeave, ShiftComparison};
use emulator_trials::mutate::{Mutant, Survey, mutants, survey};
use emulator_trials::trials::{Trial, trials};

/// Seeds that a mutant must survive to count as a survivor.
const SEEDS: [u64; 8] = [0, 1, 2, 3, 4, 5, 6, 7];

/// Mutants that do what the kernel does: kernel, kind, the source line, and why they are equivalent.
const EQUIVALENT: &[(&str, Kind, &str, &str)] = &[
    ("matmul", NeverLeave, "from < k;", "without any k, one step multiplies the zeros that the bounds make"),
    ("matmul", ShiftComparison, "from < k;", "where k is a multiple of 32, one more step multiplies such zeros"),
    ("producer_consumer", ShiftComparison, "first < len;", "a block that begins at the end hands over an empty chunk"),
    ("relay", NeverLeave, "if (lane == 0) {", "all lanes raise the flag, each behind a fence of its own"),
    ("warp_sort", NeverLeave, "distance > 0;", "nvcc's test before a loop of one step or more"),
    ("warp_sort", ShiftComparison, "size <= RUN;", "nvcc compares with 33, and sizes are powers of 2"),
];

#[test]
fn mutants_are_found_out() {
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
    assert!(unused.is_none(), "listed as equivalent and found out: {unused:?}");
    // Every survivor has its entry, as seen above; this only says that there were mutants to survive.
    let (_, all) = total.total();
    assert!(all > 150, "{all} mutants");
}

/// The entry of the list that a mutant is excused by.
fn equivalent(trial: &Trial, mutant: &Mutant) -> Option<&'static (&'static str, Kind, &'static str, &'static str)> {
    let place = mutant.called_from.as_ref().unwrap_or(&mutant.source);
    let (file, line) = place.rsplit_once(':')?;
    let text = std::fs::read_to_string(format!("{}/../../{file}", env!("CARGO_MANIFEST_DIR"))).ok()?;
    let line = text.lines().nth(line.parse::<usize>().ok()? - 1)?;
    EQUIVALENT
        .iter()
        .find(|(kernel, kind, marker, _)| *kernel == trial.kernel && *kind == mutant.kind && line.contains(marker))
}
