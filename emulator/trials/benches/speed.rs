//! Speed of the emulator: lane instructions per second and core, with and without checks.
//!
//! `cargo bench -p emulator-trials --bench speed`. Each row is one trial kernel with a large input on one host thread. The
//! time is the median of several whole runs, including the allocation and filling of buffers. It is the speed of the
//! emulator and says nothing about a GPU.

use std::time::Instant;

use emulator_trials::{Arg, CORRECT, Case, Device, Expected, Random, bytes_of, ptx};
use ptx_emulator::Settings;

const RUNS: usize = 7;

fn cases() -> Vec<(&'static str, Case)> {
    let mut random = Random::new(1);
    let case = |grid, block, args| Case {
        shape: String::new(),
        purpose: "large enough to be timed",
        grid,
        block,
        dynamic_shared: 0,
        args,
    };
    let matrix = 256u32;
    let (rows, columns) = (512u32, 2048u32);
    let numbers = 1u32 << 14;
    let floats = bytes_of(&random.floats((rows * columns) as usize));
    let start: Vec<u64> = (0..numbers).map(|_| random.bits() % 1000 + 1).collect();
    let data: Vec<u8> = (0..1 << 20).map(|_| random.bits() as u8).collect();
    let shape = || [Arg::U32(rows), Arg::U32(columns)];
    let out = |name, bytes: u32| Arg::Out(name, Expected::Anything(u64::from(bytes)));
    let [a, b] = ["a", "b"].map(|name| Arg::In(name, bytes_of(&random.bf16s((matrix * matrix) as usize))));
    let sizes = [Arg::U32(matrix), Arg::U32(matrix), Arg::U32(matrix)];
    let product = [a, b, out("c", 4 * matrix * matrix)].into_iter().chain(sizes).collect();
    let transposed =
        [Arg::In("x", floats.clone()), out("out", 4 * rows * columns)].into_iter().chain(shape()).collect();
    let summed = [Arg::In("x", floats), out("out", 4 * rows)].into_iter().chain(shape()).collect();
    let bins = Arg::InOut("counts", vec![0; 1024], Expected::Anything(1024));
    let (blocks, scanned) = (2048u32, 512u32);
    let ticket = || Arg::InOut("ticket", vec![0; 4], Expected::Anything(4));
    vec![
        ("matmul", case([matrix / 32, matrix / 32, 1], [128, 1, 1], product)),
        ("row_sum", case([rows, 1, 1], [256, 1, 1], summed)),
        ("transpose", case([columns / 32, rows / 32, 1], [32, 8, 1], transposed)),
        (
            "collatz",
            case(
                [numbers / 64, 1, 1],
                [64, 1, 1],
                vec![Arg::In("start", bytes_of(&start)), out("steps", 4 * numbers), Arg::U32(numbers)],
            ),
        ),
        // Thousands of blocks that increment one counter, and blocks that wait for each other.
        (
            "grid_sum",
            case(
                [blocks, 1, 1],
                [128, 1, 1],
                vec![
                    Arg::In("x", bytes_of(&random.floats((blocks * 128) as usize))),
                    out("partials", 4 * blocks),
                    ticket(),
                    out("out", 4),
                    Arg::U32(blocks * 128),
                ],
            ),
        ),
        (
            "chained_scan",
            case(
                [scanned, 1, 1],
                [128, 1, 1],
                vec![
                    Arg::In("x", bytes_of(&random.words((scanned * 128) as usize))),
                    out("out", 4 * scanned * 128),
                    out("totals", 4 * scanned),
                    Arg::InOut("ready", vec![0; 4 * scanned as usize], Expected::Anything(4 * u64::from(scanned))),
                    ticket(),
                    Arg::U32(scanned * 128),
                ],
            ),
        ),
        ("histogram", case([64, 1, 1], [256, 1, 1], vec![Arg::In("data", data), bins, Arg::U32(1 << 20)])),
    ]
}

/// Million lane instructions per second, the median of [`RUNS`] runs.
fn speed(device: &Device, kernel: &str, case: &Case, checks: bool) -> f64 {
    let settings = Settings { seed: 1, checks, threads: 1, ..Settings::default() };
    let mut speeds: Vec<f64> = (0..RUNS)
        .map(|_| {
            let start = Instant::now();
            let done = device.run(kernel, case, &settings).unwrap_or_else(|failure| panic!("{kernel}: {failure}"));
            done.counts.lane_instructions as f64 / start.elapsed().as_secs_f64() / 1e6
        })
        .collect();
    speeds.sort_by(f64::total_cmp);
    speeds[RUNS / 2]
}

fn main() {
    println!("million lane instructions per second and core, median of {RUNS} runs on one thread");
    println!("{:<12} {:>10} {:>10} {:>14}", "kernel", "checked", "unchecked", "cost of checks");
    for (kernel, case) in cases() {
        let device = Device::load(ptx(CORRECT, kernel)).unwrap_or_else(|failure| panic!("{kernel}: {failure}"));
        let [checked, unchecked] = [true, false].map(|checks| speed(&device, kernel, &case, checks));
        println!("{kernel:<12} {checked:>10.0} {unchecked:>10.0} {:>13.2}x", unchecked / checked);
    }
}
