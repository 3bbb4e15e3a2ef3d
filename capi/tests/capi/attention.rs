//! Attention: results and refusals, as in `operations` and `hostile`, with strides.

use std::ffi::c_void;
use std::mem::offset_of;

use half::bf16;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{self, Backend};
use ironwarp::tensor::Tensor;
use ironwarp_capi::*;

use crate::hostile::{Pointer, Size, hostile, hostile_size, hostile_workspace, pointers, sizes};
use crate::operations::{same, stream};
use crate::support::{Program, last_error, ok, ptr};

/// The parts of a packed tensor, with and without a mask.
#[test]
fn bits_are_those_of_the_operation() {
    let program = Program::new();
    let cuda = &program.cuda;
    let (b, t, nh, hs) = (2, 70, 3, 32);
    let c = nh * hs;
    let (dout, qkv) = (program.bf16(1, [b, t, c]), program.bf16(2, [b, t, 3 * c]));
    let outputs = || (program.bf16(3, [b, t, c]), program.f32(4, [b, nh, t]), program.bf16(5, [b, t, 3 * c]));
    let packed = HeadsStrides { batch: (t * 3 * c) as i64, token: 3 * c as i64, head: hs as i64 };
    let part = |tensor: &Tensor<Cuda, bf16>, index: usize| {
        (tensor.as_dev_ptr().address() as usize + 2 * index * c) as *mut c_void
    };
    for causal in [0, 1] {
        let ((out, lse, dqkv), (mut want_out, mut want_lse, mut want_dqkv)) = (outputs(), outputs());
        let args = AttentionForward {
            q: part(&qkv, 0),
            k: part(&qkv, 1),
            v: part(&qkv, 2),
            out: ptr(&out),
            lse: ptr(&lse),
            q_strides: packed,
            k_strides: packed,
            v_strides: packed,
            b: b as i64,
            t: t as i64,
            nh: nh as i64,
            hs: hs as i64,
            causal,
        };
        // SAFETY: the tensors have the sizes of the arguments.
        ok(unsafe { ironwarp_attention_forward(&args, stream(&program)) });
        let operand = || ops::Qkv::Packed { qkv: qkv.view(), num_heads: nh };
        cuda.attention_forward(ops::AttentionForward {
            qkv: operand(),
            causal: causal == 1,
            out: want_out.view_mut(),
            lse: want_lse.view_mut(),
        })
        .unwrap();
        same(cuda, "out", &out, &want_out);
        same(cuda, "lse", &lse, &want_lse);
        let args = AttentionBackward {
            dout: ptr(&dout),
            q: args.q,
            k: args.k,
            v: args.v,
            out: ptr(&out),
            lse: ptr(&lse),
            dq: part(&dqkv, 0),
            dk: part(&dqkv, 1),
            dv: part(&dqkv, 2),
            q_strides: packed,
            k_strides: packed,
            v_strides: packed,
            dq_strides: packed,
            dk_strides: packed,
            dv_strides: packed,
            b: args.b,
            t: args.t,
            nh: args.nh,
            hs: args.hs,
            causal,
        };
        let mut bytes = 0;
        // SAFETY: as above.
        ok(unsafe { ironwarp_attention_backward_workspace_size(&args, &mut bytes) });
        let (_memory, workspace) = program.workspace(bytes);
        // SAFETY: as above.
        ok(unsafe { ironwarp_attention_backward(&args, workspace, stream(&program)) });
        cuda.attention_backward(ops::AttentionBackward {
            dout: dout.view(),
            qkv: operand(),
            causal: causal == 1,
            out: want_out.view(),
            lse: want_lse.view(),
            dqkv: ops::QkvMut::Packed(want_dqkv.view_mut()),
        })
        .unwrap();
        same(cuda, "dqkv", &dqkv, &want_dqkv);
    }
}

#[test]
fn hostile_arguments_are_refused() {
    let p = Program::new();
    let (b, t, nh, hs) = (2, 64, 2, 64);
    let c = nh * hs;
    let heads: Vec<_> = (0..6).map(|i| p.bf16(i, [b, t, nh, hs])).collect();
    let (dout, out, lse) = (p.bf16(7, [b, t, c]), p.bf16(8, [b, t, c]), p.f32(9, [b, nh, t]));
    let strides = HeadsStrides { batch: (t * c) as i64, token: c as i64, head: hs as i64 };
    let (b, t, nh, hs) = (b as i64, t as i64, nh as i64, hs as i64);
    let args = AttentionForward {
        q: ptr(&heads[0]),
        k: ptr(&heads[1]),
        v: ptr(&heads[2]),
        out: ptr(&out),
        lse: ptr(&lse),
        q_strides: strides,
        k_strides: strides,
        v_strides: strides,
        b,
        t,
        nh,
        hs,
        causal: 1,
    };
    // SAFETY: what is not refused is valid.
    let call = |args: *const AttentionForward| unsafe { ironwarp_attention_forward(args, stream(&p)) };
    hostile(
        args,
        pointers!(AttentionForward: q, k, v, out, lse),
        sizes!(AttentionForward: b = "B", t = "T", nh = "NH", hs = "HS"),
        call,
    );
    let with = |batch, token, head| AttentionForward { k_strides: HeadsStrides { batch, token, head }, ..args };
    for (bad, rule) in [
        (with(-8, strides.token, strides.head), "batch stride of k >= 0 failed (batch stride of k = -8)"),
        (with(strides.batch, strides.token, 4), "head stride of k % 8 == 0 failed (head stride of k = 4)"),
        (with(strides.batch + 8, strides.token, strides.head), "lies within its allocation failed"),
        (with(i64::MAX, i64::MAX, i64::MAX), "fits the address space failed"),
        (AttentionForward { causal: 2, ..args }, "causal is 0 or 1 failed (causal = 2)"),
        (AttentionForward { hs: 24, ..args }, "HS % 16 == 0 and HS <= 128 failed (HS = 24)"),
    ] {
        assert_eq!(call(&bad), Status::InvalidArgument, "{rule}");
        assert!(last_error().contains(rule), "{}", last_error());
    }
    let args = AttentionBackward {
        dout: ptr(&dout),
        q: ptr(&heads[0]),
        k: ptr(&heads[1]),
        v: ptr(&heads[2]),
        out: ptr(&out),
        lse: ptr(&lse),
        dq: ptr(&heads[3]),
        dk: ptr(&heads[4]),
        dv: ptr(&heads[5]),
        q_strides: strides,
        k_strides: strides,
        v_strides: strides,
        dq_strides: strides,
        dk_strides: strides,
        dv_strides: strides,
        b,
        t,
        nh,
        hs,
        causal: 0,
    };
    let bytes = hostile_size(
        &args,
        sizes!(AttentionBackward: b = "B", t = "T", nh = "NH", hs = "HS"),
        ironwarp_attention_backward_workspace_size,
    );
    let (_memory, workspace) = p.workspace(bytes);
    // SAFETY: as above.
    let call = |args: *const AttentionBackward| unsafe { ironwarp_attention_backward(args, workspace, stream(&p)) };
    hostile(
        args,
        pointers!(AttentionBackward: dout, q, k, v, out, lse, dq, dk, dv),
        sizes!(AttentionBackward: b = "B", t = "T", nh = "NH", hs = "HS"),
        call,
    );
    let overlapping = HeadsStrides { token: hs, ..strides };
    assert_eq!(call(&AttentionBackward { dk_strides: overlapping, ..args }), Status::InvalidArgument);
    assert!(last_error().contains("rows of dk do not overlap failed"), "{}", last_error());
    // SAFETY: as above.
    hostile_workspace(&p, bytes, |workspace| unsafe { ironwarp_attention_backward(&args, workspace, stream(&p)) });
}
