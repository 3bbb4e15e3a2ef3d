//! Compares the PTX of every kernel with the [`Spec`] of its launcher, because the two are written in different
//! languages.

#[path = "common/environment.rs"]
mod environment;

use std::collections::BTreeMap;

use ironwarp::cuda::kernels;
use ironwarp::cuda::launch::images::IMAGES;
use ironwarp::cuda::launch::spec::Spec;

/// The properties of an entry point in PTX.
#[derive(Debug, PartialEq)]
struct Entry {
    /// Alignment and size in bytes of each parameter.
    params: Vec<(usize, usize)>,
    threads: u32,
    min_blocks: u32,
    dynamic_shared: bool,
}

/// Bytes of shared memory per block that every architecture from sm_80 on supports.
const MAX_SHARED: u32 = 99 << 10;

/// The number that follows `keyword`.
fn number(text: &str, keyword: &str) -> Option<usize> {
    let rest = text.split_once(keyword)?.1.trim_start();
    let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
    rest[..digits].parse().ok()
}

/// The entry points of a PTX text, by name.
fn entries(ptx: &str) -> BTreeMap<&str, Entry> {
    // Dynamic shared memory is declared outside the kernels, which refer to it by name.
    let dynamic: Vec<&str> = ptx
        .lines()
        .filter(|line| line.contains(".extern .shared"))
        .filter_map(|line| line.rsplit_once('[')?.0.split_whitespace().last())
        .collect();
    let parse = |text: &'static str, entry: &str| -> usize {
        number(entry, text).unwrap_or_else(|| panic!("no {text} in {entry}"))
    };
    ptx.split(".visible .entry ")
        .skip(1)
        .map(|entry| {
            let (name, rest) = entry.split_once('(').expect("an entry has parameters");
            let (params, rest) = rest.split_once(')').expect("parameters end");
            let (directives, body) = rest.split_once('{').expect("an entry has a body");
            let params = params.split(',').map(|param| (parse(".align", param), parse("[", param))).collect();
            let threads = parse(".maxntid", directives) as u32;
            let min_blocks = number(directives, ".minnctapersm").unwrap_or(1) as u32;
            let words: Vec<&str> = body.split(|c: char| !(c.is_ascii_alphanumeric() || "_$.%".contains(c))).collect();
            let dynamic_shared = dynamic.iter().any(|name| words.contains(name));
            (name.trim(), Entry { params, threads, min_blocks, dynamic_shared })
        })
        .collect()
}

fn expected(spec: &Spec) -> Entry {
    Entry {
        params: vec![(8, spec.param_bytes)],
        threads: spec.threads,
        min_blocks: spec.min_blocks,
        dynamic_shared: spec.dynamic_shared > 0,
    }
}

#[test]
fn every_kernel_matches_the_spec_of_its_launcher() {
    let specs: Vec<&Spec> = kernels().collect();
    assert!(!specs.is_empty() && !IMAGES.is_empty());
    for image in IMAGES {
        let entries = entries(image.ptx);
        for (name, entry) in &entries {
            let spec = specs.iter().find(|spec| spec.name == *name && spec.stem == image.stem);
            let spec = spec.unwrap_or_else(|| panic!("{name} of {}.cu has no launcher", image.stem));
            assert_eq!(
                *entry,
                expected(spec),
                "{name} for {}: PTX on the left, the launcher's spec on the right",
                image.arch
            );
            // Static shared memory as ptxas counts it, including that of functions.
            let taken = image.resources.iter().find(|taken| taken.kernel == *name);
            let shared = taken.map_or(0, |taken| taken.shared_bytes) + spec.dynamic_shared;
            assert!(shared <= MAX_SHARED, "{name} for {}: {shared} bytes of shared memory", image.arch);
        }
        for spec in specs.iter().filter(|spec| spec.stem == image.stem) {
            assert!(entries.contains_key(spec.name), "{} is not in {}.cu for {}", spec.name, image.stem, image.arch);
        }
    }
    let docs = std::fs::read_to_string(environment::project().join("docs/kernels.md")).unwrap();
    for spec in &specs {
        assert!(docs.contains(&format!("`{}`", spec.name)), "{} is not in docs/kernels.md", spec.name);
        assert!(IMAGES.iter().any(|image| image.stem == spec.stem), "no file {}.cu for {}", spec.stem, spec.name);
        assert_eq!(specs.iter().filter(|other| other.name == spec.name).count(), 1, "{}", spec.name);
    }
}

/// The register figures of `docs/kernels.md`, as `(kernel, [sm_80, sm_90a])`.
fn documented_registers(docs: &str) -> Vec<(String, [u32; 2])> {
    let (_, table) = docs.split_once("| File | Kernel | Threads | Registers |").expect("the table of registers");
    let rows = table.lines().skip(2).take_while(|line| line.starts_with('|'));
    let of_row = |row: &str| {
        let cells: Vec<&str> = row.split('|').map(str::trim).collect();
        let names: Vec<String> = cells[2].split(", ").map(|name| name.trim_matches('`').to_owned()).collect();
        let numbers = cells[4].split(", ").map(|pair| {
            let (old, new) = pair.split_once(" / ").unwrap_or_else(|| panic!("'{pair}' in {row}"));
            [old, new].map(|number| number.parse().unwrap_or_else(|_| panic!("'{number}' in {row}")))
        });
        let numbers: Vec<[u32; 2]> = numbers.collect();
        // A single pair applies to all kernels of the row.
        assert!(numbers.len() == names.len() || numbers.len() == 1, "{row}");
        names
            .into_iter()
            .enumerate()
            .map(move |(i, name)| (name, numbers[i.min(numbers.len() - 1)]))
            .collect::<Vec<_>>()
    };
    rows.flat_map(of_row).collect()
}

#[test]
fn registers_match_the_documentation() {
    let docs = std::fs::read_to_string(environment::project().join("docs/kernels.md")).unwrap();
    let documented = documented_registers(&docs);
    assert_eq!(documented.len(), kernels().count(), "number of kernels in the table");
    for image in IMAGES {
        let Some(column) = ["80", "90a"].iter().position(|arch| *arch == image.arch) else { continue };
        // Another version of the compiler assigns registers differently.
        if !image.ptx.contains("release 13.0,") {
            println!("{} for {}: skipped: not compiled by CUDA 13.0, which the page documents", image.stem, image.arch);
            continue;
        }
        for taken in image.resources {
            let row = documented.iter().find(|(name, _)| name == taken.kernel);
            let (_, numbers) = row.unwrap_or_else(|| panic!("{} has no row", taken.kernel));
            assert_eq!(numbers[column], taken.registers, "{} for sm_{}", taken.kernel, image.arch);
        }
    }
}
