//! Runs every form of every instruction on the emulator and compares the results with those that the PTX ISA specifies.
//! `README.md` describes the forms and how to add one.

mod case;
mod corpus;
#[path = "../../../../tests/common/environment.rs"]
mod environment;
mod ptxas;
mod run;
mod wrong;

use std::path::{Path, PathBuf};

use case::{Case, Outcome};
use corpus::Form;
use ptx_emulator::Arch;

/// Schedules that every form runs with.
const SEEDS: u64 = 6;

/// Defines one test per folder, so that the folders run in parallel.
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

/// The forms of a folder, sorted by name.
fn forms(folder: &str) -> Vec<Form> {
    corpus::folder(&root(), folder).unwrap_or_else(|error| panic!("{error}"))
}

/// Runs a case on every device that its target runs on, with every seed. A text that must be refused is given to all.
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

/// Writes the text of a form to the folder that `INSTRUCTIONS_OUT` names.
fn write_out(Form { name, text }: &Form) {
    let Some(folder) = std::env::var_os("INSTRUCTIONS_OUT") else { return };
    let path = Path::new(&folder).join(format!("{name}.ptx"));
    let written = std::fs::create_dir_all(path.parent().expect("a folder")).and_then(|()| std::fs::write(&path, text));
    written.unwrap_or_else(|error| panic!("{}: {error}", path.display()));
}

fn run_folder(folder: &str) {
    let filter = std::env::var("INSTRUCTIONS").unwrap_or_default();
    let (mut ran, mut failures) = (0, Vec::new());
    for form in forms(folder).iter().filter(|form| form.name.contains(&filter)) {
        write_out(form);
        let result = Case::parse(&form.name, &form.text).and_then(|case| run_everywhere(&case));
        println!("{} ... {}", form.name, if result.is_ok() { "ok" } else { "FAILED" });
        ran += 1;
        failures.extend(result.err());
    }
    assert!(ran > 0 || !filter.is_empty(), "no forms in {folder}");
    let all = failures.join("\n\n");
    assert!(failures.is_empty(), "{} of {ran} forms failed\n\n{all}\n", failures.len());
}

#[test]
fn every_folder_and_file_is_read() {
    let mut known = FOLDERS.to_vec();
    known.sort_unstable();
    assert_eq!(
        corpus::folders(&root()).expect("the folder of this file"),
        known,
        "folders that exist, and those tested"
    );
    for path in known.iter().flat_map(|folder| std::fs::read_dir(root().join(folder)).expect("a folder")) {
        let path = path.expect("an entry").path();
        assert!(path.extension().is_some_and(|extension| extension == "toml"), "{} is not read", path.display());
        let text = std::fs::read_to_string(&path).expect("a readable file");
        assert!(text.lines().count() <= 500, "{} has more than 500 lines", path.display());
        let long = text.lines().find(|line| line.len() > 120);
        assert_eq!(long, None, "{} has a line of more than 120 characters", path.display());
    }
}
