//! GELU.

use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, GeluForward, Operation};

use crate::emulator::{alone, shared};
use crate::gauntlet::{Equivalent, Trial, assert_any_schedule, assert_mutants_die};
use crate::judge::{Lean, Verdict};
use crate::support::*;

/// N, C and why.
const SHAPES: [(usize, usize, &str); 6] = [
    (1, 8, "one vector"),
    (2, 8, "two"),
    (1, 2040, "a thread without work"),
    (1, 2048, "one block"),
    (257, 8, "one vector in the second block"),
    (85, 768, "rows of GPT-2's width, and every finite number"),
];

/// Every finite bf16, in an order that mixes large and small; over again from 65,280 on.
fn finite_numbers(len: usize) -> Vec<f64> {
    // An odd factor visits every 16-bit number.
    let numbers = (0..).map(|i: u32| bf16::from_bits(i.wrapping_mul(40503) as u16));
    numbers.filter(|x| x.is_finite()).take(len).map(bf16::to_f64).collect()
}

fn forward<B: Device>(backend: &B, n: usize, c: usize, x: &[f64]) -> Vec<f64> {
    let x: Input<B, B::Compute> = Input::new(backend, [n, c], x);
    let mut out = Output::new(backend, [n, c]);
    backend.gelu_forward(GeluForward { x: x.view(), out: out.view() }).unwrap();
    out.read(backend)
}

#[test]
fn forward_is_the_formula() {
    for (n, c, why) in SHAPES {
        let x = finite_numbers(n * c);
        let [got, reference, baseline] = [
            forward(&*shared(), n, c, &x),
            forward(&Cpu::<f64>::new(), n, c, &x),
            forward(&Cpu::<f32>::new(), n, c, &x),
        ];
        let what = format!("gelu_forward out, N = {n}, C = {c} ({why})");
        Verdict { what: &what, reference: &reference, baseline: &baseline, ulps: 0.51 }.pass::<bf16>(&got);
    }
}

#[test]
fn bad_numbers_stay_where_they_are() {
    let (n, c) = (3, 16);
    let mut x = finite_numbers(n * c);
    let want = forward(&*shared(), n, c, &x);
    for (at, bad, good) in
        [(17, f64::NAN, f64::NAN), (20, f64::INFINITY, f64::INFINITY), (22, f64::NEG_INFINITY, f64::NAN)]
    {
        let before = std::mem::replace(&mut x[at], bad);
        let got = forward(&*shared(), n, c, &x);
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
        Lean { what: &what, floor, bytes: 1.0, sectors: 1.0 }.pass(&counts);
    }
}

#[test]
fn what_is_not_aligned_is_refused() {
    let cuda = shared();
    let x: Input<Cuda, bf16> = Input::new(&*cuda, [4, 8], &[0.0; 32]);
    let mut out: Output<Cuda, bf16> = Output::new(&*cuda, [3, 8]);
    let shifted = x.view().part(3, [3, 8]);
    let refused = cuda.gelu_forward(GeluForward { x: shifted, out: out.view() });
    assert_rejected(refused, "gelu_forward: x 16-byte aligned failed (x begins 6 bytes past a multiple of 16)");
    out.assert_untouched(&*cuda);
}

fn trials() -> Vec<Trial> {
    let trial = |why, n, c| Trial {
        why,
        kernels: &["gelu_forward"],
        run: Box::new(move |cuda| vec![forward(cuda, n, c, &finite_numbers(n * c))]),
    };
    vec![trial("a thread without work", 1, 2040), trial("one vector in the second block", 257, 8)]
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_any_schedule("gelu", &trials());
}

#[test]
fn mutants_die() {
    const EQUIVALENT: &[Equivalent] = &[];
    assert_mutants_die("gelu", &trials(), EQUIVALENT);
}
