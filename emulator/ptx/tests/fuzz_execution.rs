//! Loads and runs thousands of broken programs. Any outcome but a panic is correct.
//!
//! The parser's fuzz test covers malformed text; here most texts parse, and names, operands, types and values are wrong.
//! `PTX_FUZZ_PROGRAMS=100000` sets the number of programs, `PTX_FUZZ_SEED=7` the seed. A failure prints the program.

#[path = "instructions/corpus.rs"]
mod corpus;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;

use ptx_emulator::memory::Memory;
use ptx_emulator::{Arch, Launch, LaunchError, Module, Settings};

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) >> 11) as usize % end.max(1)
    }
}

/// The texts of the instruction tests, which contain every instruction that the emulator executes, without comments.
fn texts() -> Vec<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/instructions");
    let folders = corpus::folders(&root).unwrap();
    let forms = folders.iter().flat_map(|folder| corpus::folder(&root, folder).unwrap());
    let without_comments =
        |text: &str| text.lines().filter(|line| !line.starts_with("//")).collect::<Vec<_>>().join("\n");
    forms.map(|form| without_comments(&form.text)).collect()
}

/// The byte ranges of words, numbers and opcodes.
fn tokens(text: &str) -> Vec<(usize, usize)> {
    let mut found = Vec::new();
    let mut start = None;
    for (at, c) in text.char_indices() {
        let inside = c.is_ascii_alphanumeric() || "%_$.".contains(c);
        match (start, inside) {
            (None, true) => start = Some(at),
            (Some(from), false) => {
                found.push((from, at));
                start = None;
            }
            _ => {}
        }
    }
    found
}

const VALUES: [&str; 16] = [
    "0",
    "1",
    "-1",
    "31",
    "32",
    "33",
    "255",
    "4096",
    "0x7fffffff",
    "0x80000000",
    "0xffffffff",
    "1 << 40",
    "%tid.x",
    "0f7FC00000",
    "0f00000001",
    "1024",
];

/// Separates registers, numbers, opcodes and other names, so that a token is mostly replaced by one of the same kind.
fn kind(token: &str) -> u8 {
    match token.as_bytes()[0] {
        b'%' => b'%',
        b'0'..=b'9' => b'0',
        _ if token.contains('.') => b'.',
        _ => b'a',
    }
}

fn broken(random: &mut Random, corpus: &[String]) -> String {
    let mut text = corpus[random.below(corpus.len())].clone();
    for _ in 0..1 + random.below(2) {
        let tokens_of_text = tokens(&text);
        // The first six tokens, the module's header, stay: without them nothing is loaded.
        let (from, to) = tokens_of_text[random.below(tokens_of_text.len() - 6) + 6];
        let token = &text[from..to];
        // A new opcode comes from any text, a new name from the same text.
        let donor = if kind(token) == b'.' { &corpus[random.below(corpus.len())] } else { &text };
        let alike = |&(a, b): &(usize, usize)| kind(&donor[a..b]) == kind(token);
        let candidates: Vec<(usize, usize)> = tokens(donor).into_iter().filter(alike).collect();
        let new = match random.below(8) {
            0 => VALUES[random.below(VALUES.len())].to_owned(),
            1 => String::new(),
            _ if candidates.is_empty() => String::new(),
            _ => {
                let (a, b) = candidates[random.below(candidates.len())];
                donor[a..b].to_owned()
            }
        };
        text.replace_range(from..to, &new);
    }
    text
}

/// Whether it was loaded, and whether a kernel ran to its end.
fn run(text: &str, seed: u64) -> (bool, bool) {
    let memory = Memory::new(1 << 24);
    let limits = Arch::SM_90.limits().unwrap();
    let Ok(module) = Module::load(text, Arch::SM_90, &memory) else { return (false, false) };
    let mut ran = false;
    for kernel in &module.kernels {
        let mut params = Vec::new();
        while params.len() < kernel.param_bytes as usize {
            let buffer = memory.allocate(4096).unwrap();
            memory.fill(buffer, &[1, 0, 0, 0], 1024).unwrap();
            params.extend(buffer.to_le_bytes());
        }
        params.truncate(kernel.param_bytes as usize);
        let launch = Launch {
            kernel,
            grid: [1, 1, 1],
            block: [40, 1, 1],
            cluster: [1, 1, 1],
            dynamic_shared: 256,
            shared_limit: 48 << 10,
            params: &params,
        };
        let settings = Settings { seed, threads: 1, step_budget: 20_000, ..Settings::default() };
        match launch.run(&memory, &limits, &settings) {
            Ok(_) => ran = true,
            Err(LaunchError::Found(finding)) => assert!(!finding.to_string().is_empty()),
            Err(LaunchError::Rejected { message, .. }) => assert!(!message.is_empty()),
        }
    }
    (true, ran)
}

#[test]
fn broken_programs_do_not_panic() {
    let number = |name: &str, default: u64| std::env::var(name).map_or(default, |text| text.parse().unwrap());
    let (count, first) = (number("PTX_FUZZ_PROGRAMS", 4000), number("PTX_FUZZ_SEED", 1));
    let texts = texts();
    let (mut loaded, mut ran) = (0, 0);
    for i in 0..count {
        let seed = first * 1_000_000_007 + i;
        let text = broken(&mut Random(seed), &texts);
        match catch_unwind(AssertUnwindSafe(|| run(&text, seed))) {
            Ok((loads, runs)) => (loaded, ran) = (loaded + u64::from(loads), ran + u64::from(runs)),
            Err(_) => panic!("this program causes a panic (seed {seed}):\n{text}"),
        }
    }
    println!("{count} programs: {loaded} loaded, {ran} ran to the end");
    // If too few programs were loaded or ran, the test would prove nothing.
    assert!(loaded > count / 10 && ran > count / 50, "{loaded} loaded and {ran} ran of {count}");
}
