//! Attention.

use emulator_trials::mutate::Kind;
use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::{Cuda, attention};
use ironwarp::ops::{AttentionBackward, AttentionForward, Backend, Floor, Qkv, QkvMut};
use ironwarp::tensor::Tensor;

use crate::bounds::{AccuracyBound, TrafficBound};
use crate::common::attention::{Backward, Inputs, LARGE, Layout};
use crate::common::*;
use crate::emulator::{alone, own, shared};
use crate::kernel_checks::{Equivalent, Trial, assert_mutants_killed, assert_schedules_agree, equivalent};

mod backward;
mod layouts;

/// B, T, NH, HS and why. A block has 128 queries, 32 per warp, and processes keys in tiles of 64.
type Case = ([usize; 4], &'static str);

const CASES: [Case; 23] = [
    ([1, 1, 1, 64], "one token"),
    ([2, 1, 3, 128], "one token of several sequences and heads"),
    ([1, 2, 1, 64], "one sequence, one head"),
    ([2, 63, 1, 64], "one key less than a tile"),
    ([1, 64, 2, 64], "a whole tile of keys"),
    ([2, 65, 2, 64], "one tile and one key"),
    ([1, 127, 1, 64], "one query less than a block"),
    ([2, 129, 2, 64], "one block and one query"),
    ([1, 200, 3, 64], "both pipeline stages used twice"),
    ([1, 32, 1, 64], "half a tile of keys"),
    ([2, 96, 1, 64], "one tile and a half"),
    ([1, 97, 1, 128], "one tile, a half and one key"),
    ([1, 2, 1, 128], "few tokens"),
    ([1, 63, 2, 128], "one key less than a tile"),
    ([1, 64, 1, 128], "a whole tile of keys"),
    ([1, 127, 1, 128], "one query less than a block"),
    ([2, 129, 1, 128], "one block and one query"),
    ([1, 200, 2, 128], "both pipeline stages used twice"),
    ([2, 129, 2, 16], "the least head size"),
    ([1, 129, 2, 32], "rows of 64 bytes"),
    ([1, 129, 2, 48], "rows that are not a power of two"),
    ([1, 129, 2, 80], "queries that do not stay in registers"),
    ([1, 129, 2, 96], "GPT-3 Large's head size"),
];

/// Random inputs that bf16 represents, the queries multiplied by `factor`.
fn inputs(sizes: [usize; 4], factor: f64) -> Inputs {
    let inputs = Inputs::new(sizes, factor);
    Inputs { qkv: rounded::<bf16>(inputs.qkv), ..inputs }
}

/// Every shape, some factors of the queries, and with and without the causal mask: inputs, and what they are.
fn cases() -> impl Iterator<Item = (Inputs, f64, String)> {
    let more = [([1, 129, 1, 112], "queries that do not stay in registers"), ([1, 65, 3, 128], "three heads")];
    CASES.into_iter().chain(more).flat_map(|(sizes, why)| {
        [true, false].into_iter().flat_map(move |causal| {
            [1.0, 16.0, LARGE].map(|factor| {
                let what = format!("(B, T, NH, HS) = {sizes:?} ({why}), causal: {causal}, queries × {factor}");
                (Inputs { causal, ..inputs(sizes, factor) }, factor, what)
            })
        })
    })
}

/// `out` and `lse` with `heads` heads per rasterization group.
fn grouped(inputs: &Inputs, cuda: &Cuda, heads: usize) -> [Vec<f64>; 2] {
    inputs.forward_by(cuda, |cuda, op| attention::forward(cuda, op, Some(heads)))
}

/// `out` and `lse` by the formula in f32, with weights rounded to bf16 as the tensor cores read them; and the magnitudes that
/// each is made of: `Σ p·|v|` for out, and for lse the largest of lse itself, 1, and `Σ |q·k| / √HS` of the row's scores.
fn baseline(inputs: &Inputs) -> ([Vec<f64>; 2], [Vec<f64>; 2]) {
    let [b, t, nh, hs] = inputs.sizes;
    let empty = || [vec![0.0; b * t * nh * hs], vec![1.0; b * nh * t]];
    let (mut results, mut magnitudes) = (empty(), empty());
    for (b, head, i) in (0..b * nh * t).map(|n| (n / t / nh, n / t % nh, n % t)) {
        let row = |i, part| inputs.vector([b, i, part, head]);
        let scale = 1.0 / (hs as f32).sqrt();
        let products = |j| row(i, 0).iter().zip(row(j, 1)).map(|(q, k)| *q as f32 * *k as f32);
        let scores: Vec<f32> = inputs.keys(i).map(|j| products(j).sum::<f32>() * scale).collect();
        let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
        let sum: f32 = weights.iter().sum();
        let of_row = (b * nh + head) * t + i;
        results[1][of_row] = f64::from(max + sum.ln());
        let magnitude = inputs.keys(i).map(|j| products(j).map(f32::abs).sum::<f32>() * scale);
        magnitudes[1][of_row] = magnitude.fold(results[1][of_row].abs().max(1.0), |a, b| f64::from(b).max(a));
        for x in 0..hs {
            let v = |j| row(j, 2)[x] as f32;
            let weight = |j: usize| bf16::from_f32(weights[j]).to_f32();
            let index = ((b * t + i) * nh + head) * hs + x;
            results[0][index] = f64::from(inputs.keys(i).map(|j| weight(j) * v(j)).sum::<f32>() / sum);
            magnitudes[0][index] = f64::from(inputs.keys(i).map(|j| weight(j) * v(j).abs()).sum::<f32>() / sum);
        }
    }
    (results, magnitudes)
}

/// Fails if an error of `got` is above `cap`, or the largest error above twice the baseline's, in units of `unit` times the
/// magnitude that each number is made of: relative to the remainder of terms that cancel, an error says nothing. Half a
/// unit is always allowed, for the final rounding.
fn check_accuracy(what: &str, [got, reference, baseline, magnitudes]: [&[f64]; 4], unit: f64, cap: f64) {
    let error = worst(got, reference, magnitudes, unit);
    let of_baseline = worst(baseline, reference, magnitudes, unit).max(0.5);
    println!("{what}: {error:.3} units, baseline {of_baseline:.3}, ratio {:.2}", error / of_baseline);
    assert!(error <= cap, "{what}: {error:.3} units, {cap} allowed");
    assert!(error <= 2.0 * of_baseline, "{what}: {error:.3} units, the formula in f32 has {of_baseline:.3}");
}

/// The largest error in units of `unit` times the magnitude; infinite for NaN.
fn worst(values: &[f64], reference: &[f64], magnitudes: &[f64], unit: f64) -> f64 {
    let errors = values.iter().zip(reference).zip(magnitudes).map(|((x, want), size)| (x - want).abs() / (size * unit));
    errors.fold(0.0, |worst: f64, error| if error.is_nan() { f64::INFINITY } else { worst.max(error) })
}

#[test]
fn forward_is_the_formula() {
    for (inputs, factor, what) in cases() {
        let [out, lse] = inputs.forward(&*shared());
        let [reference_out, reference_lse] = inputs.forward(&Cpu::<f64>::new());
        let ([baseline_out, baseline_lse], [out_sizes, lse_sizes]) = baseline(&inputs);
        let baseline_out = rounded::<bf16>(baseline_out);
        let what = format!("attention_forward, {what}");
        if factor == LARGE {
            // The rounding errors of scores near 1e4 are so large that the weights, their exponentials, have no correct digit.
            assert!(out.iter().all(|x| x.abs() <= 1.0), "{what}: out is a mean of values");
        } else {
            // 2^-8: half a unit in the last place of a bf16 just above a power of two.
            let results: [&[f64]; 4] = [&out, &reference_out, &baseline_out, &out_sizes];
            check_accuracy(&format!("{what}: out"), results, 2f64.powi(-8), 1.5);
        }
        let results: [&[f64]; 4] = [&lse, &reference_lse, &baseline_lse, &lse_sizes];
        check_accuracy(&format!("{what}: lse"), results, 2f64.powi(-24), 4.0);
    }
}

/// Positive values do not cancel, so errors are measured in units of the result itself.
#[test]
fn forward_of_positive_values_is_the_formula() {
    for sizes in [[1, 200, 1, 64], [1, 129, 2, 128], [1, 65, 1, 80]] {
        let mut inputs = inputs(sizes, 1.0);
        let [b, t, nh, hs] = sizes;
        for (token, x) in (0..b * t).flat_map(|token| (0..nh * hs).map(move |x| (token, x))) {
            let v = &mut inputs.qkv[(3 * token + 2) * nh * hs + x];
            *v = v.abs() + 0.125;
        }
        inputs.qkv = rounded::<bf16>(inputs.qkv);
        let ([baseline, _], _) = baseline(&inputs);
        let what = format!("attention_forward out, {sizes:?}, positive values");
        let [reference, _] = inputs.forward(&Cpu::<f64>::new());
        let [out, _] = inputs.forward(&*shared());
        AccuracyBound { what: &what, reference: &reference, baseline: &baseline, ulps: 1.5 }.check::<bf16>(&out);
    }
}

/// With equal keys, out is the mean of the values.
#[test]
fn equal_keys_have_equal_weights() {
    for hs in [64, 128] {
        let (t, mut inputs) = (130, inputs([1, 130, 1, hs], 1.0));
        for i in 0..t {
            for x in 0..hs {
                let (key, value) = (inputs.index([0, i, 1, 0, x]), inputs.index([0, i, 2, 0, x]));
                inputs.qkv[key] = inputs.qkv[inputs.index([0, 0, 1, 0, x])];
                // Values alternate in sign, so that pairs cancel.
                inputs.qkv[value] = if i % 2 == 0 { 0.5 } else { -0.5 };
            }
        }
        let [out, lse] = inputs.forward(&*shared());
        let [_, want] = inputs.forward(&Cpu::<f64>::new());
        for (i, row) in out.chunks(hs).enumerate() {
            let mean = if i % 2 == 0 { 0.5 / (i + 1) as f64 } else { 0.0 };
            assert!(row.iter().all(|x| (x - mean).abs() <= mean / 256.0 + 1e-6), "row {i}: {row:?}, not {mean}");
        }
        compare::<f32>("attention_forward lse", [t], &lse, &want, 4.0);
    }
}

/// Later tokens change no bit of a token's row.
#[test]
fn attention_is_causal() {
    for sizes in [[2, 130, 2, 64], [1, 130, 1, 128]] {
        let inputs = inputs(sizes, 1.0);
        let other = rounded::<bf16>(Draws::new(4).numbers(inputs.qkv.len()));
        inputs.assert_causal(&*shared(), &other, &[1, 31, 32, 33, 63, 64, 65, 127, 128, 129]);
    }
}

/// A non-finite query affects its own row, a non-finite key the rows from its own on. A non-finite value also affects earlier
/// rows, but only those that multiply it by a weight of 0: the rows of its tile of 32.
#[test]
fn non_finite_numbers_stay_in_their_rows() {
    let sizes @ [_, t, nh, hs] = [2, 130, 2, 64];
    let clean = inputs(sizes, 1.0);
    let [want, want_lse] = clean.forward(&*shared());
    for (part, bad, token) in [0, 1, 2]
        .into_iter()
        .flat_map(|part| [f64::NAN, f64::INFINITY].map(|bad| [(part, bad, 70), (part, bad, 129)]))
        .flatten()
    {
        let mut inputs = clean.clone();
        let index = inputs.index([0, token, part, 1, 5]);
        inputs.qkv[index] = bad;
        let [out, lse] = inputs.forward(&*shared());
        for (row, (got, want)) in out.chunks(hs).zip(want.chunks(hs)).enumerate() {
            let (b, i, head) = (row / nh / t, row / nh % t, row % nh);
            let (got_lse, want_lse) = (lse[(b * nh + head) * t + i], want_lse[(b * nh + head) * t + i]);
            let what = format!("{bad} in part {part} of token {token}: sequence {b}, head {head}, row {i}");
            let (from, to) = [(token, token + 1), (token, t), (token, t)][part];
            let affected = (b, head) == (0, 1) && (from..to).contains(&i);
            let same_tile = (b, head, part) == (0, 1, 2) && i < token && i >= token / 32 * 32;
            match (affected, part) {
                // An infinite key makes an infinite score of either sign: the key has no weight, or all other keys have none.
                (true, 0 | 1) if bad.is_nan() => assert!(got.iter().all(|x| x.is_nan()) && got_lse.is_nan(), "{what}"),
                (true, 2) => assert!(!got[5].is_finite() && got_lse == want_lse, "{what}"),
                (false, _) if !same_tile => {
                    assert_same_bits(&what, got, want);
                    assert_same_bits(&what, &[got_lse], &[want_lse]);
                }
                _ => {}
            }
            if part == 2 {
                let others = |row: &[f64]| [&row[..5], &row[6..]].concat();
                assert_same_bits(&format!("{what}, other columns"), &others(got), &others(want));
            }
        }
    }
}

#[test]
fn violated_preconditions_are_rejected() {
    let cuda = shared();
    let zeros = |shape: &[usize]| Tensor::<Cuda, bf16>::zeros(&*cuda, shape).unwrap();
    let mut out = Output::<Cuda, bf16>::new(&*cuda, [1, 1, 144]);
    let mut lse = Output::<Cuda, f32>::new(&*cuda, [1, 1, 1]);
    for hs in [8, 24, 144] {
        let qkv = zeros(&[1, 1, 3 * hs]);
        let mut out = Output::<Cuda, bf16>::new(&*cuda, [1, 1, hs]);
        let qkv = Qkv::Packed { qkv: qkv.view(), num_heads: 1 };
        let op = AttentionForward { qkv, causal: true, out: out.view(), lse: lse.view() };
        let message = format!("attention_forward: HS % 16 == 0 and HS <= 128 failed (HS = {hs})");
        assert_rejected(cuda.attention_forward(op), &message);
        out.assert_untouched(&cuda);
    }
    let qkv = zeros(&[3 * 64 + 8]);
    let shifted = qkv.view().part(3, [1, 1, 3 * 64]);
    let packed = |qkv| Qkv::Packed { qkv, num_heads: 1 };
    let written = out.view().into_part(0, [1, 1, 64]);
    let op = AttentionForward { qkv: packed(shifted), causal: true, out: written, lse: lse.view() };
    let message = "attention_forward: qkv 16-byte aligned failed (qkv begins 6 bytes past a multiple of 16)";
    assert_rejected(cuda.attention_forward(op), message);
    let aligned = qkv.view().part(0, [1, 1, 3 * 64]);
    let written = out.view().into_part(1, [1, 1, 64]);
    let op = AttentionForward { qkv: packed(aligned), causal: true, out: written, lse: lse.view() };
    let message = "attention_forward: out 16-byte aligned failed (out begins 2 bytes past a multiple of 16)";
    assert_rejected(cuda.attention_forward(op), message);
    out.assert_untouched(&cuda);
    lse.assert_untouched(&cuda);
}

/// The rasterization order of blocks does not change the results.
#[test]
fn groups_of_heads_give_the_same_bits() {
    let inputs = inputs([2, 260, 5, 16], 1.0);
    let cuda = shared();
    let own = inputs.forward(&*cuda).concat();
    for heads in [1, 3, 4, 10, 99] {
        assert_same_bits(&format!("{heads} heads per group"), &grouped(&inputs, &cuda, heads).concat(), &own);
    }
}

/// Sizes for the traffic, each with and without the causal mask.
const TRAFFIC: [[usize; 4]; 6] =
    [[1, 256, 2, 64], [1, 256, 1, 128], [2, 200, 1, 64], [1, 136, 2, 16], [1, 136, 1, 48], [1, 136, 1, 80]];

/// Each block reads its queries once, and the keys and values up to its last query, or all without the causal mask; out and
/// lse are written once. Rows of whole sectors need no more sectors in another layout.
#[test]
fn traffic_is_that_of_the_tiles() {
    for (sizes @ [b, t, nh, hs], causal) in TRAFFIC.into_iter().flat_map(|sizes| [(sizes, true), (sizes, false)]) {
        let Some(cuda) = alone() else { return };
        let layout = if causal { Layout::Packed } else { Layout::HeadMajor };
        let inputs = Inputs { causal, layout, ..inputs(sizes, 1.0) };
        let last_key = |block: usize| if causal { t.min(128 * (block + 1)) } else { t };
        let keys: usize = (0..t.div_ceil(128)).map(last_key).sum();
        let bytes = b * nh * (2 * hs * (2 * t + 2 * keys) + 4 * t);
        let floor = Floor { bytes: bytes as u64, flops: 0 };
        let counts = cuda.count(|| drop(inputs.forward(&*cuda)));
        let what = format!("attention_forward, (B, T, NH, HS) = {sizes:?}, causal: {causal}");
        TrafficBound { what: &what, floor, bytes: 1.0, sectors: 1.0 }.check(&counts);
    }
}

/// The condition of the copy loop.
const FIRST_PASS: &str = "i * THREADS + threadIdx.x < ROWS * CHUNKS; i++";

const KERNELS: [&[&str]; 8] = [
    &["attention_forward_hs16"],
    &["attention_forward_hs32"],
    &["attention_forward_hs48"],
    &["attention_forward_hs64"],
    &["attention_forward_hs80"],
    &["attention_forward_hs96"],
    &["attention_forward_hs112"],
    &["attention_forward_hs128"],
];

fn trial(sizes: [usize; 4], heads: usize, why: &'static str) -> Trial {
    trial_of(inputs(sizes, 1.0), heads, why)
}

fn trial_of(inputs: Inputs, heads: usize, why: &'static str) -> Trial {
    let sizes = inputs.sizes;
    let run = move |cuda: &Cuda| grouped(&inputs, cuda, heads).to_vec();
    Trial { why, kernels: KERNELS[sizes[3] / 16 - 1], run: Box::new(run) }
}

const ENDS: &str = "no causal mask, the last key in each column of a thread's scores";
const STRIDED: &str = "no causal mask, two blocks, gaps between all rows";

/// Without a causal mask, a thread has two adjacent scores in each of the four groups of eight keys that a warp masks at a
/// time. The first and the second of these are the last key in turn.
fn ends(hs: usize) -> impl Iterator<Item = Inputs> {
    // With 32 tokens more, the warp has all of its rows. With few, the end is in the first half of a tile.
    let tokens = (0..8).map(|i| 32 + i / 2 * 8 + i % 2 + 1).chain([5]);
    tokens.map(move |t| Inputs { causal: false, ..inputs([1, t, 1, hs], 1.0) })
}

/// Several sequences and heads with all strides different.
fn strided(hs: usize) -> Inputs {
    Inputs { causal: false, layout: Layout::Gaps, ..inputs([2, 131, 2, hs], 1.0) }
}

fn trials() -> Vec<Trial> {
    let of_size = |hs: usize| {
        // For head sizes whose copies of a thread lie in one column: the distance of these copies in rows, and the rows that a
        // warp writes at a time. The other head sizes copy in one loop, so only the rows of the statistics need edges.
        let (pass, rows) = if matches!(hs, 32 | 64 | 128) { (1024 / hs, 256 / hs) } else { (32, 8) };
        let edges = (0..128 / pass).map(move |i| [1, pass * i + rows * (i * pass / 32) + rows / 2, 1, hs]);
        let edges =
            edges.map(|sizes| trial(sizes, 1, "the last row in each of the rows that a thread copies or writes"));
        edges
            .chain([trial([1, 200, 3, hs], 2, "both pipeline stages used twice, two groups of heads")])
            .chain(ends(hs).map(|inputs| trial_of(inputs, 1, ENDS)))
            .chain([trial_of(strided(hs), 2, STRIDED)])
    };
    (16..=128).step_by(16).flat_map(of_size).collect()
}

#[test]
fn any_schedule_gives_the_same_bits() {
    let [small, large] =
        [16, 128].map(|hs| trial([1, 130, 1, hs], 1, "two blocks, the second with three tiles of keys"));
    let full = Inputs { causal: false, ..inputs([1, 130, 1, 64], 1.0) };
    assert_schedules_agree(
        "attention",
        &[small, large, trial_of(full, 1, "two blocks, each with three tiles of keys")],
    );
}

#[test]
fn mutants_are_killed() {
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(
            8,
            "attention",
            Kind::ShiftComparison,
            "if (tile + 1 < kv_tiles) issue_kv",
            "one K/V tile too many, which is not read",
        ),
        equivalent(8, "attention", Kind::NeverLeave, "if (tile + 1 < kv_tiles) issue_kv", "as above"),
        // Q, the first K/V tile and the others, of the four head sizes whose copies are not in one column.
        equivalent(12, "attention", Kind::ShiftComparison, FIRST_PASS, "checked before the first pass: always true"),
        equivalent(12, "attention", Kind::NeverLeave, FIRST_PASS, "as above"),
    ];
    assert_mutants_killed("attention_forward_sm80", &trials(), EQUIVALENT);
}
