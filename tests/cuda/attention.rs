//! Causal attention.

use half::bf16;
use ironwarp::Result;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::{Cuda, attention};
use ironwarp::ops::{AttentionBackward, AttentionForward, Backend, Floor};
use ironwarp::tensor::{Shape, Tensor};
use ptx_emulator::mutate::Kind;

use crate::emulator::{alone, own, shared};
use crate::gauntlet::{Equivalent, Trial, assert_any_schedule, assert_mutants_die, equivalent};
use crate::judge::{Lean, Verdict};
use crate::support::*;

mod backward;

/// B, T, NH, HS and why. A block has 128 queries, 32 a warp, and takes keys 64 at a time.
type Case = ([usize; 4], &'static str);

const CASES: [Case; 20] = [
    ([1, 1, 1, 64], "one token"),
    ([2, 1, 3, 128], "one token of several sequences and heads"),
    ([1, 2, 1, 64], "one sequence, one head"),
    ([2, 63, 1, 64], "a tile of keys lacks its last"),
    ([1, 64, 2, 64], "a whole tile of keys"),
    ([2, 65, 2, 64], "a tile of one key"),
    ([1, 127, 1, 64], "a block lacks its last query"),
    ([2, 129, 2, 64], "a block of one query"),
    ([1, 200, 3, 64], "both stages used twice"),
    ([1, 2, 1, 128], "few tokens"),
    ([1, 63, 2, 128], "a tile of keys lacks its last"),
    ([1, 64, 1, 128], "a whole tile of keys"),
    ([1, 127, 1, 128], "a block lacks its last query"),
    ([2, 129, 1, 128], "a block of one query"),
    ([1, 200, 2, 128], "both stages used twice"),
    ([2, 129, 2, 16], "the least head size"),
    ([1, 129, 2, 32], "rows of 64 bytes"),
    ([1, 129, 2, 48], "rows that are no power of two"),
    ([1, 129, 2, 80], "queries that do not stay in registers"),
    ([1, 129, 2, 96], "GPT-3 Large's head size"),
];

/// Makes scores reach beyond ±1e4.
const LARGE: f64 = 131_072.0;

#[derive(Clone)]
struct Inputs {
    sizes: [usize; 4],
    qkv: Vec<f64>,
}

fn narrow(x: f64) -> f64 {
    bf16::from_f64(x).to_f64()
}

/// A tensor to read, with nothing behind it: a read past its end is one out of bounds.
fn tight<B: Device, E: Number>(backend: &B, shape: impl Into<Shape>, values: &[f64]) -> Tensor<B, E> {
    Tensor::from_vec(backend, shape, values.iter().map(|&x| E::of(x)).collect()).unwrap()
}

impl Inputs {
    fn new(sizes: [usize; 4]) -> Self {
        Inputs::scaled(sizes, 1.0)
    }

    /// Random values, the queries times a factor.
    fn scaled(sizes @ [b, t, nh, hs]: [usize; 4], factor: f64) -> Self {
        let c = nh * hs;
        let mut qkv: Vec<f64> = Draws::new(1).numbers(b * t * 3 * c).into_iter().map(narrow).collect();
        qkv.chunks_mut(3 * c).for_each(|token| token[..c].iter_mut().for_each(|q| *q *= factor));
        Inputs { sizes, qkv }
    }

    /// The place of element `x` of a head's q, k or v.
    fn place(&self, [b, i, part, head, x]: [usize; 5]) -> usize {
        let [_, t, nh, hs] = self.sizes;
        (((b * t + i) * 3 + part) * nh + head) * hs + x
    }

    /// `out` and `lse`.
    fn forward<B: Device>(&self, backend: &B) -> [Vec<f64>; 2] {
        self.forward_by(backend, B::attention_forward)
    }

    /// With so many heads' blocks together.
    fn grouped(&self, cuda: &Cuda, heads: usize) -> [Vec<f64>; 2] {
        self.forward_by(cuda, |cuda, op| attention::forward(cuda, op, Some(heads)))
    }

    fn forward_by<B: Device>(
        &self,
        backend: &B,
        run: impl FnOnce(&B, AttentionForward<'_, B>) -> Result<()>,
    ) -> [Vec<f64>; 2] {
        let [b, t, nh, hs] = self.sizes;
        let qkv: Tensor<B, B::Compute> = tight(backend, [b, t, 3 * nh * hs], &self.qkv);
        let mut out = Output::<B, B::Compute>::new(backend, [b, t, nh * hs]);
        let mut lse = Output::<B, B::Accum>::new(backend, [b, nh, t]);
        let op = AttentionForward { qkv: qkv.view(), num_heads: nh, out: out.view(), lse: lse.view() };
        run(backend, op).unwrap();
        [out.read(backend), lse.read(backend)]
    }

    /// The formula in f32 with weights rounded to bf16, as the tensor cores take them; and how large the numbers are that out
    /// and lse are made of: `Σ p·|v|`, and lse itself, 1, or the largest `Σ |q·k| / √HS` of the row.
    fn baseline(&self) -> ([Vec<f64>; 2], [Vec<f64>; 2]) {
        let [b, t, nh, hs] = self.sizes;
        let empty = || [vec![0.0; b * t * nh * hs], vec![1.0; b * nh * t]];
        let (mut results, mut sizes) = (empty(), empty());
        for (b, head, i) in (0..b * nh * t).map(|n| (n / t / nh, n / t % nh, n % t)) {
            let row = |i, part| &self.qkv[self.place([b, i, part, head, 0])..][..hs];
            let scale = 1.0 / (hs as f32).sqrt();
            let terms = |j| row(i, 0).iter().zip(row(j, 1)).map(|(q, k)| *q as f32 * *k as f32);
            let scores: Vec<f32> = (0..=i).map(|j| terms(j).sum::<f32>() * scale).collect();
            let max = scores.iter().copied().fold(f32::NEG_INFINITY, f32::max);
            let weights: Vec<f32> = scores.iter().map(|s| (s - max).exp()).collect();
            let sum: f32 = weights.iter().sum();
            let of_row = (b * nh + head) * t + i;
            results[1][of_row] = f64::from(max + sum.ln());
            let size = (0..=i).map(|j| terms(j).map(f32::abs).sum::<f32>() * scale);
            sizes[1][of_row] = size.fold(results[1][of_row].abs().max(1.0), |a, b| f64::from(b).max(a));
            for x in 0..hs {
                let v = |j| self.qkv[self.place([b, j, 2, head, x])] as f32;
                let weight = |j: usize| bf16::from_f32(weights[j]).to_f32();
                let place = ((b * t + i) * nh + head) * hs + x;
                results[0][place] = f64::from((0..=i).map(|j| weight(j) * v(j)).sum::<f32>() / sum);
                sizes[0][place] = f64::from((0..=i).map(|j| weight(j) * v(j).abs()).sum::<f32>() / sum);
            }
        }
        (results, sizes)
    }
}

/// Holds `got` to at most twice the baseline's error, and to a cap, in units of `unit` times the size of what each number is
/// made of: units of what is left where terms cancel say nothing. Half a unit of rounding is allowed in any case.
fn judge(what: &str, [got, reference, baseline, sizes]: [&[f64]; 4], unit: f64, cap: f64) {
    let (error, of_baseline) = (worst(got, reference, sizes, unit), worst(baseline, reference, sizes, unit).max(0.5));
    println!("{what}: {error:.3} units, baseline {of_baseline:.3}, ratio {:.2}", error / of_baseline);
    assert!(error <= cap, "{what}: {error:.3} units, {cap} allowed");
    assert!(error <= 2.0 * of_baseline, "{what}: {error:.3} units, the formula in f32 has {of_baseline:.3}");
}

/// The largest error in units of `unit` times the size.
fn worst(values: &[f64], reference: &[f64], sizes: &[f64], unit: f64) -> f64 {
    let errors = values.iter().zip(reference).zip(sizes).map(|((x, want), size)| (x - want).abs() / (size * unit));
    errors.fold(0.0, |worst: f64, error| if error.is_nan() { f64::INFINITY } else { worst.max(error) })
}

#[test]
fn forward_is_the_formula() {
    let every_size = [([1, 129, 1, 112], "as 80"), ([1, 65, 3, 128], "three heads")];
    for ((sizes, why), factor) in
        CASES.into_iter().chain(every_size).flat_map(|case| [1.0, 16.0, LARGE].map(|factor| (case, factor)))
    {
        let inputs = Inputs::scaled(sizes, factor);
        let [out, lse] = inputs.forward(&*shared());
        let [reference_out, reference_lse] = inputs.forward(&Cpu::<f64>::new());
        let ([mut baseline_out, baseline_lse], [out_sizes, lse_sizes]) = inputs.baseline();
        baseline_out.iter_mut().for_each(|x| *x = narrow(*x));
        let what = format!("attention_forward, (B, T, NH, HS) = {sizes:?} ({why}), queries × {factor}");
        if factor == LARGE {
            // Scores of 1e4 have errors that the exponential makes those of the weights.
            assert!(out.iter().all(|x| x.abs() <= 1.0), "{what}: out is a mean of values");
        } else {
            // 2^-8: half a unit in the last place of a bf16 just above a power of two.
            judge(&format!("{what}: out"), [&out, &reference_out, &baseline_out, &out_sizes], 2f64.powi(-8), 1.5);
        }
        judge(&format!("{what}: lse"), [&lse, &reference_lse, &baseline_lse, &lse_sizes], 2f64.powi(-24), 4.0);
    }
}

/// Values that are all positive do not cancel: errors are those of the result's own units.
#[test]
fn forward_of_positive_values_is_the_formula() {
    for sizes in [[1, 200, 1, 64], [1, 129, 2, 128], [1, 65, 1, 80]] {
        let mut inputs = Inputs::new(sizes);
        let [b, t, nh, hs] = sizes;
        for (token, x) in (0..b * t).flat_map(|token| (0..nh * hs).map(move |x| (token, x))) {
            let v = &mut inputs.qkv[(3 * token + 2) * nh * hs + x];
            *v = v.abs() + 0.125;
        }
        inputs.qkv.iter_mut().for_each(|x| *x = narrow(*x));
        let ([baseline, _], _) = inputs.baseline();
        let what = format!("attention_forward out, {sizes:?}, positive values");
        let [reference, _] = inputs.forward(&Cpu::<f64>::new());
        let [out, _] = inputs.forward(&*shared());
        Verdict { what: &what, reference: &reference, baseline: &baseline, ulps: 1.5 }.pass::<bf16>(&out);
    }
}

/// With one key, or keys that are all alike, out is the values' mean.
#[test]
fn equal_keys_have_equal_weights() {
    for hs in [64, 128] {
        let (t, mut inputs) = (130, Inputs::new([1, 130, 1, hs]));
        for i in 0..t {
            for x in 0..hs {
                let (key, value) = (inputs.place([0, i, 1, 0, x]), inputs.place([0, i, 2, 0, x]));
                inputs.qkv[key] = inputs.qkv[inputs.place([0, 0, 1, 0, x])];
                // Every second value is the other's negative.
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

/// What comes after a token changes no bit of its row.
#[test]
fn attention_is_causal() {
    for sizes @ [b, t, nh, hs] in [[2, 130, 2, 64], [1, 130, 1, 128]] {
        let inputs = Inputs::new(sizes);
        let [out, lse] = inputs.forward(&*shared());
        let c = nh * hs;
        for cut in [1, 31, 32, 33, 63, 64, 65, 127, 128, 129] {
            let mut changed = inputs.clone();
            let other: Vec<f64> = Draws::new(4).numbers(inputs.qkv.len()).into_iter().map(narrow).collect();
            for sequence in 0..b {
                let future = (sequence * t + cut) * 3 * c..(sequence + 1) * t * 3 * c;
                changed.qkv[future.clone()].copy_from_slice(&other[future]);
            }
            let [new_out, new_lse] = changed.forward(&*shared());
            let kept = |values: &[f64], width: usize| -> Vec<f64> {
                values.chunks(t * width).flat_map(|sequence| &sequence[..cut * width]).copied().collect()
            };
            assert_same_bits(&format!("out before {cut}"), &kept(&new_out, c), &kept(&out, c));
            assert_same_bits(&format!("lse before {cut}"), &kept(&new_lse, 1), &kept(&lse, 1));
            assert_ne!(new_out, out, "changing tokens from {cut} on");
        }
    }
}

/// A bad query is its row's alone, a bad key that of the rows from it on. A bad value reaches rows before its own, but no
/// further than in the reference: those whose products it takes part in with a weight of 0, 32 of them here, 64 there.
#[test]
fn bad_numbers_stay_in_their_rows() {
    let sizes @ [_, t, nh, hs] = [2, 130, 2, 64];
    let clean = Inputs::new(sizes);
    let [want, want_lse] = clean.forward(&*shared());
    for (part, bad, token) in [0, 1, 2]
        .into_iter()
        .flat_map(|part| [f64::NAN, f64::INFINITY].map(|bad| [(part, bad, 70), (part, bad, 129)]))
        .flatten()
    {
        let mut inputs = clean.clone();
        let place = inputs.place([0, token, part, 1, 5]);
        inputs.qkv[place] = bad;
        let [out, lse] = inputs.forward(&*shared());
        for (row, (got, want)) in out.chunks(hs).zip(want.chunks(hs)).enumerate() {
            let (b, i, head) = (row / nh / t, row / nh % t, row % nh);
            let (got_lse, want_lse) = (lse[(b * nh + head) * t + i], want_lse[(b * nh + head) * t + i]);
            let what = format!("{bad} in part {part} of token {token}: sequence {b}, head {head}, row {i}");
            let (from, to) = [(token, token + 1), (token, t), (token, t)][part];
            let touched = (b, head) == (0, 1) && (from..to).contains(&i);
            let before = (b, head, part) == (0, 1, 2) && i < token && i >= token / 32 * 32;
            match (touched, part) {
                // An infinite key makes scores of either sign: nothing is left of the key, or of all others.
                (true, 0 | 1) if bad.is_nan() => assert!(got.iter().all(|x| x.is_nan()) && got_lse.is_nan(), "{what}"),
                (true, 2) => assert!(!got[5].is_finite() && got_lse == want_lse, "{what}"),
                (false, _) if !before => {
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
fn what_does_not_fit_is_refused() {
    let cuda = shared();
    let zeros = |shape: &[usize]| Tensor::<Cuda, bf16>::zeros(&*cuda, shape).unwrap();
    let mut out = Output::<Cuda, bf16>::new(&*cuda, [1, 1, 144]);
    let mut lse = Output::<Cuda, f32>::new(&*cuda, [1, 1, 1]);
    for hs in [8, 24, 144] {
        let qkv = zeros(&[1, 1, 3 * hs]);
        let mut out = Output::<Cuda, bf16>::new(&*cuda, [1, 1, hs]);
        let op = AttentionForward { qkv: qkv.view(), num_heads: 1, out: out.view(), lse: lse.view() };
        let message = format!("attention_forward: HS % 16 == 0 and HS <= 128 failed (HS = {hs})");
        assert_rejected(cuda.attention_forward(op), &message);
        out.assert_untouched(&cuda);
    }
    let qkv = zeros(&[3 * 64 + 8]);
    let shifted = qkv.view().part(3, [1, 1, 3 * 64]);
    let op = AttentionForward { qkv: shifted, num_heads: 1, out: out.view().into_part(0, [1, 1, 64]), lse: lse.view() };
    let message = "attention_forward: qkv 16-byte aligned failed (qkv begins 6 bytes past a multiple of 16)";
    assert_rejected(cuda.attention_forward(op), message);
    let aligned = qkv.view().part(0, [1, 1, 3 * 64]);
    let op = AttentionForward { qkv: aligned, num_heads: 1, out: out.view().into_part(1, [1, 1, 64]), lse: lse.view() };
    let message = "attention_forward: out 16-byte aligned failed (out begins 2 bytes past a multiple of 16)";
    assert_rejected(cuda.attention_forward(op), message);
    out.assert_untouched(&cuda);
    lse.assert_untouched(&cuda);
}

/// The order of blocks is not the numbers' concern.
#[test]
fn groups_of_heads_give_the_same_bits() {
    let inputs = Inputs::new([2, 260, 5, 16]);
    let cuda = shared();
    let own = inputs.forward(&*cuda).concat();
    for heads in [1, 3, 4, 10, 99] {
        assert_same_bits(&format!("{heads} heads together"), &inputs.grouped(&cuda, heads).concat(), &own);
    }
}

/// Queries, results and lse once; keys and values up to each block's last query.
#[test]
fn traffic_is_the_tiles() {
    for sizes @ [b, t, nh, hs] in [[1, 256, 2, 64], [1, 256, 1, 128], [2, 200, 1, 64], [1, 136, 2, 16], [1, 136, 1, 48]]
    {
        let Some(cuda) = alone() else { return };
        let inputs = Inputs::new(sizes);
        let keys: usize = (0..t.div_ceil(128)).map(|block| t.min(128 * (block + 1))).sum();
        let bytes = b * nh * (2 * hs * (2 * t + 2 * keys) + 4 * t);
        let floor = Floor { bytes: bytes as u64, flops: 0 };
        let counts = cuda.count(|| drop(inputs.forward(&*cuda)));
        let what = format!("attention_forward, (B, T, NH, HS) = {sizes:?}");
        Lean { what: &what, floor, bytes: 1.0, sectors: 1.0 }.pass(&counts);
    }
}

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
    let inputs = Inputs::new(sizes);
    let run = move |cuda: &Cuda| inputs.grouped(cuda, heads).to_vec();
    Trial { why, kernels: KERNELS[sizes[3] / 16 - 1], run: Box::new(run) }
}

fn trials() -> Vec<Trial> {
    let of_size = |hs: usize| {
        // Rows that a thread's copies lie apart, where they lie in one column, and rows that a warp writes at a time; elsewhere
        // there is one loop, and the edges of statistics are enough.
        let (pass, rows) = if matches!(hs, 32 | 64 | 128) { (1024 / hs, 256 / hs) } else { (32, 8) };
        let edges = (0..128 / pass).map(move |i| [1, pass * i + rows * (i * pass / 32) + rows / 2, 1, hs]);
        let edges = edges.map(|sizes| trial(sizes, 1, "ends in each of the rows that a thread copies or writes"));
        edges.chain([trial([1, 200, 3, hs], 2, "both stages used twice, two groups of heads")])
    };
    (16..=128).step_by(16).flat_map(of_size).collect()
}

#[test]
fn any_schedule_gives_the_same_bits() {
    let trials = [16, 128].map(|hs| trial([1, 130, 1, hs], 1, "two blocks, the second with three tiles of keys"));
    assert_any_schedule("attention", &trials);
}

#[test]
fn mutants_die() {
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(
            8,
            "attention",
            Kind::ShiftComparison,
            "if (tile + 1 < tiles) fetch",
            "a tile too many, which is not read",
        ),
        equivalent(8, "attention", Kind::NeverLeave, "if (tile + 1 < tiles) fetch", "as above"),
    ];
    assert_mutants_die("attention_forward_sm80", &trials(), EQUIVALENT);
}
