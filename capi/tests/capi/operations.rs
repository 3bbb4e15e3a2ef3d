//! Each C function gives the same bits as the operation in Rust, whose kernels `tests/cuda` compares with the reference.

use std::ptr::{null, null_mut};

use cudarc::driver::sys::CUstream;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{self, Backend, DgradEpilogue, Write};
use ironwarp::tensor::{Element, Tensor};
use ironwarp_capi::*;

use crate::support::{Program, ok, ptr};

/// Panics unless two tensors hold the same bits.
#[track_caller]
pub fn same<E: Element>(cuda: &Cuda, name: &str, found: &Tensor<Cuda, E>, want: &Tensor<Cuda, E>) {
    let (found, want) = (found.to_vec(cuda).unwrap(), want.to_vec(cuda).unwrap());
    let bytes = |values: &[E]| -> Vec<u8> { bytemuck::cast_slice(values).to_vec() };
    assert!(bytes(&found) == bytes(&want), "{name}: {found:?} and {want:?}");
}

/// Numbers that are not negative, as a second moment has them.
fn squares(program: &Program, seed: u64, len: usize) -> Tensor<Cuda, f32> {
    let values = program.f32(seed, [len]).to_vec(&program.cuda).unwrap();
    Tensor::from_vec(&program.cuda, [len], values.iter().map(|x| x * x).collect()).unwrap()
}

pub fn stream(program: &Program) -> CUstream {
    program.stream.cu_stream()
}

#[test]
fn layernorm() {
    let program = Program::new();
    let cuda = &program.cuda;
    let (n, c) = (5, 72);
    let (x, weight, bias) = (program.bf16(1, [n, c]), program.bf16(2, [c]), program.bf16(3, [c]));
    let outputs = || (program.bf16(4, [n, c]), program.f32(5, [n]), program.f32(6, [n]));
    let ((out, mean, rstd), (mut want_out, mut want_mean, mut want_rstd)) = (outputs(), outputs());
    let args = LayernormForward {
        x: ptr(&x),
        weight: ptr(&weight),
        bias: ptr(&bias),
        out: ptr(&out),
        mean: ptr(&mean),
        rstd: ptr(&rstd),
        n: n as i64,
        c: c as i64,
    };
    // SAFETY: the tensors have the sizes of the arguments.
    ok(unsafe { ironwarp_layernorm_forward(&args, stream(&program)) });
    cuda.layernorm_forward(ops::LayerNormForward {
        x: x.view(),
        weight: weight.view(),
        bias: bias.view(),
        out: want_out.view_mut(),
        mean: want_mean.view_mut(),
        rstd: want_rstd.view_mut(),
    })
    .unwrap();
    same(cuda, "out", &out, &want_out);
    same(cuda, "mean", &mean, &want_mean);
    same(cuda, "rstd", &rstd, &want_rstd);

    let residual = program.bf16(7, [n, c]);
    let (sum, mut want_sum) = (program.bf16(8, [n, c]), program.bf16(8, [n, c]));
    let args = ResidualLayernormForward {
        x: ptr(&x),
        residual: ptr(&residual),
        weight: ptr(&weight),
        bias: ptr(&bias),
        sum: ptr(&sum),
        out: ptr(&out),
        mean: ptr(&mean),
        rstd: ptr(&rstd),
        n: n as i64,
        c: c as i64,
    };
    // SAFETY: as above.
    ok(unsafe { ironwarp_residual_layernorm_forward(&args, stream(&program)) });
    cuda.residual_layernorm_forward(ops::ResidualLayerNormForward {
        x: x.view(),
        residual: residual.view(),
        weight: weight.view(),
        bias: bias.view(),
        sum: want_sum.view_mut(),
        out: want_out.view_mut(),
        mean: want_mean.view_mut(),
        rstd: want_rstd.view_mut(),
    })
    .unwrap();
    same(cuda, "sum", &sum, &want_sum);
    same(cuda, "out", &out, &want_out);

    for accumulate in [0, 1] {
        let dout = program.bf16(9, [n, c]);
        let gradients = || (program.bf16(10, [n, c]), program.f32(11, [c]), program.f32(12, [c]));
        let ((dx, dweight, dbias), (mut want_dx, mut want_dweight, mut want_dbias)) = (gradients(), gradients());
        let args = LayernormBackward {
            dout: ptr(&dout),
            x: ptr(&sum),
            weight: ptr(&weight),
            mean: ptr(&mean),
            rstd: ptr(&rstd),
            dx: ptr(&dx),
            dweight: ptr(&dweight),
            dbias: ptr(&dbias),
            n: n as i64,
            c: c as i64,
            accumulate_dx: 1 - accumulate,
            accumulate,
        };
        let mut bytes = 0;
        // SAFETY: as above.
        ok(unsafe { ironwarp_layernorm_backward_workspace_size(&args, &mut bytes) });
        let (_memory, workspace) = program.workspace(bytes);
        // SAFETY: as above.
        ok(unsafe { ironwarp_layernorm_backward(&args, workspace, stream(&program)) });
        let write = |accumulate| if accumulate == 1 { Write::Accumulate } else { Write::Overwrite };
        cuda.layernorm_backward(ops::LayerNormBackward {
            dout: dout.view(),
            x: sum.view(),
            weight: weight.view(),
            mean: mean.view(),
            rstd: rstd.view(),
            dx: want_dx.view_mut(),
            dx_write: write(1 - accumulate),
            dweight: want_dweight.view_mut(),
            dbias: want_dbias.view_mut(),
            write: write(accumulate),
        })
        .unwrap();
        same(cuda, "dx", &dx, &want_dx);
        same(cuda, "dweight", &dweight, &want_dweight);
        same(cuda, "dbias", &dbias, &want_dbias);
    }
}

#[test]
fn matmul_forward() {
    let program = Program::new();
    let cuda = &program.cuda;
    let (n, c, oc) = (20, 40, 24);
    let (x, weight, bias) = (program.bf16(1, [n, c]), program.bf16(2, [oc, c]), program.bf16(3, [oc]));
    let residual = program.bf16(4, [n, oc]);
    for epilogue in [Epilogue::None, Epilogue::Bias, Epilogue::BiasGelu, Epilogue::BiasResidual] {
        let outputs = || (program.bf16(5, [n, oc]), program.bf16(6, [n, oc]));
        let ((pre, out), (mut want_pre, mut want_out)) = (outputs(), outputs());
        let args = MatmulForward {
            x: ptr(&x),
            weight: ptr(&weight),
            bias: ptr(&bias),
            residual: ptr(&residual),
            pre: ptr(&pre),
            out: ptr(&out),
            n: n as i64,
            c: c as i64,
            oc: oc as i64,
            epilogue: epilogue as i32,
        };
        // SAFETY: the tensors have the sizes of the arguments.
        ok(unsafe { ironwarp_matmul_forward(&args, stream(&program)) });
        cuda.matmul_forward(ops::MatmulForward {
            x: x.view(),
            weight: weight.view(),
            epilogue: match epilogue {
                Epilogue::None => ops::Epilogue::None,
                Epilogue::Bias => ops::Epilogue::Bias { bias: bias.view() },
                Epilogue::BiasGelu => ops::Epilogue::BiasGelu { bias: bias.view(), pre: want_pre.view_mut() },
                Epilogue::BiasResidual => ops::Epilogue::BiasResidual { bias: bias.view(), residual: residual.view() },
            },
            out: want_out.view_mut(),
        })
        .unwrap();
        same(cuda, &format!("out, {epilogue:?}"), &out, &want_out);
        same(cuda, &format!("pre, {epilogue:?}"), &pre, &want_pre);
    }
}

#[test]
fn matmul_backward() {
    let program = Program::new();
    let cuda = &program.cuda;
    let (n, c, oc) = (300, 24, 16);
    let (x, weight, dout) = (program.bf16(1, [n, c]), program.bf16(2, [oc, c]), program.bf16(3, [n, oc]));
    let pre = program.bf16(4, [n, c]);
    for with_gelu in [false, true] {
        let (dx, mut want_dx) = (program.bf16(5, [n, c]), program.bf16(5, [n, c]));
        let args = MatmulDgrad {
            dout: ptr(&dout),
            weight: ptr(&weight),
            pre: if with_gelu { ptr(&pre) } else { null_mut() },
            dx: ptr(&dx),
            n: n as i64,
            c: c as i64,
            oc: oc as i64,
        };
        // SAFETY: the tensors have the sizes of the arguments.
        ok(unsafe { ironwarp_matmul_dgrad(&args, stream(&program)) });
        let epilogue = if with_gelu { DgradEpilogue::DGelu { pre: pre.view() } } else { DgradEpilogue::None };
        cuda.matmul_dgrad(ops::MatmulDgrad {
            dout: dout.view(),
            weight: weight.view(),
            epilogue,
            dx: want_dx.view_mut(),
        })
        .unwrap();
        same(cuda, "dx", &dx, &want_dx);
    }
    for (with_bias, accumulate) in [(true, 0), (true, 1), (false, 1)] {
        let gradients = || (program.f32(6, [oc, c]), program.f32(7, [oc]));
        let ((dweight, dbias), (mut want_dweight, mut want_dbias)) = (gradients(), gradients());
        let args = MatmulWgrad {
            dout: ptr(&dout),
            x: ptr(&x),
            dweight: ptr(&dweight),
            dbias: if with_bias { ptr(&dbias) } else { null_mut() },
            n: n as i64,
            c: c as i64,
            oc: oc as i64,
            accumulate,
        };
        let mut bytes = 0;
        // SAFETY: as above.
        ok(unsafe { ironwarp_matmul_wgrad_workspace_size(&args, &mut bytes) });
        let (_memory, workspace) = program.workspace(bytes);
        // SAFETY: as above.
        ok(unsafe { ironwarp_matmul_wgrad(&args, workspace, stream(&program)) });
        cuda.matmul_wgrad(ops::MatmulWgrad {
            dout: dout.view(),
            x: x.view(),
            dweight: want_dweight.view_mut(),
            dbias: with_bias.then(|| want_dbias.view_mut()),
            write: if accumulate == 1 { Write::Accumulate } else { Write::Overwrite },
        })
        .unwrap();
        same(cuda, "dweight", &dweight, &want_dweight);
        same(cuda, "dbias", &dbias, &want_dbias);
    }
}

#[test]
fn cross_entropy() {
    let program = Program::new();
    let cuda = &program.cuda;
    let (n, v, vp) = (6, 50, 56);
    let (logits, targets) = (program.bf16(1, [n, vp]), program.ids(v as i32, [n]));
    let (losses, mut want_losses) = (program.f32(2, [n]), program.f32(2, [n]));
    let args = CrossEntropyForward {
        logits: ptr(&logits),
        targets: ptr(&targets),
        losses: ptr(&losses),
        n: n as i64,
        v: v as i64,
        vp: vp as i64,
    };
    // SAFETY: the tensors have the sizes of the arguments.
    ok(unsafe { ironwarp_cross_entropy_forward(&args, stream(&program)) });
    cuda.cross_entropy_forward(ops::CrossEntropyForward {
        logits: logits.view(),
        targets: targets.view(),
        vocab: v,
        losses: want_losses.view_mut(),
    })
    .unwrap();
    same(cuda, "losses", &losses, &want_losses);
    let mut want_logits = program.bf16(1, [n, vp]);
    let args = CrossEntropyBackward {
        logits: ptr(&logits),
        targets: ptr(&targets),
        losses: ptr(&losses),
        n: n as i64,
        v: v as i64,
        vp: vp as i64,
        scale: 0.25,
    };
    // SAFETY: as above.
    ok(unsafe { ironwarp_cross_entropy_backward(&args, stream(&program)) });
    cuda.cross_entropy_backward(ops::CrossEntropyBackward {
        logits: want_logits.view_mut(),
        targets: targets.view(),
        vocab: v,
        scale: 0.25,
        losses: want_losses.view_mut(),
    })
    .unwrap();
    same(cuda, "dlogits", &logits, &want_logits);
    same(cuda, "losses", &losses, &want_losses);
}

#[test]
fn embedding() {
    let program = Program::new();
    let cuda = &program.cuda;
    let (b, t, c, vp, t_max) = (2, 3, 16, 24, 8);
    let (tokens, wte, wpe) = (program.ids(20, [b, t]), program.bf16(1, [vp, c]), program.bf16(2, [t_max, c]));
    let (out, mut want_out) = (program.bf16(3, [b, t, c]), program.bf16(3, [b, t, c]));
    let args = EmbeddingForward {
        tokens: ptr(&tokens),
        wte: ptr(&wte),
        wpe: ptr(&wpe),
        out: ptr(&out),
        b: b as i64,
        t: t as i64,
        c: c as i64,
        vp: vp as i64,
        t_max: t_max as i64,
        position: 4,
    };
    // SAFETY: the tensors have the sizes of the arguments.
    ok(unsafe { ironwarp_embedding_forward(&args, stream(&program)) });
    cuda.embedding_forward(ops::EmbeddingForward {
        tokens: tokens.view(),
        wte: wte.view(),
        wpe: wpe.view(),
        position: 4,
        out: want_out.view_mut(),
    })
    .unwrap();
    same(cuda, "out", &out, &want_out);
    let gradients = || (program.f32(4, [vp, c]), program.f32(5, [t_max, c]));
    let ((dwte, dwpe), (mut want_dwte, mut want_dwpe)) = (gradients(), gradients());
    let args = EmbeddingBackward {
        tokens: ptr(&tokens),
        dout: ptr(&out),
        dwte: ptr(&dwte),
        dwpe: ptr(&dwpe),
        b: b as i64,
        t: t as i64,
        c: c as i64,
        vp: vp as i64,
        t_max: t_max as i64,
        accumulate: 1,
    };
    let mut bytes = 0;
    // SAFETY: as above.
    ok(unsafe { ironwarp_embedding_backward_workspace_size(&args, &mut bytes) });
    let (_memory, workspace) = program.workspace(bytes);
    // SAFETY: as above.
    ok(unsafe { ironwarp_embedding_backward(&args, workspace, stream(&program)) });
    cuda.embedding_backward(ops::EmbeddingBackward {
        tokens: tokens.view(),
        dout: out.view(),
        dwte: want_dwte.view_mut(),
        dwpe: want_dwpe.view_mut(),
        write: Write::Accumulate,
    })
    .unwrap();
    same(cuda, "dwte", &dwte, &want_dwte);
    same(cuda, "dwpe", &dwpe, &want_dwpe);
}

#[test]
fn adamw() {
    let program = Program::new();
    let cuda = &program.cuda;
    let p = 64;
    let (grad, norm, mut want_norm) = (program.f32(1, [p]), program.f32(2, [1]), program.f32(2, [1]));
    let args = GradNorm { grad: ptr(&grad), norm: ptr(&norm), p: p as i64 };
    let mut bytes = 0;
    // SAFETY: the tensors have the sizes of the arguments.
    ok(unsafe { ironwarp_grad_norm_workspace_size(&args, &mut bytes) });
    let (_memory, workspace) = program.workspace(bytes);
    // SAFETY: as above.
    ok(unsafe { ironwarp_grad_norm(&args, workspace, stream(&program)) });
    cuda.grad_norm(ops::GradNorm { grad: grad.view(), norm: want_norm.view_mut() }).unwrap();
    same(cuda, "norm", &norm, &want_norm);
    for has_loss in [false, true] {
        let state = || (program.bf16(3, [p]), program.f32(3, [p]), program.f32(4, [p]), squares(&program, 5, p));
        let (weight, master, m, v) = state();
        let (mut want_weight, mut want_master, mut want_m, mut want_v) = state();
        let loss = program.f32(6, [1]);
        let args = Adamw {
            weight: ptr(&weight),
            master: ptr(&master),
            grad: ptr(&grad),
            m: ptr(&m),
            v: ptr(&v),
            norm: ptr(&norm),
            loss: if has_loss { ptr(&loss) } else { null() },
            p: p as i64,
            step: 3,
            seed: 7,
            first_index: 8,
            learning_rate: 0.1,
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            max_norm: 1.0,
        };
        // SAFETY: as above.
        ok(unsafe { ironwarp_adamw(&args, stream(&program)) });
        cuda.adamw(ops::AdamW {
            weight: want_weight.view_mut(),
            master: Some(want_master.view_mut()),
            grad: grad.view(),
            m: want_m.view_mut(),
            v: want_v.view_mut(),
            guard: ops::UpdateGuard {
                norm: norm.view(),
                loss: loss.view(),
                norm_limit: f32::INFINITY,
                loss_limit: f32::INFINITY,
            },
            settings: ops::AdamWSettings {
                learning_rate: 0.1,
                beta1: 0.9,
                beta2: 0.95,
                eps: 1e-8,
                weight_decay: 0.1,
                step: 3,
                max_norm: 1.0,
                seed: 7,
                first_index: 8,
            },
        })
        .unwrap();
        same(cuda, "weight", &weight, &want_weight);
        same(cuda, "master", &master, &want_master);
        same(cuda, "m", &m, &want_m);
        same(cuda, "v", &v, &want_v);
    }
}
