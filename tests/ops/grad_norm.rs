//! The gradient norm against a sum in f64.

use ironwarp::cpu::Cpu;
use ironwarp::ops::{Backend, Floor, GradNorm, Operation};
use ironwarp::tensor::Tensor;

use crate::common::grad_norm::norm;
use crate::common::*;
use crate::narrow::Narrow;

/// Lengths around the CPU's partial sums of 2^14 and their 8 lanes.
const CASES: [(usize, &str); 7] = [
    (1, "one element"),
    (7, "fewer elements than lanes"),
    (17, "whole lanes and a remainder"),
    (16_383, "one element less than a chunk"),
    (16_384, "one chunk"),
    (16_385, "a chunk of one element"),
    (50_001, "many chunks and a remainder"),
];

fn norm_is_the_formula<B: Device>(backend: &B) {
    for (len, why) in CASES {
        // No powers of two: the draws have few bits, so their squares would all round the same way.
        for factor in [1e-12, 0.3, 1e12] {
            let draws = Draws::new(len as u64).numbers(len);
            let grad: Vec<f64> = draws.iter().map(|x| B::Accum::of(x * factor).wide()).collect();
            // Summed in chunks, so that the reference's own rounding error stays small.
            let want = grad.chunks(64).map(|piece| dot(piece, piece)).sum::<f64>().sqrt();
            // Compared relative to `want`, as norms may be far from 1. A lane of the CPU backend adds 2^11 squares: its
            // error is about √(2^11) roundings, halved by the square root.
            let got = norm(backend, &grad) / want;
            compare::<B::Accum>(&format!("grad_norm ({why}, × {factor:e}), relative,"), [1], &[got], &[1.0], 16.0);
        }
    }
}

#[test]
fn norm_matches_the_formula() {
    norm_is_the_formula(&Cpu::<f64>::new());
    norm_is_the_formula(&Cpu::<f32>::new());
}

#[test]
fn every_element_counts() {
    let backend = Cpu::<f32>::new();
    for at in [0, 7, 16_383, 16_384, 40_000, 40_002] {
        let mut grad = vec![0.0; 40_003];
        grad[at] = -3.0;
        assert_eq!(norm(&backend, &grad), 3.0, "element {at}");
        grad[at] = f64::NAN;
        assert!(norm(&backend, &grad).is_nan(), "NaN at {at}");
        for infinity in [f64::INFINITY, f64::NEG_INFINITY] {
            grad[at] = infinity;
            assert_eq!(norm(&backend, &grad), f64::INFINITY, "{infinity} at {at}");
        }
    }
}

#[test]
fn a_sum_that_overflows_is_infinite() {
    assert_eq!(norm(&Cpu::<f32>::new(), &[1e30, 0.0]), f64::INFINITY);
    assert_eq!(norm(&Cpu::<f64>::new(), &[1e200, 0.0]), f64::INFINITY);
    assert_eq!(norm(&Cpu::<f32>::new(), &[0.0; 9]), 0.0);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let grad = Draws::new(1).numbers(200_003);
    assert_same_on_any_threads("grad_norm", || vec![vec![norm(&Cpu::<f32>::new(), &grad)]]);
}

#[test]
fn violated_preconditions_are_rejected() {
    let backend = Cpu::<f32>::new();
    let rejected = |grad: &[usize], norm: &[usize], message: &str| {
        let grad: Input<_, f32> = Draws::new(2).input(&backend, grad);
        let mut norm = Output::new(&backend, norm);
        assert_rejected(backend.grad_norm(GradNorm { grad: grad.view(), norm: norm.view() }), message);
        norm.assert_untouched(&backend);
    };
    rejected(&[0], &[1], "grad_norm: grad not empty failed (grad is (0))");
    rejected(&[5], &[2], "grad_norm: norm (1) == (1) failed (norm is (2))");
    rejected(&[5], &[1, 1], "grad_norm: norm (1) == (1) failed (norm is (1, 1))");
}

#[test]
fn floor_by_hand() {
    let grad = Tensor::<Narrow, f32>::zeros(&Narrow, [100]).unwrap();
    let mut norm = Tensor::<Narrow, f32>::zeros(&Narrow, [1]).unwrap();
    let op = GradNorm::<Narrow> { grad: grad.view(), norm: norm.view_mut() };
    assert_eq!(op.floor(), Floor { bytes: 404, flops: 0 });
}
