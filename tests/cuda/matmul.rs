//! Matrix products with their epilogues, and both backward products.

mod trials;

use half::bf16;
use ironwarp::Result;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::matmul::{self, Cut, TileSize};
use ironwarp::ops::{
    Backend, DgradEpilogue, Epilogue, Floor, GeluForward, MatmulDgrad, MatmulForward, MatmulWgrad, Write,
};
use ironwarp::tensor::{Shape, Tensor};

use crate::emulator::{Counts, alone, shared};
use crate::judge::{Lean, Verdict};
use crate::support::*;

/// N, C, OC and why.
type Case = (usize, usize, usize, &'static str);

const SMALL: [Case; 7] = [
    (1, 8, 8, "a vector of everything"),
    (64, 32, 64, "a tile, a stage"),
    (65, 40, 72, "one past a tile, and a vector past a stage"),
    (1, 768, 768, "a row, as in decoding, of GPT-2's C"),
    (33, 1600, 136, "GPT-2 XL's C"),
    (130, 136, 200, "more stages than there is room for, three rows of tiles by four"),
    (1100, 8, 72, "more than a group of tiles"),
];
const LARGE: [Case; 5] = [
    (1, 8, 8, "a vector of everything"),
    (128, 128, 256, "a tile, as many stages as there is room for"),
    (129, 40, 264, "one past a tile, and a vector past a stage"),
    (131, 3072, 40, "four times GPT-2's C"),
    (2100, 8, 264, "more than a group of tiles"),
];

/// All shapes with the tile that they are for.
fn cases() -> impl Iterator<Item = (TileSize, Case)> {
    let of = |tile: TileSize, cases: &'static [Case]| cases.iter().map(move |&case| (tile, case));
    of(TileSize::Small, &SMALL).chain(of(TileSize::Large, &LARGE))
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum After {
    None,
    Bias,
    BiasGelu,
    BiasResidual,
}

const KINDS: [After; 4] = [After::None, After::Bias, After::BiasGelu, After::BiasResidual];

/// Inputs of all three operations.
#[derive(Clone)]
struct Inputs {
    n: usize,
    c: usize,
    oc: usize,
    x: Vec<f64>,
    weight: Vec<f64>,
    bias: Vec<f64>,
    residual: Vec<f64>,
    dout: Vec<f64>,
    /// Of the layer before: (N, C).
    pre: Vec<f64>,
}

/// A tensor to read, with nothing behind it: a read past its end is one out of bounds.
fn tight<B: Device, E: Number>(backend: &B, shape: impl Into<Shape>, values: &[f64]) -> Tensor<B, E> {
    Tensor::from_vec(backend, shape, values.iter().map(|&x| E::of(x)).collect()).unwrap()
}

impl Inputs {
    fn new((n, c, oc, _): Case) -> Self {
        let mut draws = Draws::new(1);
        let mut numbers =
            |len| -> Vec<f64> { draws.numbers(len).into_iter().map(|x| bf16::from_f64(x).to_f64()).collect() };
        Inputs {
            n,
            c,
            oc,
            x: numbers(n * c),
            weight: numbers(oc * c),
            bias: numbers(oc),
            residual: numbers(n * oc),
            dout: numbers(n * oc),
            // Every 13th so large that its square is infinite in f32.
            pre: numbers(n * c)
                .into_iter()
                .enumerate()
                .map(|(i, x)| if i % 13 == 5 { x * 2f64.powi(80) } else { x })
                .collect(),
        }
    }

    /// `out`, and `pre`, which only [`After::BiasGelu`] writes.
    fn forward<B: Device>(
        &self,
        backend: &B,
        kind: After,
        run: impl FnOnce(&B, MatmulForward<'_, B>) -> Result<()>,
    ) -> [Vec<f64>; 2] {
        let Inputs { n, c, oc, .. } = *self;
        let compute = |shape: Shape, values: &[f64]| tight::<B, B::Compute>(backend, shape, values);
        let (x, weight) = (compute([n, c].into(), &self.x), compute([oc, c].into(), &self.weight));
        let (bias, residual) = (compute([oc].into(), &self.bias), compute([n, oc].into(), &self.residual));
        let [mut out, mut pre] = [(); 2].map(|()| Output::<B, B::Compute>::new(backend, [n, oc]));
        let epilogue = match kind {
            After::None => Epilogue::None,
            After::Bias => Epilogue::Bias { bias: bias.view() },
            After::BiasGelu => Epilogue::BiasGelu { bias: bias.view(), pre: pre.view() },
            After::BiasResidual => Epilogue::BiasResidual { bias: bias.view(), residual: residual.view() },
        };
        run(backend, MatmulForward { x: x.view(), weight: weight.view(), epilogue, out: out.view() }).unwrap();
        [out.read(backend), pre.read(backend)]
    }

    fn forward_by(&self, cuda: &Cuda, kind: After, tile: TileSize) -> [Vec<f64>; 2] {
        self.forward(cuda, kind, |cuda, op| matmul::forward(cuda, op, Some(Cut { tile, parts: 1 })))
    }

    fn dgrad<B: Device>(
        &self,
        backend: &B,
        through_gelu: bool,
        run: impl FnOnce(&B, MatmulDgrad<'_, B>) -> Result<()>,
    ) -> Vec<f64> {
        let Inputs { n, c, oc, .. } = *self;
        let compute = |shape: [usize; 2], values: &[f64]| tight::<B, B::Compute>(backend, shape, values);
        let (dout, weight, pre) =
            (compute([n, oc], &self.dout), compute([oc, c], &self.weight), compute([n, c], &self.pre));
        let mut dx = Output::<B, B::Compute>::new(backend, [n, c]);
        let epilogue = if through_gelu { DgradEpilogue::DGelu { pre: pre.view() } } else { DgradEpilogue::None };
        run(backend, MatmulDgrad { dout: dout.view(), weight: weight.view(), epilogue, dx: dx.view() }).unwrap();
        dx.read(backend)
    }

    fn dgrad_by(&self, cuda: &Cuda, through_gelu: bool, tile: TileSize) -> Vec<f64> {
        self.dgrad(cuda, through_gelu, |cuda, op| matmul::dgrad(cuda, op, Some(Cut { tile, parts: 1 })))
    }

    /// `dweight` and `dbias`, onto nonzero gradients when they accumulate.
    fn wgrad<B: Device>(
        &self,
        backend: &B,
        with_bias: bool,
        write: Write,
        run: impl FnOnce(&B, MatmulWgrad<'_, B>) -> Result<()>,
    ) -> [Vec<f64>; 2] {
        let Inputs { n, c, oc, .. } = *self;
        let compute = |shape: [usize; 2], values: &[f64]| tight::<B, B::Compute>(backend, shape, values);
        let (dout, x) = (compute([n, oc], &self.dout), compute([n, c], &self.x));
        let mut dweight = Output::<B, B::Accum>::to(backend, [oc, c], write);
        let mut dbias = Output::<B, B::Accum>::to(backend, [oc], write);
        let op = MatmulWgrad {
            dout: dout.view(),
            x: x.view(),
            dweight: dweight.view(),
            dbias: with_bias.then(|| dbias.view()),
            write,
        };
        run(backend, op).unwrap();
        if !with_bias {
            dbias.assert_untouched(backend);
        }
        [dweight.read(backend), dbias.read(backend)]
    }

    fn wgrad_by(&self, cuda: &Cuda, with_bias: bool, write: Write, cut: Cut) -> [Vec<f64>; 2] {
        self.wgrad(cuda, with_bias, write, |cuda, op| matmul::wgrad(cuda, op, Some(cut)))
    }
}

/// Holds a product in bf16 against the reference in f64 and the formula in f32.
///
/// Sums of which next to nothing is left are held to the rounding of their terms instead, half a unit of a partial sum each:
/// in units of what is left it is as large as chance will have it, and other for every order of the sum.
fn judge(what: &str, terms: usize, mut got: Vec<f64>, mut reference: Vec<f64>, mut baseline: Vec<f64>) {
    let sum = (terms as f64).sqrt();
    for i in 0..reference.len() {
        if reference[i].abs() >= sum / 32.0 {
            continue;
        }
        let (error, allowed) =
            ((got[i] - reference[i]).abs(), reference[i].abs() / 256.0 + terms as f64 / 2f64.powi(24));
        assert!(error <= allowed, "{what}: element {i} is {}, not {} ± {allowed:e}", got[i], reference[i]);
        for values in [&mut got, &mut reference, &mut baseline] {
            values[i] = 0.0;
        }
    }
    Verdict { what, reference: &reference, baseline: &baseline, ulps: 0.55 }.pass::<bf16>(&got);
}

#[test]
fn forward_is_the_formula() {
    for ((tile, case @ (n, c, oc, why)), kind) in cases().flat_map(|case| KINDS.map(|kind| (case, kind))) {
        let inputs = Inputs::new(case);
        let cuda = shared();
        let [out, pre] = inputs.forward_by(&cuda, kind, tile);
        let gelu = kind == After::BiasGelu;
        // GELU follows the rounded pre-activation, which is the product with its bias.
        let (judged, product) = if gelu { (pre.clone(), After::Bias) } else { (out.clone(), kind) };
        let [reference, _] = inputs.forward(&Cpu::<f64>::new(), product, Cpu::matmul_forward);
        let [baseline, _] = inputs.forward(&Cpu::<f32>::new(), product, Cpu::matmul_forward);
        let what = format!("matmul_forward, {kind:?}, {tile:?}, N = {n}, C = {c}, OC = {oc} ({why})");
        judge(&what, c, judged, reference, baseline);
        if gelu {
            let x: Tensor<Cuda, bf16> = tight(&*cuda, [n, oc], &pre);
            let mut alone = Output::new(&*cuda, [n, oc]);
            cuda.gelu_forward(GeluForward { x: x.view(), out: alone.view() }).unwrap();
            assert_same_bits(&format!("gelu_forward of pre, {what}"), &alone.read(&cuda), &out);
        } else {
            assert!(pre.iter().all(|x| x.is_nan()), "{what}: wrote pre");
        }
    }
}

#[test]
fn dgrad_is_the_formula() {
    for ((tile, (n, c, oc, why)), gelu) in cases().flat_map(|case| [false, true].map(|gelu| (case, gelu))) {
        // The terms of a sum are OC here.
        let inputs = Inputs::new((n, oc, c, why));
        let got = inputs.dgrad_by(&shared(), gelu, tile);
        let reference = inputs.dgrad(&Cpu::<f64>::new(), gelu, Cpu::matmul_dgrad);
        let baseline = inputs.dgrad(&Cpu::<f32>::new(), gelu, Cpu::matmul_dgrad);
        let what = format!("matmul_dgrad dx, dGELU {gelu}, {tile:?}, N = {n}, C = {oc}, OC = {c} ({why})");
        judge(&what, c, got, reference, baseline);
    }
}

/// Tile, parts, N, C, OC and why.
const WGRAD: [(TileSize, usize, Case); 10] = [
    (TileSize::Small, 1, (1, 8, 8, "a vector of everything, one term")),
    (TileSize::Small, 1, (31, 64, 64, "a tile, a row short of a stage")),
    (TileSize::Small, 1, (33, 72, 72, "one past a stage, and a vector past a tile")),
    (TileSize::Small, 3, (300, 136, 72, "parts of 4, 4 and 2 stages, of which the last is no whole one")),
    (TileSize::Small, 16, (511, 8, 1096, "a part a stage; more than a group of tiles")),
    (TileSize::Large, 1, (1, 8, 8, "a vector of everything, one term")),
    (TileSize::Large, 1, (160, 256, 128, "a tile, more stages than there is room for")),
    (TileSize::Large, 2, (97, 264, 136, "two parts, the second with a single row in its last stage")),
    (TileSize::Large, 16, (2049, 40, 8, "one row past 64 stages")),
    (TileSize::Large, 1, (5, 264, 2056, "more than a group of tiles")),
];

#[test]
fn wgrad_is_the_formula() {
    for ((tile, parts, case @ (n, c, oc, why)), write) in
        WGRAD.iter().flat_map(|&case| WRITES.map(|write| (case, write)))
    {
        let inputs = Inputs::new(case);
        let cut = Cut { tile, parts };
        let got = inputs.wgrad_by(&shared(), true, write, cut);
        let reference = inputs.wgrad(&Cpu::<f64>::new(), true, write, Cpu::matmul_wgrad);
        let baseline = inputs.wgrad(&Cpu::<f32>::new(), true, write, Cpu::matmul_wgrad);
        for (i, name) in ["dweight", "dbias"].into_iter().enumerate() {
            let what = format!("matmul_wgrad {name}, {write:?}, {cut:?}, N = {n}, C = {c}, OC = {oc} ({why})");
            Verdict { what: &what, reference: &reference[i], baseline: &baseline[i], ulps: 256.0 }.pass::<f32>(&got[i]);
        }
        let [alone, _] = inputs.wgrad_by(&shared(), false, write, cut);
        assert_same_bits("matmul_wgrad dweight without bias", &alone, &got[0]);
    }
}

/// The backend's own choice is one of the two tiles, which give the same bits: a sum's order does not depend on the tile.
#[test]
fn tiles_give_the_same_bits() {
    let inputs = Inputs::new((70, 168, 264, ""));
    let cuda = shared();
    for kind in KINDS {
        let own = inputs.forward(&*cuda, kind, Cuda::matmul_forward);
        for tile in [TileSize::Small, TileSize::Large] {
            let got = inputs.forward_by(&cuda, kind, tile);
            assert_same_bits(&format!("matmul_forward, {kind:?}, {tile:?}"), &got.concat(), &own.concat());
        }
    }
    for gelu in [false, true] {
        let own = inputs.dgrad(&*cuda, gelu, Cuda::matmul_dgrad);
        for tile in [TileSize::Small, TileSize::Large] {
            assert_same_bits(&format!("matmul_dgrad, {tile:?}"), &inputs.dgrad_by(&cuda, gelu, tile), &own);
        }
    }
    // Of parts there is one, as more would not pay.
    let own = inputs.wgrad(&*cuda, true, Write::Accumulate, Cuda::matmul_wgrad);
    for tile in [TileSize::Small, TileSize::Large] {
        let got = inputs.wgrad_by(&cuda, true, Write::Accumulate, Cut { tile, parts: 1 });
        assert_same_bits(&format!("matmul_wgrad, {tile:?}"), &got.concat(), &own.concat());
    }
}

#[test]
fn bad_numbers_stay_in_their_row() {
    let (n, c, oc) = (70, 40, 72);
    let clean = Inputs::new((n, c, oc, ""));
    let cuda = shared();
    // Rows and columns of a result in which everything is bad, and nothing else.
    let held = |what: &str, got: &[f64], want: &[f64], columns: usize, bad: &dyn Fn(usize, usize) -> bool| {
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
        let [[got, _], [want, _]] = [&inputs, &clean].map(|inputs| inputs.forward_by(&cuda, After::None, tile));
        held(&format!("out, {tile:?}, {bad}"), &got, &want, oc, &|row, _| row == 65);
        let [got, want] = [&inputs, &clean].map(|inputs| inputs.dgrad_by(&cuda, false, tile));
        held(&format!("dx, {tile:?}, {bad}"), &got, &want, c, &|row, _| row == 3);
        let cut = Cut { tile, parts: 3 };
        let [got, want] = [&inputs, &clean].map(|inputs| inputs.wgrad_by(&cuda, true, Write::Overwrite, cut));
        held(&format!("dweight, {tile:?}, {bad}"), &got[0], &want[0], c, &|row, column| row == 50 || column == 9);
        held(&format!("dbias, {tile:?}, {bad}"), &got[1], &want[1], oc, &|_, column| column == 50);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
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

/// Bytes that blocks ask for, each tile's rows and columns once, and what the epilogue reads and writes.
#[test]
fn traffic_is_the_tiles() {
    let (n, c, oc) = (192, 96, 320);
    for (tile, rows, columns, threads) in [(TileSize::Small, 64, 64, 128), (TileSize::Large, 128, 256, 256)] {
        let Some(cuda) = alone() else { return };
        let inputs = Inputs::new((n, c, oc, ""));
        // Of a product (m, k) · (k, l): operands by the tiles that read them.
        let operands = |m: usize, k: usize, l: usize| 2 * (m * k * l.div_ceil(columns) + k * l * m.div_ceil(rows));
        let pass = |what: &str, bytes: usize, counts: Counts| {
            let what = format!("{what}, {tile:?}, N = {n}, C = {c}, OC = {oc}");
            let floor = Floor { bytes: bytes as u64, flops: 0 };
            Lean { what: &what, floor, bytes: 1.0, sectors: 1.0 }.pass(&counts);
        };
        for (kind, tensors) in KINDS.into_iter().zip([1, 1, 2, 2]) {
            // A vector of bias a lane whose columns are there: of the last tile of 256 a warp's.
            let lanes = threads * n.div_ceil(rows) * oc.div_ceil(64) / (columns / 64);
            let bias = if kind == After::None { 0 } else { 16 * lanes };
            let counts = cuda.count(|| drop(inputs.forward_by(&cuda, kind, tile)));
            pass(&format!("matmul_forward {kind:?}"), operands(n, c, oc) + 2 * tensors * n * oc + bias, counts);
        }
        for (gelu, tensors) in [(false, 1), (true, 2)] {
            let counts = cuda.count(|| drop(inputs.dgrad_by(&cuda, gelu, tile)));
            pass(&format!("matmul_dgrad, dGELU {gelu}"), operands(n, oc, c) + 2 * tensors * n * c, counts);
        }
        for (write, parts) in WRITES.into_iter().flat_map(|write| [(write, 1), (write, 3)]) {
            let sums = 4 * (oc * c + oc);
            let partials = if parts == 1 { 0 } else { 2 * parts };
            let accesses = if write == Write::Accumulate { 2 } else { 1 };
            let bytes = operands(oc, n, c) + (accesses + partials) * sums;
            let counts = cuda.count(|| drop(inputs.wgrad_by(&cuda, true, write, Cut { tile, parts })));
            pass(&format!("matmul_wgrad {write:?}, {parts} parts"), bytes, counts);
        }
    }
}
