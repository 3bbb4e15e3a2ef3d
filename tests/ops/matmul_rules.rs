//! Linear layers: their preconditions and their floors.

use ironwarp::cpu::Cpu;
use ironwarp::ops::{DgradEpilogue, Epilogue, Floor, MatmulDgrad, MatmulForward, MatmulWgrad, Operation, Write};
use ironwarp::tensor::{Shape, Tensor};

use crate::common::matmul::EpilogueKind;
use crate::common::*;

/// Shapes of a call, valid unless edited: N = 6, C = 4, OC = 3. In a backward, a field is the shape of that tensor's gradient.
#[derive(Clone)]
struct Call {
    x: Shape,
    weight: Shape,
    bias: Shape,
    /// `pre` or `residual` of the forward, `pre` of the backward.
    side: Shape,
    out: Shape,
}

impl Call {
    fn new(edit: impl FnOnce(&mut Call)) -> Self {
        let (x, weight, bias) = ([6, 4].into(), [3, 4].into(), [3].into());
        let mut call = Call { x, weight, bias, side: [6, 3].into(), out: [2, 3, 3].into() };
        edit(&mut call);
        call
    }
}

fn reject_forward<B: Device>(backend: &B, kind: EpilogueKind, message: &str, edit: impl FnOnce(&mut Call)) {
    let call = Call::new(edit);
    let mut draws = Draws::new(1);
    let x: Input<B, B::Compute> = draws.input(backend, call.x);
    let weight: Input<B, B::Compute> = draws.input(backend, call.weight);
    let bias: Input<B, B::Compute> = draws.input(backend, call.bias);
    let residual: Input<B, B::Compute> = draws.input(backend, call.side);
    let (mut pre, mut out) = (Output::new(backend, call.side), Output::new(backend, call.out));
    let epilogue = kind.with(bias.view(), residual.view(), pre.view());
    let op = MatmulForward { x: x.view(), weight: weight.view(), epilogue, out: out.view() };
    assert_rejected(backend.matmul_forward(op), &format!("matmul_forward: {message}"));
    out.assert_untouched(backend);
    pre.assert_untouched(backend);
}

#[test]
fn forward_rejects_violated_preconditions() {
    use EpilogueKind::{Bias, BiasGelu, BiasResidual, None};
    let backend = Cpu::<f32>::new();
    let rejected = |kind, message, edit: fn(&mut Call)| reject_forward(&backend, kind, message, edit);
    rejected(None, "x not empty failed (x is (0, 4))", |call| call.x = [0, 4].into());
    rejected(None, "weight not empty failed (weight is (0, 4))", |call| call.weight = [0, 4].into());
    rejected(None, "weight (OC, C) == (3, 4) failed (weight is (3, 5))", |call| call.weight = [3, 5].into());
    rejected(None, "weight (OC, C) == (3, 4) failed (weight is (3, 1, 4))", |call| call.weight = [3, 1, 4].into());
    rejected(None, "out (N, OC) == (6, 3) failed (out is (6, 4))", |call| call.out = [6, 4].into());
    rejected(None, "out (N, OC) == (6, 3) failed (out is (18))", |call| call.out = [18].into());
    for kind in [Bias, BiasGelu, BiasResidual] {
        rejected(kind, "bias (OC) == (3) failed (bias is (4))", |call| call.bias = [4].into());
    }
    rejected(BiasGelu, "pre (N, OC) == (6, 3) failed (pre is (5, 3))", |call| call.side = [5, 3].into());
    rejected(BiasResidual, "residual (N, OC) == (6, 3) failed (residual is (6, 2))", |call| call.side = [6, 2].into());
}

/// `side` is the shape of `pre`, (N, C).
fn reject_dgrad<B: Device>(backend: &B, message: &str, edit: impl FnOnce(&mut Call)) {
    let call = Call::new(|call| {
        call.side = [6, 4].into();
        edit(call);
    });
    let mut draws = Draws::new(2);
    let dout: Input<B, B::Compute> = draws.input(backend, call.out);
    let weight: Input<B, B::Compute> = draws.input(backend, call.weight);
    let pre: Input<B, B::Compute> = draws.input(backend, call.side);
    let mut dx = Output::new(backend, call.x);
    let epilogue = DgradEpilogue::DGelu { pre: pre.view() };
    let op = MatmulDgrad { dout: dout.view(), weight: weight.view(), epilogue, dx: dx.view() };
    assert_rejected(backend.matmul_dgrad(op), &format!("matmul_dgrad: {message}"));
    dx.assert_untouched(backend);
}

#[test]
fn dgrad_rejects_violated_preconditions() {
    let backend = Cpu::<f32>::new();
    let rejected = |message, edit: fn(&mut Call)| reject_dgrad(&backend, message, edit);
    rejected("dout not empty failed (dout is (0, 3))", |call| call.out = [0, 3].into());
    rejected("weight not empty failed (weight is (3, 0))", |call| call.weight = [3, 0].into());
    rejected("dout (N, OC) == (6, 3) failed (dout is (6, 4))", |call| call.out = [6, 4].into());
    rejected("dx (N, C) == (6, 4) failed (dx is (5, 4))", |call| call.x = [5, 4].into());
    rejected("pre (N, C) == (6, 4) failed (pre is (6, 5))", |call| call.side = [6, 5].into());
}

fn reject_wgrad<B: Device>(backend: &B, message: &str, edit: impl FnOnce(&mut Call)) {
    let call = Call::new(edit);
    let mut draws = Draws::new(3);
    let dout: Input<B, B::Compute> = draws.input(backend, call.out);
    let x: Input<B, B::Compute> = draws.input(backend, call.x);
    let mut dweight = Output::to(backend, call.weight, Write::Accumulate);
    let mut dbias = Output::to(backend, call.bias, Write::Accumulate);
    let op = MatmulWgrad {
        dout: dout.view(),
        x: x.view(),
        dweight: dweight.view(),
        dbias: Some(dbias.view()),
        write: Write::Accumulate,
    };
    assert_rejected(backend.matmul_wgrad(op), &format!("matmul_wgrad: {message}"));
    dweight.assert_untouched(backend);
    dbias.assert_untouched(backend);
}

#[test]
fn wgrad_rejects_violated_preconditions() {
    let backend = Cpu::<f32>::new();
    let rejected = |message, edit: fn(&mut Call)| reject_wgrad(&backend, message, edit);
    rejected("dout not empty failed (dout is (2, 0, 3))", |call| call.out = [2, 0, 3].into());
    rejected("x not empty failed (x is (6, 0))", |call| call.x = [6, 0].into());
    rejected("x (N, C) == (6, 4) failed (x is (5, 4))", |call| call.x = [5, 4].into());
    rejected("dweight (OC, C) == (3, 4) failed (dweight is (4, 3))", |call| call.weight = [4, 3].into());
    rejected("dbias (OC) == (3) failed (dbias is (2))", |call| call.bias = [2].into());
}

/// N = 2, C = 3, OC = 5 in f32: 6 + 15 + 10 elements and 2·30 FLOPs, and what the epilogue reads or writes.
#[test]
fn floors_by_hand() {
    type T = Tensor<Cpu<f32>, f32>;
    let backend = Cpu::<f32>::new();
    let zeros = |shape: &[usize]| T::zeros(&backend, shape).unwrap();
    let (x, weight, bias, rows) = (zeros(&[2, 3]), zeros(&[5, 3]), zeros(&[5]), zeros(&[2, 5]));
    let (mut outs, mut pre, mut dx) = ([(); 4].map(|()| zeros(&[2, 5])), zeros(&[2, 5]), zeros(&[2, 3]));
    let (x, weight, bias, rows) = (x.view(), weight.view(), bias.view(), rows.view());
    let epilogues: [(Epilogue<'_, Cpu<f32>>, u64); 4] = [
        (Epilogue::None, 31),
        (Epilogue::Bias { bias }, 36),
        (Epilogue::BiasGelu { bias, pre: pre.view_mut() }, 46),
        (Epilogue::BiasResidual { bias, residual: rows }, 46),
    ];
    for ((epilogue, floats), out) in epilogues.into_iter().zip(&mut outs) {
        let op = MatmulForward { x, weight, epilogue, out: out.view_mut() };
        assert_eq!(op.floor(), Floor { bytes: floats * 4, flops: 60 });
    }
    for (epilogue, floats) in [(DgradEpilogue::None, 31), (DgradEpilogue::DGelu { pre: x }, 37)] {
        let op: MatmulDgrad<'_, Cpu<f32>> = MatmulDgrad { dout: rows, weight, epilogue, dx: dx.view_mut() };
        assert_eq!(op.floor(), Floor { bytes: floats * 4, flops: 60 });
    }
    // 10 + 6 elements read; 15 weights and 5 biases written, or read and written.
    let (mut dweight, mut dbias) = (zeros(&[5, 3]), zeros(&[5]));
    for (write, with_bias, floats) in
        [(Write::Overwrite, false, 31), (Write::Overwrite, true, 36), (Write::Accumulate, true, 56)]
    {
        let dbias = with_bias.then(|| dbias.view_mut());
        let op: MatmulWgrad<'_, Cpu<f32>> = MatmulWgrad { dout: rows, x, dweight: dweight.view_mut(), dbias, write };
        assert_eq!(op.floor(), Floor { bytes: floats * 4, flops: 60 });
    }
}
