//! LayerNorm, plain and with the residual addition, forward and backward.

use emulator_trials::mutate::Kind;
use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, Floor, LayerNormForward, Write};
use ironwarp::tensor::Tensor;

use crate::bounds::{AccuracyBound, TrafficBound};
use crate::common::layernorm::Inputs;
use crate::common::*;
use crate::emulator::{alone, shared};
use crate::kernel_checks::{Equivalent, Trial, assert_mutants_killed, assert_schedules_agree, equivalent};

/// N, C and why.
const SHAPES: [(usize, usize, &str); 11] = [
    (1, 8, "one vector"),
    (3, 16, "more rows than vectors"),
    (9, 768, "GPT-2's C; one row more than warps"),
    (70, 264, "two blocks of the backward, and a second vector for few lanes"),
    (2, 1024, "the largest C of the first kernel"),
    (5, 1032, "the least C of the second kernel"),
    (33, 1600, "GPT-2 XL's C; two blocks of the forward"),
    (2, 2048, "the largest C of the second kernel"),
    (3, 2056, "the least C of the third kernel"),
    (2, 5000, "the only power of two that divides it is 8"),
    (2, 12288, "the largest C of all"),
];

/// Inputs that bf16 represents, with rows around `offset` and the statistics of `x` for the backward.
fn inputs(n: usize, c: usize, offset: f64) -> Inputs {
    let mut inputs = Inputs::new(n, c);
    let Inputs { x, residual, weight, bias, dout, .. } = &mut inputs;
    for values in [&mut *x, residual, weight, bias, dout] {
        *values = rounded::<bf16>(std::mem::take(values));
    }
    *x = rounded::<bf16>(x.iter().map(|x| x + offset).collect());
    // A device stores the statistics in f32.
    let [_, mean, rstd] = inputs.forward(&Cpu::<f64>::new());
    (inputs.mean, inputs.rstd) = (rounded::<f32>(mean), rounded::<f32>(rstd));
    inputs
}

/// `dx`, `dweight` and `dbias`.
fn backward<B: Device>(inputs: &Inputs, backend: &B, dx_write: Write, write: Write) -> [Vec<f64>; 3] {
    inputs.backward(backend, dx_write, write).read(backend)
}

/// Checks the accuracy of each result against the reference in f64 and the formula in f32.
fn check_accuracy<const R: usize>(
    what: &str,
    names: [&str; R],
    ulps: [f64; R],
    got: [Vec<f64>; R],
    reference: [Vec<f64>; R],
    baseline: [Vec<f64>; R],
) {
    for i in 0..R {
        let what = format!("{what}: {}", names[i]);
        let bound = AccuracyBound { what: &what, reference: &reference[i], baseline: &baseline[i], ulps: ulps[i] };
        if names[i] == "mean" || names[i] == "rstd" || names[i].starts_with("dw") || names[i].starts_with("db") {
            bound.check::<f32>(&got[i]);
        } else {
            bound.check::<bf16>(&got[i]);
        }
    }
}

#[test]
fn forward_is_the_formula() {
    for ((n, c, why), offset) in SHAPES.iter().flat_map(|&shape| [(shape, 0.0), (shape, 100.0)]) {
        let inputs = inputs(n, c, offset);
        let what = format!("layernorm_forward, N = {n}, C = {c} ({why}), offset {offset}");
        let mut got = inputs.forward(&*shared());
        let [mut reference, mut baseline] = [inputs.forward(&Cpu::<f64>::new()), inputs.forward(&Cpu::<f32>::new())];
        if offset > 0.0 {
            // The rounding of the mean shifts a whole row. Near 0 that shift is many units in the last place of the value,
            // so the error is measured in units around 1, the size of a row's values.
            compare::<bf16>(&format!("{what}: out"), [n, c], &got[0], &reference[0], 0.51);
            for outputs in [&mut got, &mut reference, &mut baseline] {
                outputs[0].clear();
            }
        }
        check_accuracy(&what, ["out", "mean", "rstd"], [1.0, 16.0, 16.0], got, reference, baseline);
    }
}

/// The results are bit for bit those of [`LayerNormForward`] on the rounded sum.
#[test]
fn residual_is_addition_then_layernorm() {
    for (n, c, why) in SHAPES {
        let mut inputs = inputs(n, c, 0.0);
        let (sum, got) = inputs.residual_forward(&*shared());
        inputs.x = rounded::<bf16>(inputs.x.iter().zip(&inputs.residual).map(|(a, b)| a + b).collect());
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
        let inputs = inputs(n, c, 0.0);
        let what = format!("layernorm_backward, N = {n}, C = {c} ({why}), {dx_write:?}");
        let [reference, baseline] = [
            backward(&inputs, &Cpu::<f64>::new(), dx_write, write),
            backward(&inputs, &Cpu::<f32>::new(), dx_write, write),
        ];
        let ulps = [1.0, 64.0, 16.0];
        check_accuracy(
            &what,
            ["dx", "dweight", "dbias"],
            ulps,
            backward(&inputs, &*shared(), dx_write, write),
            reference,
            baseline,
        );
    }
}

#[test]
fn a_constant_row_becomes_the_bias() {
    let mut inputs = inputs(2, 768, 0.0);
    inputs.x = vec![-3.5; 2 * 768];
    let [out, mean, rstd] = inputs.forward(&*shared());
    assert_eq!(out, inputs.bias.repeat(2));
    assert_eq!(mean, [-3.5; 2]);
    compare::<f32>("layernorm_forward rstd", [2], &rstd, &[1e5f64.sqrt(); 2], 4.0);
}

#[test]
fn non_finite_numbers_stay_in_their_row() {
    for ((n, c), bad) in [(3, 768), (3, 1600), (3, 2056)].into_iter().flat_map(|s| [(s, f64::NAN), (s, f64::INFINITY)])
    {
        let clean = inputs(n, c, 0.0);
        let mut inputs = clean.clone();
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
        let [dx, dweight, _] = backward(&inputs, &*shared(), Write::Overwrite, Write::Overwrite);
        let [want, ..] = backward(&clean, &*shared(), Write::Overwrite, Write::Overwrite);
        assert_same_bits("dx before", &row(&dx, 0), &row(&want, 0));
        assert_same_bits("dx after", &row(&dx, 2), &row(&want, 2));
        assert!(row(&dx, 1).iter().all(|x| !x.is_finite()), "dx of the row itself");
        assert!(!dweight[5].is_finite() && dweight[6].is_finite(), "dweight of the column alone");
    }
}

#[test]
fn violated_preconditions_are_rejected() {
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
        let inputs = inputs(n, c, 0.0);
        // The operations' own floors, in bf16 and f32.
        let (nc, bytes) = ((n * c) as u64, |units: u64| Floor { bytes: units, flops: 0 });
        let (c4, n8) = (4 * c as u64, 8 * n as u64);
        let check = |what: &str, floor, counts| {
            let what = format!("{what}, N = {n}, C = {c}");
            // A statistic of 4 bytes moves a sector of 32.
            TrafficBound { what: &what, floor, bytes: 1.05, sectors: 1.04 }.check(&counts);
        };
        check("layernorm_forward", bytes(4 * nc + c4 + n8), cuda.count(|| drop(inputs.forward(&*cuda))));
        check(
            "residual_layernorm_forward",
            bytes(8 * nc + c4 + n8),
            cuda.count(|| drop(inputs.residual_forward(&*cuda))),
        );
        for (write, dx, gradients) in [(Write::Overwrite, 6, 8), (Write::Accumulate, 8, 16)] {
            let floor = bytes(dx * nc + (2 + gradients) * c as u64 + n8);
            let counts = cuda.count(|| drop(backward(&inputs, &*cuda, write, write)));
            check(&format!("layernorm_backward {write:?}"), floor, counts);
        }
    }
}

fn trials() -> Vec<Trial> {
    const CASES: [(&str, usize, usize, usize); 19] = [
        ("small, for the schedules: two blocks of the backward", 0, 65, 40),
        ("small, of the second kernels", 1, 9, 1032),
        ("small, of the third kernels", 2, 2, 2056),
        ("a block of the backward and one row, columns that leave lanes of a warp idle", 0, 65, 264),
        ("the least C of the second kernels, two blocks of the forward", 1, 33, 1032),
        ("two blocks of the third kernels", 2, 33, 2056),
        ("fewer rows than warps, whole vectors for every lane", 0, 3, 1024),
        ("one vector", 0, 9, 8),
        // A row ends with each of the vectors that a lane can hold.
        ("the third vector of a few lanes", 0, 3, 520),
        ("the fourth vector", 0, 2, 776),
        ("the sixth vector", 1, 3, 1288),
        ("the seventh vector, and the fourth of the backward", 1, 2, 1544),
        ("the eighth vector", 1, 1, 1800),
        ("the largest C of the second kernels", 1, 3, 2048),
        ("the third vector of the third kernels", 2, 2, 4104),
        ("the fourth vector", 2, 1, 6152),
        ("the fifth vector", 2, 1, 8200),
        ("the sixth vector", 2, 1, 10248),
        ("the largest C of the third kernels", 2, 1, 12288),
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
        let of_forward = inputs(n, c, 0.0);
        let (of_residual, of_backward) = (of_forward.clone(), of_forward.clone());
        let residual_forward = move |cuda: &Cuda| {
            let (sum, normalised) = of_residual.residual_forward(cuda);
            [vec![sum], normalised.into()].concat()
        };
        let backwards =
            move |cuda: &Cuda| WRITES.iter().flat_map(|&write| backward(&of_backward, cuda, write, write)).collect();
        [
            Trial { why, kernels: FORWARD[size], run: Box::new(move |cuda| of_forward.forward(cuda).to_vec()) },
            Trial { why, kernels: RESIDUAL[size], run: Box::new(residual_forward) },
            Trial { why, kernels: BACKWARD[size], run: Box::new(backwards) },
        ]
    };
    // Numbers of blocks whose last partial sum is in each of the loads that the reduction keeps in flight.
    let reduce = |blocks: usize| {
        let inputs = inputs(64 * blocks - 63, 8, 0.0);
        let run = move |cuda: &Cuda| backward(&inputs, cuda, Write::Overwrite, Write::Overwrite).to_vec();
        Trial { why: "many blocks", kernels: &["layernorm_backward_reduce"], run: Box::new(run) }
    };
    CASES.into_iter().flat_map(of_case).chain((10..=66).step_by(8).map(reduce)).collect()
}

#[test]
fn any_schedule_gives_the_same_bits() {
    // One case of each kernel: the other cases add nothing for the scheduler.
    assert_schedules_agree("layernorm", &trials()[..9]);
}

#[test]
fn mutants_are_killed() {
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(5, "backward", Kind::ShiftComparison, "first < params.n", "one more iteration, without rows"),
        equivalent(
            3,
            "backward",
            Kind::ShiftComparison,
            "v = thread + i * STRIDE",
            "past the end of the row x and dout are zeros, which add nothing",
        ),
        equivalent(
            4,
            "backward_c1024",
            Kind::ShiftComparison,
            "if (int(i) < FULL || v < vectors)",
            "copies of the loop over block_row that nvcc makes: one more iteration, which belongs to no block_row",
        ),
        equivalent(
            1,
            "backward_c2048",
            Kind::ShiftComparison,
            "column_sums[index] = sum;",
            "one more iteration, which belongs to no block_row",
        ),
        equivalent(
            6,
            "layernorm",
            Kind::ShiftComparison,
            "v < vectors; v += LAYERNORM_THREADS",
            "no thread's next vector is the first past the end: up to C = 2048 a thread has one vector, and in wider rows every thread has a first",
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
            "backward_reduce",
            Kind::ShiftComparison,
            "first < params.blocks",
            "one more iteration, whose loads are guarded; the loads of a surplus thread are not stored",
        ),
        equivalent(
            1,
            "backward_reduce",
            Kind::ShiftComparison,
            "block < params.blocks",
            "the first load of an iteration, which the loop condition has checked",
        ),
        equivalent(1, "backward_reduce", Kind::NeverLeave, "block < params.blocks", "as above"),
        equivalent(
            1,
            "backward_c12288",
            Kind::ShiftComparison,
            "row >= params.n) return 0.0f",
            "the first row of a block, which is always valid where a block has one row at a time",
        ),
        equivalent(
            1,
            "backward_c12288",
            Kind::NeverLeave,
            "row >= params.n) return 0.0f",
            "as above; and more lanes than two load the statistics",
        ),
        equivalent(
            1,
            "backward_reduce",
            Kind::ShiftComparison,
            "in_bounds = i < 2 * quads",
            "the loads of a surplus thread are not stored",
        ),
    ];
    assert_mutants_killed("layernorm", &trials(), EQUIVALENT);
}
