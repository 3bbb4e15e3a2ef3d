//! Checks that every operation of `src/ops` has a CPU reference, tests, a row in the docs, a backend method, and a CUDA
//! kernel with its launcher and tests.

#[path = "common/environment.rs"]
mod environment;

use ironwarp::bench::cases::ALL;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Files of `src/ops` that hold no operation.
const HELPERS: [&str; 5] = ["mod", "check", "operation", "philox", "qkv"];

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The files of `src/ops` that hold operations, without `.rs`.
fn stems() -> Vec<String> {
    let entries = fs::read_dir(environment::project().join("src/ops")).unwrap();
    let stem = |path: PathBuf| path.file_stem().unwrap().to_str().unwrap().to_owned();
    let mut stems: Vec<String> = entries.map(|entry| stem(entry.unwrap().path())).collect();
    stems.retain(|stem| !HELPERS.contains(&stem.as_str()));
    stems.sort();
    stems
}

/// (type, `NAME`) of every operation in a source text.
fn operations(source: &str) -> Vec<(String, String)> {
    let between = |text: &str, start: &str, end: &str| {
        let (_, rest) = text.split_once(start).unwrap_or_else(|| panic!("no {start:?} in {text}"));
        rest.split_once(end).unwrap_or_else(|| panic!("no {end:?} in {rest}")).0.to_owned()
    };
    let blocks = source.split("Operation for ").skip(1);
    blocks.map(|block| (between(block, "", "<"), between(block, "NAME: &'static str = \"", "\""))).collect()
}

#[test]
fn nothing_is_missing() {
    let root = environment::project();
    let (docs, backend) = (read(&root.join("docs/operations.md")), read(&root.join("src/ops/mod.rs")));
    let cuda = read(&root.join("src/cuda/mod.rs"));
    let mut missing = Vec::new();
    let mut require = |found: bool, what: String| {
        if !found {
            missing.push(what);
        }
    };
    let mut methods = 0;
    for stem in stems() {
        for file in [format!("src/cpu/{stem}.rs"), format!("tests/ops/{stem}.rs")] {
            require(root.join(&file).is_file(), file);
        }
        require(docs.contains(&format!("\n## {stem}\n")), format!("## {stem} in docs/operations.md"));
        let operations = operations(&read(&root.join(format!("src/ops/{stem}.rs"))));
        require(!operations.is_empty(), format!("an operation in src/ops/{stem}.rs"));
        for (op, name) in operations {
            methods += 1;
            require(docs.contains(&format!("\n| `{name}` |")), format!("a row for {name} in docs/operations.md"));
            let method = format!("fn {name}(&self, op: {op}<'_, Self>)");
            require(backend.contains(&method), format!("{method} in Backend"));
            let dispatched = cuda.contains(&format!("{method} -> Result<()> {{\n        {stem}::"));
            require(dispatched, format!("{name} by {stem}:: in src/cuda/mod.rs"));
            let case = ALL.iter().find(|info| info.op == name);
            require(
                case.is_some_and(|info| info.stem == stem),
                format!("a case for {name} in src/bench/cases/{stem}.rs"),
            );
            // A launcher that chooses between kernel configurations is a folder: mod.rs launches, config.rs chooses.
            let launchers = [format!("src/cuda/{stem}.rs"), format!("src/cuda/{stem}/mod.rs")];
            require(launchers.iter().any(|file| root.join(file).is_file()), launchers.join(" or "));
            let tests = format!("tests/cuda/{stem}.rs");
            require(root.join(&tests).is_file(), tests);
            // A family with kernels for each architecture has at least those for sm_80, which run on all of them. A
            // large family has one file for each operation.
            let names = [stem.clone(), format!("{stem}_sm80"), format!("{name}_sm80")];
            let kernels = names.map(|name| format!("kernels/{name}.cu"));
            require(kernels.iter().any(|file| root.join(file).is_file()), kernels.join(" or "));
        }
    }
    assert!(missing.is_empty(), "missing:\n  {}", missing.join("\n  "));
    assert_eq!(docs.matches("\n| `").count(), methods, "rows of docs/operations.md and operations of src/ops");
}

/// The folders of the first column of docs/architecture.md's table, without the closing slash.
fn documented_folders(page: &str) -> BTreeSet<String> {
    let (_, table) = page.split_once("\n## Folders\n").expect("a section about folders");
    let rows = table.split("\n## ").next().unwrap().lines().filter_map(|line| line.strip_prefix("| `"));
    rows.filter_map(|row| row.split_once("/` |")).map(|(folder, _)| folder.to_owned()).collect()
}

/// Every folder below `root`, as paths from the project.
fn folders(root: &str) -> Vec<String> {
    let entries = fs::read_dir(environment::project().join(root)).unwrap();
    let paths = entries.map(|entry| entry.unwrap().path()).filter(|path| path.is_dir());
    let names = paths.map(|path| format!("{root}/{}", path.file_name().unwrap().to_str().unwrap()));
    names.flat_map(|folder| [vec![folder.clone()], folders(&folder)].concat()).collect()
}

#[test]
fn the_architecture_page_lists_every_folder() {
    let root = environment::project();
    let documented = documented_folders(&read(&root.join("docs/architecture.md")));
    let gone: Vec<&String> = documented.iter().filter(|folder| !root.join(folder).is_dir()).collect();
    assert!(gone.is_empty(), "docs/architecture.md lists folders that do not exist: {gone:?}");
    let existing = ["kernels", "src"].into_iter().flat_map(folders).chain(["kernels", "src"].map(String::from));
    let missing: Vec<String> = existing.filter(|folder| !documented.contains(folder)).collect();
    assert!(missing.is_empty(), "docs/architecture.md does not list {missing:?}");
}

/// libtest ignores a filter that matches no test, so a renamed test would silently be left out of the GPU bundle's run.
#[test]
fn filters_of_the_gpu_bundle_match_tests() {
    let script = read(&environment::project().join("scripts/gpu-run-all.sh"));
    let folder = environment::project().join("tests/cuda");
    let (_, list) = script.split_once("local filters=(").expect("a list of filters");
    for filter in list.split(')').next().unwrap().split_whitespace() {
        let (module, test) = filter.rsplit_once("::").expect("a module and the beginning of a test's name");
        let stem = module.replace("::", "/");
        let files = [format!("{stem}.rs"), format!("{stem}/mod.rs")].map(|file| folder.join(file));
        let file = files.iter().find(|file| file.is_file()).unwrap_or_else(|| panic!("{filter}: no {stem}.rs"));
        assert!(read(file).contains(&format!("#[test]\nfn {test}")), "{filter}: no such test in {}", file.display());
    }
    let every = read(&folder.join("gelu.rs"));
    for skipped in script.split("--skip ").skip(1).map(|rest| rest.split_whitespace().next().unwrap()) {
        assert!(every.contains(&format!("#[test]\nfn {skipped}")), "--skip {skipped}: no such test in gelu.rs");
    }
}
