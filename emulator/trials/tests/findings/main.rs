//! Planted bugs: each is found, by its check, at its line, in words that say what is wrong.

mod alignment;
mod barriers;
mod bounds;
mod copies;
mod initialised;
mod launches;
mod races;

use std::collections::BTreeSet;

use emulator_trials::trials::settings;
use emulator_trials::{Arg, BUGGY, Case, Device, Failure, ptx};
use ptx_emulator::observe::{Check, Finding};
use ptx_emulator::{LaunchError, Settings};

/// Seeds that a bug must be found with, each of them.
const SEEDS: u64 = 10;

/// Enough for a block that waits for another to be set aside.
const STEPS: u64 = 1_000_000;

/// A planted bug. Its lines in the source are marked `// BUG`.
struct Bug {
    kernel: &'static str,
    check: Check,
    /// What the message must say.
    words: &'static [&'static str],
    grid: u32,
    block: u32,
    args: Vec<Arg>,
}

impl Bug {
    fn new(kernel: &'static str, check: Check, words: &'static [&'static str], args: Vec<Arg>) -> Self {
        Bug { kernel, check, words, grid: 1, block: 32, args }
    }

    fn with(self, grid: u32, block: u32) -> Self {
        Bug { grid, block, ..self }
    }

    fn case(&self) -> Case {
        Case {
            shape: format!("grid {}, block {}", self.grid, self.block),
            why: "a planted bug",
            grid: [self.grid, 1, 1],
            block: [self.block, 1, 1],
            dynamic_shared: 0,
            args: self.args.clone(),
        }
    }
}

/// Holds every kernel of a file against its list of bugs.
fn expect(stem: &str, bugs: &[Bug]) {
    let source = source(stem);
    let kernels: BTreeSet<&str> = source.lines().filter_map(kernel_of).collect();
    assert_eq!(kernels, bugs.iter().map(|bug| bug.kernel).collect(), "{stem}.cu: kernels and bugs");
    let device = Device::load(ptx(BUGGY, stem)).unwrap();
    for bug in bugs {
        let lines = marked(&source, stem, bug.kernel);
        for seed in 0..SEEDS {
            let settings = Settings { step_budget: STEPS, ..settings(seed) };
            let finding = match device.run(bug.kernel, &bug.case(), &settings) {
                Err(Failure::Launch(LaunchError::Found(finding))) => finding,
                Err(other) => panic!("{}, seed {seed}: no finding, but {other}", bug.kernel),
                Ok(_) => panic!("{}, seed {seed}: no finding", bug.kernel),
            };
            let Finding { check, kernel, source, message, .. } = &*finding;
            assert_eq!((*check, kernel.as_str()), (bug.check, bug.kernel), "seed {seed}: {finding}");
            assert!(lines.contains(source), "at none of {lines:?}, seed {seed}: {finding}");
            for words in bug.words {
                assert!(message.contains(words), "no {words:?}, seed {seed}: {finding}");
            }
            // A race names both sides: the other is marked, too.
            if *check == Check::Race && message.contains("races with") {
                assert!(lines.iter().any(|line| message.contains(line)), "one side only: {finding}");
            }
            if seed == 0 {
                println!("{finding}\n");
            }
        }
    }
}

fn source(stem: &str) -> String {
    let path = format!("{}/kernels/buggy/{stem}.cu", env!("CARGO_MANIFEST_DIR"));
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The kernel that a line begins.
fn kernel_of(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix("extern \"C\" __global__ void ")?.split_once('(')?;
    Some(name)
}

/// The places of a kernel's bugs, as findings name them.
fn marked(source: &str, stem: &str, kernel: &str) -> BTreeSet<String> {
    let lines = source.lines().enumerate();
    let body = lines.skip_while(|(_, line)| kernel_of(line) != Some(kernel)).take_while(|(_, line)| *line != "}");
    let bugs = body.filter(|(_, line)| line.contains("// BUG"));
    bugs.map(|(i, _)| format!("emulator/trials/kernels/buggy/{stem}.cu:{}", i + 1)).collect()
}

/// `len` floats that are not all the same.
fn floats(len: usize) -> Vec<f32> {
    (0..len).map(|i| i as f32).collect()
}
