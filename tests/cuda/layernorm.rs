//! Layernorm, alone and with the residual addition, forward and backward.

use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, Floor, LayerNormBackward, LayerNormForward, ResidualLayerNormForward, Write};
use ironwarp::tensor::{Shape, Tensor};
use ptx_emulator::mutate::Kind;

use crate::emulator::{alone, shared};
use crate::gauntlet::{Equivalent, Trial, assert_any_schedule, assert_mutants_die, equivalent};
use crate::judge::{Lean, Verdict};
use crate::support::*;

/// N, C and why.
const SHAPES: [(usize, usize, &str); 11] = [
    (1, 8, "one vector"),
    (3, 16, "more rows than vectors"),
    (9, 768, "GPT-2's C; one row more than warps"),
    (70, 264, "two blocks of the backward, and a vector that few lanes have"),
    (2, 1024, "the most of the first kernel"),
    (5, 1032, "the least of the second"),
    (33, 1600, "GPT-2 XL's C; two blocks of the forward"),
    (2, 2048, "the most of the second"),
    (3, 2056, "the least of the third"),
    (2, 5000, "no power of two in it but 8"),
    (2, 12288, "the most of all"),
];

/// Inputs of all operations.
struct Inputs {
    n: usize,
    c: usize,
    x: Vec<f64>,
    residual: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    dout: Vec<f64>,
    mean: Vec<f64>,
    rstd: Vec<f64>,
}

/// A tensor to read, with nothing behind it: a read past its end is one out of bounds.
fn tight<B: Device, E: Number>(backend: &B, shape: impl Into<Shape>, values: &[f64]) -> Tensor<B, E> {
    Tensor::from_vec(backend, shape, values.iter().map(|&x| E::of(x)).collect()).unwrap()
}

fn narrow(values: Vec<f64>) -> Vec<f64> {
    values.into_iter().map(|x| bf16::from_f64(x).to_f64()).collect()
}

impl Inputs {
    fn new(n: usize, c: usize) -> Self {
        Self::around(n, c, 0.0)
    }

    /// With rows around `offset`, and the statistics of x for the backward.
    fn around(n: usize, c: usize, offset: f64) -> Self {
        let mut draws = Draws::new(1);
        let mut numbers = |len| narrow(draws.numbers(len));
        let [x, residual, dout] = [numbers(n * c), numbers(n * c), numbers(n * c)];
        let [weight, bias] = [numbers(c), numbers(c)];
        let x = narrow(x.into_iter().map(|x| x + offset).collect());
        let mut inputs = Inputs { n, c, x, residual, weight, bias, dout, mean: vec![], rstd: vec![] };
        // As a device holds them: in f32.
        let [_, mean, rstd] = inputs.forward(&Cpu::<f64>::new());
        inputs.mean = mean.into_iter().map(|x| f64::from(x as f32)).collect();
        inputs.rstd = rstd.into_iter().map(|x| f64::from(x as f32)).collect();
        inputs
    }

    /// `out`, `mean` and `rstd`.
    fn forward<B: Device>(&self, backend: &B) -> [Vec<f64>; 3] {
        let Inputs { n, c, .. } = *self;
        let x: Tensor<B, B::Compute> = tight(backend, [n, c], &self.x);
        let [weight, bias] = [&self.weight, &self.bias].map(|values| tight::<B, B::Compute>(backend, [c], values));
        let mut out = Output::new(backend, [n, c]);
        let [mut mean, mut rstd] = [(); 2].map(|()| Output::new(backend, [n]));
        let (x, weight, bias) = (x.view(), weight.view(), bias.view());
        let op = LayerNormForward { x, weight, bias, out: out.view(), mean: mean.view(), rstd: rstd.view() };
        backend.layernorm_forward(op).unwrap();
        [out.read(backend), mean.read(backend), rstd.read(backend)]
    }

    /// `sum`, `out`, `mean` and `rstd`.
    fn residual_forward<B: Device>(&self, backend: &B) -> [Vec<f64>; 4] {
        let Inputs { n, c, .. } = *self;
        let [x, residual] = [&self.x, &self.residual].map(|v| tight::<B, B::Compute>(backend, [n, c], v));
        let [weight, bias] = [&self.weight, &self.bias].map(|v| tight::<B, B::Compute>(backend, [c], v));
        let [mut sum, mut out] = [(); 2].map(|()| Output::new(backend, [n, c]));
        let [mut mean, mut rstd] = [(); 2].map(|()| Output::new(backend, [n]));
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
        backend.residual_layernorm_forward(op).unwrap();
        [sum.read(backend), out.read(backend), mean.read(backend), rstd.read(backend)]
    }

    /// `dx`, `dweight` and `dbias`, onto nonzero gradients when they accumulate.
    fn backward<B: Device>(&self, backend: &B, dx_write: Write, write: Write) -> [Vec<f64>; 3] {
        let Inputs { n, c, .. } = *self;
        let [dout, x] = [&self.dout, &self.x].map(|v| tight::<B, B::Compute>(backend, [n, c], v));
        let weight: Tensor<B, B::Compute> = tight(backend, [c], &self.weight);
        let [mean, rstd] = [&self.mean, &self.rstd].map(|v| tight::<B, B::Accum>(backend, [n], v));
        let mut dx = match dx_write {
            Write::Overwrite => Output::new(backend, [n, c]),
            Write::Accumulate => Output::with(backend, [n, c], &narrow(Draws::new(7).numbers(n * c))),
        };
        let [mut dweight, mut dbias] = [(); 2].map(|()| Output::to(backend, [c], write));
        let op = LayerNormBackward {
            dout: dout.view(),
            x: x.view(),
            weight: weight.view(),
            mean: mean.view(),
            rstd: rstd.view(),
            dx: dx.view(),
            dx_write,
            dweight: dweight.view(),
            dbias: dbias.view(),
            write,
        };
        backend.layernorm_backward(op).unwrap();
        [dx.read(backend), dweight.read(backend), dbias.read(backend)]
    }
}

/// Holds `got` against the reference in f64, and the formula in f32.
fn judge<const R: usize>(
    what: &str,
    names: [&str; R],
    ulps: [f64; R],
    got: [Vec<f64>; R],
    reference: [Vec<f64>; R],
    baseline: [Vec<f64>; R],
) {
    for i in 0..R {
        let what = format!("{what}: {}", names[i]);
        let verdict = Verdict { what: &what, reference: &reference[i], baseline: &baseline[i], ulps: ulps[i] };
        if names[i] == "mean" || names[i] == "rstd" || names[i].starts_with("dw") || names[i].starts_with("db") {
            verdict.pass::<f32>(&got[i]);
        } else {
            verdict.pass::<bf16>(&got[i]);
        }
    }
}

#[test]
fn forward_is_the_formula() {
    for ((n, c, why), offset) in SHAPES.iter().flat_map(|&shape| [(shape, 0.0), (shape, 100.0)]) {
        let inputs = Inputs::around(n, c, offset);
        let what = format!("layernorm_forward, N = {n}, C = {c} ({why}), offset {offset}");
        let mut got = inputs.forward(&*shared());
        let [mut reference, mut baseline] = [inputs.forward(&Cpu::<f64>::new()), inputs.forward(&Cpu::<f32>::new())];
        if offset > 0.0 {
            // The mean's own rounding moves all of a row, which near 0 is many units in the last place: not of the value's,
            // then, but of those around 1 that it belongs to.
            compare::<bf16>(&format!("{what}: out"), [n, c], &got[0], &reference[0], 0.51);
            for outputs in [&mut got, &mut reference, &mut baseline] {
                outputs[0].clear();
            }
        }
        judge(&what, ["out", "mean", "rstd"], [1.0, 16.0, 16.0], got, reference, baseline);
    }
}

/// Bit for bit [`LayerNormForward`] of the rounded sum.
#[test]
fn residual_is_addition_then_layernorm() {
    for (n, c, why) in SHAPES {
        let mut inputs = Inputs::new(n, c);
        let [sum, got @ ..] = inputs.residual_forward(&*shared());
        inputs.x = narrow(inputs.x.iter().zip(&inputs.residual).map(|(a, b)| a + b).collect());
        assert_same_bits(&format!("residual_layernorm_forward sum, {why}"), &sum, &inputs.x);
        for (name, (got, want)) in ["out", "mean", "rstd"].iter().zip(got.iter().zip(inputs.forward(&*shared()))) {
            assert_same_bits(&format!("residual_layernorm_forward {name}, {why}"), got, &want);
        }
    }
}

#[test]
fn backward_is_the_gradient() {
    for ((n, c, why), (dx_write, write)) in SHAPES.iter().flat_map(|&shape| {
        [(Write::Overwrite, Write::Overwrite), (Write::Accumulate, Write::Accumulate)].map(|w| (shape, w))
    }) {
        let inputs = Inputs::new(n, c);
        let what = format!("layernorm_backward, N = {n}, C = {c} ({why}), {dx_write:?}");
        let [reference, baseline] = [
            inputs.backward(&Cpu::<f64>::new(), dx_write, write),
            inputs.backward(&Cpu::<f32>::new(), dx_write, write),
        ];
        let ulps = [1.0, 64.0, 16.0];
        judge(
            &what,
            ["dx", "dweight", "dbias"],
            ulps,
            inputs.backward(&*shared(), dx_write, write),
            reference,
            baseline,
        );
    }
}

#[test]
fn a_constant_row_becomes_the_bias() {
    let mut inputs = Inputs::new(2, 768);
    inputs.x = vec![-3.5; 2 * 768];
    let [out, mean, rstd] = inputs.forward(&*shared());
    assert_eq!(out, inputs.bias.repeat(2));
    assert_eq!(mean, [-3.5; 2]);
    compare::<f32>("layernorm_forward rstd", [2], &rstd, &[1e5f64.sqrt(); 2], 4.0);
}

#[test]
fn bad_numbers_stay_in_their_row() {
    for ((n, c), bad) in [(3, 768), (3, 1600), (3, 2056)].into_iter().flat_map(|s| [(s, f64::NAN), (s, f64::INFINITY)])
    {
        let clean = Inputs::new(n, c);
        let mut inputs = Inputs::new(n, c);
        inputs.x[c + 5] = bad;
        let row = |values: &[f64], row: usize| values[row * (values.len() / n)..][..values.len() / n].to_vec();
        for (name, (got, want)) in
            ["out", "mean", "rstd"].iter().zip(inputs.forward(&*shared()).iter().zip(clean.forward(&*shared())))
        {
            let what = format!("layernorm_forward {name}, {bad} in row 1");
            assert_same_bits(&what, &row(got, 0), &row(&want, 0));
            assert_same_bits(&what, &row(got, 2), &row(&want, 2));
            assert!(row(got, 1).iter().all(|x| !x.is_finite() || *name == "rstd"), "{what}");
        }
        let [dx, dweight, _] = inputs.backward(&*shared(), Write::Overwrite, Write::Overwrite);
        let [want, ..] = clean.backward(&*shared(), Write::Overwrite, Write::Overwrite);
        assert_same_bits("dx before", &row(&dx, 0), &row(&want, 0));
        assert_same_bits("dx after", &row(&dx, 2), &row(&want, 2));
        assert!(row(&dx, 1).iter().all(|x| !x.is_finite()), "dx of the row itself");
        assert!(!dweight[5].is_finite() && dweight[6].is_finite(), "dweight of the column alone");
    }
}

#[test]
fn what_does_not_fit_is_refused() {
    let cuda = shared();
    let tensor = |c| Tensor::<Cuda, bf16>::zeros(&*cuda, [1, c]).unwrap();
    let (x, mut out) = (tensor(12296), tensor(12296));
    let weight = Tensor::<Cuda, bf16>::zeros(&*cuda, [12296]).unwrap();
    let [mut mean, mut rstd] = [(); 2].map(|()| Tensor::<Cuda, f32>::zeros(&*cuda, [1]).unwrap());
    let op = LayerNormForward {
        x: x.view(),
        weight: weight.view(),
        bias: weight.view(),
        out: out.view_mut(),
        mean: mean.view_mut(),
        rstd: rstd.view_mut(),
    };
    assert_rejected(cuda.layernorm_forward(op), "layernorm_forward: C <= 12288 failed (C = 12296)");
    let op = LayerNormForward {
        x: x.view().part(1, [1, 8]),
        weight: weight.view().part(0, [8]),
        bias: weight.view().part(0, [8]),
        out: out.view_mut().into_part(0, [1, 8]),
        mean: mean.view_mut(),
        rstd: rstd.view_mut(),
    };
    let message = "layernorm_forward: x 16-byte aligned failed (x begins 2 bytes past a multiple of 16)";
    assert_rejected(cuda.layernorm_forward(op), message);
}

#[test]
fn traffic_is_the_floor() {
    for (n, c) in [(256, 768), (64, 1600)] {
        let Some(cuda) = alone() else { return };
        let inputs = Inputs::new(n, c);
        // The floors of the operations' own, in bf16 and f32.
        let (nc, bytes) = ((n * c) as u64, |units: u64| Floor { bytes: units, flops: 0 });
        let (c4, n8) = (4 * c as u64, 8 * n as u64);
        let lean = |what: &str, floor, counts| {
            let what = format!("{what}, N = {n}, C = {c}");
            // A statistic of 4 bytes takes a sector of 32.
            Lean { what: &what, floor, bytes: 1.05, sectors: 1.04 }.pass(&counts);
        };
        lean("layernorm_forward", bytes(4 * nc + c4 + n8), cuda.count(|| drop(inputs.forward(&*cuda))));
        lean(
            "residual_layernorm_forward",
            bytes(8 * nc + c4 + n8),
            cuda.count(|| drop(inputs.residual_forward(&*cuda))),
        );
        for (write, dx, gradients) in [(Write::Overwrite, 6, 8), (Write::Accumulate, 8, 16)] {
            let floor = bytes(dx * nc + (2 + gradients) * c as u64 + n8);
            let counts = cuda.count(|| drop(inputs.backward(&*cuda, write, write)));
            lean(&format!("layernorm_backward {write:?}"), floor, counts);
        }
    }
}

fn trials() -> Vec<Trial> {
    const CASES: [(&str, usize, usize, usize); 19] = [
        ("small, for a thousand schedules: two blocks of the backward", 0, 65, 40),
        ("small, of the second kernels", 1, 9, 1032),
        ("small, of the third kernels", 2, 2, 2056),
        ("a block of the backward and a row more, columns that leave lanes of a warp without work", 0, 65, 264),
        ("the least C of the second kernels, two blocks of the forward", 1, 33, 1032),
        ("two blocks of the third kernels", 2, 33, 2056),
        ("fewer rows than warps, whole vectors for every lane", 0, 3, 1024),
        ("one vector", 0, 9, 8),
        // The last vector of a lane ends a row, for each that a lane can have.
        ("the third vector of a few lanes", 0, 3, 520),
        ("the fourth", 0, 2, 776),
        ("the sixth", 1, 3, 1288),
        ("the seventh, and the fourth of the backward", 1, 2, 1544),
        ("the eighth", 1, 1, 1800),
        ("the most C of the second kernels", 1, 3, 2048),
        ("the third of the third kernels", 2, 2, 4104),
        ("the fourth", 2, 1, 6152),
        ("the fifth", 2, 1, 8200),
        ("the sixth", 2, 1, 10248),
        ("the most C of the third kernels", 2, 1, 12288),
    ];
    const FORWARD: [&[&str]; 3] =
        [&["layernorm_forward_c1024"], &["layernorm_forward_c2048"], &["layernorm_forward_c12288"]];
    const RESIDUAL: [&[&str]; 3] = [
        &["residual_layernorm_forward_c1024"],
        &["residual_layernorm_forward_c2048"],
        &["residual_layernorm_forward_c12288"],
    ];
    const BACKWARD: [&[&str]; 3] = [
        &["layernorm_backward_c1024", "layernorm_backward_reduce"],
        &["layernorm_backward_c2048"],
        &["layernorm_backward_c12288"],
    ];
    let of_case = |(why, size, n, c): (&'static str, usize, usize, usize)| {
        let forward = Inputs::new(n, c);
        let (residual, backward) = (Inputs::new(n, c), Inputs::new(n, c));
        [
            Trial { why, kernels: FORWARD[size], run: Box::new(move |cuda| forward.forward(cuda).to_vec()) },
            Trial { why, kernels: RESIDUAL[size], run: Box::new(move |cuda| residual.residual_forward(cuda).to_vec()) },
            Trial {
                why,
                kernels: BACKWARD[size],
                run: Box::new(move |cuda| {
                    WRITES.iter().flat_map(|&write| backward.backward(cuda, write, write)).collect()
                }),
            },
        ]
    };
    // Numbers of blocks that end in each of the loads that the join has under way.
    let join = |blocks: usize| {
        let backward = Inputs::new(64 * blocks - 63, 8);
        let run = move |cuda: &Cuda| backward.backward(cuda, Write::Overwrite, Write::Overwrite).to_vec();
        Trial { why: "many blocks", kernels: &["layernorm_backward_reduce"], run: Box::new(run) }
    };
    CASES.into_iter().flat_map(of_case).chain((10..=66).step_by(8).map(join)).collect()
}

#[test]
fn any_schedule_gives_the_same_bits() {
    // A case of each kernel: the others are more of the same for a scheduler.
    assert_any_schedule("layernorm", &trials()[..9]);
}

#[test]
fn mutants_die() {
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(5, "backward", Kind::ShiftComparison, "first < params.n", "one more turn, without rows"),
        equivalent(
            3,
            "backward",
            Kind::ShiftComparison,
            "v = thread + i * STRIDE",
            "behind the row's end x and dout are zeros, which add nothing",
        ),
        equivalent(
            4,
            "backward_c1024",
            Kind::ShiftComparison,
            "if (int(i) < FULL || v < vectors)",
            "nvcc's copies of the groups' loop: one more turn, which is no group's",
        ),
        equivalent(1, "backward_c2048", Kind::ShiftComparison, "turn + 1 < ROWS", "one more turn, which is no group's"),
        equivalent(
            6,
            "layernorm",
            Kind::ShiftComparison,
            "v < vectors; v += LAYERNORM_THREADS",
            "no thread's next vector is the first behind the end: up to C = 2048 it has one, and in wider rows all have a first",
        ),
        equivalent(
            3,
            "c12288",
            Kind::NeverLeave,
            "v < vectors; v += LAYERNORM_THREADS",
            "nvcc's test before a loop that every thread enters",
        ),
        equivalent(
            2,
            "forward_c12288",
            Kind::ShiftComparison,
            "row < params.n; row +=",
            "nvcc's test before a loop that every block enters",
        ),
        equivalent(2, "forward_c12288", Kind::NeverLeave, "row < params.n; row +=", "as above"),
        equivalent(
            2,
            "backward_join",
            Kind::ShiftComparison,
            "first < params.blocks",
            "one more turn, whose loads are guarded; what a thread too many loads is not stored",
        ),
        equivalent(
            1,
            "backward_join",
            Kind::ShiftComparison,
            "block < params.blocks",
            "a turn's first load, at which the loop has looked",
        ),
        equivalent(1, "backward_join", Kind::NeverLeave, "block < params.blocks", "as above"),
        equivalent(
            1,
            "backward_c12288",
            Kind::ShiftComparison,
            "row >= params.n) return 0.0f",
            "a block's first row, which is there where rows are not side by side",
        ),
        equivalent(
            1,
            "backward_c12288",
            Kind::NeverLeave,
            "row >= params.n) return 0.0f",
            "as above; and more lanes load what two need",
        ),
        equivalent(
            1,
            "backward_join",
            Kind::ShiftComparison,
            "there = place < 2 * columns",
            "what one thread more loads is not stored",
        ),
    ];
    assert_mutants_die("layernorm", &trials(), EQUIVALENT);
}
