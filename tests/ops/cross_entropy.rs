//! Cross-entropy, the forward and the in-place backward, and the sum of losses.

use ironwarp::cpu::Cpu;
use ironwarp::ops::{Backend, CrossEntropyBackward, CrossEntropyForward, Floor, LossSum, Operation, Write};
use ironwarp::tensor::Tensor;

use crate::common::cross_entropy::{Rows, SCALE, loss_sum};
use crate::common::*;

/// N, V, Vp and why.
const SHAPES: [(usize, usize, usize, &str); 7] = [
    (1, 1, 1, "one class: no loss, no gradient"),
    (3, 1, 8, "one class among padding"),
    (1, 7, 7, "one row, no padding"),
    (5, 13, 16, "V odd, padded to a vector"),
    (4, 64, 64, "V a multiple of everything"),
    (6, 17, 40, "more padding than vocabulary"),
    (2, 50257, 50304, "GPT-2's vocabulary"),
];

/// Rows whose first target is the last class; row 1, if present, is ignored.
fn rows(n: usize, v: usize, vp: usize, magnitude: f64) -> Rows {
    let mut rows = Rows::new(1, [n, v, vp], magnitude);
    rows.targets[0] = v as i32 - 1;
    if n > 1 {
        rows.targets[1] = -1;
    }
    rows
}

/// Losses and gradient by the formulas, of logits rounded to the backend's type.
fn naive<B: Device>(_: &B, rows: &Rows) -> (Vec<f64>, Vec<f64>) {
    let (v, vp, logits) = (rows.v, rows.vp, rounded::<B::Compute>(rows.logits.clone()));
    let (mut losses, mut gradient) = (vec![0.0; rows.n], vec![0.0; rows.n * vp]);
    for (n, row) in logits.chunks(vp).enumerate() {
        let Ok(target) = usize::try_from(rows.targets[n]) else { continue };
        let largest = row[..v].iter().copied().fold(f64::MIN, f64::max);
        let total: f64 = row[..v].iter().map(|x| (x - largest).exp()).sum();
        losses[n] = largest - row[target] + total.ln();
        for (i, x) in row[..v].iter().enumerate() {
            let hit = if i == target { 1.0 } else { 0.0 };
            gradient[n * vp + i] = ((x - largest).exp() / total - hit) * SCALE;
        }
    }
    (losses, gradient)
}

fn both_are_the_formula<B: Device>(backend: &B, magnitude: f64) {
    for (n, v, vp, why) in SHAPES {
        let rows = rows(n, v, vp, magnitude);
        let (want_losses, want_gradient) = naive(backend, &rows);
        let what = format!("of logits to ±{magnitude}, {why},");
        // A difference of two logits has their rounding errors, which grow with the magnitude; a sum in 8 lanes has its own.
        let units = 8.0 + 2.0 * magnitude + (v as f64).sqrt();
        let losses = rows.forward(backend);
        compare::<B::Accum>(&format!("cross_entropy_forward losses {what}"), [n], &losses, &want_losses, units);
        let [gradient, losses] = rows.backward(backend);
        compare::<B::Accum>(&format!("cross_entropy_backward losses {what}"), [n], &losses, &want_losses, units);
        compare::<B::Compute>(
            &format!("cross_entropy_backward logits {what}"),
            [n, vp],
            &gradient,
            &want_gradient,
            32.0,
        );
        for (row, &target) in gradient.chunks(vp).zip(&rows.targets) {
            let zeros = if target < 0 { row } else { &row[v..] };
            assert!(zeros.iter().all(|&x| x == 0.0), "{what} padding and ignored rows are 0");
        }
    }
}

#[test]
fn both_are_the_formula_in_f64_and_f32() {
    for magnitude in [1.0, 30.0, 1e4] {
        both_are_the_formula(&Cpu::<f64>::new(), magnitude);
        both_are_the_formula(&Cpu::<f32>::new(), magnitude);
    }
}

/// The padding holds NaN, so differences of 0 in it show that it is not read.
#[test]
fn backward_is_the_gradient() {
    let backend = Cpu::<f64>::new();
    for (n, v, vp, why) in SHAPES.into_iter().filter(|&(_, v, ..)| v < 100) {
        let rows = rows(n, v, vp, 3.0);
        let [gradient, _] = rows.backward(&backend);
        let mut moved = rows.clone();
        check_gradient(&format!("cross_entropy_backward, {why}"), &rows.logits, &gradient, |logits| {
            moved.logits.copy_from_slice(logits);
            moved.forward(&backend).iter().sum::<f64>() * SCALE
        });
    }
}

#[test]
fn any_negative_target_is_ignored() {
    let backend = Cpu::<f32>::new();
    let mut rows = rows(3, 5, 8, 1.0);
    rows.targets = vec![-1, -100, i32::MIN];
    assert_eq!(rows.forward(&backend), [0.0; 3]);
    assert_eq!(rows.backward(&backend), [vec![0.0; 24], vec![0.0; 3]]);
}

/// The loss is ln V for equal logits of any value, and 0 when the target is certain.
#[test]
fn losses_by_hand() {
    let backend = Cpu::<f64>::new();
    let mut rows = rows(2, 4, 4, 1.0);
    rows.targets = vec![2, 0];
    rows.logits = [[7.5; 4], [1e4, -1e4, -1e4, -1e4]].concat();
    compare::<f64>("cross_entropy_forward", [2], &rows.forward(&backend), &[4f64.ln(), 0.0], 8.0);
    let [gradient, _] = rows.backward(&backend);
    let third = SCALE / 4.0;
    assert_eq!(gradient, [third, third, third - SCALE, third, 0.0, 0.0, 0.0, 0.0]);
}

fn loss_sum_is_the_formula<B: Device>(backend: &B) {
    for (n, write) in [1, 2, 7, 8, 9, 31, 1000].into_iter().flat_map(|n| WRITES.map(|write| (n, write))) {
        let losses = Draws::new(2).numbers(n);
        let total = loss_sum(backend, &losses, 0, write);
        let want = total.expected(write, &[losses.iter().sum::<f64>() * SCALE]);
        let what = format!("loss_sum total, {write:?}, N = {n},");
        // Partial sums in 8 lanes: the errors are random walks of N/8 steps.
        compare::<B::Accum>(&what, [1], &total.read(backend), &want, 8.0 + n as f64 / 8.0);
    }
}

#[test]
fn loss_sum_is_the_formula_in_f64_and_f32() {
    loss_sum_is_the_formula(&Cpu::<f64>::new());
    loss_sum_is_the_formula(&Cpu::<f32>::new());
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let backend = Cpu::<f32>::new();
    let rows = rows(41, 131, 144, 5.0);
    assert_same_on_any_threads("cross_entropy", || {
        let losses = rows.forward(&backend);
        // Many losses of both signs, so that another order of summation would change the bits.
        let total = loss_sum(&backend, &Draws::new(5).numbers(10_007), 0, Write::Overwrite).read(&backend);
        [vec![losses, total], rows.backward(&backend).into()].concat()
    });
}

/// Sizes of a call, valid unless edited: N = 3, V = 5, Vp = 8.
struct Call {
    logits: [usize; 2],
    targets: Vec<i32>,
    vocab: usize,
    losses: usize,
}

/// Fails unless forward and backward, which have the same preconditions, reject the edited call.
fn assert_both_rejected<B: Device>(backend: &B, message: &str, edit: impl FnOnce(&mut Call)) {
    let mut call = Call { logits: [3, 8], targets: vec![0, 4, -1], vocab: 5, losses: 3 };
    edit(&mut call);
    let numbers = Draws::new(3).numbers(call.logits.iter().product());
    let mut gradient: Output<B, B::Compute> = Output::with(backend, call.logits, &numbers);
    let logits: Input<B, B::Compute> = Input::new(backend, call.logits, &numbers);
    let (targets, vocab) = (ids(backend, [call.targets.len()], &call.targets), call.vocab);
    let mut losses = Output::new(backend, [call.losses]);

    let op = CrossEntropyForward { logits: logits.view(), targets: targets.view(), vocab, losses: losses.view() };
    assert_rejected(backend.cross_entropy_forward(op), &format!("cross_entropy_forward: {message}"));
    let (logits, targets) = (gradient.view(), targets.view());
    let op = CrossEntropyBackward { logits, targets, vocab, scale: SCALE, losses: losses.view() };
    assert_rejected(backend.cross_entropy_backward(op), &format!("cross_entropy_backward: {message}"));
    losses.assert_untouched(backend);
    gradient.assert_untouched(backend);
}

#[test]
fn both_reject_violated_preconditions() {
    let backend = Cpu::<f32>::new();
    let rejected = |message, edit: fn(&mut Call)| assert_both_rejected(&backend, message, edit);
    rejected("logits not empty failed (logits is (0, 8))", |call| call.logits = [0, 8]);
    rejected("targets (N) == (3) failed (targets is (2))", |call| call.targets = vec![0, 1]);
    rejected("losses (N) == (3) failed (losses is (4))", |call| call.losses = 4);
    rejected("1 <= V <= Vp failed (V = 0, Vp = 8)", |call| call.vocab = 0);
    rejected("1 <= V <= Vp failed (V = 9, Vp = 8)", |call| call.vocab = 9);
    rejected("target < V failed (target 1 = 5, V = 5)", |call| call.targets[1] = 5);
    rejected("target < V failed (target 2 = 2147483647, V = 5)", |call| call.targets[2] = i32::MAX);
}

#[test]
fn loss_sum_rejects_violated_preconditions() {
    let backend = Cpu::<f32>::new();
    for (losses, shape, message) in [
        (0, 1, "loss_sum: losses not empty failed (losses is (0))"),
        (3, 2, "loss_sum: total (1) == (1) failed (total is (2))"),
    ] {
        let losses: Input<_, f32> = Draws::new(4).input(&backend, [losses]);
        let mut total = Output::new(&backend, [shape]);
        let op = LossSum { losses: losses.view(), scale: SCALE, total: total.view(), write: Write::Overwrite };
        assert_rejected(backend.loss_sum(op), message);
        total.assert_untouched(&backend);
    }
}

/// N = 3, V = 5, Vp = 8 in f32: padding is written but not read.
#[test]
fn floors_by_hand() {
    type T = Tensor<Cpu<f32>, f32>;
    let backend = Cpu::<f32>::new();
    let (mut logits, mut losses) = (T::zeros(&backend, [3, 8]).unwrap(), T::zeros(&backend, [3]).unwrap());
    let (targets, mut total) = (ids(&backend, [3], &[0; 3]), T::zeros(&backend, [1]).unwrap());
    let (targets, vocab) = (targets.view(), 5);
    let op: CrossEntropyForward<'_, Cpu<f32>> =
        CrossEntropyForward { logits: logits.view(), targets, vocab, losses: losses.view_mut() };
    assert_eq!(op.floor(), Floor { bytes: 15 * 4 + 3 * 4 + 3 * 4, flops: 0 });
    let op: CrossEntropyBackward<'_, Cpu<f32>> =
        CrossEntropyBackward { logits: logits.view_mut(), targets, vocab, scale: 1.0, losses: losses.view_mut() };
    assert_eq!(op.floor(), Floor { bytes: 15 * 4 + 24 * 4 + 3 * 4 + 3 * 4, flops: 0 });
    for (write, floats) in [(Write::Overwrite, 4), (Write::Accumulate, 5)] {
        let op: LossSum<'_, Cpu<f32>> = LossSum { losses: losses.view(), scale: 1.0, total: total.view_mut(), write };
        assert_eq!(op.floor(), Floor { bytes: floats * 4, flops: 0 });
    }
}
