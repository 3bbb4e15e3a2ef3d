//! Accuracy of cross-entropy at every shape, ignored and invalid targets, and non-finite logits.

use super::*;

/// N, V, Vp, the kernel of the backward, and why.
const SHAPES: [(usize, usize, usize, &str, &str); 25] = [
    (1, 1, 8, BACKWARD_WARP, "one class: no loss, no gradient"),
    (3, 2, 8, BACKWARD_WARP, "two columns, no whole vector"),
    (2, 8, 8, BACKWARD_WARP, "one vector"),
    (7, 9, 16, BACKWARD_WARP, "one column in the second vector, and an idle warp"),
    (8, 18, 24, BACKWARD_WARP, "two columns in the third vector"),
    (
        9,
        27,
        40,
        BACKWARD_WARP,
        "three columns in the fourth vector, a vector of padding, and a row in the second block",
    ),
    (3, 36, 40, BACKWARD_WARP, "four columns in the last vector"),
    (3, 45, 48, BACKWARD_WARP, "five columns in the last vector"),
    (3, 54, 56, BACKWARD_WARP, "six columns in the last vector"),
    (3, 63, 64, BACKWARD_WARP, "seven columns in the last vector"),
    (5, 256, 256, BACKWARD_WARP, "a vocabulary of bytes, without padding"),
    (4, 257, 1024, BACKWARD_WARP, "more padding than vocabulary"),
    (3, 1280, 1280, BACKWARD_WARP, "one group of vectors per lane"),
    (3, 1288, 1296, BACKWARD_WARP, "one vector in the second group"),
    (2, 2567, 2568, BACKWARD_WARP, "the most columns for a warp per row"),
    (2, 2568, 2568, BACKWARD_20K, "the fewest columns for a block per row"),
    (2, 10240, 10240, BACKWARD_20K, "one group of vectors per thread"),
    (1, 10248, 10248, BACKWARD_20K, "one vector in the second group"),
    (1, 20487, 20488, BACKWARD_20K, "the most columns of two groups"),
    (1, 20488, 20496, BACKWARD_51K, "the fewest columns for five groups"),
    (2, 32000, 32000, BACKWARD_51K, "one group is not needed"),
    (3, 50257, 50304, BACKWARD_51K, "GPT-2's vocabulary"),
    (1, 51207, 51208, BACKWARD_51K, "the most columns that registers hold"),
    (1, 51208, 51208, BACKWARD_STREAM, "the fewest columns that they do not hold"),
    (2, 70001, 70016, BACKWARD_STREAM, "more columns than registers hold"),
];

/// Results of the three backends.
#[derive(Default)]
struct Results {
    cuda: Vec<f64>,
    f64: Vec<f64>,
    f32: Vec<f64>,
}

impl Results {
    fn check<E: Number>(&self, what: &str, ulps: f64) {
        AccuracyBound { what, reference: &self.f64, baseline: &self.f32, ulps }.check::<E>(&self.cuda);
    }

    fn add(&mut self, [cuda, f64, f32]: [&[f64]; 3]) {
        self.cuda.extend(cuda);
        self.f64.extend(f64);
        self.f32.extend(f32);
    }
}

/// Losses, and gradients in the targets' columns, collected over many rows: on few values, the baseline may be exact by chance.
#[derive(Default)]
struct PerRow {
    forward: Results,
    backward: Results,
    targets: Results,
}

impl PerRow {
    fn check(&self, what: &str) {
        self.forward.check::<f32>(&format!("cross_entropy_forward losses, {what}"), 4.0);
        self.backward.check::<f32>(&format!("cross_entropy_backward losses, {what}"), 4.0);
        // 1 - p cancels in the kernel as in the baseline: an error of 2^-24 remains where p is next to 1.
        self.targets.check::<bf16>(&format!("cross_entropy_backward logits of targets, {what}"), 4.0);
    }
}

/// Checks the gradient of these rows, except for the targets' columns, and adds the rest to `all`.
fn check_both(cuda: &Cuda, rows: &Rows, what: &str, all: &mut PerRow) {
    let forward = rows.forward(cuda);
    let results = [rows.backward(cuda), rows.backward(&Cpu::<f64>::new()), rows.backward(&Cpu::<f32>::new())];
    let [mut gradients, losses] = [0, 1].map(|output| results.each_ref().map(|result| result[output].clone()));
    for (row, &target) in gradients[0].chunks(rows.vp).zip(&rows.targets) {
        let zeros = if target < 0 { row } else { &row[rows.v..] };
        assert!(zeros.iter().all(|&x| x == 0.0), "{what}: padding and ignored rows are 0");
    }
    let [cuda, f64, f32] = losses.each_ref().map(|losses| &losses[..]);
    for (i, &want) in f64.iter().enumerate() {
        // A small loss is the logarithm of a number next to 1 and has that number's error, in the kernel as in the baseline.
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
    Results { cuda, f64, f32 }.check::<bf16>(&format!("cross_entropy_backward logits, {what}"), 0.52);
}

#[test]
fn both_are_the_formula_at_every_shape() {
    let cuda = shared();
    for magnitude in [1.0, 30.0] {
        let mut all = PerRow::default();
        for (n, v, vp, _, why) in SHAPES {
            let what = format!("N = {n}, V = {v}, Vp = {vp} ({why}), logits to ±{magnitude}");
            check_both(&cuda, &rows(n, v, vp, magnitude), &what, &mut all);
        }
        all.check(&format!("logits to ±{magnitude}"));
    }
}

/// The thread that finds the target depends on its column: the last columns belong to the first threads.
#[test]
fn the_target_may_be_in_any_column() {
    let cuda = shared();
    let mut all = PerRow::default();
    for (v, vp) in [(77, 88), (2615, 2624)] {
        let mut rows = rows(v, v, vp, 4.0);
        rows.targets = (0..v as i32).collect();
        if v > 100 {
            // One target per vector, at varying columns of it, and the last columns.
            rows.targets = (0..v as i32).filter(|i| i % 9 == 0 || *i >= v as i32 - 9).collect();
            rows.n = rows.targets.len();
            rows.logits.truncate(rows.n * vp);
        }
        check_both(&cuda, &rows, &format!("V = {v}, every target"), &mut all);
    }
    all.check("every target");
}

#[test]
fn the_kernel_is_the_one_that_holds_a_row() {
    let Some(cuda) = alone() else { return };
    for (_, v, vp, backward, why) in SHAPES {
        let rows = rows(1, v, vp, 1.0);
        let forward = if v < 2568 { FORWARD_WARP } else { FORWARD_BLOCK };
        assert_eq!(cuda.count(|| drop(rows.forward(&*cuda))).kernels(), [forward], "{why}");
        assert_eq!(cuda.count(|| drop(rows.backward(&*cuda))).kernels(), [backward], "{why}");
    }
}

/// One shape per kernel.
const ONE_EACH: [(usize, usize, usize); 4] = [(4, 21, 32), (4, 2571, 2576), (4, 20493, 20504), (4, 51213, 51216)];

#[test]
fn any_negative_target_is_ignored() {
    let cuda = shared();
    for (n, v, vp) in ONE_EACH {
        let mut rows = rows(n, v, vp, 1.0);
        rows.targets = vec![-1, -100, i32::MIN, -2];
        // Ignored rows are not even read.
        rows.logits.fill(f64::NAN);
        assert_eq!(rows.forward(&*cuda), vec![0.0; n], "V = {v}");
        assert_eq!(rows.backward(&*cuda), [vec![0.0; n * vp], vec![0.0; n]], "V = {v}");
    }
}

/// The launcher cannot read targets on the device; the CPU backend rejects these.
#[test]
fn an_invalid_target_makes_its_row_nan() {
    let cuda = shared();
    for (n, v, vp) in ONE_EACH {
        let mut rows = rows(n, v, vp, 1.0);
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

/// Fails unless the columns of the vocabulary in row 1 are NaN, and everything else is as before. Rows are `width` wide.
fn assert_only_row_one_is_nan(rows: &Rows, got: &[f64], good: &[f64], width: usize) {
    for (i, (&got, &good)) in got.iter().zip(good).enumerate() {
        let nan = i / width == 1 && i % width < rows.v;
        let right = if nan { got.is_nan() } else { got.to_bits() == good.to_bits() };
        assert!(right, "V = {}: [{}, {}] is {got}, and {good} without the bad value", rows.v, i / width, i % width);
    }
}

#[test]
fn non_finite_logits_stay_in_their_row() {
    let cuda = shared();
    let mut all = PerRow::default();
    for (n, v, vp) in ONE_EACH {
        let mut rows = rows(n, v, vp, 1.0);
        rows.targets = vec![0, 5, 1, v as i32 - 1];
        let good = (rows.forward(&*cuda), rows.backward(&*cuda));
        // The bad logit is in the first vector, in the target's column, in another vector, or in the last column.
        for (at, bad) in [0, 5, v / 2, v - 1].into_iter().flat_map(|at| [f64::NAN, f64::INFINITY].map(|x| (at, x))) {
            let mut rows = rows.clone();
            row_mut(&mut rows, 1)[at] = bad;
            assert_only_row_one_is_nan(&rows, &rows.forward(&*cuda), &good.0, 1);
            let [gradient, losses] = rows.backward(&*cuda);
            assert_only_row_one_is_nan(&rows, &losses, &good.1[1], 1);
            assert_only_row_one_is_nan(&rows, &gradient, &good.1[0], vp);
        }
        // All logits -infinity, or all NaN: the softmax is undefined.
        for bad in [f64::NEG_INFINITY, f64::NAN] {
            let mut rows = rows.clone();
            row_mut(&mut rows, 1).fill(bad);
            assert_only_row_one_is_nan(&rows, &rows.forward(&*cuda), &good.0, 1);
            assert_only_row_one_is_nan(&rows, &rows.backward(&*cuda)[0], &good.1[0], vp);
        }
        // Some logits of -infinity have the probability 0; at the target the loss is infinite.
        for at in [0, 5, v - 1] {
            let mut rows = rows.clone();
            row_mut(&mut rows, 1)[at] = f64::NEG_INFINITY;
            let (losses, [gradient, _]) = (rows.forward(&*cuda), rows.backward(&*cuda));
            assert_eq!(losses[1] == f64::INFINITY, at == 5, "V = {v}: the loss is {}", losses[1]);
            assert_eq!(gradient[vp + at], if at == 5 { -SCALE } else { 0.0 }, "V = {v}, column {at}");
            let what = format!("V = {v}, -infinity in column {at}");
            check_both(&cuda, &rows, &what, &mut all);
        }
        // All columns of some threads and warps are -infinity.
        row_mut(&mut rows, 1)[8..].fill(f64::NEG_INFINITY);
        check_both(&cuda, &rows, &format!("V = {v}, 8 finite columns"), &mut all);
    }
    all.check("some logits of -infinity");
}

#[test]
fn certainty_is_exact() {
    let cuda = shared();
    for (n, v, vp) in ONE_EACH {
        // The last is the largest bf16.
        for huge in [2e2, 1e4, 1e30, 3.3895313892515355e38] {
            let mut rows = rows(n, v, vp, 1.0);
            for (row, at) in [v - 1, 0, v / 2, v / 3].into_iter().enumerate() {
                row_mut(&mut rows, row)[at] = bf16::from_f64(huge).to_f64();
                rows.targets[row] = at as i32;
            }
            assert_eq!(rows.forward(&*cuda), vec![0.0; n], "V = {v}, {huge}");
            let [gradient, losses] = rows.backward(&*cuda);
            assert_eq!(losses, vec![0.0; n], "V = {v}, {huge}");
            assert!(gradient.iter().all(|&x| x.abs() < 1e-30), "V = {v}, {huge}");
            for (row, &target) in rows.targets.iter().enumerate() {
                assert_eq!(gradient[row * vp + target as usize], 0.0);
            }
            // The same logits far below all others.
            rows.logits.iter_mut().for_each(|x| *x = -*x);
            let what = format!("V = {v}, one logit of -{huge}");
            check_both(&cuda, &rows, &what, &mut PerRow::default());
        }
        let mut rows = rows(n, v, vp, 1.0);
        rows.targets[2] = 1;
        for (row, equal) in [0.0, 7.5, -1e30, 1e38].into_iter().enumerate() {
            row_mut(&mut rows, row).fill(bf16::from_f64(equal).to_f64());
        }
        compare::<f32>("cross_entropy_forward", [n], &rows.forward(&*cuda), &vec![(v as f64).ln(); n], 4.0);
        // Smaller logits: relative to 1e38, even the f64 reference loses the logarithm.
        row_mut(&mut rows, 2).fill(-9984.0);
        row_mut(&mut rows, 3).fill(9984.0);
        check_both(&cuda, &rows, &format!("V = {v}, equal logits"), &mut PerRow::default());
    }
    let one = rows(1, 1, 8, 9.0);
    assert_eq!((one.forward(&*cuda), one.backward(&*cuda)), (vec![0.0], [vec![0.0; 8], vec![0.0]]));
}

#[test]
fn the_gradient_is_scaled() {
    let cuda = shared();
    for (n, v, vp) in ONE_EACH {
        for scale in [1.0, 1.0 / 3.0, 1.0 / 65536.0, 0.0, -2.0] {
            let rows = Rows { scale, ..rows(n, v, vp, 5.0) };
            check_both(&cuda, &rows, &format!("V = {v}, scale {scale}"), &mut PerRow::default());
        }
    }
}
