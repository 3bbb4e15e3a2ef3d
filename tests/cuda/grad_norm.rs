//! The global gradient norm.

use emulator_trials::mutate::Kind;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, GradNorm, Operation};

use crate::bounds::{AccuracyBound, TrafficBound};
use crate::common::grad_norm::norm;
use crate::common::*;
use crate::emulator::{alone, shared};
use crate::kernel_checks::{Equivalent, Trial, assert_mutants_killed, assert_schedules_agree, equivalent};

/// P and why.
const SIZES: [(usize, &str); 8] = [
    (8, "the least P that the rule allows"),
    (1024, "one vector per thread"),
    (4088, "a thread without its fourth vector"),
    (4096, "one tile"),
    (4104, "a tile and two vectors"),
    (3 * 4096, "whole tiles"),
    (100_008, "tiles and a remainder"),
    (2049 * 4096 + 8, "a block with two tiles, and one with a remainder"),
];

#[test]
fn the_norm_is_the_formula() {
    for (p, why) in SIZES {
        let grad = Draws::new(p as u64).numbers(p);
        let [reference, baseline] = [[norm(&Cpu::<f64>::new(), &grad)], [norm(&Cpu::<f32>::new(), &grad)]];
        let what = format!("grad_norm, P = {p} ({why})");
        AccuracyBound { what: &what, reference: &reference, baseline: &baseline, ulps: 4.0 }
            .check::<f32>(&[norm(&*shared(), &grad)]);
    }
}

#[test]
fn the_norm_is_finite_where_the_reference_is() {
    let mut grad = vec![0.0; 4104];
    assert_eq!(norm(&*shared(), &grad), 0.0);
    for (bad, finite) in [(1e18, true), (f64::NAN, false), (f64::INFINITY, false), (-f64::INFINITY, false)] {
        for at in [0, 4095, 4096, 4103] {
            grad[at] = bad;
            let [got, want] = [norm(&*shared(), &grad), norm(&Cpu::<f32>::new(), &grad)];
            assert_eq!((got.is_finite(), want.is_finite()), (finite, finite), "{bad} at {at}: {got}, {want}");
            grad[at] = 0.0;
        }
    }
}

#[test]
fn traffic_is_the_floor() {
    for p in [100_008, 1 << 20] {
        let Some(cuda) = alone() else { return };
        let grad: Input<Cuda, f32> = Input::new(&*cuda, [p], &vec![0.5; p]);
        let mut norm: Output<Cuda, f32> = Output::new(&*cuda, [1]);
        let floor = GradNorm { grad: grad.view(), norm: norm.view() }.floor();
        let counts = cuda.count(|| cuda.grad_norm(GradNorm { grad: grad.view(), norm: norm.view() }).unwrap());
        TrafficBound { what: &format!("grad_norm, P = {p}"), floor, bytes: 1.01, sectors: 1.02 }.check(&counts);
    }
}

#[test]
fn misaligned_tensors_are_rejected() {
    let cuda = shared();
    let grad: Input<Cuda, f32> = Input::new(&*cuda, [16], &[1.0; 16]);
    let mut norm: Output<Cuda, f32> = Output::new(&*cuda, [1]);
    let rejected = cuda.grad_norm(GradNorm { grad: grad.view().part(1, [8]), norm: norm.view() });
    assert_rejected(rejected, "grad_norm: grad 16-byte aligned failed (grad begins 4 bytes past a multiple of 16)");
    norm.assert_untouched(&*cuda);
}

fn trials() -> Vec<Trial> {
    let trial = |why, kernels, p| {
        let grad = Draws::new(3).numbers(p);
        Trial { why, kernels, run: Box::new(move |cuda| vec![vec![norm(cuda, &grad)]]) }
    };
    const BOTH: &[&str] = &["grad_norm_partials", "grad_norm_reduce"];
    let small = [("one vector", 8), ("a tile", 4096), ("tiles and a remainder", 3 * 4096 + 1032)];
    // The last partial sum belongs to the last thread, for each number of partial sums that a thread may read.
    let full = (1..8).map(|k| trial("a thread's last partial", &BOTH[1..], k * 256 * 4096));
    small.into_iter().map(|(why, p)| trial(why, BOTH, p)).chain(full).collect()
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_schedules_agree("grad_norm", &trials()[..3]);
}

#[test]
fn mutants_are_killed() {
    const EQUIVALENT: &[Equivalent] = &[equivalent(
        2,
        "grad_norm_partials",
        Kind::ShiftComparison,
        "tile + GRAD_NORM_TILE <= params.len",
        "the remainder loop adds a whole tile in the same order",
    )];
    assert_mutants_killed("grad_norm", &trials(), EQUIVALENT);
}
