//! Cross-entropy, the forward and the in-place backward, and the sum of losses.

use emulator_trials::mutate::Kind;
use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, CrossEntropyBackward, CrossEntropyForward, Floor, LossSum, Operation, Write};

use crate::bounds::{AccuracyBound, TrafficBound};
use crate::common::cross_entropy::{Rows, SCALE, loss_sum};
use crate::common::*;
use crate::emulator::{Alone, alone, shared};
use crate::kernel_checks::{Equivalent, Trial, assert_mutants_killed, assert_schedules_agree, equivalent};

mod formula;

const FORWARD_WARP: &str = "cross_entropy_forward_warp";
const FORWARD_BLOCK: &str = "cross_entropy_forward_block";
const BACKWARD_WARP: &str = "cross_entropy_backward_warp";
const BACKWARD_20K: &str = "cross_entropy_backward_20k";
const BACKWARD_51K: &str = "cross_entropy_backward_51k";
const BACKWARD_STREAM: &str = "cross_entropy_backward_stream";

/// Random rows that bf16 represents. The last and the first class are targets; row 2, if present, is ignored.
fn rows(n: usize, v: usize, vp: usize, magnitude: f64) -> Rows {
    let mut rows = Rows::new((n * vp + v) as u64, [n, v, vp], magnitude);
    rows.logits = rounded::<bf16>(rows.logits);
    let chosen = [v as i32 - 1, 0, -1];
    let count = n.min(chosen.len());
    rows.targets[..count].copy_from_slice(&chosen[..count]);
    rows
}

fn row_mut(rows: &mut Rows, n: usize) -> &mut [f64] {
    &mut rows.logits[n * rows.vp..][..rows.v]
}

/// Checks the traffic of forward and backward. With `read_twice` the floor counts the backward's second reading of a row.
fn check_traffic(cuda: &Alone, (n, v, vp): (usize, usize, usize), [bytes, sectors]: [f64; 2], read_twice: bool) {
    let mut rows = rows(n, v, vp, 1.0);
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
    TrafficBound { what: &what, floor, bytes, sectors }.check(&counts);

    let op =
        CrossEntropyBackward { logits: logits.view(), targets: targets.view(), vocab, scale, losses: losses.view() };
    let floor = Floor { bytes: op.floor().bytes + if read_twice { (2 * n * v) as u64 } else { 0 }, ..op.floor() };
    let counts = cuda.count(|| cuda.cross_entropy_backward(op).unwrap());
    let what = format!("cross_entropy_backward, N = {n}, V = {v}, Vp = {vp}");
    TrafficBound { what: &what, floor, bytes, sectors }.check(&counts);
}

#[test]
fn traffic_is_the_floor() {
    let Some(cuda) = alone() else { return };
    // Every lane requests its row's target, 128 bytes of one sector: much only compared with a short row.
    check_traffic(&cuda, (3, 50257, 50304), [1.02, 1.01], false);
    check_traffic(&cuda, (3, 8192, 8192), [1.10, 1.01], false);
    // Registers do not hold this row.
    check_traffic(&cuda, (2, 65536, 65536), [1.02, 1.01], true);
    check_traffic(&cuda, (16, 2048, 2048), [1.05, 1.02], false);
    check_traffic(&cuda, (16, 256, 256), [1.30, 1.10], false);
}

#[test]
fn misaligned_tensors_are_rejected() {
    let cuda = shared();
    let input: Input<Cuda, bf16> = Input::new(&*cuda, [4, 8], &[0.0; 32]);
    let mut logits: Output<Cuda, bf16> = Output::with(&*cuda, [4, 8], &[0.0; 32]);
    let targets = ids(&*cuda, [3], &[0; 3]);
    let mut losses = Output::new(&*cuda, [3]);
    let (targets, vocab) = (targets.view(), 5);
    let message = "logits 16-byte aligned failed (logits begins 2 bytes past a multiple of 16)";
    let op = CrossEntropyForward { logits: input.view().part(1, [3, 8]), targets, vocab, losses: losses.view() };
    assert_rejected(cuda.cross_entropy_forward(op), &format!("cross_entropy_forward: {message}"));
    let shifted = logits.view().into_part(1, [3, 8]);
    let op = CrossEntropyBackward { logits: shifted, targets, vocab, scale: SCALE, losses: losses.view() };
    assert_rejected(cuda.cross_entropy_backward(op), &format!("cross_entropy_backward: {message}"));
    losses.assert_untouched(&*cuda);
    logits.assert_untouched(&*cuda);
}

/// Losses of one sign, as a training step has them.
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
            let total = loss_sum(&*cuda, &losses, 0, write).read(&cuda);
            for offset in 1..4 {
                let shifted = loss_sum(&*cuda, &losses, offset, write).read(&cuda);
                let what = format!("loss_sum total, N = {n}, {write:?}, {offset} elements past alignment");
                assert_same_bits(&what, &shifted, &total);
            }
            got.extend(total);
            reference.extend(loss_sum(&Cpu::<f64>::new(), &losses, 0, write).read(&Cpu::new()));
            baseline.extend(loss_sum(&Cpu::<f32>::new(), &losses, 0, write).read(&Cpu::new()));
        }
    }
    // Checked together, as the baseline is exact by chance for some.
    AccuracyBound { what: "loss_sum total", reference: &reference, baseline: &baseline, ulps: 4.0 }.check::<f32>(&got);
}

#[test]
fn loss_sum_propagates_non_finite_losses() {
    let cuda = shared();
    for (bad, want) in [(f64::NAN, f64::NAN), (f64::INFINITY, f64::INFINITY)] {
        for at in [0, 4998] {
            let mut losses = some_losses(4999);
            losses[at] = bad;
            assert_same_bits("loss_sum", &loss_sum(&*cuda, &losses, 0, Write::Overwrite).read(&cuda), &[want]);
        }
    }
}

#[test]
fn loss_sum_traffic_is_the_floor() {
    let Some(cuda) = alone() else { return };
    for (offset, sectors) in [(0, 1.0), (1, 5.0)] {
        let n = 65536;
        let losses: Input<Cuda, f32> = Input::new(&*cuda, [n + offset], &some_losses(n + offset));
        let mut total = Output::new(&*cuda, [1]);
        let view = losses.view().part(offset, [n]);
        let op = LossSum { losses: view, scale: SCALE, total: total.view(), write: Write::Overwrite };
        let floor = op.floor();
        let counts = cuda.count(|| cuda.loss_sum(op).unwrap());
        let what = format!("loss_sum, N = {n}, {offset} elements past alignment");
        // The total moves a sector of its own.
        TrafficBound { what: &what, floor, bytes: 1.0, sectors: sectors + 0.001 }.check(&counts);
    }
}

/// Rows that take every path through a kernel: targets in whole vectors, in the last columns, ignored, and invalid.
fn every_path(v: usize, vp: usize) -> Rows {
    let mut rows = rows(9, v, vp, 3.0);
    let middle = v as i32 / 16 * 8;
    rows.targets = vec![v as i32 - 1, 0, -1, v as i32, middle + 3, 2, vp as i32, middle - 3, 1];
    row_mut(&mut rows, 5).fill(f64::NEG_INFINITY);
    rows
}

fn forward_trial(why: &'static str, kernels: &'static [&'static str], rows: Rows) -> Trial {
    Trial { why, kernels, run: Box::new(move |cuda| vec![rows.forward(cuda)]) }
}

fn backward_trial(why: &'static str, kernels: &'static [&'static str], rows: Rows) -> Trial {
    Trial { why, kernels, run: Box::new(move |cuda| rows.backward(cuda).into()) }
}

fn sum_trial(why: &'static str, n: usize, offset: usize, write: Write) -> Trial {
    let run = move |cuda: &Cuda| vec![loss_sum(cuda, &some_losses(n), offset, write).read(cuda)];
    Trial { why, kernels: &["loss_sum"], run: Box::new(run) }
}

fn trials() -> Vec<Trial> {
    vec![
        forward_trial("a warp per row, one of them in the second block", &[FORWARD_WARP], every_path(27, 40)),
        forward_trial("a block per row", &[FORWARD_BLOCK], every_path(2571, 2584)),
        backward_trial("a warp per row, one of them in the second block", &[BACKWARD_WARP], every_path(27, 40)),
        backward_trial("a block per row", &[BACKWARD_20K], every_path(2571, 2584)),
        backward_trial("five batches of vectors, two of them unused", &[BACKWARD_51K], rows(1, 20493, 20504, 3.0)),
        backward_trial("a row that is read twice", &[BACKWARD_STREAM], rows(1, 51213, 51224, 3.0)),
        sum_trial("aligned, three losses past the last vector", 4099, 0, Write::Overwrite),
        sum_trial("not aligned", 1030, 1, Write::Accumulate),
    ]
}

/// Rows whose last vector is each of those of a thread, with and without columns past the last whole vector.
fn each_last_vector(kernels: &'static [&'static str], threads: usize, vectors: std::ops::Range<usize>) -> Vec<Trial> {
    let row = |i| {
        let whole = threads * i + if threads * i < 321 && threads > 32 { 70 } else { 1 };
        let v = 8 * whole + if i % 2 == 0 { 5 } else { 0 };
        backward_trial("one row per last vector", kernels, rows(1, v, 8 * whole + 16, 3.0))
    };
    vectors.map(row).collect()
}

/// [`trials`], and those that only the mutants need.
fn more_trials() -> Vec<Trial> {
    let mut all = trials();
    all.extend([
        forward_trial("no columns past the last whole vector", &[FORWARD_WARP], rows(1, 40, 56, 3.0)),
        forward_trial("a warp's second batch", &[FORWARD_WARP], rows(1, 1291, 1304, 3.0)),
        forward_trial("a thread's second batch", &[FORWARD_BLOCK], rows(1, 10251, 10264, 3.0)),
        backward_trial("every path", &[BACKWARD_51K], every_path(20493, 20504)),
        backward_trial("every path", &[BACKWARD_STREAM], every_path(51213, 51224)),
        backward_trial("no columns past the last whole vector", &[BACKWARD_STREAM], rows(1, 51208, 51224, 3.0)),
    ]);
    all.extend(each_last_vector(&[BACKWARD_WARP], 32, 0..10));
    all.extend(each_last_vector(&[BACKWARD_20K], 256, 1..10));
    all.extend(each_last_vector(&[BACKWARD_51K], 256, 10..25));
    all.extend(each_last_vector(&[BACKWARD_STREAM], 256, 25..30));
    for (kernel, forward) in [(&[FORWARD_WARP], 0..5), (&[FORWARD_BLOCK], 2..7)] {
        let (threads, shift) = if kernel[0] == FORWARD_WARP { (32, 1) } else { (256, 1) };
        all.extend(forward.map(|i| {
            let v = 8 * (threads * i + shift) + if i % 2 == 0 { 5 } else { 0 };
            forward_trial("one row per last vector", kernel, rows(1, v, v.next_multiple_of(8) + 8, 3.0))
        }));
    }
    // Without padding, the column of target V is the next row's first, or past the tensor.
    for (forward, kernel, v) in [
        (Some(&[FORWARD_WARP]), &[BACKWARD_WARP], 16),
        (Some(&[FORWARD_BLOCK]), &[BACKWARD_20K], 2568),
        (None, &[BACKWARD_51K], 20488),
        (None, &[BACKWARD_STREAM], 51208),
    ] {
        let rows = Rows { targets: vec![v as i32; 2], ..rows(2, v, v, 3.0) };
        all.extend(forward.map(|kernel| forward_trial("no padding, an invalid target", kernel, rows.clone())));
        all.push(backward_trial("no padding, an invalid target", kernel, rows));
    }
    // With such padding, a thread's next vector would be the next row's first.
    for (kernel, v, padding, ignored) in [
        (&[BACKWARD_WARP], 10, 272, 256),
        (&[BACKWARD_20K], 2571, 4624, 4096),
        (&[BACKWARD_51K], 20493, 22544, 22528),
        (&[BACKWARD_STREAM], 51213, 53264, 53248),
    ] {
        all.push(backward_trial("whole strides of padding", kernel, rows(2, v, padding, 3.0)));
        let rows = Rows { targets: vec![-1; 2], ..rows(2, v, ignored, 3.0) };
        all.push(backward_trial("whole strides of an ignored row", kernel, rows));
    }
    for (n, offset) in
        [(1, 0), (2, 1), (3, 0), (4, 0), (5, 1), (20481, 0), (20482, 1), (28674, 0), (16384, 0), (16384, 2)]
    {
        all.push(sum_trial("iterations and a remainder", n, offset, Write::Overwrite));
    }
    all
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_schedules_agree("cross_entropy", &trials());
}

#[test]
fn mutants_are_killed() {
    // Each row names the line of the kernel's call, so its reason covers all survivors of a kind in the inlined functions.
    const LOOPS: &str = "a batch past the row is -infinity, which adds nothing; the exit of a loop that always has a first \
                         iteration; a block's row has more vectors than a stride";
    const HELD: &str = "the first vector and the first batches are inside every row that has this kernel; a batch past the row is \
                        -infinity, which adds nothing; other threads read the target's logit, too";
    const LOGARITHM: &str =
        "logf scales arguments below 2^-126 and above 2^127, but a sum is 0, from 1 to 2^31, or not finite";
    const UNUSED: &str = "-scale, which is used only where the row has a target";
    const FASTER: &str = "four losses at once or one by one give the same sum; the sums of other warps are not written";
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
    assert_mutants_killed("cross_entropy", &more_trials(), EQUIVALENT);
}
