//! Parses thousands of broken texts: none may panic or hang, and every error must point into the text.
//!
//! `PTX_FUZZ_INPUTS=1000000` sets their number, `PTX_FUZZ_SEED=7` the seed. A failure prints the seed of its text.

use crate::fixtures::{CALLS, DEBUG, FORMS, HOPPER};
use ptx_emulator::ast::Position;
use ptx_emulator::parse::parse;
use std::panic::catch_unwind;
use std::time::{Duration, Instant};

/// Strings that some rule of the grammar treats in a special way.
const PIECES: [&str; 48] = [
    "{",
    "}",
    "(",
    ")",
    "[",
    "]",
    "<",
    ">",
    ",",
    ";",
    ":",
    "::",
    ".",
    "|",
    "!",
    "@",
    "+",
    "-",
    "*",
    "/",
    "%",
    "=",
    "_",
    "\"",
    "\\",
    "/*",
    "*/",
    "//",
    "\n",
    "0",
    "0x",
    "0f",
    "0d",
    "1.5",
    "1e9",
    "08",
    "4294967296",
    "18446744073709551615",
    "-9223372036854775808",
    ".reg",
    ".b32",
    ".v4",
    ".align",
    ".entry",
    ".loc",
    ".section",
    "generic(",
    "WARP_SZ",
];

/// xorshift64*
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    /// A number below `end`; 0 if `end` is 0.
    fn below(&mut self, end: usize) -> usize {
        (self.next() >> 11) as usize % end.max(1)
    }

    /// A range of `text` of at most `longest` bytes.
    fn range(&mut self, text: &[u8], longest: usize) -> std::ops::Range<usize> {
        let start = self.below(text.len() + 1);
        start..(start + self.below(longest + 1)).min(text.len())
    }
}

/// Texts that parse: the header of a fixture with one function, variable or section after it.
fn seeds() -> Vec<Vec<u8>> {
    let short = |text: &str| {
        let header = &text[..text.find(".address_size 64").expect("a header") + 17];
        let kernel = &text[text.find(".visible .entry").expect("a kernel")..];
        let end = kernel.find("\n\n}").expect("an end") + 3;
        format!("{header}{}", &kernel[..end])
    };
    let header = ".version 9.0\n.target sm_90a\n.address_size 64\n";
    let variables =
        FORMS[FORMS.find(".visible .global").expect("variables")..].split_once(".visible .func").expect("a function").0;
    let section = &DEBUG[DEBUG.find("\t.file").expect("a file")..];
    let texts = [
        format!("{header}{variables}"),
        format!("{header}{}", &section[..section.find('}').expect("an end") + 1]),
        FORMS.to_owned(),
        short(CALLS),
        short(HOPPER),
        short(DEBUG),
    ];
    for text in &texts {
        parse(text).unwrap_or_else(|error| panic!("{error}\n{text}"));
    }
    texts.into_iter().map(String::into_bytes).collect()
}

/// The range of a random token of `text`: a run of characters of names, or one other byte.
fn token(random: &mut Random, text: &[u8]) -> std::ops::Range<usize> {
    let named = |byte: &u8| byte.is_ascii_alphanumeric() || b"_$%.".contains(byte);
    let at = random.below(text.len());
    let Some(true) = text.get(at).map(named) else { return at..(at + 1).min(text.len()) };
    let start = text[..at].iter().rposition(|byte| !named(byte)).map_or(0, |before| before + 1);
    let end = text[at..].iter().position(|byte| !named(byte)).map_or(text.len(), |after| at + after);
    start..end
}

fn mutate(random: &mut Random, text: &mut Vec<u8>, other: &[u8]) {
    match random.below(9) {
        0 => {
            let at = random.below(text.len());
            if let Some(byte) = text.get_mut(at) {
                *byte ^= 1 << random.below(7);
            }
        }
        1 => {
            let range = random.range(text, 12);
            text.drain(range);
        }
        2 => {
            let range = random.range(text, 40);
            let copy = text[range.clone()].to_vec();
            text.splice(range.start..range.start, copy);
        }
        3 => {
            let (from, to) = (random.range(other, 60), random.below(text.len()));
            text.splice(to..to, other[from].iter().copied());
        }
        4 => {
            let (a, b) = (token(random, text), token(random, text));
            let (first, second) = if a.start <= b.start { (a, b) } else { (b, a) };
            if first.end <= second.start {
                let (early, late) = (text[first.clone()].to_vec(), text[second.clone()].to_vec());
                text.splice(second, early);
                text.splice(first, late);
            }
        }
        5 => {
            let range = token(random, text);
            text.splice(range, PIECES[random.below(PIECES.len())].bytes());
        }
        6 => {
            let (from, to) = (token(random, other), token(random, text));
            text.splice(to, other[from].iter().copied());
        }
        7 => {
            let range = token(random, text);
            text.drain(range);
        }
        // Truncation is the rarest mutation, because it leaves little of the text.
        _ if random.below(4) == 0 => text.truncate(random.below(text.len())),
        _ => {
            let at = random.below(text.len() + 1);
            text.splice(at..at, PIECES[random.below(PIECES.len())].bytes());
        }
    }
}

/// One piece repeated many times in each context: no text of 300 kB may take long.
#[test]
fn repeated_texts() {
    let contexts = [
        "",
        ".file 1 \"",
        ".global .b8 x",
        ".global .b8 x[] = {",
        ".section .x {",
        ".entry k(",
        ".entry k() {",
        ".entry k() { mov a, ",
        ".entry k() { ld a, [b+",
    ];
    let sequences =
        ["1,", "1+", "-", "a:", "a,", "a;", "ret;", "{}", "[1]", "{a},", ".b8 1 ", ".reg .b32 a;", ".loc 1 2 3 "];
    for context in contexts {
        for piece in PIECES.iter().chain(&sequences) {
            let text = format!(".version 9.0 .target sm_80 {context}{}", piece.repeat(300_000 / piece.len()));
            let start = Instant::now();
            drop(parse(&text));
            assert!(start.elapsed() < Duration::from_secs(2), "{context} {piece} …");
        }
    }
}

fn points_into(text: &str, position: Position) -> bool {
    let line = text.split('\n').nth(position.line as usize - 1);
    position.column >= 1 && line.is_some_and(|line| position.column as usize <= line.len() + 1)
}

fn setting(name: &str, otherwise: u64) -> u64 {
    std::env::var(name).map_or(otherwise, |value| value.parse().expect(name))
}

#[test]
fn broken_texts() {
    let seeds = seeds();
    let first = setting("PTX_FUZZ_SEED", 0);
    let inputs = setting("PTX_FUZZ_INPUTS", 60_000);
    let mut accepted = 0;
    for seed in first..first + inputs {
        let mut random = Random(seed.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1);
        let mut text = seeds[random.below(seeds.len())].clone();
        for _ in 0..=random.below(5) {
            let other = &seeds[random.below(seeds.len())];
            mutate(&mut random, &mut text, other);
        }
        // One in sixteen keeps bytes that are not UTF-8, which become replacement characters.
        if seed % 16 == 0 && !text.is_empty() {
            let at = random.below(text.len());
            text[at] |= 0x80;
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        match catch_unwind(|| parse(&text).map(drop)) {
            Ok(Ok(())) => accepted += 1,
            Ok(Err(error)) => {
                assert!(points_into(&text, error.position), "PTX_FUZZ_SEED={seed} PTX_FUZZ_INPUTS=1: {error}\n{text}")
            }
            Err(_) => panic!("PTX_FUZZ_SEED={seed} PTX_FUZZ_INPUTS=1\n{text}"),
        }
    }
    println!("{inputs} inputs, {accepted} of them still parse");
    // If nearly all texts parsed, or hardly any, the test would prove little.
    assert!(inputs < 1000 || (inputs / 100..inputs / 2).contains(&accepted), "{accepted} of {inputs} parse");
}
