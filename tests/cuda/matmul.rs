//! Matrix products with their epilogues, and both backward products.

use half::bf16;
use ironwarp::Result;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::cuda::matmul::{self, Cut, TileSize};
use ironwarp::ops::{Backend, DgradEpilogue, Epilogue, GeluForward, MatmulDgrad, MatmulForward, MatmulWgrad, Write};
use ironwarp::tensor::{Shape, Tensor};

use crate::emulator::shared;
use crate::judge::Verdict;
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
enum Kind {
    None,
    Bias,
    BiasGelu,
    BiasResidual,
}

const KINDS: [Kind; 4] = [Kind::None, Kind::Bias, Kind::BiasGelu, Kind::BiasResidual];

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
        let mut numbers = |len| draws.numbers(len).into_iter().map(|x| bf16::from_f64(x).to_f64()).collect();
        Inputs {
            n,
            c,
            oc,
            x: numbers(n * c),
            weight: numbers(oc * c),
            bias: numbers(oc),
            residual: numbers(n * oc),
            dout: numbers(n * oc),
            pre: numbers(n * c),
        }
    }

    /// `out`, and `pre`, which only [`Kind::BiasGelu`] writes.
    fn forward<B: Device>(
        &self,
        backend: &B,
        kind: Kind,
        run: impl FnOnce(&B, MatmulForward<'_, B>) -> Result<()>,
    ) -> [Vec<f64>; 2] {
        let Inputs { n, c, oc, .. } = *self;
        let compute = |shape: Shape, values: &[f64]| tight::<B, B::Compute>(backend, shape, values);
        let (x, weight) = (compute([n, c].into(), &self.x), compute([oc, c].into(), &self.weight));
        let (bias, residual) = (compute([oc].into(), &self.bias), compute([n, oc].into(), &self.residual));
        let [mut out, mut pre] = [(); 2].map(|()| Output::<B, B::Compute>::new(backend, [n, oc]));
        let epilogue = match kind {
            Kind::None => Epilogue::None,
            Kind::Bias => Epilogue::Bias { bias: bias.view() },
            Kind::BiasGelu => Epilogue::BiasGelu { bias: bias.view(), pre: pre.view() },
            Kind::BiasResidual => Epilogue::BiasResidual { bias: bias.view(), residual: residual.view() },
        };
        run(backend, MatmulForward { x: x.view(), weight: weight.view(), epilogue, out: out.view() }).unwrap();
        [out.read(backend), pre.read(backend)]
    }

    fn forward_by(&self, cuda: &Cuda, kind: Kind, tile: TileSize) -> [Vec<f64>; 2] {
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

#[test]
fn forward_is_the_formula() {
    for ((tile, case @ (n, c, oc, why)), kind) in cases().flat_map(|case| KINDS.map(|kind| (case, kind))) {
        let inputs = Inputs::new(case);
        let got = inputs.forward_by(&shared(), kind, tile);
        let reference = inputs.forward(&Cpu::<f64>::new(), kind, Cpu::matmul_forward);
        let baseline = inputs.forward(&Cpu::<f32>::new(), kind, Cpu::matmul_forward);
        for (i, name) in ["out", "pre"].into_iter().enumerate() {
            if name == "pre" && kind != Kind::BiasGelu {
                assert!(got[i].iter().all(|x| x.is_nan()), "{kind:?} wrote pre");
                continue;
            }
            let what = format!("matmul_forward {name}, {kind:?}, {tile:?}, N = {n}, C = {c}, OC = {oc} ({why})");
            Verdict { what: &what, reference: &reference[i], baseline: &baseline[i], ulps: 1.0 }.pass::<bf16>(&got[i]);
        }
    }
}

#[test]
fn dgrad_is_the_formula() {
    for ((tile, case @ (n, c, oc, why)), gelu) in cases().flat_map(|case| [false, true].map(|gelu| (case, gelu))) {
        // The terms of a sum are OC here.
        let inputs = Inputs::new((n, oc, c, why));
        let got = inputs.dgrad_by(&shared(), gelu, tile);
        let reference = inputs.dgrad(&Cpu::<f64>::new(), gelu, Cpu::matmul_dgrad);
        let baseline = inputs.dgrad(&Cpu::<f32>::new(), gelu, Cpu::matmul_dgrad);
        let what = format!("matmul_dgrad dx, dGELU {gelu}, {tile:?}, N = {n}, C = {oc}, OC = {c} ({why})");
        Verdict { what: &what, reference: &reference, baseline: &baseline, ulps: 1.0 }.pass::<bf16>(&got);
    }
}
