//! LayerNorm, plain and with the residual addition.

use ironwarp::cpu::Cpu;
use ironwarp::ops::{
    Floor, LAYERNORM_EPS, LayerNormBackward, LayerNormForward, Operation, ResidualLayerNormForward, Write,
};
use ironwarp::tensor::Tensor;

use crate::common::layernorm::{Inputs, Normalised};
use crate::common::*;

/// N, C and why.
const SHAPES: [(usize, usize, &str); 6] = [
    (1, 1, "one element: no variance at all"),
    (1, 7, "one row, C less than any vector"),
    (5, 33, "C one more than a vector"),
    (3, 64, "C a multiple of everything"),
    (9, 67, "blocks of columns with a remainder"),
    (2, 768, "GPT-2's C"),
];

/// Inputs whose statistics are those of the backend's own forward.
fn with_statistics<B: Device>(backend: &B, n: usize, c: usize) -> Inputs {
    let inputs = Inputs::new(n, c);
    let [_, mean, rstd] = inputs.forward(backend);
    Inputs { mean, rstd, ..inputs }
}

/// LayerNorm by its formula, a row at a time.
fn naive(x: &[f64], weight: &[f64], bias: &[f64]) -> Normalised {
    let c = weight.len();
    let (mut out, mut means, mut rstds) = (vec![], vec![], vec![]);
    for row in x.chunks(c) {
        let mean = row.iter().sum::<f64>() / c as f64;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / c as f64;
        let rstd = (variance + LAYERNORM_EPS).powf(-0.5);
        out.extend((0..c).map(|i| (row[i] - mean) * rstd * weight[i] + bias[i]));
        means.push(mean);
        rstds.push(rstd);
    }
    [out, means, rstds]
}

fn compare_forward<B: Device>(what: &str, n: usize, c: usize, got: &Normalised, want: &Normalised, units: f64) {
    compare::<B::Compute>(&format!("{what}: out"), [n, c], &got[0], &want[0], units);
    compare::<B::Accum>(&format!("{what}: mean"), [n], &got[1], &want[1], units);
    compare::<B::Accum>(&format!("{what}: rstd"), [n], &got[2], &want[2], units);
}

fn forward_is_the_formula<B: Device>(backend: &B) {
    for (n, c, why) in SHAPES {
        let inputs = Inputs::new(n, c);
        let want = naive(&inputs.x, &inputs.weight, &inputs.bias);
        // Sums of C values below 1, in at least 8 lanes, and a few roundings after them.
        let units = 16.0 + c as f64 / 8.0;
        compare_forward::<B>(&format!("layernorm_forward, {why}"), n, c, &inputs.forward(backend), &want, units);
    }
}

#[test]
fn forward_is_the_formula_in_f64_and_f32() {
    forward_is_the_formula(&Cpu::<f64>::new());
    forward_is_the_formula(&Cpu::<f32>::new());
}

/// Computed as E[x²] - E[x]², the variance of such rows would have no correct digit in f32.
#[test]
fn rows_far_from_zero_keep_their_variance() {
    fn check<B: Device>(backend: &B) {
        let (n, c) = (3, 67);
        let mut inputs = Inputs::new(n, c);
        inputs.x = rounded::<B::Compute>(inputs.x.iter().map(|x| x + 1e4).collect());
        let want = naive(&inputs.x, &inputs.weight, &inputs.bias);
        let [out, mean, rstd] = inputs.forward(backend);
        // The rounding of the mean, 1e4·ε, shifts every output by rstd times as much.
        compare::<B::Compute>("layernorm_forward out, offset 1e4", [n, c], &out, &want[0], 4e4);
        compare::<B::Accum>("layernorm_forward mean, offset 1e4", [n], &mean, &want[1], 8.0);
        compare::<B::Accum>("layernorm_forward rstd, offset 1e4", [n], &rstd, &want[2], 32.0);
    }
    check(&Cpu::<f64>::new());
    check(&Cpu::<f32>::new());
}

/// Only ε remains of the variance: `out = bias`, `rstd = 1/√ε`.
#[test]
fn a_constant_row_becomes_the_bias() {
    let backend = Cpu::<f64>::new();
    let mut inputs = Inputs::new(2, 5);
    inputs.x = vec![-3.5; 10];
    let [out, mean, rstd] = inputs.forward(&backend);
    assert_eq!(out, inputs.bias.repeat(2));
    assert_eq!(mean, [-3.5; 2]);
    compare::<f64>("layernorm_forward rstd", [2], &rstd, &[1e5f64.sqrt(); 2], 2.0);
}

fn residual_is_addition_then_layernorm<B: Device>(backend: &B) {
    for (n, c, why) in SHAPES {
        let mut inputs = Inputs::new(n, c);
        let (sum, got) = inputs.residual_forward(backend);
        // f64 represents the exact sum, which is rounded once, as the operation must do.
        inputs.x = rounded::<B::Compute>(inputs.x.iter().zip(&inputs.residual).map(|(a, b)| a + b).collect());
        assert_same_bits(&format!("residual_layernorm_forward sum, {why}"), &sum, &inputs.x);
        for ((got, want), name) in got.iter().zip(inputs.forward(backend)).zip(["out", "mean", "rstd"]) {
            assert_same_bits(&format!("residual_layernorm_forward {name}, {why}"), got, &want);
        }
        let want = naive(&sum, &inputs.weight, &inputs.bias);
        let units = 16.0 + c as f64 / 4.0;
        compare_forward::<B>(&format!("residual_layernorm_forward, {why}"), n, c, &got, &want, units);
    }
}

#[test]
fn residual_is_addition_then_layernorm_bit_for_bit() {
    residual_is_addition_then_layernorm(&Cpu::<f64>::new());
    residual_is_addition_then_layernorm(&Cpu::<f32>::new());
}

/// Every write mode, compared with central differences of the forward.
#[test]
fn backward_is_the_gradient() {
    let backend = Cpu::<f64>::new();
    for (n, c, why) in SHAPES {
        let mut inputs = with_statistics(&backend, n, c);
        let overwritten = inputs.backward(&backend, Write::Overwrite, Write::Overwrite).read(&backend);
        for (dx_write, write) in WRITES.iter().flat_map(|&dx| WRITES.map(|parameters| (dx, parameters))) {
            let gradients = inputs.backward(&backend, dx_write, write);
            let (mut got, modes) = (gradients.read(&backend), [dx_write, write, write]);
            for ((got, before), write) in got.iter_mut().zip(gradients.before()).zip(modes) {
                if write == Write::Accumulate {
                    got.iter_mut().zip(before).for_each(|(after, before)| *after -= before);
                }
            }
            for ((got, want), name) in got.iter().zip(&overwritten).zip(["dx", "dweight", "dbias"]) {
                // At C = 1 the variance is 0, and rstd = 316 multiplies rounding errors.
                let what = format!("layernorm_backward {name}, {why}, {dx_write:?}, {write:?}");
                compare::<f64>(&what, [got.len()], got, want, 1e3);
            }
        }
        if c > 100 {
            continue; // Central differences of 768 channels take long and add nothing.
        }
        let [dx, dweight, dbias] = overwritten;
        let Inputs { x, weight, bias, dout, .. } = inputs.clone();
        check_gradient(&format!("layernorm_backward dx, {why}"), &x, &dx, |values| {
            inputs.x = values.to_vec();
            dot(&inputs.forward(&backend)[0], &dout)
        });
        inputs.x = x;
        check_gradient(&format!("layernorm_backward dweight, {why}"), &weight, &dweight, |values| {
            inputs.weight = values.to_vec();
            dot(&inputs.forward(&backend)[0], &dout)
        });
        inputs.weight = weight;
        check_gradient(&format!("layernorm_backward dbias, {why}"), &bias, &dbias, |values| {
            inputs.bias = values.to_vec();
            dot(&inputs.forward(&backend)[0], &dout)
        });
    }
}

/// The backward in f32, compared with the backward in f64 of the same inputs.
#[test]
fn backward_in_f32_is_that_in_f64() {
    let (f32, f64) = (Cpu::<f32>::new(), Cpu::<f64>::new());
    for ((n, c, why), write) in SHAPES.iter().flat_map(|&shape| WRITES.map(|write| (shape, write))) {
        let got = with_statistics(&f32, n, c).backward(&f32, write, write).read(&f32);
        let want = with_statistics(&f64, n, c).backward(&f64, write, write).read(&f64);
        for ((got, want), name) in got.iter().zip(&want).zip(["dx", "dweight", "dbias"]) {
            // At C = 1, rstd = 316 multiplies the rounding errors of the statistics.
            let units = if c == 1 { 1e3 } else { 32.0 + c as f64 / 4.0 };
            compare::<f32>(&format!("layernorm_backward {name}, {why}"), [got.len()], got, want, units);
        }
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let backend = Cpu::<f32>::new();
    assert_same_on_any_threads("layernorm", || {
        let inputs = with_statistics(&backend, 37, 131);
        let (sum, normalised) = inputs.residual_forward(&backend);
        let gradients = inputs.backward(&backend, Write::Accumulate, Write::Accumulate).read(&backend);
        [vec![sum], normalised.into(), inputs.forward(&backend).into(), gradients.into()].concat()
    });
}

/// Shapes of a call, all valid in [`CALL`]: N = 6, C = 4.
struct Call {
    x: [usize; 2],
    second: [usize; 2],
    weight: [usize; 1],
    bias: [usize; 1],
    sum: [usize; 3],
    out: [usize; 3],
    mean: [usize; 1],
    rstd: [usize; 1],
}

const CALL: Call =
    Call { x: [6, 4], second: [6, 4], weight: [4], bias: [4], sum: [2, 3, 4], out: [2, 3, 4], mean: [6], rstd: [6] };

impl Call {
    fn forward<B: Device>(&self, backend: &B, message: &str) {
        let mut draws = Draws::new(2);
        let x: Input<B, B::Compute> = draws.input(backend, self.x);
        let weight: Input<B, B::Compute> = draws.input(backend, self.weight);
        let bias: Input<B, B::Compute> = draws.input(backend, self.bias);
        let mut out = Output::new(backend, self.out);
        let (mut mean, mut rstd) = (Output::new(backend, self.mean), Output::new(backend, self.rstd));
        let op = LayerNormForward {
            x: x.view(),
            weight: weight.view(),
            bias: bias.view(),
            out: out.view(),
            mean: mean.view(),
            rstd: rstd.view(),
        };
        assert_rejected(backend.layernorm_forward(op), message);
        out.assert_untouched(backend);
        mean.assert_untouched(backend);
        rstd.assert_untouched(backend);
    }

    fn residual_forward<B: Device>(&self, backend: &B, message: &str) {
        let mut draws = Draws::new(2);
        let x: Input<B, B::Compute> = draws.input(backend, self.x);
        let residual: Input<B, B::Compute> = draws.input(backend, self.second);
        let weight: Input<B, B::Compute> = draws.input(backend, self.weight);
        let bias: Input<B, B::Compute> = draws.input(backend, self.bias);
        let (mut sum, mut out) = (Output::new(backend, self.sum), Output::new(backend, self.out));
        let (mut mean, mut rstd) = (Output::new(backend, self.mean), Output::new(backend, self.rstd));
        let op = ResidualLayerNormForward {
            x: x.view(),
            residual: residual.view(),
            weight: weight.view(),
            bias: bias.view(),
            sum: sum.view(),
            out: out.view(),
            mean: mean.view(),
            rstd: rstd.view(),
        };
        assert_rejected(backend.residual_layernorm_forward(op), message);
        sum.assert_untouched(backend);
        out.assert_untouched(backend);
        mean.assert_untouched(backend);
        rstd.assert_untouched(backend);
    }

    /// `second` is the shape of dout, `out` that of dx.
    fn backward<B: Device>(&self, backend: &B, [dweight, dbias]: [[usize; 1]; 2], message: &str) {
        let mut draws = Draws::new(2);
        let x: Input<B, B::Compute> = draws.input(backend, self.x);
        let dout: Input<B, B::Compute> = draws.input(backend, self.second);
        let weight: Input<B, B::Compute> = draws.input(backend, self.weight);
        let mean: Input<B, B::Accum> = draws.input(backend, self.mean);
        let rstd: Input<B, B::Accum> = draws.input(backend, self.rstd);
        let mut dx = Output::to(backend, self.out, Write::Accumulate);
        let (mut dweight, mut dbias) = (Output::new(backend, dweight), Output::new(backend, dbias));
        let op = LayerNormBackward {
            dout: dout.view(),
            x: x.view(),
            weight: weight.view(),
            mean: mean.view(),
            rstd: rstd.view(),
            dx: dx.view(),
            dx_write: Write::Accumulate,
            dweight: dweight.view(),
            dbias: dbias.view(),
            write: Write::Overwrite,
        };
        assert_rejected(backend.layernorm_backward(op), message);
        dx.assert_untouched(backend);
        dweight.assert_untouched(backend);
        dbias.assert_untouched(backend);
    }
}

#[test]
fn forwards_reject_violated_preconditions() {
    let backend = Cpu::<f32>::new();
    let both = [
        (Call { x: [0, 4], ..CALL }, "x not empty failed (x is (0, 4))"),
        (Call { weight: [3], ..CALL }, "weight (C) == (4) failed (weight is (3))"),
        (Call { bias: [5], ..CALL }, "bias (C) == (4) failed (bias is (5))"),
        (Call { out: [3, 3, 4], ..CALL }, "out (N, C) == (6, 4) failed (out is (3, 3, 4))"),
        (Call { mean: [5], ..CALL }, "mean (N) == (6) failed (mean is (5))"),
        (Call { rstd: [7], ..CALL }, "rstd (N) == (6) failed (rstd is (7))"),
    ];
    for (call, message) in both {
        call.forward(&backend, &format!("layernorm_forward: {message}"));
        call.residual_forward(&backend, &format!("residual_layernorm_forward: {message}"));
    }
    let residual = [
        (Call { second: [6, 5], ..CALL }, "residual (N, C) == (6, 4) failed (residual is (6, 5))"),
        (Call { sum: [2, 3, 3], ..CALL }, "sum (N, C) == (6, 4) failed (sum is (2, 3, 3))"),
    ];
    for (call, message) in residual {
        call.residual_forward(&backend, &format!("residual_layernorm_forward: {message}"));
    }
}

#[test]
fn backward_rejects_violated_preconditions() {
    let backend = Cpu::<f32>::new();
    let parameters = [[4], [4]];
    let cases = [
        (Call { x: [6, 0], ..CALL }, parameters, "x not empty failed (x is (6, 0))"),
        (Call { second: [5, 4], ..CALL }, parameters, "dout (N, C) == (6, 4) failed (dout is (5, 4))"),
        (Call { weight: [8], ..CALL }, parameters, "weight (C) == (4) failed (weight is (8))"),
        (Call { mean: [1], ..CALL }, parameters, "mean (N) == (6) failed (mean is (1))"),
        (Call { rstd: [5], ..CALL }, parameters, "rstd (N) == (6) failed (rstd is (5))"),
        (Call { out: [2, 3, 5], ..CALL }, parameters, "dx (N, C) == (6, 4) failed (dx is (2, 3, 5))"),
        (CALL, [[3], [4]], "dweight (C) == (4) failed (dweight is (3))"),
        (CALL, [[4], [5]], "dbias (C) == (4) failed (dbias is (5))"),
    ];
    for (call, parameters, message) in cases {
        call.backward(&backend, parameters, &format!("layernorm_backward: {message}"));
    }
}

/// N = 3, C = 5 in f32.
#[test]
fn floors_by_hand() {
    type T = Tensor<Cpu<f32>, f32>;
    let backend = Cpu::<f32>::new();
    let (rows, channels, column) =
        (T::zeros(&backend, [3, 5]).unwrap(), T::zeros(&backend, [5]).unwrap(), T::zeros(&backend, [3]).unwrap());
    let [mut sum, mut out] = [(); 2].map(|()| T::zeros(&backend, [3, 5]).unwrap());
    let [mut mean, mut rstd] = [(); 2].map(|()| T::zeros(&backend, [3]).unwrap());
    let [mut dweight, mut dbias] = [(); 2].map(|()| T::zeros(&backend, [5]).unwrap());
    let (x, weight) = (rows.view(), channels.view());
    let op: LayerNormForward<Cpu<f32>> =
        LayerNormForward { x, weight, bias: weight, out: out.view_mut(), mean: mean.view_mut(), rstd: rstd.view_mut() };
    // 15 elements read and 15 written, 2·5 parameters, 2·3 statistics.
    assert_eq!(op.floor(), Floor { bytes: 46 * 4, flops: 0 });
    let op: ResidualLayerNormForward<Cpu<f32>> = ResidualLayerNormForward {
        x,
        residual: x,
        weight,
        bias: weight,
        sum: sum.view_mut(),
        out: out.view_mut(),
        mean: mean.view_mut(),
        rstd: rstd.view_mut(),
    };
    assert_eq!(op.floor(), Floor { bytes: 76 * 4, flops: 0 });
    // x and dout; dx once or twice; the weight; the statistics; two gradients once or twice.
    for (dx_write, write, floats) in
        [(Write::Overwrite, Write::Overwrite, 45 + 5 + 6 + 10), (Write::Accumulate, Write::Accumulate, 60 + 5 + 6 + 20)]
    {
        let (dx, dweight, dbias) = (out.view_mut(), dweight.view_mut(), dbias.view_mut());
        let (mean, rstd) = (column.view(), column.view());
        let op: LayerNormBackward<Cpu<f32>> =
            LayerNormBackward { dout: x, x, weight, mean, rstd, dx, dx_write, dweight, dbias, write };
        assert_eq!(op.floor(), Floor { bytes: floats * 4, flops: 0 });
    }
}
