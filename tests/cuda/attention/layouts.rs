//! Q, K, V and their gradients as separate tensors.

use ironwarp::ops::{AttentionDims, HeadStrides, Heads, HeadsLayout, HeadsMut};

use super::*;

/// The bits do not depend on the layout. Nothing is written between the rows, and what is read there reaches no result.
#[test]
fn separate_tensors_give_the_bits_of_packed_ones() {
    let cuda = shared();
    let shapes = (16..=128).step_by(16).map(|hs| [2, if hs % 32 == 0 { 131 } else { 70 }, 3, hs]);
    for (sizes, causal) in shapes.flat_map(|sizes| [(sizes, true), (sizes, false)]) {
        let inputs = Inputs { causal, ..inputs(sizes, 1.0) };
        let [out, lse] = inputs.forward(&*cuda);
        let packed = Backward::new(inputs, [out, lse]);
        let packed = Backward { dout: rounded::<bf16>(packed.dout), ..packed };
        let gradients = packed.run(&*cuda);
        for layout in Layout::SEPARATE {
            let separate = Backward { forward: Inputs { layout, ..packed.forward.clone() }, ..packed.clone() };
            let [out, lse] = separate.forward.forward(&*cuda);
            let case = format!("{sizes:?}, causal: {causal}, {layout:?}");
            assert_same_bits(&format!("out, {case}"), &out, &packed.out);
            assert_same_bits(&format!("lse, {case}"), &lse, &packed.lse);
            assert_same_bits(&format!("gradients, {case}"), &separate.run(&*cuda), &gradients);
        }
    }
}

/// B = 1, T = 2, NH = 1, HS = 64.
const DIMS: AttentionDims = AttentionDims { b: 1, t: 2, nh: 1, hs: 64 };
const OPERANDS: [&str; 6] = ["q", "k", "v", "dq", "dk", "dv"];

/// Fails unless the backward, and for q, k or v the forward, are rejected if operand `wrong` begins at element `start` of
/// its memory and has these strides.
fn assert_operand_rejected(wrong: &str, start: usize, strides: HeadStrides, message: &str) {
    let cuda = shared();
    let place = |name: &str| if name == wrong { (start, strides) } else { (0, HeadStrides { token: 64, ..strides }) };
    let tensor = |name: &str| {
        let (start, HeadStrides { token, .. }) = place(name);
        Tensor::<Cuda, bf16>::zeros(&*cuda, [start + token + 64]).unwrap()
    };
    let [q, k, v, mut dq, mut dk, mut dv] = OPERANDS.map(tensor);
    let layout = |name: &str| HeadsLayout::Strided { dims: DIMS, strides: place(name).1 };
    let memory = |name: &str, tensor: &Tensor<Cuda, bf16>| {
        let (start, _) = place(name);
        (start, [tensor.shape().len() - start])
    };
    let input = |name: &str, tensor| {
        let (start, shape) = memory(name, tensor);
        Heads { data: tensor.view().part(start, shape), layout: layout(name) }
    };
    let qkv = || Qkv::Separate { q: input("q", &q), k: input("k", &k), v: input("v", &v) };
    let mut out = Output::<Cuda, bf16>::new(&*cuda, [1, 2, 64]);
    let mut lse = Output::<Cuda, f32>::new(&*cuda, [1, 1, 2]);
    let op = AttentionForward { qkv: qkv(), causal: false, out: out.view(), lse: lse.view() };
    let forward = cuda.attention_forward(op);
    if wrong.starts_with('d') {
        forward.unwrap();
    } else {
        assert_rejected(forward, &format!("attention_forward: {message}"));
        out.assert_untouched(&cuda);
    }
    let [of_dq, of_dk, of_dv] =
        [("dq", &dq), ("dk", &dk), ("dv", &dv)].map(|(name, tensor)| (memory(name, tensor), layout(name)));
    let dqkv = QkvMut::Separate {
        dq: HeadsMut { data: dq.view_mut().into_part(of_dq.0.0, of_dq.0.1), layout: of_dq.1 },
        dk: HeadsMut { data: dk.view_mut().into_part(of_dk.0.0, of_dk.0.1), layout: of_dk.1 },
        dv: HeadsMut { data: dv.view_mut().into_part(of_dv.0.0, of_dv.0.1), layout: of_dv.1 },
    };
    let (dout, statistics) = (Tensor::zeros(&*cuda, [1, 2, 64]).unwrap(), Tensor::zeros(&*cuda, [1, 1, 2]).unwrap());
    let op = AttentionBackward {
        dout: dout.view(),
        qkv: qkv(),
        causal: false,
        out: dout.view(),
        lse: statistics.view(),
        dqkv,
    };
    assert_rejected(cuda.attention_backward(op), &format!("attention_backward: {message}"));
    for gradient in [dq, dk, dv] {
        assert!(gradient.to_vec(&*cuda).unwrap().iter().all(|x| *x == bf16::ZERO), "{message}");
    }
}

#[test]
fn violated_preconditions_of_layouts_are_rejected() {
    let strides = HeadStrides { batch: 0, token: 64, head: 0 };
    for name in OPERANDS {
        let message = format!("{name} 16-byte aligned failed ({name} begins 6 bytes past a multiple of 16)");
        assert_operand_rejected(name, 3, strides, &message);
        let message = format!("token stride of {name} % 8 == 0 failed (token stride of {name} = 68)");
        assert_operand_rejected(name, 0, HeadStrides { token: 68, ..strides }, &message);
    }
    // An input and a gradient: these take 64 MiB.
    for name in ["k", "dv"] {
        let message = format!("token stride of {name} < 2^25 failed (token stride of {name} = 33554432)");
        assert_operand_rejected(name, 0, HeadStrides { token: 1 << 25, ..strides }, &message);
    }
}
