//! The global gradient norm.

use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, GradNorm, Operation};
use ironwarp::tensor::Tensor;
use ptx_emulator::mutate::Kind;

use crate::emulator::{alone, shared};
use crate::gauntlet::{Equivalent, Trial, assert_any_schedule, assert_mutants_die, equivalent};
use crate::judge::{Lean, Verdict};
use crate::support::*;

/// P and why.
const SIZES: [(usize, &str); 8] = [
    (8, "one vector of the rule"),
    (1024, "one vector a thread"),
    (4088, "a thread without its fourth"),
    (4096, "one tile"),
    (4104, "a tile and two vectors"),
    (3 * 4096, "whole tiles"),
    (100_008, "tiles and a rest"),
    (2049 * 4096 + 8, "a block with two tiles, and one with a rest"),
];

fn norm<B: Device>(backend: &B, grad: &[f64]) -> Vec<f64> {
    // As long as it is: a read past its end is out of bounds.
    let grad = Tensor::<B, B::Accum>::from_vec(backend, [grad.len()], grad.iter().map(|&x| B::Accum::of(x)).collect());
    let mut norm = Output::<B, B::Accum>::new(backend, [1]);
    backend.grad_norm(GradNorm { grad: grad.unwrap().view(), norm: norm.view() }).unwrap();
    norm.read(backend)
}

#[test]
fn the_norm_is_the_formula() {
    for (p, why) in SIZES {
        let grad = Draws::new(p as u64).numbers(p);
        let [reference, baseline] = [norm(&Cpu::<f64>::new(), &grad), norm(&Cpu::<f32>::new(), &grad)];
        let what = format!("grad_norm, P = {p} ({why})");
        Verdict { what: &what, reference: &reference, baseline: &baseline, ulps: 4.0 }
            .pass::<f32>(&norm(&*shared(), &grad));
    }
}

#[test]
fn it_is_finite_where_the_reference_is() {
    let mut grad = vec![0.0; 4104];
    assert_eq!(norm(&*shared(), &grad), [0.0]);
    for (bad, finite) in [(1e18, true), (f64::NAN, false), (f64::INFINITY, false), (-f64::INFINITY, false)] {
        for at in [0, 4095, 4096, 4103] {
            grad[at] = bad;
            let [got, want] = [norm(&*shared(), &grad), norm(&Cpu::<f32>::new(), &grad)];
            assert_eq!((got[0].is_finite(), want[0].is_finite()), (finite, finite), "{bad} at {at}: {got:?}, {want:?}");
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
        Lean { what: &format!("grad_norm, P = {p}"), floor, bytes: 1.01, sectors: 1.02 }.pass(&counts);
    }
}

#[test]
fn what_is_not_aligned_is_refused() {
    let cuda = shared();
    let grad: Input<Cuda, f32> = Input::new(&*cuda, [16], &[1.0; 16]);
    let mut norm: Output<Cuda, f32> = Output::new(&*cuda, [1]);
    let refused = cuda.grad_norm(GradNorm { grad: grad.view().part(1, [8]), norm: norm.view() });
    assert_rejected(refused, "grad_norm: grad 16-byte aligned failed (grad begins 4 bytes past a multiple of 16)");
    norm.assert_untouched(&*cuda);
}

fn trials() -> Vec<Trial> {
    let trial = |why, kernels, p| {
        let grad = Draws::new(3).numbers(p);
        Trial { why, kernels, run: Box::new(move |cuda| vec![norm(cuda, &grad)]) }
    };
    const BOTH: &[&str] = &["grad_norm_partials", "grad_norm_reduce"];
    let small = [("one vector", 8), ("a tile", 4096), ("tiles and a rest", 3 * 4096 + 1032)];
    // The last partial is the last thread's, for each of those that a thread may have.
    let full = (1..8).map(|k| trial("a thread's last partial", &BOTH[1..], k * 256 * 4096));
    small.into_iter().map(|(why, p)| trial(why, BOTH, p)).chain(full).collect()
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_any_schedule("grad_norm", &trials()[..3]);
}

#[test]
fn mutants_die() {
    const EQUIVALENT: &[Equivalent] = &[equivalent(
        2,
        "grad_norm_partials",
        Kind::ShiftComparison,
        "tile + GRAD_NORM_TILE <= params.len",
        "the loop of the rest adds a whole tile in the same order",
    )];
    assert_mutants_die("grad_norm", &trials(), EQUIVALENT);
}
