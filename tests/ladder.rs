//! The ladders of docs/study/ladder.md: each step computes what the operation does, and counts as the page says.

#[path = "place/mod.rs"]
mod place;
#[path = "variant/mod.rs"]
mod variant;

use std::fs;

use half::bf16;
use ironwarp::bench::cases;
use ironwarp::bench::problem::Problem;
use ironwarp::bench::verify::verify;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::matmul::{self, Cut, TileSize};
use ironwarp::ops::{Epilogue, MatmulForward};
use ironwarp::profile::counts::{Profile, Profiler};
use ironwarp::tensor::Tensor;

struct Ladder {
    /// Its section of the page.
    section: &'static str,
    /// Of `kernels/ladder/`.
    folder: &'static str,
    /// The file of `kernels/` whose place a step takes, and which is the last step.
    stem: &'static str,
    op: &'static str,
    shape: &'static str,
    /// Where results are looked at but not counted: places that one shape alone does not tell apart.
    also: &'static [&'static str],
}

const LADDERS: [Ladder; 3] = [
    Ladder {
        section: "Layernorm",
        folder: "layernorm",
        stem: "layernorm",
        op: "layernorm_forward",
        shape: "n=256,c=768",
        also: &[],
    },
    Ladder {
        section: "Matmul",
        folder: "matmul",
        stem: "matmul_sm80",
        op: "matmul_forward",
        shape: "n=256,c=256,oc=256",
        also: &[],
    },
    Ladder {
        section: "Attention",
        folder: "attention",
        stem: "attention_forward_sm80",
        op: "attention_forward",
        shape: "b=1,t=256,nh=2,hs=64",
        // Several sequences; three blocks of queries.
        also: &["b=2,t=128,nh=3,hs=64", "b=1,t=384,nh=1,hs=64"],
    },
];

/// The table of a section that begins with a step: its columns' names, then its rows.
fn table<'a>(page: &'a str, section: &str) -> Vec<Vec<&'a str>> {
    let (_, rest) = page.split_once(&format!("\n## {section}\n")).expect(section);
    let own = rest.split("\n## ").next().unwrap();
    let rows = own.lines().skip_while(|line| !line.starts_with("| Step |")).take_while(|line| line.starts_with('|'));
    let cells = |row: &'a str| row.trim_matches('|').split('|').map(|cell| cell.trim_matches([' ', '`'])).collect();
    // The second line rules off the first.
    rows.enumerate().filter(|(i, _)| *i != 1).map(|(_, row)| cells(row)).collect()
}

/// What a cell must say, and by what share it may be off where the compiler has a say.
fn value(column: &str, profile: &Profile, registers: u32) -> (String, f64) {
    let totals = &profile.totals;
    let by = |a: u64, b: u64| a as f64 / b as f64;
    match column {
        "asked" => (format!("{:.3}", by(totals.global_bytes, profile.floor_bytes)), 0.0),
        "sect/req" => (format!("{:.2}", totals.sectors_per_request), 0.0),
        "ideal" => (format!("{:.3}", totals.sectors_over_ideal), 0.0),
        "requests" => (totals.requests.to_string(), 0.0),
        "wavefronts" => (totals.shared_wavefronts.to_string(), 0.0),
        "conflicts" => (totals.bank_conflicts.to_string(), 0.0),
        "tensor" => (format!("{:.0}%", 100.0 * by(totals.tensor_flops, profile.floor_flops)), 0.0),
        "instructions" => (totals.warp_instructions.to_string(), 0.1),
        "regs" => (registers.to_string(), 0.1),
        other => panic!("nothing counted is called {other:?}"),
    }
}

/// The cells of a step's row that are not what was counted.
fn differences(columns: &[&str], row: &[&str], profile: &Profile, registers: u32) -> Vec<String> {
    assert_eq!(columns.len(), row.len(), "{row:?}");
    let of_number = |text: &str| text.trim_end_matches('%').replace(',', "").parse::<f64>().unwrap();
    let cells = columns.iter().zip(row).skip(1);
    let wrong = cells.filter_map(|(column, cell)| {
        let (counted, share) = value(column, profile, registers);
        let off = (of_number(cell) - of_number(&counted)).abs();
        (off > share * of_number(&counted)).then(|| format!("{}: {column} is {counted}, the page says {cell}", row[0]))
    });
    wrong.collect()
}

/// A product by a step's two kernels, the second of which the launcher takes for larger ones than are emulated in a moment.
fn by_both_tiles(cuda: &Cuda) -> [Vec<bf16>; 2] {
    // Two tiles of (128, 256) each way, and more stages than the ring has.
    let (n, c, oc) = (256, 160, 512);
    let numbers = |len: usize| (0..len).map(|i| bf16::from_f32((i * 37 % 101) as f32 / 64.0 - 0.8)).collect();
    let x = Tensor::from_vec(cuda, [n, c], numbers(n * c)).unwrap();
    let weight = Tensor::from_vec(cuda, [oc, c], numbers(oc * c)).unwrap();
    [TileSize::Small, TileSize::Large].map(|tile| {
        let mut out = Tensor::zeros(cuda, [n, oc]).unwrap();
        let op = MatmulForward { x: x.view(), weight: weight.view(), epilogue: Epilogue::None, out: out.view_mut() };
        matmul::forward(cuda, op, Some(Cut { tile, parts: 1 })).unwrap();
        out.to_vec(cuda).unwrap()
    })
}

/// One test, as what is counted is the whole process's.
#[test]
fn steps_compute_and_count_as_the_page_says() {
    let cuda = Cuda::emulated().unwrap();
    let page = fs::read_to_string(place::project().join("docs/study/ladder.md")).unwrap();
    let mut wrong = Vec::new();
    for Ladder { section, folder, stem, op, shape, also } in LADDERS {
        let info = cases::select(&[op.to_owned()]).unwrap()[0];
        let parse = |shape: &str| Problem::parse(info, shape, &info.small()[0]).unwrap();
        let problem = parse(shape);
        let shapes: Vec<Problem> = also.iter().map(|shape| parse(shape)).chain([problem.clone()]).collect();
        assert!(page.contains(&format!("ironwarp profile {op} --shape {shape} ")), "{section}: no command");
        let table = table(&page, section);
        let (columns, rows) = table.split_first().expect(section);
        let entries = fs::read_dir(place::project().join("kernels/ladder").join(folder)).unwrap();
        let mut files: Vec<String> = entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        files.sort();
        files.push(format!("{stem}.cu"));
        assert_eq!(rows.iter().map(|row| row[0]).collect::<Vec<_>>(), files, "{section}: steps");

        // What is built before its place is taken.
        let built = Profiler::new(&cuda).unwrap().profile(info, &problem).unwrap();
        let last = rows.last().expect(section);
        wrong.extend(differences(columns, last, &built, built.registers.expect("built")));
        for (file, row) in files.iter().zip(rows).take(files.len() - 1) {
            let ptx = variant::ptx(&format!("ladder/{folder}/{file}"), &[]);
            let mut profiler = Profiler::new(&cuda).unwrap();
            profiler.replace(stem, &ptx).unwrap();
            for problem in &shapes {
                verify(&cuda, info, problem).unwrap_or_else(|error| panic!("{folder}/{file}: {error}"));
            }
            let profile = profiler.profile(info, &problem).unwrap();
            let registers = variant::registers(&ptx, &profile.kernels[0].kernel);
            wrong.extend(differences(columns, row, &profile, registers));
            if folder == "matmul" {
                let [small, large] = by_both_tiles(&cuda);
                assert!(small == large, "{folder}/{file}: tiles of two sizes differ");
            }
        }
    }
    assert!(wrong.is_empty(), "docs/study/ladder.md:\n{}", wrong.join("\n"));
}
