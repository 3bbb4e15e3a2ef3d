//! Linear layers: the forward product with its epilogues, and both backward products.

use ironwarp::cpu::Cpu;
use ironwarp::ops::{Backend, Epilogue, MatmulForward, Write};

use crate::common::matmul::{EpilogueKind, Inputs};
use crate::common::*;
use crate::gelu::{derivative, formula};

/// N, C, OC and why.
const SHAPES: [(usize, usize, usize, &str); 8] = [
    (1, 1, 1, "everything is one"),
    (1, 13, 7, "one row, as in decoding"),
    (7, 1, 5, "one input channel: nothing to sum"),
    (5, 3, 1, "one output channel"),
    (17, 33, 9, "one past tiles of 16 and 32"),
    (33, 20, 49, "wider than high, tiles with a remainder"),
    (64, 32, 32, "whole tiles"),
    (4, 300, 37, "a sum longer than a packed block of 256"),
];

/// The shapes that are compared with central differences, which take too long for the largest.
fn small_shapes() -> impl Iterator<Item = (usize, usize, usize, &'static str)> {
    SHAPES.into_iter().filter(|&(n, c, oc, _)| n * c * oc < 40_000)
}

/// `x·weightᵀ`
fn product(inputs: &Inputs) -> Vec<f64> {
    let rows = inputs.x.chunks(inputs.c);
    rows.flat_map(|x| inputs.weight.chunks(inputs.c).map(|weight| dot(x, weight))).collect()
}

fn forward_is_the_formula<B: Device>(backend: &B) {
    for ((n, c, oc, why), kind) in SHAPES.iter().flat_map(|&shape| EpilogueKind::ALL.map(|kind| (shape, kind))) {
        let inputs = Inputs::new(n, c, oc);
        let y = product(&inputs);
        let biased: Vec<f64> = y.iter().enumerate().map(|(i, y)| y + inputs.bias[i % oc]).collect();
        let want = match kind {
            EpilogueKind::None => y,
            EpilogueKind::Bias => biased.clone(),
            EpilogueKind::BiasGelu => biased.iter().map(|&x| formula(x)).collect(),
            EpilogueKind::BiasResidual => biased.iter().zip(&inputs.residual).map(|(a, b)| a + b).collect(),
        };
        let [out, pre] = inputs.forward(backend, kind, B::matmul_forward);
        // One rounding per product of at most 1, and a few in the epilogue.
        let units = 8.0 + c as f64;
        compare::<B::Compute>(&format!("matmul_forward out, {kind:?}, {why},"), [n, oc], &out, &want, units);
        match kind {
            EpilogueKind::BiasGelu => {
                let what = format!("matmul_forward pre, {why},");
                compare::<B::Compute>(&what, [n, oc], &pre, &biased, units);
            }
            _ => assert!(pre.iter().all(|x| x.is_nan()), "{kind:?} wrote pre"),
        }
    }
}

#[test]
fn forward_is_the_formula_in_f64_and_f32() {
    forward_is_the_formula(&Cpu::<f64>::new());
    forward_is_the_formula(&Cpu::<f32>::new());
}

fn gelu_of_pre_is_the_fused_output<B: Device>(backend: &B) {
    for (n, c, oc, why) in SHAPES {
        let [fused, pre] = Inputs::new(n, c, oc).forward(backend, EpilogueKind::BiasGelu, B::matmul_forward);
        assert_same_bits(&format!("gelu_forward of pre, {why}"), &gelu::forward(backend, [n, oc], &pre), &fused);
    }
}

#[test]
fn gelu_of_pre_is_the_fused_output_bit_for_bit() {
    gelu_of_pre_is_the_fused_output(&Cpu::<f64>::new());
    gelu_of_pre_is_the_fused_output(&Cpu::<f32>::new());
}

fn dgrad_is_the_formula<B: Device>(backend: &B) {
    for ((n, c, oc, why), through_gelu) in SHAPES.iter().flat_map(|&shape| [false, true].map(|gelu| (shape, gelu))) {
        let inputs = Inputs::new(n, c, oc);
        let mut want = vec![0.0; n * c];
        for (at, want) in want.iter_mut().enumerate() {
            let (row, column) = (at / c, at % c);
            *want = (0..oc).map(|k| inputs.dout[row * oc + k] * inputs.weight[k * c + column]).sum();
            if through_gelu {
                *want *= derivative(inputs.pre[at]);
            }
        }
        let units = 16.0 + oc as f64;
        let what = format!("matmul_dgrad dx, DGelu {through_gelu}, {why},");
        let got = inputs.dgrad(backend, through_gelu, B::matmul_dgrad);
        compare::<B::Compute>(&what, [n, c], &got, &want, units);
    }
}

#[test]
fn dgrad_is_the_formula_in_f64_and_f32() {
    dgrad_is_the_formula(&Cpu::<f64>::new());
    dgrad_is_the_formula(&Cpu::<f32>::new());
}

fn wgrad_is_the_formula<B: Device>(backend: &B) {
    for ((n, c, oc, why), write) in SHAPES.iter().flat_map(|&shape| WRITES.map(|write| (shape, write))) {
        let inputs = Inputs::new(n, c, oc);
        let (dout, x) = (&inputs.dout, &inputs.x);
        let weight_sum = |at: usize| (0..n).map(|row| dout[row * oc + at / c] * x[row * c + at % c]).sum();
        let want_weight: Vec<f64> = (0..oc * c).map(weight_sum).collect();
        let want_bias: Vec<f64> = (0..oc).map(|k| (0..n).map(|row| dout[row * oc + k]).sum()).collect();
        let units = 8.0 + n as f64;

        let [dweight, dbias] = inputs.wgrad(backend, true, write, B::matmul_wgrad);
        let (got_weight, want_weight) = (dweight.read(backend), dweight.expected(write, &want_weight));
        compare::<B::Accum>(
            &format!("matmul_wgrad dweight, {write:?}, {why},"),
            [oc, c],
            &got_weight,
            &want_weight,
            units,
        );
        let (got_bias, want_bias) = (dbias.read(backend), dbias.expected(write, &want_bias));
        compare::<B::Accum>(&format!("matmul_wgrad dbias, {write:?}, {why},"), [oc], &got_bias, &want_bias, units);

        let [dweight, _] = inputs.wgrad(backend, false, write, B::matmul_wgrad);
        assert_same_bits("matmul_wgrad dweight without bias", &dweight.read(backend), &got_weight);
    }
}

#[test]
fn wgrad_is_the_formula_in_f64_and_f32() {
    wgrad_is_the_formula(&Cpu::<f64>::new());
    wgrad_is_the_formula(&Cpu::<f32>::new());
}

#[test]
fn dgrad_is_the_gradient() {
    let backend = Cpu::<f64>::new();
    for (n, c, oc, why) in small_shapes() {
        let mut inputs = Inputs::new(n, c, oc);
        let [dx, dpre] = [false, true].map(|gelu| inputs.dgrad(&backend, gelu, Cpu::matmul_dgrad));
        let Inputs { x, pre, dout, .. } = inputs.clone();
        let mut loss_at = |x: Vec<f64>| {
            inputs.x = x;
            dot(&inputs.forward(&backend, EpilogueKind::None, Cpu::matmul_forward)[0], &dout)
        };
        check_gradient(&format!("matmul_dgrad dx, {why}"), &x, &dx, |values| loss_at(values.to_vec()));
        check_gradient(&format!("matmul_dgrad dpre, {why}"), &pre, &dpre, |values| {
            loss_at(gelu::forward(&backend, [n, c], values))
        });
    }
}

#[test]
fn wgrad_is_the_gradient() {
    let backend = Cpu::<f64>::new();
    for (n, c, oc, why) in small_shapes() {
        let mut inputs = Inputs::new(n, c, oc);
        let gradients = inputs.wgrad(&backend, true, Write::Overwrite, Cpu::matmul_wgrad);
        let [dweight, dbias] = gradients.map(|gradient| gradient.read(&backend));
        let Inputs { weight, bias, dout, .. } = inputs.clone();
        check_gradient(&format!("matmul_wgrad dweight, {why}"), &weight, &dweight, |values| {
            inputs.weight = values.to_vec();
            dot(&inputs.forward(&backend, EpilogueKind::Bias, Cpu::matmul_forward)[0], &dout)
        });
        inputs.weight = weight;
        check_gradient(&format!("matmul_wgrad dbias, {why}"), &bias, &dbias, |values| {
            inputs.bias = values.to_vec();
            dot(&inputs.forward(&backend, EpilogueKind::Bias, Cpu::matmul_forward)[0], &dout)
        });
    }
}

/// Sizes at which the CPU backend divides the product among threads, along each axis.
#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let backend = Cpu::<f32>::new();
    for (n, c, oc) in [(83, 301, 37), (5, 301, 133), (16, 3, 1)] {
        assert_same_on_any_threads("matmul", || {
            let inputs = Inputs::new(n, c, oc);
            let forwards = EpilogueKind::ALL.map(|kind| inputs.forward(&backend, kind, Cpu::matmul_forward)).concat();
            let dgrads = [false, true].map(|gelu| inputs.dgrad(&backend, gelu, Cpu::matmul_dgrad)).to_vec();
            let wgrads = WRITES.map(|write| {
                inputs.wgrad(&backend, true, write, Cpu::matmul_wgrad).map(|gradient| gradient.read(&backend))
            });
            [forwards, dgrads, wgrads.concat()].concat()
        });
    }
}

/// (B, T, C) and (B·T, C) are the same rows.
#[test]
fn leading_axes_are_rows() {
    let backend = Cpu::<f32>::new();
    let mut draws = Draws::new(3);
    let x: Input<_, f32> = draws.input(&backend, [2, 3, 5]);
    let weight: Input<_, f32> = draws.input(&backend, [4, 5]);
    let (mut cut, mut flat) = (Output::new(&backend, [3, 2, 4]), Output::new(&backend, [6, 4]));
    for out in [cut.view(), flat.view()] {
        let op = MatmulForward { x: x.view(), weight: weight.view(), epilogue: Epilogue::None, out };
        backend.matmul_forward(op).unwrap();
    }
    assert_same_bits("matmul_forward", &cut.read(&backend), &flat.read(&backend));
}
