//! Matrix products with their epilogues, and both backward products.

mod trials;

use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::matmul::{self, TileConfig, TileSize};
use ironwarp::ops::{Backend, DgradEpilogue, Epilogue, Floor, MatmulDgrad, MatmulForward, MatmulWgrad, Write};
use ironwarp::tensor::Tensor;

use crate::bounds::{AccuracyBound, TrafficBound};
use crate::common::matmul::{EpilogueKind, Inputs};
use crate::common::*;
use crate::emulator::{Counts, alone, shared};

/// N, C, OC and why.
type Case = (usize, usize, usize, &'static str);

const SMALL: [Case; 7] = [
    (1, 8, 8, "one vector of each tensor"),
    (64, 32, 64, "one tile, one pipeline stage"),
    (65, 40, 72, "one row past a tile, and one vector past a stage"),
    (1, 768, 768, "one row, as in decoding, of GPT-2's C"),
    (33, 1600, 136, "GPT-2 XL's C"),
    (130, 136, 200, "more stages than shared memory holds, three rows of tiles by four"),
    (1100, 8, 72, "more than one rasterization group of tiles"),
];
const LARGE: [Case; 5] = [
    (1, 8, 8, "one vector of each tensor"),
    (128, 128, 256, "one tile, as many stages as shared memory holds"),
    (129, 40, 264, "one row past a tile, and one vector past a stage"),
    (131, 3072, 40, "four times GPT-2's C"),
    (2100, 8, 264, "more than one rasterization group of tiles"),
];

/// All shapes, each with the tile size that it tests.
fn cases() -> impl Iterator<Item = (TileSize, Case)> {
    let of = |tile: TileSize, cases: &'static [Case]| cases.iter().map(move |&case| (tile, case));
    of(TileSize::Small, &SMALL).chain(of(TileSize::Large, &LARGE))
}

/// Random inputs that bf16 represents.
fn inputs((n, c, oc, _): Case) -> Inputs {
    let mut inputs = Inputs::new(n, c, oc);
    let Inputs { x, weight, bias, residual, dout, pre, .. } = &mut inputs;
    for values in [x, weight, bias, residual, dout, &mut *pre] {
        *values = rounded::<bf16>(std::mem::take(values));
    }
    // Every 13th pre-activation is so large that its square is infinite in f32.
    pre.iter_mut().skip(5).step_by(13).for_each(|x| *x *= 2f64.powi(80));
    inputs
}

/// The forward with tiles of a size.
fn forward(inputs: &Inputs, cuda: &Cuda, kind: EpilogueKind, tile: TileSize) -> [Vec<f64>; 2] {
    inputs.forward(cuda, kind, |cuda, op| matmul::forward(cuda, op, Some(TileConfig { tile, split_k: 1 })))
}

/// dgrad with tiles of a size.
fn dgrad(inputs: &Inputs, cuda: &Cuda, through_gelu: bool, tile: TileSize) -> Vec<f64> {
    inputs.dgrad(cuda, through_gelu, |cuda, op| matmul::dgrad(cuda, op, Some(TileConfig { tile, split_k: 1 })))
}

/// wgrad with a tile configuration.
fn wgrad(inputs: &Inputs, cuda: &Cuda, with_bias: bool, write: Write, config: TileConfig) -> [Vec<f64>; 2] {
    let run = |cuda: &Cuda, op: MatmulWgrad<'_, Cuda>| matmul::wgrad(cuda, op, Some(config));
    inputs.wgrad(cuda, with_bias, write, run).map(|gradient| gradient.read(cuda))
}

/// Checks a product in bf16 against the reference in f64 and the formula in f32.
///
/// Sums over K that cancel almost completely are compared with the rounding of their terms instead, half a unit of a partial sum
/// each: relative to the small remainder, an error is as large as chance makes it, and different for every order of summation.
fn check_accuracy(what: &str, k: usize, mut got: Vec<f64>, mut reference: Vec<f64>, mut baseline: Vec<f64>) {
    let sum = (k as f64).sqrt();
    for i in 0..reference.len() {
        if reference[i].abs() >= sum / 32.0 {
            continue;
        }
        let (error, allowed) = ((got[i] - reference[i]).abs(), reference[i].abs() / 256.0 + k as f64 / 2f64.powi(24));
        assert!(error <= allowed, "{what}: element {i} is {}, not {} ± {allowed:e}", got[i], reference[i]);
        for values in [&mut got, &mut reference, &mut baseline] {
            values[i] = 0.0;
        }
    }
    AccuracyBound { what, reference: &reference, baseline: &baseline, ulps: 0.55 }.check::<bf16>(&got);
}

#[test]
fn forward_is_the_formula() {
    for ((tile, case @ (n, c, oc, why)), kind) in cases().flat_map(|case| EpilogueKind::ALL.map(|kind| (case, kind))) {
        let inputs = inputs(case);
        let cuda = shared();
        let [out, pre] = forward(&inputs, &cuda, kind, tile);
        let gelu = kind == EpilogueKind::BiasGelu;
        // GELU is applied to the rounded pre-activation, so the product with its bias is what is checked.
        let (checked, product) = if gelu { (pre.clone(), EpilogueKind::Bias) } else { (out.clone(), kind) };
        let [reference, _] = inputs.forward(&Cpu::<f64>::new(), product, Cpu::matmul_forward);
        let [baseline, _] = inputs.forward(&Cpu::<f32>::new(), product, Cpu::matmul_forward);
        let what = format!("matmul_forward, {kind:?}, {tile:?}, N = {n}, C = {c}, OC = {oc} ({why})");
        check_accuracy(&what, c, checked, reference, baseline);
        if gelu {
            let separate = gelu::forward(&*cuda, [n, oc], &pre);
            assert_same_bits(&format!("gelu_forward of pre, {what}"), &separate, &out);
        } else {
            assert!(pre.iter().all(|x| x.is_nan()), "{what}: wrote pre");
        }
    }
}

#[test]
fn dgrad_is_the_formula() {
    for ((tile, (n, c, oc, why)), gelu) in cases().flat_map(|case| [false, true].map(|gelu| (case, gelu))) {
        // The sum is over OC.
        let inputs = inputs((n, oc, c, why));
        let got = dgrad(&inputs, &shared(), gelu, tile);
        let reference = inputs.dgrad(&Cpu::<f64>::new(), gelu, Cpu::matmul_dgrad);
        let baseline = inputs.dgrad(&Cpu::<f32>::new(), gelu, Cpu::matmul_dgrad);
        let what = format!("matmul_dgrad dx, dGELU {gelu}, {tile:?}, N = {n}, C = {oc}, OC = {c} ({why})");
        check_accuracy(&what, c, got, reference, baseline);
    }
}

/// Tile size, split-K, N, C, OC and why.
const WGRAD: [(TileSize, usize, Case); 10] = [
    (TileSize::Small, 1, (1, 8, 8, "one vector of each tensor, K = 1")),
    (TileSize::Small, 1, (31, 64, 64, "one tile, one row less than a stage")),
    (TileSize::Small, 1, (33, 72, 72, "one row past a stage, and one vector past a tile")),
    (TileSize::Small, 3, (300, 136, 72, "splits of 4, 4 and 2 stages, the last stage incomplete")),
    (TileSize::Small, 16, (511, 8, 1096, "one stage per split; more than one rasterization group of tiles")),
    (TileSize::Large, 1, (1, 8, 8, "one vector of each tensor, K = 1")),
    (TileSize::Large, 1, (160, 256, 128, "one tile, more stages than shared memory holds")),
    (TileSize::Large, 2, (97, 264, 136, "two splits, the second with a single row in its last stage")),
    (TileSize::Large, 16, (2049, 40, 8, "one row past 64 stages")),
    (TileSize::Large, 1, (5, 264, 2056, "more than one rasterization group of tiles")),
];

#[test]
fn wgrad_is_the_formula() {
    for ((tile, parts, case @ (n, c, oc, why)), write) in
        WGRAD.iter().flat_map(|&case| WRITES.map(|write| (case, write)))
    {
        let inputs = inputs(case);
        let config = TileConfig { tile, split_k: parts };
        let got = wgrad(&inputs, &shared(), true, write, config);
        let (f64, f32) = (Cpu::<f64>::new(), Cpu::<f32>::new());
        let reference = inputs.wgrad(&f64, true, write, Cpu::matmul_wgrad).map(|gradient| gradient.read(&f64));
        let baseline = inputs.wgrad(&f32, true, write, Cpu::matmul_wgrad).map(|gradient| gradient.read(&f32));
        for (i, name) in ["dweight", "dbias"].into_iter().enumerate() {
            let what = format!("matmul_wgrad {name}, {write:?}, {config:?}, N = {n}, C = {c}, OC = {oc} ({why})");
            AccuracyBound { what: &what, reference: &reference[i], baseline: &baseline[i], ulps: 256.0 }
                .check::<f32>(&got[i]);
        }
        let [without_bias, _] = wgrad(&inputs, &shared(), false, write, config);
        assert_same_bits("matmul_wgrad dweight without bias", &without_bias, &got[0]);
    }
}

/// The order of summation does not depend on the tile size, so both give the bits of the backend's own choice.
#[test]
fn tiles_give_the_same_bits() {
    let inputs = inputs((70, 168, 264, ""));
    let cuda = shared();
    for kind in EpilogueKind::ALL {
        let own = inputs.forward(&*cuda, kind, Cuda::matmul_forward);
        for tile in [TileSize::Small, TileSize::Large] {
            let got = forward(&inputs, &cuda, kind, tile);
            assert_same_bits(&format!("matmul_forward, {kind:?}, {tile:?}"), &got.concat(), &own.concat());
        }
    }
    for gelu in [false, true] {
        let own = inputs.dgrad(&*cuda, gelu, Cuda::matmul_dgrad);
        for tile in [TileSize::Small, TileSize::Large] {
            assert_same_bits(&format!("matmul_dgrad, {tile:?}"), &dgrad(&inputs, &cuda, gelu, tile), &own);
        }
    }
    // At this size split-K does not pay, so the backend chooses 1.
    let own = inputs.wgrad(&*cuda, true, Write::Accumulate, Cuda::matmul_wgrad).map(|gradient| gradient.read(&cuda));
    for tile in [TileSize::Small, TileSize::Large] {
        let got = wgrad(&inputs, &cuda, true, Write::Accumulate, TileConfig { tile, split_k: 1 });
        assert_same_bits(&format!("matmul_wgrad, {tile:?}"), &got.concat(), &own.concat());
    }
}

#[test]
fn non_finite_numbers_stay_in_their_row() {
    let (n, c, oc) = (70, 40, 72);
    let clean = inputs((n, c, oc, ""));
    let cuda = shared();
    // Everything in the rows and columns that `bad` selects is not finite, and everything else has the same bits.
    let check = |what: &str, got: &[f64], want: &[f64], columns: usize, bad: &dyn Fn(usize, usize) -> bool| {
        for (i, (got, want)) in got.iter().zip(want).enumerate() {
            let (row, column) = (i / columns, i % columns);
            let right = if bad(row, column) { !got.is_finite() } else { got.to_bits() == want.to_bits() };
            assert!(right, "{what} ({row}, {column}): {got}, {want} without");
        }
    };
    for (tile, bad) in [TileSize::Small, TileSize::Large].into_iter().flat_map(|t| [(t, f64::NAN), (t, f64::INFINITY)])
    {
        let mut inputs = clean.clone();
        inputs.x[65 * c + 9] = bad;
        inputs.dout[3 * oc + 50] = bad;
        let [[got, _], [want, _]] = [&inputs, &clean].map(|inputs| forward(inputs, &cuda, EpilogueKind::None, tile));
        check(&format!("out, {tile:?}, {bad}"), &got, &want, oc, &|row, _| row == 65);
        let [got, want] = [&inputs, &clean].map(|inputs| dgrad(inputs, &cuda, false, tile));
        check(&format!("dx, {tile:?}, {bad}"), &got, &want, c, &|row, _| row == 3);
        let config = TileConfig { tile, split_k: 3 };
        let [got, want] = [&inputs, &clean].map(|inputs| wgrad(inputs, &cuda, true, Write::Overwrite, config));
        check(&format!("dweight, {tile:?}, {bad}"), &got[0], &want[0], c, &|row, column| row == 50 || column == 9);
        check(&format!("dbias, {tile:?}, {bad}"), &got[1], &want[1], oc, &|_, column| column == 50);
    }
}

#[test]
fn misaligned_tensors_are_rejected() {
    let cuda = shared();
    let x = Tensor::<Cuda, bf16>::zeros(&*cuda, [3, 8]).unwrap();
    let weight = Tensor::<Cuda, bf16>::zeros(&*cuda, [8, 8]).unwrap();
    let mut out = Output::<Cuda, bf16>::new(&*cuda, [2, 8]);
    let shifted = x.view().part(3, [2, 8]);
    let op = MatmulForward { x: shifted, weight: weight.view(), epilogue: Epilogue::None, out: out.view() };
    let message = "matmul_forward: x 16-byte aligned failed (x begins 6 bytes past a multiple of 16)";
    assert_rejected(cuda.matmul_forward(op), message);
    let op = MatmulDgrad { dout: shifted, weight: weight.view(), epilogue: DgradEpilogue::None, dx: out.view() };
    let message = "matmul_dgrad: dout 16-byte aligned failed (dout begins 6 bytes past a multiple of 16)";
    assert_rejected(cuda.matmul_dgrad(op), message);
    out.assert_untouched(&cuda);
    let mut dweight = Output::<Cuda, f32>::new(&*cuda, [8, 8]);
    let (x, write) = (x.view().part(0, [2, 8]), Write::Overwrite);
    let op = MatmulWgrad { dout: shifted, x, dweight: dweight.view(), dbias: None, write };
    let message = "matmul_wgrad: dout 16-byte aligned failed (dout begins 6 bytes past a multiple of 16)";
    assert_rejected(cuda.matmul_wgrad(op), message);
    dweight.assert_untouched(&cuda);
    let wide = Tensor::<Cuda, bf16>::zeros(&*cuda, [2, 12]).unwrap();
    let op = MatmulForward { x: wide.view(), weight: wide.view(), epilogue: Epilogue::None, out: out.view() };
    assert!(cuda.matmul_forward(op).is_err(), "C = 12");
}

/// Blocks request the rows and columns of their tiles once, and what the epilogue reads and writes.
#[test]
fn traffic_is_that_of_the_tiles() {
    let (n, c, oc) = (192, 96, 320);
    for (tile, rows, columns, threads) in [(TileSize::Small, 64, 64, 128), (TileSize::Large, 128, 256, 256)] {
        let Some(cuda) = alone() else { return };
        let inputs = inputs((n, c, oc, ""));
        // Of a product (m, k) · (k, l): the operands, multiplied by the number of tiles that read them.
        let operands = |m: usize, k: usize, l: usize| 2 * (m * k * l.div_ceil(columns) + k * l * m.div_ceil(rows));
        let check = |what: &str, bytes: usize, counts: Counts| {
            let what = format!("{what}, {tile:?}, N = {n}, C = {c}, OC = {oc}");
            let floor = Floor { bytes: bytes as u64, flops: 0 };
            TrafficBound { what: &what, floor, bytes: 1.0, sectors: 1.0 }.check(&counts);
        };
        for (kind, tensors) in EpilogueKind::ALL.into_iter().zip([1, 1, 2, 2]) {
            // One vector of bias per lane with columns in bounds: in the last tile of 256 columns, the lanes of one warp.
            let lanes = threads * n.div_ceil(rows) * oc.div_ceil(64) / (columns / 64);
            let bias = if kind == EpilogueKind::None { 0 } else { 16 * lanes };
            let counts = cuda.count(|| drop(forward(&inputs, &cuda, kind, tile)));
            check(&format!("matmul_forward {kind:?}"), operands(n, c, oc) + 2 * tensors * n * oc + bias, counts);
        }
        for (gelu, tensors) in [(false, 1), (true, 2)] {
            let counts = cuda.count(|| drop(dgrad(&inputs, &cuda, gelu, tile)));
            check(&format!("matmul_dgrad, dGELU {gelu}"), operands(n, oc, c) + 2 * tensors * n * c, counts);
        }
        for (write, parts) in WRITES.into_iter().flat_map(|write| [(write, 1), (write, 3)]) {
            let sums = 4 * (oc * c + oc);
            let partials = if parts == 1 { 0 } else { 2 * parts };
            let accesses = if write == Write::Accumulate { 2 } else { 1 };
            let bytes = operands(oc, n, c) + (accesses + partials) * sums;
            let counts = cuda.count(|| drop(wgrad(&inputs, &cuda, true, write, TileConfig { tile, split_k: parts })));
            check(&format!("matmul_wgrad {write:?}, split-K {parts}"), bytes, counts);
        }
    }
}
