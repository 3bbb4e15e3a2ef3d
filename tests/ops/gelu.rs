//! GELU, and its derivative as the backward of a linear layer applies it.

use ironwarp::cpu::Cpu;
use ironwarp::ops::{Backend, DgradEpilogue, Floor, GeluForward, MatmulDgrad, Operation};
use ironwarp::tensor::Tensor;

use crate::common::gelu::forward;
use crate::common::*;

/// `√(2/π)`
const ROOT: f64 = 0.797_884_560_802_865_4;

/// `x/2 · (1 + tanh(u))`, GPT-2's approximation, with `u = √(2/π) · (x + 0.044715 x³)`.
pub fn formula(x: f64) -> f64 {
    0.5 * x * (1.0 + (ROOT * (x + 0.044715 * x.powi(3))).tanh())
}

/// The derivative of [`formula`], by the product and chain rules.
pub fn derivative(x: f64) -> f64 {
    let u = ROOT * (x + 0.044715 * x.powi(3));
    // tanh' is computed as 1/cosh², which does not cancel.
    0.5 * (1.0 + u.tanh()) + 0.5 * x / u.cosh().powi(2) * ROOT * (1.0 + 3.0 * 0.044715 * x * x)
}

/// -40 to 40 in odd steps, and values whose powers leave the range of f32.
fn wide_range() -> Vec<f64> {
    let steps = (0..8001).map(|i| f64::from(i - 4000) * 0.010_01);
    let extremes = [0.0, 1e-30, 1e-10, 1e-4, 100.0, 1e4, 1e8, 1e12, 1e18, 1e30];
    steps.chain(extremes.into_iter().flat_map(|x| [x, -x])).collect()
}

fn forward_is_the_tanh_formula<B: Device>(backend: &B) {
    let x = rounded::<B::Compute>(wide_range());
    let want: Vec<f64> = x.iter().copied().map(formula).collect();
    let got = forward(backend, [1, want.len()], &x);
    compare::<B::Compute>("gelu_forward out", [1, want.len()], &got, &want, 8.0);
}

#[test]
fn forward_is_the_tanh_formula_in_f64_and_f32() {
    forward_is_the_tanh_formula(&Cpu::<f64>::new());
    forward_is_the_tanh_formula(&Cpu::<f32>::new());
}

/// Where `1 + tanh(u)` cancels, f32 still gives the value to a few roundings of `2u`, which is 17 at x = -5.
#[test]
fn small_negative_results_keep_their_digits() {
    let backend = Cpu::<f32>::new();
    let x = rounded::<f32>((0..=500).map(|i| f64::from(i) * -0.01).collect());
    for (got, x) in forward(&backend, [501], &x).iter().zip(&x) {
        let want = formula(*x);
        assert!((got - want).abs() <= 1e-5 * want.abs(), "gelu({x}) = {got:e}, not {want:e}");
    }
}

/// Where x³ overflows, GELU is the identity for positive numbers and zero for negative ones.
#[test]
fn the_largest_numbers_do_not_overflow() {
    fn check<B: Device>(backend: &B, largest: f64) {
        let x = [largest, largest / 4.0, -largest, -largest / 4.0];
        assert_eq!(forward(backend, [4], &x), [largest, largest / 4.0, 0.0, 0.0]);
    }
    check(&Cpu::<f64>::new(), f64::MAX);
    check(&Cpu::<f32>::new(), f32::MAX.into());
}

/// With one output channel of weight 1, dx is the derivative itself.
fn derivative_is_the_formula<B: Device>(backend: &B) {
    let pre = wide_range();
    let c = pre.len();
    let pre: Input<B, B::Compute> = Input::new(backend, [1, c], &pre);
    let one: Input<B, B::Compute> = Input::new(backend, [1, 1], &[1.0]);
    let weight: Input<B, B::Compute> = Input::new(backend, [1, c], &vec![1.0; c]);
    let mut dx = Output::new(backend, [1, c]);
    let epilogue = DgradEpilogue::DGelu { pre: pre.view() };
    backend.matmul_dgrad(MatmulDgrad { dout: one.view(), weight: weight.view(), epilogue, dx: dx.view() }).unwrap();
    let want: Vec<f64> = pre.values.iter().copied().map(derivative).collect();
    // A rounding error of 1 - σ(2u) is multiplied by x·2u' until 1 - σ(2u) is 0: by 130 at x = 8 in f64, by 35 at 5 in f32.
    compare::<B::Compute>("matmul_dgrad dx, DGelu over a wide range", [1, c], &dx.read(backend), &want, 48.0);
}

#[test]
fn derivative_is_the_formula_in_f64_and_f32() {
    derivative_is_the_formula(&Cpu::<f64>::new());
    derivative_is_the_formula(&Cpu::<f32>::new());
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let backend = Cpu::<f32>::new();
    assert_same_on_any_threads("gelu", || vec![forward(&backend, [29, 131], &Draws::new(1).numbers(29 * 131))]);
}

#[test]
fn forward_rejects_violated_preconditions() {
    let backend = Cpu::<f32>::new();
    for (x, out, message) in [
        ([0, 4], [0, 4], "gelu_forward: x not empty failed (x is (0, 4))"),
        ([6, 4], [5, 4], "gelu_forward: out (N, C) == (6, 4) failed (out is (5, 4))"),
        ([6, 4], [4, 6], "gelu_forward: out (N, C) == (6, 4) failed (out is (4, 6))"),
    ] {
        let x: Input<_, f32> = Draws::new(2).input(&backend, x);
        let mut out = Output::new(&backend, out);
        assert_rejected(backend.gelu_forward(GeluForward { x: x.view(), out: out.view() }), message);
        out.assert_untouched(&backend);
    }
}

/// (2, 3, 5) in f64: 30 elements read and 30 written, of 8 bytes each.
#[test]
fn floor_by_hand() {
    let backend = Cpu::<f64>::new();
    let [x, mut out] = [(); 2].map(|()| Tensor::<Cpu<f64>, f64>::zeros(&backend, [2, 3, 5]).unwrap());
    let op: GeluForward<'_, Cpu<f64>> = GeluForward { x: x.view(), out: out.view_mut() };
    assert_eq!(op.floor(), Floor { bytes: 480, flops: 0 });
}
