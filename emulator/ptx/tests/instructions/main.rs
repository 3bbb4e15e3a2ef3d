//! One small PTX file for each form of an instruction, with the result that the PTX ISA asks for. The files say nothing
//! of the emulator, so that a GPU can run them unchanged and tell whether the emulator or the expectation is wrong:
//! `emulator/driver/tests/instructions.rs` does so.
//!
//! A file is a module with one entry `test`, and a header of lines that begin with `//@`:
//!
//! ```text
//! //@ launch grid 2 block 64x2 shared 1024
//! //@ arg n: u32 = 5
//! //@ in a: u32 = [1, 0xffffffff, -1; 32]
//! //@ out d: f32 within 2 ulps = [0.5, -0.0, inf, nan,
//! //@     0f3F800000, _]
//! //@ inout sum: u32 = [0] becomes [496]
//! ```
//!
//! - `launch`: extents such as `64x2`, and bytes of dynamic shared memory. Without it, one block of 32 threads.
//! - `arg`, `in`, `out`, `inout`: the entry's parameters, one line each, in order. An `arg` is passed by value (a list makes
//!   a structure), the others are buffers whose address is passed. Nothing has written to an `out` before the kernel does.
//!   An `in` must be unchanged at the end.
//! - Types: `u8` … `u64`, `s8` … `s64`, `b8` … `b64`, `f16`, `bf16`, `f32`, `f64`.
//! - Values: a list, which may go on in the lines below; `[list; n]`, repeated until there are n; or a rule: `iota(count,
//!   start, step)`; `random(count, seed)`, any bits or, for numbers, from [-1, 1); `integers(count, seed, lowest, highest)`.
//!   What comes out may also be a reference of `reference.rs`: `mma(m16n8k16, a, b, c)`.
//! - Literals: decimal, or the element's bits as `0x…`, `0b…`, `0f…`, `0d…`; of a number also `inf`, `-inf`, `nan`. Among
//!   what comes out `nan` is any NaN, and `_` is not compared.
//! - Comparison: the same bits, `within 2 ulps`, `within rel 2^-22 abs 1e-9` (either will do), or `in any order`. A tolerance
//!   is the error that the ISA allows, and up to an ulp more: the number in the file is itself rounded.
//! - `//@ finding Check: words`: the launch must end with a finding of that check, with these words in its message.
//! - `//@ refuse words`: loading must fail with a message that has these words.
//!
//! Files with one of the last two are for the emulator alone: what they do is undefined on a GPU.
//!
//! To add a file, put it into one of the folders. `INSTRUCTIONS=shfl cargo test --test instructions -- --nocapture` runs
//! the files whose name contains that.

mod case;
#[path = "../../../../tests/common/environment.rs"]
mod environment;
mod run;

use std::path::{Path, PathBuf};

use case::{Case, Outcome};
use ptx_emulator::Arch;

/// Orders of execution that every file is run in.
const SEEDS: u64 = 6;

/// A test for each folder, so that they run side by side.
macro_rules! folders {
    ($($folder:ident)*) => {
        $(
            #[test]
            fn $folder() {
                run_folder(stringify!($folder));
            }
        )*

        const FOLDERS: &[&str] = &[$(stringify!($folder)),*];
    };
}

folders! {
    integer extended bits float32 float64 half convert approximate compare moves special memory atomic exchange barrier
    control matrix copy finding refuse
}

fn root() -> PathBuf {
    environment::project().join("tests/instructions")
}

/// The PTX files of a folder, sorted.
fn files(folder: &str) -> Vec<PathBuf> {
    let folder = root().join(folder);
    let entries = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.sort();
    files
}

fn load(path: &Path) -> Result<Case, String> {
    let name = path.strip_prefix(root()).unwrap_or(path).display().to_string();
    let text = std::fs::read_to_string(path).map_err(|error| format!("{name}: {error}"))?;
    Case::parse(name.trim_end_matches(".ptx"), &text)
}

/// On every device that the file's target runs on, in every order. A text that must be refused is given to all.
fn run_everywhere(case: &Case) -> Result<(), String> {
    let refused = matches!(case.outcome, Outcome::Refused { .. });
    let runs = |arch: &Arch| refused || arch.major * 10 + arch.minor >= case.target;
    let archs: Vec<Arch> = [Arch::SM_80, Arch::SM_90].into_iter().filter(runs).collect();
    if archs.is_empty() {
        return Err(format!("{}: no device runs its target", case.name));
    }
    for arch in archs {
        for seed in 0..if refused { 1 } else { SEEDS } {
            let what = |what| format!("{} (sm_{}{}, seed {seed}):\n  {what}", case.name, arch.major, arch.minor);
            run::run(case, arch, seed).map_err(what)?;
        }
    }
    Ok(())
}

fn run_folder(folder: &str) {
    let filter = std::env::var("INSTRUCTIONS").unwrap_or_default();
    let (mut ran, mut failures) = (0, Vec::new());
    for path in files(folder) {
        if !path.to_string_lossy().contains(&filter) {
            continue;
        }
        let result = load(&path).and_then(|case| run_everywhere(&case));
        let verdict = if result.is_ok() { "ok" } else { "FAILED" };
        println!("{folder}/{} ... {verdict}", path.file_name().unwrap_or_default().display());
        ran += 1;
        failures.extend(result.err());
    }
    assert!(ran > 0 || !filter.is_empty(), "no files in {folder}");
    let all = failures.join("\n\n");
    assert!(failures.is_empty(), "{} of {ran} files failed\n\n{all}\n", failures.len());
}

#[test]
fn no_file_is_left_out() {
    let mut folders = Vec::new();
    for entry in std::fs::read_dir(root()).expect("the folder of this file") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if path.is_dir() {
            folders.push(name);
        } else {
            assert!(name.ends_with(".rs"), "{name} lies in no folder, and is not run");
        }
    }
    folders.sort();
    let mut known = FOLDERS.to_vec();
    known.sort_unstable();
    assert_eq!(folders, known, "the folders that are there, and those that are run");
    for path in known.iter().flat_map(|folder| files(folder)) {
        assert!(path.extension().is_some_and(|extension| extension == "ptx"), "{} is not run", path.display());
    }
}

#[test]
fn files_are_small_and_named_after_their_instruction() {
    for path in FOLDERS.iter().flat_map(|folder| files(folder)) {
        let text = std::fs::read_to_string(&path).expect("a readable file");
        let lines = text.lines().count();
        assert!(lines <= 60, "{}: {lines} lines", path.display());
        assert!(text.starts_with("// "), "{}: the first line must say what is tested", path.display());
        assert!(text.lines().all(|line| line.len() <= 120), "{}: a line is too long", path.display());
    }
}

const ADD: &str = "\
// Adds.
//@ in a: u32 = [1, 2, 3, 4; 32]
//@ out d: u32 = [11, 12, 13, 14; 32]
.version 9.0
.target sm_80
.address_size 64
.visible .entry test(.param .u64 a, .param .u64 d)
{
	.reg .u32 %i, %a;
	.reg .u64 %pa, %pd;
	ld.param.u64 %pa, [a];
	ld.param.u64 %pd, [d];
	mov.u32 %i, %tid.x;
	mad.wide.u32 %pa, %i, 4, %pa;
	mad.wide.u32 %pd, %i, 4, %pd;
	ld.global.u32 %a, [%pa];
	add.u32 %a, %a, 10;
	st.global.u32 [%pd], %a;
	ret;
}
";

/// What comes of the text above with one line replaced.
fn changed(from: &str, to: &str) -> String {
    let text = ADD.replace(from, to);
    assert_ne!(text, ADD, "{from}");
    Case::parse("add", &text).and_then(|case| run_everywhere(&case)).expect_err(to)
}

#[test]
fn a_wrong_expectation_fails() {
    Case::parse("add", ADD).and_then(|case| run_everywhere(&case)).expect("the right one");
    assert_eq!(
        changed("[11, 12, 13, 14; 32]", "[11, 12, 14, 14; 32]"),
        "add (sm_80, seed 0):\n  d[2] is 0x0000000d (13), expected 0x0000000e (14)\n  \
         d[6] is 0x0000000d (13), expected 0x0000000e (14)\n  \
         d[10] is 0x0000000d (13), expected 0x0000000e (14)\n  \
         d[14] is 0x0000000d (13), expected 0x0000000e (14)\n  8 of 32 elements of d differ"
    );
    let unwritten = changed("[11, 12, 13, 14; 32]", "[11, 12, 13, 14; 33]");
    assert!(unwritten.contains("d[32] is 0xcbcbcbcb"), "{unwritten}");
    let clobbered = changed("st.global.u32 [%pd]", "st.global.u32 [%pa]");
    assert!(clobbered.contains("a[0] is 0x0000000b (11), expected 0x00000001 (1)"), "{clobbered}");
    let finding = changed("//@ out", "//@ finding Bounds: outside\n//@ out");
    assert!(finding.contains("expected a finding Bounds"), "{finding}");
    let refused = changed("//@ out", "//@ refuse an unknown instruction\n//@ out");
    assert!(refused.contains("it was loaded"), "{refused}");
    let other = changed("add.u32", "addd.u32");
    assert!(other.contains("addd"), "{other}");
}

#[test]
fn a_wrong_header_is_named() {
    let cases = [
        ("//@ in a", "//@ inn a", "add: `inn a: u32 = [1, 2, 3, 4; 32]`: no such directive"),
        ("3, 4; 32]", "3, x; 32]", "add: `in a: u32 = [1, 2, 3, x; 32]`: `x` is no integer of 32 bits"),
        ("d: u32 =", "d: u33 =", "`u33` is no type"),
        ("d: u32 =", "d: u32 near =", "`near` is no comparison"),
        ("[11, 12, 13, 14; 32]", "mma(m16n8k16, a, b)", "there is no reference `mma` of 3 arguments"),
        ("//@ in a", "//@ launch block 32x1x1x1\n//@ in a", "more than three extents"),
        ("//@ out d", "//@ arg n: u32 = 1\n//@ out d", "the entry has 2 parameters, the header 3"),
        ("//@ out d: u32", "//@ arg d: u32", "the parameter d has 8 bytes"),
    ];
    for (from, to, message) in cases {
        let error = changed(from, to);
        assert!(error.contains(message), "{error}\n{message}");
    }
}
