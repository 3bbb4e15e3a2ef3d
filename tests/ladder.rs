//! Checks the ladders of docs/study/ladder: each step computes the operation, and has the counts of its page.

#[path = "common/environment.rs"]
mod environment;
#[path = "common/kernel_variant.rs"]
mod kernel_variant;

use std::fs;

use half::bf16;
use ironwarp::bench::cases;
use ironwarp::bench::problem::Problem;
use ironwarp::bench::verify::verify;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::matmul::{self, TileConfig, TileSize};
use ironwarp::ops::{Epilogue, MatmulForward};
use ironwarp::profile::counts::{Profile, Profiler};
use ironwarp::tensor::Tensor;

struct Ladder {
    /// Folder of the steps in `kernels/ladder/`, and stem of the page in `docs/study/ladder/`.
    name: &'static str,
    /// Stem of the production kernel, `kernels/STEM.cu`, which is the last step. The other steps replace it.
    stem: &'static str,
    op: &'static str,
    shape: &'static str,
    /// More shapes whose results are verified, but not counted. They find index errors that one shape alone would not.
    also: &'static [&'static str],
}

const LADDERS: [Ladder; 3] = [
    Ladder { name: "layernorm", stem: "layernorm", op: "layernorm_forward", shape: "n=256,c=768", also: &[] },
    Ladder { name: "matmul", stem: "matmul_sm80", op: "matmul_forward", shape: "n=256,c=256,oc=256", also: &[] },
    Ladder {
        name: "attention",
        stem: "attention_forward_sm80",
        op: "attention_forward",
        shape: "b=1,t=256,nh=2,hs=64",
        // Several sequences; three query tiles.
        also: &["b=2,t=128,nh=3,hs=64", "b=1,t=384,nh=1,hs=64"],
    },
];

/// The first table of a page, which lists the steps: first the names of the columns, then the rows.
fn table<'a>(page: &'a str) -> Vec<Vec<&'a str>> {
    let rows = page.lines().skip_while(|line| !line.starts_with("| Step |")).take_while(|line| line.starts_with('|'));
    let cells = |row: &'a str| row.trim_matches('|').split('|').map(|cell| cell.trim_matches([' ', '`'])).collect();
    // Line 1 is the rule below the heading.
    rows.enumerate().filter(|(i, _)| *i != 1).map(|(_, row)| cells(row)).collect()
}

/// The expected text of a cell, and the relative tolerance of values that depend on the compiler.
fn value(column: &str, profile: &Profile, registers: u32) -> (String, f64) {
    let totals = &profile.totals;
    let ratio = |a: u64, b: u64| a as f64 / b as f64;
    match column {
        "bytes/floor" => (format!("{:.3}", ratio(totals.global_bytes, profile.floor_bytes)), 0.0),
        "sect/req" => (format!("{:.2}", totals.sectors_per_request), 0.0),
        "sect/ideal" => (format!("{:.3}", totals.sectors_over_ideal), 0.0),
        "requests" => (totals.requests.to_string(), 0.0),
        "wavefronts" => (totals.shared_wavefronts.to_string(), 0.0),
        "conflicts" => (totals.bank_conflicts.to_string(), 0.0),
        "tensor" => (format!("{:.0}%", 100.0 * ratio(totals.tensor_flops, profile.floor_flops)), 0.0),
        "instructions" => (totals.warp_instructions.to_string(), 0.1),
        "regs" => (registers.to_string(), 0.1),
        other => panic!("unknown column {other:?}"),
    }
}

/// The cells of a step's row on `page` that differ from the counts.
fn differences(page: &str, columns: &[&str], row: &[&str], profile: &Profile, registers: u32) -> Vec<String> {
    assert_eq!(columns.len(), row.len(), "{row:?}");
    let of_number = |text: &str| text.trim_end_matches('%').replace(',', "").parse::<f64>().unwrap();
    let cells = columns.iter().zip(row).skip(1);
    let wrong = cells.filter_map(|(column, cell)| {
        let (counted, tolerance) = value(column, profile, registers);
        let off = (of_number(cell) - of_number(&counted)).abs();
        (off > tolerance * of_number(&counted))
            .then(|| format!("{page}, {}: {column} is {counted}, the page says {cell}", row[0]))
    });
    wrong.collect()
}

/// A matmul with both tile sizes of a step. The launcher chooses the large tile only for shapes that the emulator would
/// take too long for.
fn by_both_tiles(cuda: &Cuda) -> [Vec<bf16>; 2] {
    // 2 x 2 tiles of 128 x 256, and more K tiles than pipeline stages.
    let (n, c, oc) = (256, 160, 512);
    let numbers = |len: usize| (0..len).map(|i| bf16::from_f32((i * 37 % 101) as f32 / 64.0 - 0.8)).collect();
    let x = Tensor::from_vec(cuda, [n, c], numbers(n * c)).unwrap();
    let weight = Tensor::from_vec(cuda, [oc, c], numbers(oc * c)).unwrap();
    [TileSize::Small, TileSize::Large].map(|tile| {
        let mut out = Tensor::zeros(cuda, [n, oc]).unwrap();
        let op = MatmulForward { x: x.view(), weight: weight.view(), epilogue: Epilogue::None, out: out.view_mut() };
        matmul::forward(cuda, op, Some(TileConfig { tile, split_k: 1 })).unwrap();
        out.to_vec(cuda).unwrap()
    })
}

/// This is one test, because the emulator counts the launches of the whole process.
#[test]
fn steps_match_the_operation_and_their_page() {
    let cuda = Cuda::emulated().unwrap();
    let mut wrong = Vec::new();
    for Ladder { name, stem, op, shape, also } in LADDERS {
        let page = format!("docs/study/ladder/{name}.md");
        let text = fs::read_to_string(environment::project().join(&page)).unwrap();
        let info = cases::select(&[op.to_owned()]).unwrap()[0];
        let parse = |shape: &str| Problem::parse(info, shape, &info.small()[0]).unwrap();
        let problem = parse(shape);
        let shapes: Vec<Problem> = also.iter().map(|shape| parse(shape)).chain([problem.clone()]).collect();
        assert!(text.contains(&format!("ironwarp profile {op} --shape {shape} ")), "{page}: no command");
        let table = table(&text);
        let (columns, rows) = table.split_first().expect(&page);
        let entries = fs::read_dir(environment::project().join("kernels/ladder").join(name)).unwrap();
        let mut files: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        files.push(format!("{stem}.cu"));
        assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), files, "{page}: steps");

        // The production kernel is profiled before it is replaced.
        let built = Profiler::new(&cuda).unwrap().profile(info, &problem).unwrap();
        let last = rows.last().expect(&page);
        wrong.extend(differences(&page, columns, last, &built, built.registers.expect("built")));
        for (file, row) in files.iter().zip(rows).take(files.len() - 1) {
            let ptx = kernel_variant::ptx(&format!("ladder/{name}/{file}"), &[]);
            let mut profiler = Profiler::new(&cuda).unwrap();
            profiler.replace(stem, &ptx).unwrap();
            for problem in &shapes {
                verify(&cuda, info, problem).unwrap_or_else(|error| panic!("{name}/{file}: {error}"));
            }
            let profile = profiler.profile(info, &problem).unwrap();
            let registers = kernel_variant::registers(&ptx, &profile.kernels[0].kernel);
            wrong.extend(differences(&page, columns, row, &profile, registers));
            if name == "matmul" {
                let [small, large] = by_both_tiles(&cuda);
                assert!(small == large, "{name}/{file}: tiles of two sizes differ");
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}
