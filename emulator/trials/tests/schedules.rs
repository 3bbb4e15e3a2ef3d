//! The correct kernels give the right results, without a finding, and the same bits with every schedule of warps, blocks
//! and copies.
//!
//! `TRIAL_SEEDS` sets how many seeds each kernel runs with; the default depends on [`tier::thorough`].

use std::num::NonZero;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::Instant;

use emulator_trials::trials::{Trial, settings, trials};
use emulator_trials::{Case, Device, tier};
use ptx_emulator::Settings;
use ptx_emulator::observe::Counts;

/// Seeds of each kernel in a sampled and in a thorough run, unless `TRIAL_SEEDS` is set.
const SEEDS: [u64; 2] = [25, 1000];

#[test]
fn every_schedule_gives_the_same_right_bits() {
    let default = tier::choose(SEEDS[0], SEEDS[1]);
    let seeds = std::env::var("TRIAL_SEEDS").map_or(default, |seeds| seeds.parse().expect("TRIAL_SEEDS is a number"));
    for trial in trials() {
        let start = Instant::now();
        let device = Device::load(trial.ptx()).unwrap_or_else(|error| panic!("{}: {error}", trial.kernel));
        let first: Vec<Vec<u8>> = trial.cases.iter().map(|case| run(&device, &trial, case, settings(0))).collect();
        let next = AtomicU64::new(1);
        let work = || {
            loop {
                let seed = next.fetch_add(1, Ordering::Relaxed);
                if seed >= seeds {
                    return;
                }
                let mut settings = settings(seed);
                if seed % 4 == 3 {
                    // Blocks run concurrently: one may spin for as long as the host does not schedule another.
                    settings = Settings { threads: 3, step_budget: 1 << 26, ..settings };
                }
                for (case, first) in trial.cases.iter().zip(&first) {
                    let bits = run(&device, &trial, case, settings.clone());
                    assert!(
                        bits == *first,
                        "{}, {}: other bits with seed {seed} than with 0",
                        trial.kernel,
                        case.shape
                    );
                }
            }
        };
        let workers = thread::available_parallelism().map_or(1, NonZero::get);
        thread::scope(|scope| (0..workers).for_each(|_| drop(scope.spawn(work))));
        let (cases, time) = (trial.cases.len(), start.elapsed().as_secs_f64());
        println!("{:<18} {cases} shapes, {seeds} seeds: {time:.2} s", trial.kernel);
    }
}

/// Runs a case, checks its outputs and returns them.
fn run(device: &Device, trial: &Trial, case: &Case, settings: Settings) -> Vec<u8> {
    let context = || format!("{}, {} ({}), seed {}", trial.kernel, case.shape, case.purpose, settings.seed);
    let done = device.run(trial.kernel, case, &settings).unwrap_or_else(|error| panic!("{}: {error}", context()));
    case.compare(&done).unwrap_or_else(|difference| panic!("{}: {difference}", context()));
    done.bits()
}

/// The counts of the largest case of a kernel.
fn counts(kernel: &str) -> Counts {
    let trial = trials().into_iter().find(|trial| trial.kernel == kernel).unwrap();
    let device = Device::load(trial.ptx()).unwrap();
    let all = trial.cases.iter().map(|case| device.run(kernel, case, &settings(0)).unwrap().counts);
    all.max_by_key(|counts| counts.warp_instructions).unwrap()
}

#[test]
fn padding_and_swizzling_avoid_bank_conflicts() {
    for kernel in ["transpose", "matmul", "warp_sort"] {
        let counts = counts(kernel);
        assert!(counts.shared_loads > 0 && counts.bank_conflicts == 0, "{kernel}: {} conflicts", counts.bank_conflicts);
    }
}

#[test]
fn each_kernel_uses_the_feature_it_tests() {
    assert!(counts("collatz").divergent_branches > 100);
    assert!(counts("matmul").tensor_flops > 0 && counts("matmul").mix["async_copy"] > 0);
    assert!(counts("reverse").shared_bytes_per_block > 48 << 10);
    assert!(counts("histogram").mix["atomic"] > 0 && counts("grid_sum").mix["fence"] > 0);
}
