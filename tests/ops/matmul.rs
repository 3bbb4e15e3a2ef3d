//! Linear layers: the product with its epilogues, and both backward products.

use ironwarp::cpu::Cpu;
use ironwarp::ops::{Backend, DgradEpilogue, Epilogue, MatmulDgrad, MatmulForward, MatmulWgrad, Write};
use ironwarp::tensor::ViewMut;

use crate::gelu;
use crate::support::*;

/// N, C, OC and why.
const SHAPES: [(usize, usize, usize, &str); 8] = [
    (1, 1, 1, "everything is one"),
    (1, 13, 7, "one row, as in decoding"),
    (7, 1, 5, "one input channel: nothing to sum"),
    (5, 3, 1, "one output channel"),
    (17, 33, 9, "one past tiles of 16 and 32"),
    (33, 20, 49, "wider than tall, parts with a rest"),
    (64, 32, 32, "whole tiles"),
    (4, 300, 37, "a sum longer than a packed block of 256"),
];

/// What is checked coordinate by coordinate: without the shape whose differences take longer than they tell.
fn small_shapes() -> impl Iterator<Item = (usize, usize, usize, &'static str)> {
    SHAPES.into_iter().filter(|&(n, c, oc, _)| n * c * oc < 40_000)
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Kind {
    None,
    Bias,
    BiasGelu,
    BiasResidual,
}

const KINDS: [Kind; 4] = [Kind::None, Kind::Bias, Kind::BiasGelu, Kind::BiasResidual];

/// Inputs of all three operations.
struct Inputs<B: Device> {
    n: usize,
    c: usize,
    oc: usize,
    x: Input<B, B::Compute>,
    weight: Input<B, B::Compute>,
    bias: Input<B, B::Compute>,
    residual: Input<B, B::Compute>,
    dout: Input<B, B::Compute>,
    /// Of the layer before: (N, C).
    pre: Input<B, B::Compute>,
}

impl<B: Device> Inputs<B> {
    fn new(backend: &B, n: usize, c: usize, oc: usize) -> Self {
        let mut draws = Draws::new(1);
        Inputs {
            n,
            c,
            oc,
            x: draws.input(backend, [n, c]),
            weight: draws.input(backend, [oc, c]),
            bias: draws.input(backend, [oc]),
            residual: draws.input(backend, [n, oc]),
            dout: draws.input(backend, [n, oc]),
            pre: draws.input(backend, [n, c]),
        }
    }

    fn epilogue<'a>(&'a self, kind: Kind, pre: ViewMut<'a, B, B::Compute>) -> Epilogue<'a, B> {
        let (bias, residual) = (self.bias.view(), self.residual.view());
        match kind {
            Kind::None => Epilogue::None,
            Kind::Bias => Epilogue::Bias { bias },
            Kind::BiasGelu => Epilogue::BiasGelu { bias, pre },
            Kind::BiasResidual => Epilogue::BiasResidual { bias, residual },
        }
    }

    /// `out`, and `pre`, which only [`Kind::BiasGelu`] writes.
    fn forward(&self, backend: &B, kind: Kind) -> [Vec<f64>; 2] {
        // Rows may be cut into axes in any way.
        let (mut out, mut pre) = (Output::new(backend, [self.n, 1, self.oc]), Output::new(backend, [self.n, self.oc]));
        let epilogue = self.epilogue(kind, pre.view());
        let op = MatmulForward { x: self.x.view(), weight: self.weight.view(), epilogue, out: out.view() };
        backend.matmul_forward(op).unwrap();
        [out.read(backend), pre.read(backend)]
    }

    fn dgrad(&self, backend: &B, through_gelu: bool) -> Vec<f64> {
        let mut dx = Output::new(backend, [self.n, self.c]);
        let epilogue = if through_gelu { DgradEpilogue::DGelu { pre: self.pre.view() } } else { DgradEpilogue::None };
        let op = MatmulDgrad { dout: self.dout.view(), weight: self.weight.view(), epilogue, dx: dx.view() };
        backend.matmul_dgrad(op).unwrap();
        dx.read(backend)
    }

    fn wgrad(&self, backend: &B, with_bias: bool, write: Write) -> [Output<B, B::Accum>; 2] {
        let mut dweight = Output::to(backend, [self.oc, self.c], write);
        let mut dbias = Output::to(backend, [self.oc], write);
        let op = MatmulWgrad {
            dout: self.dout.view(),
            x: self.x.view(),
            dweight: dweight.view(),
            dbias: with_bias.then(|| dbias.view()),
            write,
        };
        backend.matmul_wgrad(op).unwrap();
        [dweight, dbias]
    }

    /// `x·weightᵀ`
    fn product(&self) -> Vec<f64> {
        let rows = self.x.values.chunks(self.c);
        rows.flat_map(|x| self.weight.values.chunks(self.c).map(|weight| dot(x, weight))).collect()
    }
}

fn forward_is_the_formula<B: Device>(backend: &B) {
    for ((n, c, oc, why), kind) in SHAPES.iter().flat_map(|&shape| KINDS.map(|kind| (shape, kind))) {
        let inputs = Inputs::new(backend, n, c, oc);
        let y = inputs.product();
        let biased: Vec<f64> = y.iter().enumerate().map(|(i, y)| y + inputs.bias.values[i % oc]).collect();
        let want = match kind {
            Kind::None => y,
            Kind::Bias => biased.clone(),
            Kind::BiasGelu => biased.iter().map(|&x| gelu::formula(x)).collect(),
            Kind::BiasResidual => biased.iter().zip(&inputs.residual.values).map(|(a, b)| a + b).collect(),
        };
        let [out, pre] = inputs.forward(backend, kind);
        // A rounding a product of at most 1, and a few of the epilogue.
        let units = 8.0 + c as f64;
        compare::<B::Compute>(&format!("matmul_forward out, {kind:?}, {why},"), [n, oc], &out, &want, units);
        match kind {
            Kind::BiasGelu => {
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
        let [fused, pre] = Inputs::new(backend, n, c, oc).forward(backend, Kind::BiasGelu);
        let pre: Input<B, B::Compute> = Input::new(backend, [n, oc], &pre);
        assert_same_bits(&format!("gelu_forward of pre, {why}"), &gelu::forward(backend, &pre, [n, oc]), &fused);
    }
}

#[test]
fn gelu_of_pre_is_the_fused_output_bit_for_bit() {
    gelu_of_pre_is_the_fused_output(&Cpu::<f64>::new());
    gelu_of_pre_is_the_fused_output(&Cpu::<f32>::new());
}

fn dgrad_is_the_formula<B: Device>(backend: &B) {
    for ((n, c, oc, why), through_gelu) in SHAPES.iter().flat_map(|&shape| [false, true].map(|gelu| (shape, gelu))) {
        let inputs = Inputs::new(backend, n, c, oc);
        let mut want = vec![0.0; n * c];
        for (at, want) in want.iter_mut().enumerate() {
            let (row, column) = (at / c, at % c);
            *want = (0..oc).map(|k| inputs.dout.values[row * oc + k] * inputs.weight.values[k * c + column]).sum();
            if through_gelu {
                *want *= gelu::derivative(inputs.pre.values[at]);
            }
        }
        let units = 16.0 + oc as f64;
        let what = format!("matmul_dgrad dx, DGelu {through_gelu}, {why},");
        compare::<B::Compute>(&what, [n, c], &inputs.dgrad(backend, through_gelu), &want, units);
    }
}

#[test]
fn dgrad_is_the_formula_in_f64_and_f32() {
    dgrad_is_the_formula(&Cpu::<f64>::new());
    dgrad_is_the_formula(&Cpu::<f32>::new());
}

fn wgrad_is_the_formula<B: Device>(backend: &B) {
    for ((n, c, oc, why), write) in SHAPES.iter().flat_map(|&shape| WRITES.map(|write| (shape, write))) {
        let inputs = Inputs::new(backend, n, c, oc);
        let (dout, x) = (&inputs.dout.values, &inputs.x.values);
        let weight_sum = |at: usize| (0..n).map(|row| dout[row * oc + at / c] * x[row * c + at % c]).sum();
        let want_weight: Vec<f64> = (0..oc * c).map(weight_sum).collect();
        let want_bias: Vec<f64> = (0..oc).map(|k| (0..n).map(|row| dout[row * oc + k]).sum()).collect();
        let units = 8.0 + n as f64;

        let [dweight, dbias] = inputs.wgrad(backend, true, write);
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

        let [dweight, dbias] = inputs.wgrad(backend, false, write);
        assert_same_bits("matmul_wgrad dweight without bias", &dweight.read(backend), &got_weight);
        dbias.assert_untouched(backend);
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
        let mut inputs = Inputs::new(&backend, n, c, oc);
        let (dx, dpre) = (inputs.dgrad(&backend, false), inputs.dgrad(&backend, true));
        let (x, pre, dout) = (inputs.x.values.clone(), inputs.pre.values.clone(), inputs.dout.values.clone());
        check_gradient(&format!("matmul_dgrad dx, {why}"), &x, &dx, |values| {
            inputs.x = Input::new(&backend, [n, c], values);
            dot(&inputs.forward(&backend, Kind::None)[0], &dout)
        });
        check_gradient(&format!("matmul_dgrad dpre, {why}"), &pre, &dpre, |values| {
            let activated = gelu::forward(&backend, &Input::new(&backend, [n, c], values), [n, c]);
            inputs.x = Input::new(&backend, [n, c], &activated);
            dot(&inputs.forward(&backend, Kind::None)[0], &dout)
        });
    }
}

#[test]
fn wgrad_is_the_gradient() {
    let backend = Cpu::<f64>::new();
    for (n, c, oc, why) in small_shapes() {
        let mut inputs = Inputs::new(&backend, n, c, oc);
        let [dweight, dbias] = inputs.wgrad(&backend, true, Write::Overwrite).map(|gradient| gradient.read(&backend));
        let (weight, bias, dout) =
            (inputs.weight.values.clone(), inputs.bias.values.clone(), inputs.dout.values.clone());
        check_gradient(&format!("matmul_wgrad dweight, {why}"), &weight, &dweight, |values| {
            inputs.weight = Input::new(&backend, [oc, c], values);
            dot(&inputs.forward(&backend, Kind::Bias)[0], &dout)
        });
        inputs.weight = Input::new(&backend, [oc, c], &weight);
        check_gradient(&format!("matmul_wgrad dbias, {why}"), &bias, &dbias, |values| {
            inputs.bias = Input::new(&backend, [oc], values);
            dot(&inputs.forward(&backend, Kind::Bias)[0], &dout)
        });
    }
}

/// The sizes at which the product is cut into parts, along each axis.
#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let backend = Cpu::<f32>::new();
    for (n, c, oc) in [(83, 301, 37), (5, 301, 133), (16, 3, 1)] {
        assert_same_on_any_threads("matmul", || {
            let inputs = Inputs::new(&backend, n, c, oc);
            let forwards = KINDS.map(|kind| inputs.forward(&backend, kind)).concat();
            let dgrads = vec![inputs.dgrad(&backend, false), inputs.dgrad(&backend, true)];
            let wgrads =
                WRITES.map(|write| inputs.wgrad(&backend, true, write).map(|gradient| gradient.read(&backend)));
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
