//! The precondition of devices with vector accesses: last axes are multiples of [`ironwarp::tensor::Storage::VECTOR`].

use ironwarp::Result;
use ironwarp::ops::{
    AdamW, AdamWSettings, CrossEntropyBackward, CrossEntropyForward, DgradEpilogue, EmbeddingBackward,
    EmbeddingForward, Epilogue, GeluForward, GradNorm, LayerNormBackward, LayerNormForward, MatmulDgrad, MatmulForward,
    MatmulWgrad, Operation, ResidualLayerNormForward, Sample, UpdateGuard, Write,
};
use ironwarp::tensor::{Element, Tensor};

use crate::common::adamw::SETTINGS;
use crate::common::assert_rejected;
use crate::narrow::Narrow;

fn tensor<E: Element>(shape: &[usize]) -> Tensor<Narrow, E> {
    Tensor::zeros(&Narrow, shape).unwrap()
}

/// Fails unless `check` accepts the operation at size 16 and rejects 12, which is not a multiple of 8 but valid otherwise.
fn assert_vectors(operation: &str, axis: &str, mut check: impl FnMut(usize) -> Result<()>) {
    check(16).unwrap();
    assert_rejected(check(12), &format!("{operation}: {axis} % 8 == 0 failed ({axis} = 12)"));
}

#[test]
fn embedding() {
    let tokens = tensor::<i32>(&[2, 3]);
    assert_vectors("embedding_forward", "C", |c| {
        let (wte, wpe, mut out) = (tensor(&[7, c]), tensor(&[5, c]), tensor(&[2, 3, c]));
        let (wte, wpe, out) = (wte.view(), wpe.view(), out.view_mut());
        EmbeddingForward { tokens: tokens.view(), wte, wpe, position: 0, out }.check().map(drop)
    });
    assert_vectors("embedding_backward", "C", |c| {
        let (mut dwte, mut dwpe, dout) = (tensor(&[7, c]), tensor(&[5, c]), tensor(&[2, 3, c]));
        let (dwte, dwpe, dout) = (dwte.view_mut(), dwpe.view_mut(), dout.view());
        EmbeddingBackward { tokens: tokens.view(), dout, dwte, dwpe, write: Write::Overwrite }.check().map(drop)
    });
}

#[test]
fn layernorm() {
    let (mut mean, mut rstd) = (tensor(&[3]), tensor(&[3]));
    let mut forward = |c, with_residual| {
        let (x, weight, mut sum, mut out) = (tensor(&[3, c]), tensor(&[c]), tensor(&[3, c]), tensor(&[3, c]));
        let (x, weight, bias, out) = (x.view(), weight.view(), weight.view(), out.view_mut());
        let (mean, rstd) = (mean.view_mut(), rstd.view_mut());
        if with_residual {
            let (residual, sum) = (x, sum.view_mut());
            return ResidualLayerNormForward { x, residual, weight, bias, sum, out, mean, rstd }.check().map(drop);
        }
        LayerNormForward { x, weight, bias, out, mean, rstd }.check().map(drop)
    };
    for (operation, with_residual) in [("layernorm_forward", false), ("residual_layernorm_forward", true)] {
        forward(16, with_residual).unwrap();
        assert_rejected(forward(12, with_residual), &format!("{operation}: C % 8 == 0 failed (C = 12)"));
    }
    assert_vectors("layernorm_backward", "C", |c| {
        let (x, weight, mut dx, mean) = (tensor(&[3, c]), tensor(&[c]), tensor(&[3, c]), tensor(&[3]));
        let (mut dweight, mut dbias) = (tensor(&[c]), tensor(&[c]));
        let op = LayerNormBackward {
            dout: x.view(),
            x: x.view(),
            weight: weight.view(),
            mean: mean.view(),
            rstd: mean.view(),
            dx: dx.view_mut(),
            dx_write: Write::Overwrite,
            dweight: dweight.view_mut(),
            dbias: dbias.view_mut(),
            write: Write::Overwrite,
        };
        op.check().map(drop)
    });
}

#[test]
fn matmul() {
    let forward = |c, oc| {
        let (x, weight, mut out) = (tensor(&[3, c]), tensor(&[oc, c]), tensor(&[3, oc]));
        let (x, weight, out) = (x.view(), weight.view(), out.view_mut());
        MatmulForward { x, weight, epilogue: Epilogue::None, out }.check().map(drop)
    };
    let dgrad = |c, oc| {
        let (dout, weight, mut dx) = (tensor(&[3, oc]), tensor(&[oc, c]), tensor(&[3, c]));
        let (dout, weight, dx) = (dout.view(), weight.view(), dx.view_mut());
        MatmulDgrad { dout, weight, epilogue: DgradEpilogue::None, dx }.check().map(drop)
    };
    let wgrad = |c, oc| {
        let (dout, x, mut dweight) = (tensor(&[3, oc]), tensor(&[3, c]), tensor(&[oc, c]));
        let (dout, x, dweight) = (dout.view(), x.view(), dweight.view_mut());
        MatmulWgrad { dout, x, dweight, dbias: None, write: Write::Overwrite }.check().map(drop)
    };
    assert_vectors("matmul_forward", "C", |c| forward(c, 8));
    assert_vectors("matmul_forward", "OC", |oc| forward(8, oc));
    assert_vectors("matmul_dgrad", "C", |c| dgrad(c, 8));
    assert_vectors("matmul_dgrad", "OC", |oc| dgrad(8, oc));
    assert_vectors("matmul_wgrad", "C", |c| wgrad(c, 8));
    assert_vectors("matmul_wgrad", "OC", |oc| wgrad(8, oc));
}

#[test]
fn gelu() {
    assert_vectors("gelu_forward", "C", |c| {
        let (x, mut out) = (tensor(&[3, c]), tensor(&[3, c]));
        GeluForward { x: x.view(), out: out.view_mut() }.check().map(drop)
    });
}

#[test]
fn cross_entropy() {
    let targets = tensor(&[3]);
    assert_vectors("cross_entropy_forward", "Vp", |vp| {
        let (logits, mut losses) = (tensor(&[3, vp]), tensor(&[3]));
        let (logits, targets, losses) = (logits.view(), targets.view(), losses.view_mut());
        CrossEntropyForward { logits, targets, vocab: 5, losses }.check().map(drop)
    });
    assert_vectors("cross_entropy_backward", "Vp", |vp| {
        let (mut logits, mut losses) = (tensor(&[3, vp]), tensor(&[3]));
        let (logits, targets, losses) = (logits.view_mut(), targets.view(), losses.view_mut());
        CrossEntropyBackward { logits, targets, vocab: 5, scale: 1.0, losses }.check().map(drop)
    });
}

#[test]
fn grad_norm() {
    let mut norm = tensor(&[1]);
    assert_vectors("grad_norm", "P", |p| {
        let grad = tensor(&[p]);
        GradNorm { grad: grad.view(), norm: norm.view_mut() }.check().map(drop)
    });
}

#[test]
fn adamw() {
    let one = tensor(&[1]);
    let check = |p, first_index| {
        let (mut weight, grad) = (tensor(&[p]), tensor(&[p]));
        let [mut master, mut m, mut v] = [tensor(&[p]), tensor(&[p]), tensor(&[p])];
        let (norm, loss, limit) = (one.view(), one.view(), f32::INFINITY);
        let op = AdamW {
            weight: weight.view_mut(),
            master: Some(master.view_mut()),
            grad: grad.view(),
            m: m.view_mut(),
            v: v.view_mut(),
            guard: UpdateGuard { norm, loss, norm_limit: limit, loss_limit: limit },
            settings: AdamWSettings { first_index, ..SETTINGS },
        };
        op.check().map(drop)
    };
    assert_vectors("adamw", "P", |p| check(p, 8));
    assert_rejected(check(16, 12), "adamw: first_index % 8 == 0 failed (first_index = 12)");
}

#[test]
fn sample() {
    assert_vectors("sample", "Vp", |vp| {
        let (logits, mut tokens) = (tensor(&[3, vp]), tensor(&[3]));
        let (logits, tokens) = (logits.view(), tokens.view_mut());
        let (temperature, top_k, top_p, seed, draw) = (1.0, 5, 1.0, 0, 0);
        Sample { logits, vocab: 5, temperature, top_k, top_p, seed, draw, tokens }.check().map(drop)
    });
}
