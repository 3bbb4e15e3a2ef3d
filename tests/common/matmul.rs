//! Linear layers: host values of their inputs, and calls of the three products on any backend.

use ironwarp::Result;
use ironwarp::ops::{DgradEpilogue, Epilogue, MatmulDgrad, MatmulForward, MatmulWgrad, Write};
use ironwarp::tensor::{View, ViewMut};

use super::{Device, Draws, Input, Output};

/// An [`Epilogue`] of the forward product, without its tensors.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EpilogueKind {
    None,
    Bias,
    BiasGelu,
    BiasResidual,
}

impl EpilogueKind {
    /// All epilogues.
    pub const ALL: [EpilogueKind; 4] =
        [EpilogueKind::None, EpilogueKind::Bias, EpilogueKind::BiasGelu, EpilogueKind::BiasResidual];

    /// The epilogue with those of the tensors that it uses.
    pub fn with<'a, B: Device>(
        self,
        bias: View<'a, B, B::Compute>,
        residual: View<'a, B, B::Compute>,
        pre: ViewMut<'a, B, B::Compute>,
    ) -> Epilogue<'a, B> {
        match self {
            EpilogueKind::None => Epilogue::None,
            EpilogueKind::Bias => Epilogue::Bias { bias },
            EpilogueKind::BiasGelu => Epilogue::BiasGelu { bias, pre },
            EpilogueKind::BiasResidual => Epilogue::BiasResidual { bias, residual },
        }
    }
}

/// Inputs of all three products.
#[derive(Clone)]
pub struct Inputs {
    pub n: usize,
    pub c: usize,
    pub oc: usize,
    /// (N, C)
    pub x: Vec<f64>,
    /// (OC, C)
    pub weight: Vec<f64>,
    /// (OC)
    pub bias: Vec<f64>,
    /// (N, OC)
    pub residual: Vec<f64>,
    /// (N, OC)
    pub dout: Vec<f64>,
    /// (N, C): the pre-activation of the layer before, for dgrad's dGELU epilogue.
    pub pre: Vec<f64>,
}

impl Inputs {
    /// Random values in [-1, 1), exact in f32.
    pub fn new(n: usize, c: usize, oc: usize) -> Self {
        let mut draws = Draws::new(1);
        Inputs {
            n,
            c,
            oc,
            x: draws.numbers(n * c),
            weight: draws.numbers(oc * c),
            bias: draws.numbers(oc),
            residual: draws.numbers(n * oc),
            dout: draws.numbers(n * oc),
            pre: draws.numbers(n * c),
        }
    }

    /// `out`, and `pre`, which only [`EpilogueKind::BiasGelu`] writes, of the forward product by `run`.
    pub fn forward<B: Device>(
        &self,
        backend: &B,
        kind: EpilogueKind,
        run: impl FnOnce(&B, MatmulForward<'_, B>) -> Result<()>,
    ) -> [Vec<f64>; 2] {
        let Inputs { n, c, oc, .. } = *self;
        let x = compute(backend, [n, c], &self.x);
        let weight = compute(backend, [oc, c], &self.weight);
        let bias = Input::<B, B::Compute>::to_buffer_end(backend, [oc], &self.bias);
        let residual = compute(backend, [n, oc], &self.residual);
        // Leading axes may divide the rows in any way.
        let (mut out, mut pre) = (Output::new(backend, [n, 1, oc]), Output::new(backend, [n, oc]));
        let epilogue = kind.with(bias.view(), residual.view(), pre.view());
        run(backend, MatmulForward { x: x.view(), weight: weight.view(), epilogue, out: out.view() }).unwrap();
        [out.read(backend), pre.read(backend)]
    }

    /// `dx` of the product by `run`.
    pub fn dgrad<B: Device>(
        &self,
        backend: &B,
        through_gelu: bool,
        run: impl FnOnce(&B, MatmulDgrad<'_, B>) -> Result<()>,
    ) -> Vec<f64> {
        let Inputs { n, c, oc, .. } = *self;
        let dout = compute(backend, [n, oc], &self.dout);
        let weight = compute(backend, [oc, c], &self.weight);
        let pre = compute(backend, [n, c], &self.pre);
        let mut dx = Output::<B, B::Compute>::new(backend, [n, c]);
        let epilogue = if through_gelu { DgradEpilogue::DGelu { pre: pre.view() } } else { DgradEpilogue::None };
        run(backend, MatmulDgrad { dout: dout.view(), weight: weight.view(), epilogue, dx: dx.view() }).unwrap();
        dx.read(backend)
    }

    /// `dweight` and `dbias` of the product by `run`; accumulated gradients start nonzero. Without a bias, `dbias` must
    /// stay untouched.
    pub fn wgrad<B: Device>(
        &self,
        backend: &B,
        with_bias: bool,
        write: Write,
        run: impl FnOnce(&B, MatmulWgrad<'_, B>) -> Result<()>,
    ) -> [Output<B, B::Accum>; 2] {
        let Inputs { n, c, oc, .. } = *self;
        let (dout, x) = (compute(backend, [n, oc], &self.dout), compute(backend, [n, c], &self.x));
        let mut dweight = Output::to(backend, [oc, c], write);
        let mut dbias = Output::to(backend, [oc], write);
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
        [dweight, dbias]
    }
}

fn compute<B: Device>(backend: &B, shape: [usize; 2], values: &[f64]) -> Input<B, B::Compute> {
    Input::to_buffer_end(backend, shape, values)
}
