//! GELU.

use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, GeluForward, Operation};

use crate::bounds::{AccuracyBound, TrafficBound};
use crate::common::gelu::forward;
use crate::common::*;
use crate::emulator::{alone, shared};
use crate::kernel_checks::{Equivalent, Trial, assert_mutants_killed, assert_schedules_agree};

/// N, C and why.
const SHAPES: [(usize, usize, &str); 6] = [
    (1, 8, "one vector"),
    (2, 8, "two"),
    (1, 2040, "an idle thread"),
    (1, 2048, "one block"),
    (257, 8, "one vector in the second block"),
    (85, 768, "rows of GPT-2's C, and every finite number"),
];

/// Every finite bf16, in an order that mixes large and small ones; they repeat after 65,280.
fn finite_numbers(len: usize) -> Vec<f64> {
    // Multiples of an odd factor visit every 16-bit number.
    let numbers = (0..).map(|i: u32| bf16::from_bits(i.wrapping_mul(40503) as u16));
    numbers.filter(|x| x.is_finite()).take(len).map(bf16::to_f64).collect()
}

#[test]
fn forward_is_the_formula() {
    for (n, c, why) in SHAPES {
        let x = finite_numbers(n * c);
        let [got, reference, baseline] = [
            forward(&*shared(), [n, c], &x),
            forward(&Cpu::<f64>::new(), [n, c], &x),
            forward(&Cpu::<f32>::new(), [n, c], &x),
        ];
        let what = format!("gelu_forward out, N = {n}, C = {c} ({why})");
        AccuracyBound { what: &what, reference: &reference, baseline: &baseline, ulps: 0.51 }.check::<bf16>(&got);
    }
}

#[test]
fn non_finite_numbers_stay_in_their_element() {
    let (n, c) = (3, 16);
    let mut x = finite_numbers(n * c);
    let want = forward(&*shared(), [n, c], &x);
    for (at, bad, good) in
        [(17, f64::NAN, f64::NAN), (20, f64::INFINITY, f64::INFINITY), (22, f64::NEG_INFINITY, f64::NAN)]
    {
        let before = std::mem::replace(&mut x[at], bad);
        let got = forward(&*shared(), [n, c], &x);
        assert!(got[at] == good || got[at].is_nan() && good.is_nan(), "gelu({bad}) = {}", got[at]);
        for i in (0..n * c).filter(|&i| i != at) {
            assert_eq!(got[i].to_bits(), want[i].to_bits(), "element {i} with {bad} at {at}");
        }
        x[at] = before;
    }
}

#[test]
fn traffic_is_the_floor() {
    for (n, c) in [(256, 768), (64, 1600)] {
        let Some(cuda) = alone() else { return };
        let x: Input<Cuda, bf16> = Input::new(&*cuda, [n, c], &finite_numbers(n * c));
        let mut out: Output<Cuda, bf16> = Output::new(&*cuda, [n, c]);
        let floor = GeluForward { x: x.view(), out: out.view() }.floor();
        let counts = cuda.count(|| cuda.gelu_forward(GeluForward { x: x.view(), out: out.view() }).unwrap());
        let what = format!("gelu_forward, N = {n}, C = {c}");
        TrafficBound { what: &what, floor, bytes: 1.0, sectors: 1.0 }.check(&counts);
    }
}

#[test]
fn misaligned_tensors_are_rejected() {
    let cuda = shared();
    let x: Input<Cuda, bf16> = Input::new(&*cuda, [4, 8], &[0.0; 32]);
    let mut out: Output<Cuda, bf16> = Output::new(&*cuda, [3, 8]);
    let shifted = x.view().part(3, [3, 8]);
    let rejected = cuda.gelu_forward(GeluForward { x: shifted, out: out.view() });
    assert_rejected(rejected, "gelu_forward: x 16-byte aligned failed (x begins 6 bytes past a multiple of 16)");
    out.assert_untouched(&*cuda);
}

fn trials() -> Vec<Trial> {
    let trial = |why, n, c| Trial {
        why,
        kernels: &["gelu_forward"],
        run: Box::new(move |cuda| vec![forward(cuda, [n, c], &finite_numbers(n * c))]),
    };
    vec![trial("an idle thread", 1, 2040), trial("one vector in the second block", 257, 8)]
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_schedules_agree("gelu", &trials());
}

#[test]
fn mutants_are_killed() {
    const EQUIVALENT: &[Equivalent] = &[];
    assert_mutants_killed("gelu", &trials(), EQUIVALENT);
}
