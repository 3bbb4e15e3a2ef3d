//! Sampling: every token is that of the formula, except for draws that fall within a rounding error of a boundary.

use emulator_trials::mutate::Kind;
use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::launch::images::IMAGES;
use ironwarp::ops::philox::{Purpose, draw, uniform};
use ironwarp::ops::{Backend, Operation, Sample};

use crate::bounds::TrafficBound;
use crate::common::sampling::{self, SHARES, Settings};
use crate::common::*;
use crate::emulator::{alone, shared};
use crate::kernel_checks::{Equivalent, Trial, assert_mutants_killed, assert_schedules_agree, equivalent};

const PLAIN: Settings = Settings { temperature: 1.0, top_k: usize::MAX, top_p: 1.0, seed: 7, draw: 3 };

/// Rows of logits that bf16 represents. The padding is larger than all logits.
#[derive(Clone)]
struct Rows {
    v: usize,
    vp: usize,
    logits: Vec<f64>,
}

impl Rows {
    /// Logits in [-magnitude, magnitude).
    fn new(rows: usize, v: usize, magnitude: f64) -> Self {
        let vp = v.next_multiple_of(8);
        let numbers = Draws::new(v as u64).numbers(rows * vp);
        let mut logits = rounded::<bf16>(numbers.iter().map(|x| x * magnitude).collect());
        logits.chunks_mut(vp).for_each(|row| row[v..].fill(1e30));
        Rows { v, vp, logits }
    }

    fn of(rows: &[&[f64]]) -> Self {
        let v = rows[0].len();
        let vp = v.next_multiple_of(8);
        let row = |row: &&[f64]| [row, &vec![1e30; vp - v][..]].concat();
        Rows { v, vp, logits: rounded::<bf16>(rows.iter().flat_map(row).collect()) }
    }

    fn sample<B: Device>(&self, backend: &B, settings: Settings) -> Vec<i32> {
        sampling::sample(backend, self.logits.len() / self.vp, self.v, &self.logits, settings)
    }

    /// The token by the formula, for a random share and a top_p next to those of the settings.
    fn token_at(&self, row: usize, settings: Settings, top_p: f64, share: f64) -> i32 {
        let logits = &self.logits[row * self.vp..][..self.v];
        let mut ids: Vec<usize> = (0..self.v).collect();
        ids.sort_by(|&a, &b| logits[b].total_cmp(&logits[a]).then(a.cmp(&b)));
        ids.truncate(settings.top_k);
        let weight = |id: usize| ((logits[id] - logits[ids[0]]) / f64::from(settings.temperature)).exp();
        let total: f64 = ids.iter().map(|&id| weight(id)).sum();
        let (mut kept, mut nucleus) = (0.0, 0);
        while nucleus < ids.len() && (nucleus == 0 || kept < top_p * total) {
            kept += weight(ids[nucleus]);
            nucleus += 1;
        }
        let mut below = 0.0;
        for &id in &ids[..nucleus] {
            below += weight(id);
            if below > share * kept {
                return id as i32;
            }
        }
        ids[nucleus - 1] as i32
    }

    /// The tokens that a draw may give: one, unless a boundary of the token or of the nucleus is within `ROUNDING` of the draw.
    fn allowed(&self, row: usize, settings: Settings) -> Vec<i32> {
        // Weights have errors of 2 ulps in f32 from ex2, and one for each doubling of the size of their logarithm.
        const ROUNDING: f64 = 1.0 / (1 << 19) as f64;
        let share = f64::from(uniform(draw(settings.seed, Purpose::Sampling, settings.draw, row as u64)));
        let top_p = f64::from(settings.top_p);
        let top_ps = if top_p < 1.0 { vec![top_p - ROUNDING, top_p, top_p + ROUNDING] } else { vec![2.0] };
        let mut tokens: Vec<i32> = top_ps
            .iter()
            .flat_map(|&p| [-ROUNDING, 0.0, ROUNDING].map(|shift| self.token_at(row, settings, p, share + shift)))
            .collect();
        tokens.sort();
        tokens.dedup();
        tokens
    }
}

/// Rows, V, magnitude and why.
const SHAPES: [(usize, usize, f64, &str); 8] = [
    (3, 1, 1.0, "one token"),
    (5, 2, 1.0, "two tokens, and a row in the second word of draws"),
    (9, 8, 2.0, "one vector"),
    (5, 9, 2.0, "one token in the second vector"),
    (4, 331, 6.0, "some threads of a block"),
    (3, 4096, 9.0, "one vector per thread"),
    (3, 4099, 9.0, "three tokens in a second iteration"),
    (2, 9000, 30.0, "logits far apart"),
];

fn settings() -> Vec<Settings> {
    vec![
        PLAIN,
        Settings { temperature: 0.7, draw: 1 << 40, ..PLAIN },
        Settings { top_k: 5, draw: 5, ..PLAIN },
        Settings { top_p: 0.9, draw: 6, ..PLAIN },
        Settings { temperature: 0.8, top_k: 50, top_p: 0.95, seed: u64::MAX - 3, ..PLAIN },
        Settings { temperature: 3.0, top_k: 4000, top_p: 0.3, ..PLAIN },
    ]
}

/// The number of draws, and of those with a single allowed token.
fn assert_the_formula(rows: &Rows, settings: Settings, what: &str) -> [usize; 2] {
    let (got, cpu) = (rows.sample(&*shared(), settings), rows.sample(&Cpu::<f32>::new(), settings));
    let mut certain = 0;
    for (row, (got, cpu)) in got.iter().zip(&cpu).enumerate() {
        let allowed = rows.allowed(row, settings);
        assert!(allowed.contains(got), "{what}, {settings:?}: row {row} is {got}, not of {allowed:?}");
        if allowed.len() == 1 {
            assert_eq!(got, cpu, "{what}, {settings:?}: row {row} on the CPU");
            certain += 1;
        }
    }
    [got.len(), certain]
}

#[test]
fn tokens_are_those_of_the_reference() {
    let mut all = [0; 2];
    for (count, v, magnitude, why) in SHAPES {
        let rows = Rows::new(count, v, magnitude);
        for settings in settings() {
            let what = format!("sample, V = {v} ({why})");
            all = [0, 1].map(|i| all[i] + assert_the_formula(&rows, settings, &what)[i]);
        }
    }
    println!("sample: {} of {} draws have a single allowed token", all[1], all[0]);
    assert!(all[1] * 100 > all[0] * 95, "{all:?}: too few draws have a single allowed token");
}

/// Keys are kept in shared memory or, above a size, in scratch memory.
#[test]
fn large_vocabularies_are_sampled() {
    for (v, why) in
        [(50257, "GPT-2's"), (50304, "the most that shared memory holds"), (50305, "the fewest that it does not hold")]
    {
        let (rows, settings) = (Rows::new(2, v, 9.0), Settings { temperature: 0.8, top_k: 50, top_p: 0.95, ..PLAIN });
        assert_the_formula(&rows, settings, &format!("sample, V = {v} ({why})"));
    }
}

/// The keys and the kernel's static shared memory fit into 99 KiB, the least that a block may use on any GPU.
#[test]
fn the_keys_fit_into_shared_memory() {
    let images: Vec<_> = IMAGES.iter().filter(|image| image.stem == "sampling").collect();
    assert!(!images.is_empty());
    for (arch, taken) in images.iter().flat_map(|image| image.resources.iter().map(|taken| (image.arch, taken))) {
        assert!(taken.shared_bytes + 2 * 50304 <= 99 << 10, "sm_{arch}: {taken:?}");
    }
}

#[test]
fn greedy_and_the_smallest_nucleus_take_the_first_of_the_largest() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let rows = Rows::of(&[
        &[1.0, 3.0, 2.0, 3.0, 3.0],
        &[-4.0, -3.0, -2.0, -1.0, -0.5],
        &[0.0; 5],
        &[-0.0, 0.0, -0.0, 0.0, 0.0],
        &[-1.0, -0.0, 0.0, -0.0, -1e-40],
        &[-inf, -1e30, -inf, -2e30, -3e30],
        &[1.0, inf, 2.0, inf, 0.0],
        &[-3.3e38, 3.3e38, 3.3e38, 0.0, 1.0],
    ]);
    let greedy = Settings { temperature: 0.0, ..PLAIN };
    let want = [1, 4, 0, 0, 1, 1, 1, 1];
    for settings in [
        greedy,
        Settings { top_k: 1, ..PLAIN },
        Settings { top_p: 1e-6, ..PLAIN },
        Settings { top_p: 1e-6, top_k: 3, ..PLAIN },
    ] {
        assert_eq!(rows.sample(&*shared(), settings), want, "{settings:?}");
    }
    // If all logits are NaN, none is the largest, and the last token is taken, as on the CPU.
    let bad = Rows::of(&[&[nan, 1.0, nan, 2.0, nan], &[nan; 5], &[nan, -inf, nan, -inf, nan], &[-inf; 5]]);
    assert_eq!(bad.sample(&*shared(), greedy), bad.sample(&Cpu::<f32>::new(), greedy));
    assert_eq!(bad.sample(&*shared(), greedy), [3, 4, 1, 0]);
    // The largest logit in different threads and iterations.
    let mut long = Rows::new(1, 9001, 1.0);
    for at in [9000, 8192, 4096, 4095, 512, 7] {
        long.logits[at] = 1.5;
        assert_eq!(long.sample(&*shared(), greedy), [at as i32]);
    }
}

#[test]
fn non_finite_logits_give_the_tokens_of_the_cpu() {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let rows = Rows::of(&[
        &[nan; 4],
        &[nan, 1.0, 0.0, 0.5],
        &[1.0, 0.0, nan, 0.5],
        &[inf, 0.0, nan, 9.0],
        &[0.0, inf, inf, 1.0],
        &[-inf; 4],
        &[-inf, nan, -inf, nan],
        &[1e30, -1e30, 0.0, 9.0],
        &[-inf, 1.0, nan, 1.0],
        &[nan, 1.0, -inf, 1.0],
        &[-inf, -inf, 0.25, -inf],
        &[3.3e38, -3.3e38, -inf, 3.3e38],
    ]);
    for top_k in [1, 3, 100] {
        for temperature in [1e-45, 1.0, 3e38] {
            for top_p in [0.4, 1.0] {
                let settings = Settings { temperature, top_k, top_p, ..PLAIN };
                let want = rows.sample(&Cpu::<f32>::new(), settings);
                assert_eq!(rows.sample(&*shared(), settings), want, "{settings:?}");
            }
        }
    }
}

/// A logit of -infinity forbids a token.
#[test]
fn tokens_without_weight_are_never_drawn() {
    let mut rows = Rows::new(64, 9, 1.0);
    rows.logits.iter_mut().step_by(2).for_each(|x| *x = f64::NEG_INFINITY);
    for settings in [PLAIN, Settings { top_p: 0.999_999_9, ..PLAIN }, Settings { top_k: 8, ..PLAIN }] {
        let got = rows.sample(&*shared(), settings);
        for (row, token) in got.iter().enumerate() {
            assert!(rows.logits[row * rows.vp + *token as usize].is_finite(), "{settings:?}: row {row} is {token}");
        }
    }
}

/// χ² of 256 draws from 8 tokens, compared with the softmax after top_k and top_p. With 7 degrees of freedom it exceeds 33 once
/// in 39,000 runs; the seeds are fixed.
#[test]
fn frequencies_are_the_distribution() {
    const DRAWS: usize = 256;
    let row = SHARES.map(|share| bf16::from_f64(share.ln()).to_f64());
    let rows = Rows { v: 8, vp: 8, logits: row.repeat(DRAWS) };
    for (settings, kept, why) in [
        (PLAIN, &[0, 1, 2, 3, 4, 5, 6, 7][..], "plain"),
        (Settings { top_k: 5, seed: 8, ..PLAIN }, &[1, 2, 4, 6, 7], "top_k, the lower of two equal ids"),
        (Settings { top_p: 0.63, seed: 9, ..PLAIN }, &[1, 4, 6], "top_p"),
    ] {
        let mut counts = [0.0; 8];
        rows.sample(&*shared(), settings).iter().for_each(|&token| counts[token as usize] += 1.0);
        let weights: Vec<f64> = (0..8).map(|id| if kept.contains(&id) { row[id].exp() } else { 0.0 }).collect();
        let total: f64 = weights.iter().sum();
        let mut square = 0.0;
        for (token, (count, weight)) in counts.iter().zip(&weights).enumerate() {
            let mean = DRAWS as f64 * weight / total;
            assert!(mean > 0.0 || *count == 0.0, "{why}: token {token} was drawn {count} times");
            square += if mean > 0.0 { (count - mean).powi(2) / mean } else { 0.0 };
        }
        println!("sample, {why}: χ² is {square:.1}");
        assert!(square < 33.0, "{why}: χ² is {square}, {counts:?}");
    }
}

#[test]
fn traffic_is_the_floor() {
    let Some(cuda) = alone() else { return };
    let (v, vp) = (50257, 50304);
    let logits: Input<Cuda, bf16> = Input::new(&*cuda, [2, vp], &Draws::new(1).numbers(2 * vp));
    let mut tokens = ids(&*cuda, [2], &[-7; 2]);
    let Settings { temperature, top_k, top_p, seed, draw } = Settings { top_k: 50, top_p: 0.95, ..PLAIN };
    let (logits, tokens) = (logits.view(), tokens.view_mut());
    let op = Sample { logits, vocab: v, temperature, top_k, top_p, seed, draw, tokens };
    let floor = op.floor();
    let counts = cuda.count(|| cuda.sample(op).unwrap());
    TrafficBound { what: "sample, B = 2, V = 50257", floor, bytes: 1.001, sectors: 1.001 }.check(&counts);
}

#[test]
fn violated_preconditions_are_rejected() {
    let cuda = shared();
    let logits: Input<Cuda, bf16> = Input::new(&*cuda, [4, 8], &[0.0; 32]);
    let mut tokens = ids(&*cuda, [3], &[-7; 3]);
    let Settings { temperature, top_k, top_p, seed, draw } = PLAIN;
    let shifted = logits.view().part(1, [3, 8]);
    let op = Sample { logits: shifted, vocab: 5, temperature, top_k, top_p, seed, draw, tokens: tokens.view_mut() };
    let message = "logits 16-byte aligned failed (logits begins 2 bytes past a multiple of 16)";
    assert_rejected(cuda.sample(op), &format!("sample: {message}"));

    let vocab = (1 << 23) + 8;
    let logits = cuda.uninitialised::<bf16>([1, vocab]).unwrap();
    let view = tokens.view_mut().into_part(0, [1]);
    let op = Sample { logits: logits.view(), vocab, temperature, top_k, top_p, seed, draw, tokens: view };
    assert_rejected(cuda.sample(op), "sample: V <= 8388608 failed (V = 8388616)");
    assert_eq!(tokens.to_vec(&*cuda).unwrap(), [-7; 3]);
}

fn trial(why: &'static str, rows: Rows, settings: Settings) -> Trial {
    let run = move |cuda: &Cuda| vec![rows.sample(cuda, settings).into_iter().map(f64::from).collect()];
    Trial { why, kernels: &["sample"], run: Box::new(run) }
}

/// Rows of `v` columns with the lowest `span` finite numbers, so that a search takes few sweeps. Each row is the previous one
/// shifted by a column, so that the deciding number comes to every element of a vector.
fn lowest(rows: usize, v: usize, span: usize) -> Rows {
    let number = |x: f64| bf16::from_bits(0xff7f - ((x + 1.0) / 2.0 * span as f64) as u16).to_f64();
    let mut row: Vec<f64> = Draws::new(span as u64).numbers(v).into_iter().map(number).collect();
    let mut moved = Vec::new();
    for _ in 0..rows {
        moved.push(row.clone());
        row.rotate_right(1);
    }
    Rows::of(&moved.iter().map(|row| &row[..]).collect::<Vec<_>>())
}

/// Settings for [`lowest`]: at temperature 5e36 its numbers have different weights.
const WIDE: Settings = Settings { temperature: 5e36, ..PLAIN };

fn trials() -> Vec<Trial> {
    let cut = Settings { top_k: 7, top_p: 0.9, ..WIDE };
    vec![
        trial("top_k and top_p", lowest(1, 21, 14), cut),
        trial("two blocks, each with a second iteration", lowest(2, 4099, 14), Settings { top_p: 0.5, ..WIDE }),
    ]
}

/// Rows with a special number in each column of a vector, which decides the token or must be ignored.
fn marked() -> Rows {
    let column = |at: usize, mark: f64, rest: f64| (0..9).map(|id| if id == at { mark } else { rest }).collect();
    let mut rows: Vec<Vec<f64>> = Vec::new();
    for at in 0..8 {
        rows.push(column(at, f64::INFINITY, 1.0));
        rows.push(column(at, f64::NAN, 1.0));
        rows.push(column(at, -f64::NAN, f64::NEG_INFINITY));
        rows.push((0..9).map(|id| [0.0, -0.0, -1.0][(id <= at) as usize + (id < at) as usize]).collect());
    }
    rows.push(vec![f64::NAN; 9]);
    Rows::of(&rows.iter().map(|row| &row[..]).collect::<Vec<_>>())
}

/// Ten logits of -infinity, a NaN and another -infinity in the columns of the next warp, and eight equal logits.
fn one_nan(rows: usize) -> Rows {
    let mut row = vec![f64::NEG_INFINITY; 10];
    row.extend([0.5; 8].iter().chain(&[-2e38; 30]).chain(&[f64::NAN, f64::NEG_INFINITY]));
    Rows::of(&vec![&row[..]; rows])
}

/// Rows whose softmax is undefined, and one with the least finite number.
fn no_softmax() -> Rows {
    let (nan, inf) = (f64::NAN, f64::INFINITY);
    let least = bf16::MIN.to_f64();
    Rows::of(&[&[nan, -inf, -inf, nan], &[-inf; 4], &[0.0, inf, 1.0, inf], &[-inf, -inf, least, -inf]])
}

/// 64 logits of equal weight, and a draw that falls on the lower boundary of one whose index is `offset` modulo 4.
fn on_a_boundary(offset: u64) -> Trial {
    const COLUMNS: u64 = 64;
    let row: Vec<f64> = (0..COLUMNS).map(|id| 1.0 + id as f64 / 128.0).collect();
    let share = |at: u64| uniform(draw(PLAIN.seed, Purpose::Sampling, at, 0)) * COLUMNS as f32;
    let is_boundary = |at: &u64| share(*at) > 0.0 && share(*at).fract() == 0.0 && share(*at) as u64 % 4 == offset;
    let draw = (0..).find(is_boundary).unwrap();
    trial("a draw on a boundary", Rows::of(&[&row]), Settings { draw, temperature: 3e38, ..PLAIN })
}

/// [`trials`], and those that only the mutants need.
fn more_trials() -> Vec<Trial> {
    let mut all = trials();
    let greedy = Settings { temperature: 0.0, ..PLAIN };
    let cut = Settings { temperature: 0.8, top_k: 7, top_p: 0.9, ..PLAIN };
    all.push(trial("logits of either sign", Rows::new(1, 21, 2.0), cut));
    all.push(trial("the greatest logit in every column", marked(), greedy));
    all.extend((1..8).map(|v| trial("padding", lowest(1, v, 9), greedy)));
    for (draw, v, top_k, top_p) in [(0, 24, 9, 1.0), (1, 19, 99, 0.5), (2, 23, 12, 0.7), (3, 32, 17, 0.9)] {
        all.push(trial("the lowest numbers", lowest(8, v, 14), Settings { draw, top_k, top_p, ..WIDE }));
    }
    for (draw, top_k, top_p) in [(4, 12, 0.5), (5, 8, 0.25), (6, 16, 0.75)] {
        let even = Settings { temperature: 3e38, ..PLAIN };
        all.push(trial("sums that equal the target", lowest(4, 16, 16), Settings { draw, top_k, top_p, ..even }));
    }
    all.extend([20, 48, 49].map(|top_k| trial("a NaN and -infinity", one_nan(6), Settings { top_k, ..PLAIN })));
    all.push(trial("undefined softmax", no_softmax(), PLAIN));
    all.extend((0..4).map(on_a_boundary));
    all.push(trial("a second iteration of one column per thread", Rows::new(1, 520, 4.0), PLAIN));
    all.push(trial("whole iterations", Rows::new(1, 4096, 4.0), PLAIN));
    all
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_schedules_agree("sampling", &trials());
}

#[test]
fn mutants_are_killed() {
    const ALL: &str =
        "where all tokens are kept, the sweeps find the lowest key, and all tokens with that key are kept as well";
    const DIVISION: &str = "nvcc's test whether a 64-bit division can be one of 32 bits, which is only faster";
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(1, "sample", Kind::SelectSecond, "row.v ? NEG_INFINITY_KEY : best.key", ALL),
        equivalent(1, "sample", Kind::NeverLeave, "/ w * w", DIVISION),
        equivalent(1, "sample", Kind::NeverLeave, "/ width", DIVISION),
    ];
    assert_mutants_killed("sampling", &more_trials(), EQUIVALENT);
}
