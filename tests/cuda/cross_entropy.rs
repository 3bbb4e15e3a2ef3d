//! Cross-entropy, forward and in place, and the sum of losses.

use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, CrossEntropyBackward, CrossEntropyForward, Floor, LossSum, Operation, Write};

use ptx_emulator::mutate::Kind;

use crate::emulator::{Alone, alone, shared};
use crate::gauntlet::{Equivalent, Trial, assert_any_schedule, assert_mutants_die, equivalent};
use crate::judge::{Lean, Verdict};
use crate::support::*;

const FORWARD_WARP: &str = "cross_entropy_forward_warp";
const FORWARD_BLOCK: &str = "cross_entropy_forward_block";
const BACKWARD_WARP: &str = "cross_entropy_backward_warp";
const BACKWARD_20K: &str = "cross_entropy_backward_20k";
const BACKWARD_51K: &str = "cross_entropy_backward_51k";
const BACKWARD_STREAM: &str = "cross_entropy_backward_stream";

/// N, V, Vp, the backward's kernel and why.
const SHAPES: [(usize, usize, usize, &str, &str); 25] = [
    (1, 1, 8, BACKWARD_WARP, "one class: no loss, no gradient"),
    (3, 2, 8, BACKWARD_WARP, "two columns and no whole vector"),
    (2, 8, 8, BACKWARD_WARP, "one vector"),
    (7, 9, 16, BACKWARD_WARP, "one column in the second vector, and a warp without a row"),
    (8, 18, 24, BACKWARD_WARP, "two"),
    (9, 27, 40, BACKWARD_WARP, "three, a vector of padding, and a row in the second block"),
    (3, 36, 40, BACKWARD_WARP, "four"),
    (3, 45, 48, BACKWARD_WARP, "five"),
    (3, 54, 56, BACKWARD_WARP, "six"),
    (3, 63, 64, BACKWARD_WARP, "seven"),
    (5, 256, 256, BACKWARD_WARP, "bytes, without padding"),
    (4, 257, 1024, BACKWARD_WARP, "more padding than vocabulary"),
    (3, 1280, 1280, BACKWARD_WARP, "one group of each lane"),
    (3, 1288, 1296, BACKWARD_WARP, "one vector in the second group"),
    (2, 2567, 2568, BACKWARD_WARP, "the most columns for a warp"),
    (2, 2568, 2568, BACKWARD_20K, "the fewest for a block"),
    (2, 10240, 10240, BACKWARD_20K, "one group of each thread"),
    (1, 10248, 10248, BACKWARD_20K, "one vector in the second group"),
    (1, 20487, 20488, BACKWARD_20K, "the most of two groups"),
    (1, 20488, 20496, BACKWARD_51K, "the fewest for five groups"),
    (2, 32000, 32000, BACKWARD_51K, "one group is not needed"),
    (3, 50257, 50304, BACKWARD_51K, "GPT-2's vocabulary"),
    (1, 51207, 51208, BACKWARD_51K, "the most that registers hold"),
    (1, 51208, 51208, BACKWARD_STREAM, "the fewest that they do not"),
    (2, 70001, 70016, BACKWARD_STREAM, "some more"),
];

/// Exact in every type.
const SCALE: f64 = 0.25;

/// Rows of a batch; what stands in the padding is NaN.
#[derive(Clone)]
struct Rows {
    n: usize,
    v: usize,
    vp: usize,
    /// Of bf16.
    logits: Vec<f64>,
    targets: Vec<i32>,
    scale: f64,
}

impl Rows {
    /// Logits in [-magnitude, magnitude); the last and the first class are targets, and row 2, where there is one, is
    /// ignored.
    fn new(n: usize, v: usize, vp: usize, magnitude: f64) -> Self {
        let mut draws = Draws::new((n * vp + v) as u64);
        let round = |x: &f64| bf16::from_f64(x * magnitude).to_f64();
        let mut logits: Vec<f64> = draws.numbers(n * vp).iter().map(round).collect();
        logits.chunks_mut(vp).for_each(|row| row[v..].fill(f64::NAN));
        let mut targets = draws.ids(n, v);
        let chosen = [v as i32 - 1, 0, -1];
        let count = n.min(chosen.len());
        targets[..count].copy_from_slice(&chosen[..count]);
        Rows { n, v, vp, logits, targets, scale: SCALE }
    }

    fn forward<B: Device>(&self, backend: &B) -> Vec<f64> {
        let logits: Input<B, B::Compute> = Input::new(backend, [self.n, self.vp], &self.logits);
        let targets = ids(backend, [self.n], &self.targets);
        let mut losses = Output::new(backend, [self.n]);
        let (logits, targets, vocab) = (logits.view(), targets.view(), self.v);
        backend.cross_entropy_forward(CrossEntropyForward { logits, targets, vocab, losses: losses.view() }).unwrap();
        losses.read(backend)
    }

    /// Gradient and losses.
    fn backward<B: Device>(&self, backend: &B) -> [Vec<f64>; 2] {
        let mut logits = Output::with(backend, [self.n, self.vp], &self.logits);
        let targets = ids(backend, [self.n], &self.targets);
        let mut losses = Output::new(backend, [self.n]);
        let op = CrossEntropyBackward {
            logits: logits.view(),
            targets: targets.view(),
            vocab: self.v,
            scale: self.scale,
            losses: losses.view(),
        };
        backend.cross_entropy_backward(op).unwrap();
        [logits.read(backend), losses.read(backend)]
    }

    fn row(&mut self, n: usize) -> &mut [f64] {
        &mut self.logits[n * self.vp..][..self.v]
    }
}

/// What the backends say.
#[derive(Default)]
struct Said {
    cuda: Vec<f64>,
    f64: Vec<f64>,
    f32: Vec<f64>,
}

impl Said {
    fn judge<E: Number>(&self, what: &str, ulps: f64) {
        Verdict { what, reference: &self.f64, baseline: &self.f32, ulps }.pass::<E>(&self.cuda);
    }

    fn add(&mut self, [cuda, f64, f32]: [&[f64]; 3]) {
        self.cuda.extend(cuda);
        self.f64.extend(f64);
        self.f32.extend(f32);
    }
}

/// Losses, and gradients in the targets' columns, of many rows: of few, the baseline is right by chance.
#[derive(Default)]
struct OneARow {
    forward: Said,
    backward: Said,
    targets: Said,
}

impl OneARow {
    fn judge(&self, what: &str) {
        self.forward.judge::<f32>(&format!("cross_entropy_forward losses, {what}"), 4.0);
        self.backward.judge::<f32>(&format!("cross_entropy_backward losses, {what}"), 4.0);
        // 1 - p cancels, in f32 as here: 2^-24 is left where p is next to 1.
        self.targets.judge::<bf16>(&format!("cross_entropy_backward logits of targets, {what}"), 4.0);
    }
}

/// The gradient, but for the targets', is judged at once.
fn both_are_the_formula(cuda: &Cuda, rows: &Rows, what: &str, all: &mut OneARow) {
    let forward = rows.forward(cuda);
    let results = [rows.backward(cuda), rows.backward(&Cpu::<f64>::new()), rows.backward(&Cpu::<f32>::new())];
    let [mut gradients, losses] = [0, 1].map(|output| results.each_ref().map(|result| result[output].clone()));
    for (row, &target) in gradients[0].chunks(rows.vp).zip(&rows.targets) {
        let zeros = if target < 0 { row } else { &row[rows.v..] };
        assert!(zeros.iter().all(|&x| x == 0.0), "{what}: padding and ignored rows are 0");
    }
    let [cuda, f64, f32] = losses.each_ref().map(|losses| &losses[..]);
    for (i, &want) in f64.iter().enumerate() {
        // A small loss is the logarithm of next to 1: it has that number's error, in f32 as here.
        if want < 0.5 {
            compare::<f32>(&format!("losses of both, {what}"), [2], &[forward[i], cuda[i]], &[want; 2], 2.0);
            continue;
        }
        all.forward.add([&[forward[i]], &[want], &[f32[i]]]);
        all.backward.add([&[cuda[i]], &[want], &[f32[i]]]);
    }
    for (row, &target) in rows.targets.iter().enumerate().filter(|(_, target)| **target >= 0) {
        let at = row * rows.vp + target as usize;
        let [cuda, f64, f32] = gradients.each_mut().map(|gradient| std::mem::take(&mut gradient[at]));
        all.targets.add([&[cuda], &[f64], &[f32]]);
    }
    let [cuda, f64, f32] = gradients;
    Said { cuda, f64, f32 }.judge::<bf16>(&format!("cross_entropy_backward logits, {what}"), 0.52);
}

#[test]
fn both_are_the_formula_at_every_shape() {
    let cuda = shared();
    for magnitude in [1.0, 30.0] {
        let mut all = OneARow::default();
        for (n, v, vp, _, why) in SHAPES {
            let what = format!("N = {n}, V = {v}, Vp = {vp} ({why}), logits to ±{magnitude}");
            both_are_the_formula(&cuda, &Rows::new(n, v, vp, magnitude), &what, &mut all);
        }
        all.judge(&format!("logits to ±{magnitude}"));
    }
}

/// Vectors of a target's column belong to some thread, the last columns to the first threads.
#[test]
fn the_target_may_be_in_any_column() {
    let cuda = shared();
    let mut all = OneARow::default();
    for (v, vp) in [(77, 88), (2615, 2624)] {
        let mut rows = Rows::new(v, v, vp, 4.0);
        rows.targets = (0..v as i32).collect();
        if v > 100 {
            // One a vector, at changing places, and the last columns.
            rows.targets = (0..v as i32).filter(|i| i % 9 == 0 || *i >= v as i32 - 9).collect();
            rows.n = rows.targets.len();
            rows.logits.truncate(rows.n * vp);
        }
        both_are_the_formula(&cuda, &rows, &format!("V = {v}, every target"), &mut all);
    }
    all.judge("every target");
}

#[test]
fn each_row_has_the_kernel_that_holds_it() {
    let Some(cuda) = alone() else { return };
    for (_, v, vp, backward, why) in SHAPES {
        let rows = Rows::new(1, v, vp, 1.0);
        let forward = if v < 2568 { FORWARD_WARP } else { FORWARD_BLOCK };
        assert_eq!(cuda.count(|| drop(rows.forward(&*cuda))).kernels(), [forward], "{why}");
        assert_eq!(cuda.count(|| drop(rows.backward(&*cuda))).kernels(), [backward], "{why}");
    }
}

/// One shape a kernel.
const ONE_EACH: [(usize, usize, usize); 4] = [(4, 21, 32), (4, 2571, 2576), (4, 20493, 20504), (4, 51213, 51216)];

#[test]
fn any_negative_target_is_ignored() {
    let cuda = shared();
    for (n, v, vp) in ONE_EACH {
        let mut rows = Rows::new(n, v, vp, 1.0);
        rows.targets = vec![-1, -100, i32::MIN, -2];
        // Not even read.
        rows.logits.fill(f64::NAN);
        assert_eq!(rows.forward(&*cuda), vec![0.0; n], "V = {v}");
        assert_eq!(rows.backward(&*cuda), [vec![0.0; n * vp], vec![0.0; n]], "V = {v}");
    }
}

/// The host does not see targets; the CPU backend, which does, refuses these.
#[test]
fn a_target_outside_of_the_vocabulary_makes_its_row_nan() {
    let cuda = shared();
    for (n, v, vp) in ONE_EACH {
        let mut rows = Rows::new(n, v, vp, 1.0);
        rows.targets[2] = 0;
        let good = (rows.forward(&*cuda), rows.backward(&*cuda));
        for target in [v as i32, vp as i32 - 1, vp as i32, i32::MAX] {
            rows.targets[1] = target;
            assert_only_row_one_is_nan(&rows, &rows.forward(&*cuda), &good.0, 1);
            let [gradient, losses] = rows.backward(&*cuda);
            assert_only_row_one_is_nan(&rows, &losses, &good.1[1], 1);
            assert_only_row_one_is_nan(&rows, &gradient, &good.1[0], vp);
        }
    }
}

/// Rows of `width` are as before, but for the columns of row 1 that count.
fn assert_only_row_one_is_nan(rows: &Rows, got: &[f64], good: &[f64], width: usize) {
    for (i, (&got, &good)) in got.iter().zip(good).enumerate() {
        let nan = i / width == 1 && i % width < rows.v;
        let right = if nan { got.is_nan() } else { got.to_bits() == good.to_bits() };
        assert!(right, "V = {}: [{}, {}] is {got}, without what is bad {good}", rows.v, i / width, i % width);
    }
}

#[test]
fn bad_logits_stay_in_their_row() {
    let cuda = shared();
    let mut all = OneARow::default();
    for (n, v, vp) in ONE_EACH {
        let mut rows = Rows::new(n, v, vp, 1.0);
        rows.targets = vec![0, 5, 1, v as i32 - 1];
        let good = (rows.forward(&*cuda), rows.backward(&*cuda));
        // In the first vector, in the target's column, in some vector and in the last column.
        for (at, bad) in [0, 5, v / 2, v - 1].into_iter().flat_map(|at| [f64::NAN, f64::INFINITY].map(|x| (at, x))) {
            let mut rows = rows.clone();
            rows.row(1)[at] = bad;
            assert_only_row_one_is_nan(&rows, &rows.forward(&*cuda), &good.0, 1);
            let [gradient, losses] = rows.backward(&*cuda);
            assert_only_row_one_is_nan(&rows, &losses, &good.1[1], 1);
            assert_only_row_one_is_nan(&rows, &gradient, &good.1[0], vp);
        }
        // Nothing but infinity below zero, or nothing but NaN: no softmax.
        for bad in [f64::NEG_INFINITY, f64::NAN] {
            let mut rows = rows.clone();
            rows.row(1).fill(bad);
            assert_only_row_one_is_nan(&rows, &rows.forward(&*cuda), &good.0, 1);
            assert_only_row_one_is_nan(&rows, &rows.backward(&*cuda)[0], &good.1[0], vp);
        }
        // Some infinities below zero are probabilities of 0; at the target an infinite loss.
        for at in [0, 5, v - 1] {
            let mut rows = rows.clone();
            rows.row(1)[at] = f64::NEG_INFINITY;
            let (losses, [gradient, _]) = (rows.forward(&*cuda), rows.backward(&*cuda));
            assert_eq!(losses[1] == f64::INFINITY, at == 5, "V = {v}: the loss is {}", losses[1]);
            assert_eq!(gradient[vp + at], if at == 5 { -SCALE } else { 0.0 }, "V = {v}, column {at}");
            let what = format!("V = {v}, -infinity in column {at}");
            both_are_the_formula(&cuda, &rows, &what, &mut all);
        }
        // A thread, and a warp, with nothing else.
        rows.row(1)[8..].fill(f64::NEG_INFINITY);
        both_are_the_formula(&cuda, &rows, &format!("V = {v}, 8 finite columns"), &mut all);
    }
    all.judge("some logits of -infinity");
}

#[test]
fn certainty_is_exact() {
    let cuda = shared();
    for (n, v, vp) in ONE_EACH {
        // Up to the largest bf16.
        for huge in [2e2, 1e4, 1e30, 3.3895313892515355e38] {
            let mut rows = Rows::new(n, v, vp, 1.0);
            for (row, at) in [v - 1, 0, v / 2, v / 3].into_iter().enumerate() {
                rows.row(row)[at] = bf16::from_f64(huge).to_f64();
                rows.targets[row] = at as i32;
            }
            assert_eq!(rows.forward(&*cuda), vec![0.0; n], "V = {v}, {huge}");
            let [gradient, losses] = rows.backward(&*cuda);
            assert_eq!(losses, vec![0.0; n], "V = {v}, {huge}");
            assert!(gradient.iter().all(|&x| x.abs() < 1e-30), "V = {v}, {huge}");
            for (row, &target) in rows.targets.iter().enumerate() {
                assert_eq!(gradient[row * vp + target as usize], 0.0);
            }
            // And far below everything else.
            rows.logits.iter_mut().for_each(|x| *x = -*x);
            let what = format!("V = {v}, one logit of -{huge}");
            both_are_the_formula(&cuda, &rows, &what, &mut OneARow::default());
        }
        let mut rows = Rows::new(n, v, vp, 1.0);
        rows.targets[2] = 1;
        for (row, equal) in [0.0, 7.5, -1e30, 1e38].into_iter().enumerate() {
            rows.row(row).fill(bf16::from_f64(equal).to_f64());
        }
        compare::<f32>("cross_entropy_forward", [n], &rows.forward(&*cuda), &vec![(v as f64).ln(); n], 4.0);
        // Beside the largest of them the reference loses the logarithm.
        rows.row(2).fill(-9984.0);
        rows.row(3).fill(9984.0);
        both_are_the_formula(&cuda, &rows, &format!("V = {v}, equal logits"), &mut OneARow::default());
    }
    let one = Rows::new(1, 1, 8, 9.0);
    assert_eq!((one.forward(&*cuda), one.backward(&*cuda)), (vec![0.0], [vec![0.0; 8], vec![0.0]]));
}

#[test]
fn the_gradient_is_scaled() {
    let cuda = shared();
    for (n, v, vp) in ONE_EACH {
        for scale in [1.0, 1.0 / 3.0, 1.0 / 65536.0, 0.0, -2.0] {
            let rows = Rows { scale, ..Rows::new(n, v, vp, 5.0) };
            both_are_the_formula(&cuda, &rows, &format!("V = {v}, scale {scale}"), &mut OneARow::default());
        }
    }
}

fn lean(cuda: &Alone, (n, v, vp): (usize, usize, usize), [bytes, sectors]: [f64; 2], read_again: bool) {
    let mut rows = Rows::new(n, v, vp, 1.0);
    rows.targets.iter_mut().for_each(|target| *target = (*target).max(0));
    let input: Input<Cuda, bf16> = Input::new(&**cuda, [n, vp], &rows.logits);
    let mut logits: Output<Cuda, bf16> = Output::with(&**cuda, [n, vp], &rows.logits);
    let targets = ids(&**cuda, [n], &rows.targets);
    let mut losses = Output::new(&**cuda, [n]);
    let (vocab, scale) = (v, SCALE);

    let op = CrossEntropyForward { logits: input.view(), targets: targets.view(), vocab, losses: losses.view() };
    let floor = op.floor();
    let counts = cuda.count(|| cuda.cross_entropy_forward(op).unwrap());
    let what = format!("cross_entropy_forward, N = {n}, V = {v}, Vp = {vp}");
    Lean { what: &what, floor, bytes, sectors }.pass(&counts);

    let op =
        CrossEntropyBackward { logits: logits.view(), targets: targets.view(), vocab, scale, losses: losses.view() };
    // A row that registers do not hold is read twice.
    let floor = Floor { bytes: op.floor().bytes + if read_again { (2 * n * v) as u64 } else { 0 }, ..op.floor() };
    let counts = cuda.count(|| cuda.cross_entropy_backward(op).unwrap());
    let what = format!("cross_entropy_backward, N = {n}, V = {v}, Vp = {vp}");
    Lean { what: &what, floor, bytes, sectors }.pass(&counts);
}

#[test]
fn traffic_is_the_floor() {
    let Some(cuda) = alone() else { return };
    // Each warp asks for its row's target, 128 bytes of one sector: much only beside a short row.
    lean(&cuda, (3, 50257, 50304), [1.02, 1.01], false);
    lean(&cuda, (3, 8192, 8192), [1.10, 1.01], false);
    lean(&cuda, (2, 65536, 65536), [1.02, 1.01], true);
    lean(&cuda, (16, 2048, 2048), [1.05, 1.02], false);
    lean(&cuda, (16, 256, 256), [1.30, 1.10], false);
}

#[test]
fn what_is_not_aligned_is_refused() {
    let cuda = shared();
    let input: Input<Cuda, bf16> = Input::new(&*cuda, [4, 8], &[0.0; 32]);
    let mut logits: Output<Cuda, bf16> = Output::with(&*cuda, [4, 8], &[0.0; 32]);
    let targets = ids(&*cuda, [3], &[0; 3]);
    let mut losses = Output::new(&*cuda, [3]);
    let (targets, vocab) = (targets.view(), 5);
    let words = "logits 16-byte aligned failed (logits begins 2 bytes past a multiple of 16)";
    let op = CrossEntropyForward { logits: input.view().part(1, [3, 8]), targets, vocab, losses: losses.view() };
    assert_rejected(cuda.cross_entropy_forward(op), &format!("cross_entropy_forward: {words}"));
    let shifted = logits.view().into_part(1, [3, 8]);
    let op = CrossEntropyBackward { logits: shifted, targets, vocab, scale: SCALE, losses: losses.view() };
    assert_rejected(cuda.cross_entropy_backward(op), &format!("cross_entropy_backward: {words}"));
    losses.assert_untouched(&*cuda);
    logits.assert_untouched(&*cuda);
}

/// Losses that begin `shift` elements into their buffer.
fn loss_sum<B: Device>(backend: &B, losses: &[f64], shift: usize, write: Write) -> [Vec<f64>; 2] {
    let buffer = [&vec![f64::NAN; shift], losses].concat();
    let buffer: Input<B, B::Accum> = Input::new(backend, [buffer.len()], &buffer);
    let mut total = Output::to(backend, [1], write);
    let losses = buffer.view().part(shift, [losses.len()]);
    backend.loss_sum(LossSum { losses, scale: SCALE, total: total.view(), write }).unwrap();
    [total.read(backend), total.before]
}

/// As a step has them: of one sign.
fn some_losses(n: usize) -> Vec<f64> {
    Draws::new(n as u64).numbers(n).iter().map(|x| f64::from((x * 4.0 + 6.0) as f32)).collect()
}

#[test]
fn loss_sum_is_the_formula() {
    let cuda = shared();
    let [mut got, mut reference, mut baseline] = [const { Vec::new() }; 3];
    for n in [1, 2, 3, 4, 5, 127, 4095, 4096, 4097, 4099, 16384, 16391, 65536, 300_001] {
        for write in WRITES {
            let losses = some_losses(n);
            let [total, _] = loss_sum(&*cuda, &losses, 0, write);
            for shift in 1..4 {
                let [shifted, _] = loss_sum(&*cuda, &losses, shift, write);
                let what = format!("loss_sum total, N = {n}, {write:?}, {shift} elements from aligned");
                assert_same_bits(&what, &shifted, &total);
            }
            got.extend(total);
            reference.extend(loss_sum(&Cpu::<f64>::new(), &losses, 0, write)[0].iter());
            baseline.extend(loss_sum(&Cpu::<f32>::new(), &losses, 0, write)[0].iter());
        }
    }
    // Judged together, as the baseline is right by chance for some.
    Verdict { what: "loss_sum total", reference: &reference, baseline: &baseline, ulps: 4.0 }.pass::<f32>(&got);
}

#[test]
fn loss_sum_passes_on_what_is_not_finite() {
    let cuda = shared();
    for (bad, want) in [(f64::NAN, f64::NAN), (f64::INFINITY, f64::INFINITY)] {
        for at in [0, 4998] {
            let mut losses = some_losses(4999);
            losses[at] = bad;
            assert_same_bits("loss_sum", &loss_sum(&*cuda, &losses, 0, Write::Overwrite)[0], &[want]);
        }
    }
}

#[test]
fn loss_sum_is_lean() {
    let Some(cuda) = alone() else { return };
    for (shift, sectors) in [(0, 1.0), (1, 5.0)] {
        let n = 65536;
        let losses: Input<Cuda, f32> = Input::new(&*cuda, [n + shift], &some_losses(n + shift));
        let mut total = Output::new(&*cuda, [1]);
        let view = losses.view().part(shift, [n]);
        let op = LossSum { losses: view, scale: SCALE, total: total.view(), write: Write::Overwrite };
        let floor = op.floor();
        let counts = cuda.count(|| cuda.loss_sum(op).unwrap());
        let what = format!("loss_sum, N = {n}, {shift} elements from aligned");
        // The total is a sector of its own.
        Lean { what: &what, floor, bytes: 1.0, sectors: sectors + 0.001 }.pass(&counts);
    }
}

/// Rows that take every way through a kernel: targets in whole vectors, in the last columns, ignored, and outside.
fn every_way(v: usize, vp: usize) -> Rows {
    let mut rows = Rows::new(9, v, vp, 3.0);
    let middle = v as i32 / 16 * 8;
    rows.targets = vec![v as i32 - 1, 0, -1, v as i32, middle + 3, 2, vp as i32, middle - 3, 1];
    rows.row(5).fill(f64::NEG_INFINITY);
    rows
}

fn forward_trial(why: &'static str, kernels: &'static [&'static str], rows: Rows) -> Trial {
    Trial { why, kernels, run: Box::new(move |cuda| vec![rows.forward(cuda)]) }
}

fn backward_trial(why: &'static str, kernels: &'static [&'static str], rows: Rows) -> Trial {
    Trial { why, kernels, run: Box::new(move |cuda| rows.backward(cuda).into()) }
}

fn trials() -> Vec<Trial> {
    let sum = |why, n, shift, write| Trial {
        why,
        kernels: &["loss_sum"],
        run: Box::new(move |cuda| loss_sum(cuda, &some_losses(n), shift, write).into()),
    };
    vec![
        forward_trial("a warp a row, one of them in the second block", &[FORWARD_WARP], every_way(27, 40)),
        forward_trial("a block a row", &[FORWARD_BLOCK], every_way(2571, 2584)),
        backward_trial("a warp a row, one of them in the second block", &[BACKWARD_WARP], every_way(27, 40)),
        backward_trial("a block a row", &[BACKWARD_20K], every_way(2571, 2584)),
        backward_trial("five groups, two of them not needed", &[BACKWARD_51K], Rows::new(1, 20493, 20504, 3.0)),
        backward_trial("a row read twice", &[BACKWARD_STREAM], Rows::new(1, 51213, 51224, 3.0)),
        sum("aligned, three left", 4099, 0, Write::Overwrite),
        sum("not aligned", 1030, 1, Write::Accumulate),
    ]
}

/// A row that ends in each of a thread's vectors, without and with columns that are left.
fn each_last_vector(kernels: &'static [&'static str], threads: usize, vectors: std::ops::Range<usize>) -> Vec<Trial> {
    let row = |i| {
        let whole = threads * i + if threads * i < 321 && threads > 32 { 70 } else { 1 };
        let v = 8 * whole + if i % 2 == 0 { 5 } else { 0 };
        backward_trial("one row, by its last vector", kernels, Rows::new(1, v, 8 * whole + 16, 3.0))
    };
    vectors.map(row).collect()
}

/// Those that only mutants need.
fn trials_of_mutants() -> Vec<Trial> {
    let mut all = trials();
    all.extend([
        forward_trial("no columns left", &[FORWARD_WARP], Rows::new(1, 40, 56, 3.0)),
        forward_trial("a warp's second group", &[FORWARD_WARP], Rows::new(1, 1291, 1304, 3.0)),
        forward_trial("a thread's second group", &[FORWARD_BLOCK], Rows::new(1, 10251, 10264, 3.0)),
        backward_trial("every way", &[BACKWARD_51K], every_way(20493, 20504)),
        backward_trial("every way", &[BACKWARD_STREAM], every_way(51213, 51224)),
        backward_trial("no columns left", &[BACKWARD_STREAM], Rows::new(1, 51208, 51224, 3.0)),
    ]);
    all.extend(each_last_vector(&[BACKWARD_WARP], 32, 0..10));
    all.extend(each_last_vector(&[BACKWARD_20K], 256, 1..10));
    all.extend(each_last_vector(&[BACKWARD_51K], 256, 10..25));
    all.extend(each_last_vector(&[BACKWARD_STREAM], 256, 25..30));
    for (kernel, forward) in [(&[FORWARD_WARP], 0..5), (&[FORWARD_BLOCK], 2..7)] {
        let (threads, shift) = if kernel[0] == FORWARD_WARP { (32, 1) } else { (256, 1) };
        all.extend(forward.map(|i| {
            let v = 8 * (threads * i + shift) + if i % 2 == 0 { 5 } else { 0 };
            forward_trial("one row, by its last vector", kernel, Rows::new(1, v, v.next_multiple_of(8) + 8, 3.0))
        }));
    }
    // Where no padding is, the column of a target of V is the next row's first, or outside.
    for (forward, kernel, v) in [
        (Some(&[FORWARD_WARP]), &[BACKWARD_WARP], 16),
        (Some(&[FORWARD_BLOCK]), &[BACKWARD_20K], 2568),
        (None, &[BACKWARD_51K], 20488),
        (None, &[BACKWARD_STREAM], 51208),
    ] {
        let rows = Rows { targets: vec![v as i32; 2], ..Rows::new(2, v, v, 3.0) };
        all.extend(forward.map(|kernel| forward_trial("no padding, no such target", kernel, rows.clone())));
        all.push(backward_trial("no padding, no such target", kernel, rows));
    }
    // A thread's next vector would be the next row's first.
    for (kernel, v, padding, ignored) in [
        (&[BACKWARD_WARP], 10, 272, 256),
        (&[BACKWARD_20K], 2571, 4624, 4096),
        (&[BACKWARD_51K], 20493, 22544, 22528),
        (&[BACKWARD_STREAM], 51213, 53264, 53248),
    ] {
        all.push(backward_trial("whole strides of padding", kernel, Rows::new(2, v, padding, 3.0)));
        let rows = Rows { targets: vec![-1; 2], ..Rows::new(2, v, ignored, 3.0) };
        all.push(backward_trial("whole strides of an ignored row", kernel, rows));
    }
    for (n, shift) in
        [(1, 0), (2, 1), (3, 0), (4, 0), (5, 1), (20481, 0), (20482, 1), (28674, 0), (16384, 0), (16384, 2)]
    {
        all.push(Trial {
            why: "turns and what is left",
            kernels: &["loss_sum"],
            run: Box::new(move |cuda| loss_sum(cuda, &some_losses(n), shift, Write::Overwrite).into()),
        });
    }
    all
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_any_schedule("cross_entropy", &trials());
}

#[test]
fn mutants_die() {
    // Each is listed by the line of the kernel's call, so that the reason is for all of its survivors of a kind.
    const LOOPS: &str = "a group beyond the row is -infinity, which adds nothing; exit from a loop that has always a first \
                         turn; more than a stride of vectors where a block has a row";
    const HELD: &str = "a first vector, and the first groups, inside of every row for this kernel; a group beyond the row is \
                        -infinity, which adds nothing; other threads' reading of the target's logit";
    const LOGARITHM: &str =
        "logf's care for sums below 2^-126 and above 2^127: a sum is 0, from 1 to 2^31, or not finite";
    const UNUSED: &str = "-scale, used only where there is a target";
    const FASTER: &str = "four losses at once or one by one; the other warps' sums, which nobody writes";
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(2, FORWARD_WARP, Kind::ShiftComparison, "forward<", LOOPS),
        equivalent(2, FORWARD_WARP, Kind::NeverLeave, "forward<", LOOPS),
        equivalent(2, FORWARD_WARP, Kind::SelectSecond, "forward<", LOGARITHM),
        equivalent(2, FORWARD_BLOCK, Kind::ShiftComparison, "forward<", LOOPS),
        equivalent(2, FORWARD_BLOCK, Kind::NeverLeave, "forward<", LOOPS),
        equivalent(2, FORWARD_BLOCK, Kind::SelectSecond, "forward<", LOGARITHM),
        equivalent(2, BACKWARD_WARP, Kind::ShiftComparison, "backward<", UNUSED),
        equivalent(2, BACKWARD_WARP, Kind::NeverLeave, "backward<", LOOPS),
        equivalent(1, BACKWARD_WARP, Kind::SelectFirst, "backward<", UNUSED),
        equivalent(2, BACKWARD_WARP, Kind::SelectSecond, "backward<", LOGARITHM),
        equivalent(4, BACKWARD_20K, Kind::ShiftComparison, "backward<", HELD),
        equivalent(6, BACKWARD_20K, Kind::NeverLeave, "backward<", HELD),
        equivalent(2, BACKWARD_20K, Kind::SelectSecond, "backward<", LOGARITHM),
        equivalent(5, BACKWARD_51K, Kind::ShiftComparison, "backward<", HELD),
        equivalent(7, BACKWARD_51K, Kind::NeverLeave, "backward<", HELD),
        equivalent(2, BACKWARD_51K, Kind::SelectSecond, "backward<", LOGARITHM),
        equivalent(4, BACKWARD_STREAM, Kind::ShiftComparison, "backward<", LOOPS),
        equivalent(3, BACKWARD_STREAM, Kind::NeverLeave, "backward<", LOOPS),
        equivalent(2, BACKWARD_STREAM, Kind::SelectSecond, "backward<", LOGARITHM),
        equivalent(1, "loss_sum", Kind::NeverLeave, "for (uint64_t i", FASTER),
        equivalent(1, "loss_sum", Kind::NeverLeave, "if (warp_id() > 0)", FASTER),
    ];
    assert_mutants_die("cross_entropy", &trials_of_mutants(), EQUIVALENT);
}
