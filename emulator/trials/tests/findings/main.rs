//! Kernels with a deliberate bug each: the right check finds it, at the right line, with a message that describes it.

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

/// The number of seeds with each of which a bug must be found.
const SEEDS: u64 = 10;

/// A step budget that lets a block wait for another block until that one has run.
const STEP_BUDGET: u64 = 1_000_000;

/// A kernel with a deliberate bug, whose lines in the source are marked `// BUG`.
struct Bug {
    kernel: &'static str,
    check: Check,
    /// Texts that the finding's message must contain.
    texts: &'static [&'static str],
    grid: u32,
    block: u32,
    args: Vec<Arg>,
}

impl Bug {
    fn new(kernel: &'static str, check: Check, texts: &'static [&'static str], args: Vec<Arg>) -> Self {
        Bug { kernel, check, texts, grid: 1, block: 32, args }
    }

    fn with(self, grid: u32, block: u32) -> Self {
        Bug { grid, block, ..self }
    }

    fn case(&self) -> Case {
        Case {
            shape: format!("grid {}, block {}", self.grid, self.block),
            purpose: "a deliberate bug",
            grid: [self.grid, 1, 1],
            block: [self.block, 1, 1],
            dynamic_shared: 0,
            args: self.args.clone(),
        }
    }
}

/// Checks that every kernel of a file has an entry in `bugs`, and that each bug is found.
fn expect(stem: &str, bugs: &[Bug]) {
    let source = source(stem);
    let kernels: BTreeSet<&str> = source.lines().filter_map(kernel_of).collect();
    assert_eq!(kernels, bugs.iter().map(|bug| bug.kernel).collect(), "{stem}.cu: kernels and bugs");
    let device = Device::load(ptx(BUGGY, stem)).unwrap();
    for bug in bugs {
        let lines = marked(&source, stem, bug.kernel);
        for seed in 0..SEEDS {
            let settings = Settings { step_budget: STEP_BUDGET, ..settings(seed) };
            let finding = match device.run(bug.kernel, &bug.case(), &settings) {
                Err(Failure::Launch(LaunchError::Found(finding))) => finding,
                Err(other) => panic!("{}, seed {seed}: no finding, but {other}", bug.kernel),
                Ok(_) => panic!("{}, seed {seed}: no finding", bug.kernel),
            };
            let Finding { check, kernel, source, message, .. } = &*finding;
            assert_eq!((*check, kernel.as_str()), (bug.check, bug.kernel), "seed {seed}: {finding}");
            assert!(lines.contains(source), "at none of {lines:?}, seed {seed}: {finding}");
            for text in bug.texts {
                assert!(message.contains(text), "no {text:?}, seed {seed}: {finding}");
            }
            // A race names both accesses, and both lines are marked.
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

/// The name of the kernel whose definition begins in this line.
fn kernel_of(line: &str) -> Option<&str> {
    let (name, _) = line.strip_prefix("extern \"C\" __global__ void ")?.split_once('(')?;
    Some(name)
}

/// The source locations of a kernel's bugs, as findings name them.
fn marked(source: &str, stem: &str, kernel: &str) -> BTreeSet<String> {
    let lines = source.lines().enumerate();
    let body = lines.skip_while(|(_, line)| kernel_of(line) != Some(kernel)).take_while(|(_, line)| *line != "}");
    let bugs = body.filter(|(_, line)| line.contains("// BUG"));
    bugs.map(|(i, _)| format!("emulator/trials/kernels/buggy/{stem}.cu:{}", i + 1)).collect()
}

/// The floats 0, 1, ..., len - 1.
fn floats(len: usize) -> Vec<f32> {
    (0..len).map(|i| i as f32).collect()
}
