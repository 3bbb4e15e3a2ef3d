//! Q, K, V and their gradients as separate tensors.

use ironwarp::ops::{AttentionDims, HeadStrides, Heads, HeadsLayout, HeadsMut};

use super::*;
use crate::common::attention::Layout;

/// The bits do not depend on the layout. Nothing is written between the rows, and what is read there reaches no result.
fn layouts_give_the_same_bits<B: Device>(backend: &B) {
    for (inputs, why) in cases() {
        let packed = with_forward(backend, &inputs);
        let gradients = packed.run(backend);
        for layout in Layout::SEPARATE {
            let separate = Backward { forward: Inputs { layout, ..inputs.clone() }, ..packed.clone() };
            let [out, lse] = separate.forward.forward(backend);
            let case = format!("{why}, {layout:?}");
            assert_same_bits(&format!("out, {case}"), &out, &packed.out);
            assert_same_bits(&format!("lse, {case}"), &lse, &packed.lse);
            assert_same_bits(&format!("gradients, {case}"), &separate.run(backend), &gradients);
        }
    }
}

#[test]
fn separate_tensors_give_the_bits_of_packed_ones() {
    layouts_give_the_same_bits(&Cpu::<f64>::new());
    layouts_give_the_same_bits(&Cpu::<f32>::new());
}

/// Tensors of a call, valid unless edited: B = 2, T = 3, NH = 2, HS = 4; strides (24, 8, 4) in 48 elements of memory.
#[derive(Clone, Copy)]
struct Tensors {
    q: (HeadsLayout, &'static [usize]),
    k: (HeadsLayout, &'static [usize]),
    v: (HeadsLayout, &'static [usize]),
    dk: (HeadsLayout, &'static [usize]),
}

const DIMS: AttentionDims = AttentionDims { b: 2, t: 3, nh: 2, hs: 4 };

const fn strided(batch: usize, token: usize, head: usize) -> HeadsLayout {
    HeadsLayout::Strided { dims: DIMS, strides: HeadStrides { batch, token, head } }
}

impl Tensors {
    fn new(edit: impl FnOnce(&mut Tensors)) -> Self {
        let strided = (strided(24, 8, 4), &[48][..]);
        let mut tensors = Tensors {
            q: (HeadsLayout::TokenMajor, &[2, 3, 2, 4]),
            k: (HeadsLayout::HeadMajor, &[2, 2, 3, 4]),
            v: strided,
            dk: strided,
        };
        edit(&mut tensors);
        tensors
    }
}

/// The results of the checks of the forward and the backward, and the bytes of their floors.
fn check<B: Storage>(storage: &B, edit: impl FnOnce(&mut Tensors)) -> [(ironwarp::Result<AttentionDims>, u64); 2] {
    let tensors = Tensors::new(edit);
    let zeros = |shape: &[usize]| Tensor::<B, B::Compute>::zeros(storage, shape).unwrap();
    let [q, k, v] = [tensors.q, tensors.k, tensors.v].map(|(layout, shape)| (zeros(shape), layout));
    let qkv = || {
        let [q, k, v] = [&q, &k, &v].map(|(data, layout)| Heads { data: data.view(), layout: *layout });
        Qkv::Separate { q, k, v }
    };
    let [dout, mut out, mut dq, mut dk, mut dv] =
        [&[2, 3, 8], &[2, 3, 8], &[2, 3, 2, 4][..], tensors.dk.1, &[2, 3, 2, 4]].map(zeros);
    let mut lse = Tensor::zeros(storage, [2, 2, 3]).unwrap();
    let op = AttentionForward::<B> { qkv: qkv(), causal: true, out: out.view_mut(), lse: lse.view_mut() };
    let forward = (op.check(), op.floor().bytes);
    drop(op);
    let dk = HeadsMut { data: dk.view_mut(), layout: tensors.dk.0 };
    let (dq, dv) = (HeadsMut::token_major(dq.view_mut()), HeadsMut::token_major(dv.view_mut()));
    let dqkv = QkvMut::Separate { dq, dk, dv };
    let (dout, out, lse) = (dout.view(), out.view(), lse.view());
    let op = AttentionBackward::<B> { dout, qkv: qkv(), causal: true, out, lse, dqkv };
    [forward, (op.check(), op.floor().bytes)]
}

/// Fails unless the forward, for an edit of q, k or v, and the backward are rejected.
fn assert_both_rejected(message: &str, edit: impl FnOnce(&mut Tensors)) {
    let [(forward, _), (backward, floor)] = check(&Cpu::<f32>::new(), edit);
    assert_rejected(forward, &format!("attention_forward: {message}"));
    assert_rejected(backward, &format!("attention_backward: {message}"));
    assert_eq!(floor, 0);
}

fn assert_gradient_rejected(message: &str, layout: HeadsLayout, memory: &'static [usize]) {
    let [(forward, _), (backward, _)] = check(&Cpu::<f32>::new(), |tensors| tensors.dk = (layout, memory));
    forward.unwrap();
    assert_rejected(backward, &format!("attention_backward: {message}"));
}

#[test]
fn layouts_are_checked() {
    let both = |message: &str, edit: fn(&mut Tensors)| assert_both_rejected(message, edit);
    both("q has axes (B, T, NH, HS) failed (q is (6, 8))", |tensors| tensors.q.1 = &[6, 8]);
    both("k has axes (B, NH, T, HS) failed (k is (2, 2, 12))", |tensors| tensors.k.1 = &[2, 2, 12]);
    both("q not empty failed (q is (2, 0, 2, 4))", |tensors| tensors.q.1 = &[2, 0, 2, 4]);
    both("k (B, T, NH, HS) == (2, 3, 2, 4) failed (k is (2, 4, 2, 4))", |tensors| tensors.k.1 = &[2, 2, 4, 4]);
    both("v (B, T, NH, HS) == (2, 3, 2, 4) failed (v is (2, 3, 2, 2))", |tensors| {
        tensors.v = (HeadsLayout::TokenMajor, &[2, 3, 2, 2]);
    });
    let inside = |strides: &str, end: &str, len: usize| {
        format!(
            "v inside its memory failed (v is (2, 3, 2, 4) with strides {strides}, which end after {end} elements of {len})"
        )
    };
    both(&inside("(24, 8, 4)", "48", 47), |tensors| tensors.v.1 = &[47]);
    both(&inside("(25, 8, 4)", "49", 48), |tensors| tensors.v.0 = strided(25, 8, 4));
    both(&inside("(24, 9, 4)", "50", 48), |tensors| tensors.v.0 = strided(24, 9, 4));
    both(&inside("(24, 8, 5)", "49", 48), |tensors| tensors.v.0 = strided(24, 8, 5));
    // 2 · 2^63 is 0 modulo 2^64.
    let most = "more than usize::MAX";
    both(&inside("(24, 9223372036854775808, 4)", most, 48), |tensors| tensors.v.0 = strided(24, 1 << 63, 4));
    both(&inside("(18446744073709551615, 8, 4)", most, 48), |tensors| tensors.v.0 = strided(usize::MAX, 8, 4));

    let overlap =
        |strides: &str| format!("rows of dk do not overlap failed (dk is (2, 3, 2, 4) with strides {strides})");
    for [batch, token, head] in [[24, 8, 3], [24, 7, 4], [23, 8, 4], [0, 8, 4], [24, 0, 4], [24, 8, 0], [4, 16, 7]] {
        let strides = format!("({batch}, {token}, {head})");
        assert_gradient_rejected(&overlap(&strides), strided(batch, token, head), &[48]);
    }
    let inside =
        "dk inside its memory failed (dk is (2, 3, 2, 4) with strides (24, 8, 4), which end after 48 elements of 47)";
    assert_gradient_rejected(inside, strided(24, 8, 4), &[47]);
    let sizes = "dk (B, T, NH, HS) == (2, 3, 2, 4) failed (dk is (2, 3, 4, 2))";
    assert_gradient_rejected(sizes, HeadsLayout::TokenMajor, &[2, 3, 4, 2]);
}

/// Gradients whose axes are in another order, and inputs whose rows overlap, are valid.
#[test]
fn unusual_strides_are_accepted() {
    for (input, gradient) in [
        (strided(24, 8, 4), strided(4, 16, 8)),
        (strided(24, 8, 0), strided(8, 16, 4)),
        (strided(0, 0, 0), strided(24, 4, 12)),
        (strided(1, 1, 1), strided(4, 8, 24)),
    ] {
        let edit = |tensors: &mut Tensors| (tensors.v.0, tensors.dk.0) = (input, gradient);
        for (result, _) in check(&Cpu::<f32>::new(), edit) {
            assert_eq!(result.unwrap(), DIMS, "{input:?}, {gradient:?}");
        }
    }
    // The stride of an axis with one entry has no effect.
    let (cpu, one) = (Cpu::<f32>::new(), AttentionDims { b: 1, t: 1, nh: 1, hs: 4 });
    let data = Tensor::<Cpu<f32>, f32>::from_vec(&cpu, [4], vec![1.0, 2.0, 3.0, 4.0]).unwrap();
    let strides = HeadStrides { batch: usize::MAX, token: 3, head: 0 };
    let heads = || Heads { data: data.view(), layout: HeadsLayout::Strided { dims: one, strides } };
    let (mut out, mut lse) = (Output::new(&cpu, [1, 1, 4]), Output::<_, f32>::new(&cpu, [1, 1, 1]));
    let qkv = Qkv::Separate { q: heads(), k: heads(), v: heads() };
    cpu.attention_forward(AttentionForward { qkv, causal: true, out: out.view(), lse: lse.view() }).unwrap();
    assert_eq!(out.read(&cpu), [1.0, 2.0, 3.0, 4.0]);
}

/// With 2-byte elements, 4-byte statistics and vectors of 8: the strides of axes with several entries must be multiples.
#[test]
fn strides_are_multiples_of_vectors() {
    for (stride, [batch, token, head]) in [("batch", [52, 16, 8]), ("token", [48, 20, 8]), ("head", [48, 16, 12])] {
        let dims = AttentionDims { hs: 8, ..DIMS };
        let data = Tensor::<Narrow, bf16>::zeros(&Narrow, [200]).unwrap();
        let right = || Heads {
            data: data.view(),
            layout: HeadsLayout::Strided { dims, strides: HeadStrides { batch: 48, token: 16, head: 8 } },
        };
        let wrong = Heads {
            data: data.view(),
            layout: HeadsLayout::Strided { dims, strides: HeadStrides { batch, token, head } },
        };
        let mut out = Tensor::<Narrow, bf16>::zeros(&Narrow, [2, 3, 16]).unwrap();
        let mut lse = Tensor::<Narrow, f32>::zeros(&Narrow, [2, 2, 3]).unwrap();
        let qkv = Qkv::Separate { q: right(), k: wrong, v: right() };
        let op = AttentionForward::<Narrow> { qkv, causal: true, out: out.view_mut(), lse: lse.view_mut() };
        let found = [("batch", batch), ("token", token), ("head", head)]
            .into_iter()
            .find(|(name, _)| *name == stride)
            .unwrap()
            .1;
        let rule = format!("{stride} stride of k % 8 == 0 failed ({stride} stride of k = {found})");
        assert_rejected(op.check(), &format!("attention_forward: {rule}"));
    }
}

/// Elements that several rows share are read once: with a head stride of 0, v has half as many.
#[test]
fn shared_rows_count_once_in_the_floor() {
    let [(_, forward), (_, backward)] = check(&Cpu::<f32>::new(), |_| {});
    assert_eq!([forward, backward], [4 * (4 * 48 + 12), 4 * (8 * 48 + 12)]);
    let [(_, shared_forward), (_, shared_backward)] =
        check(&Cpu::<f32>::new(), |tensors| tensors.v.0 = strided(24, 8, 0));
    assert_eq!([forward - shared_forward, backward - shared_backward], [4 * 24; 2]);
}

/// Multi-query attention: one head of keys and values for all heads of queries is what copies of it give.
#[test]
fn one_head_of_keys_serves_all_heads() {
    let (cpu, [b, t, nh, hs]) = (Cpu::<f64>::new(), [2, 9, 3, 4]);
    let mut inputs = Inputs { causal: false, ..Inputs::new([b, t, nh, hs], 1.0) };
    for token in inputs.qkv.chunks_mut(3 * nh * hs) {
        for head in 1..nh {
            token.copy_within(nh * hs..nh * hs + hs, (nh + head) * hs);
            token.copy_within(2 * nh * hs..2 * nh * hs + hs, (2 * nh + head) * hs);
        }
    }
    let [want, _] = inputs.forward(&cpu);
    let part = |part: usize, width: usize| -> Vec<f64> {
        inputs.qkv.chunks(3 * nh * hs).flat_map(|token| &token[part * nh * hs..][..width]).copied().collect()
    };
    let q: Input<_, f64> = Input::to_buffer_end(&cpu, [b, t, nh, hs], &part(0, nh * hs));
    let [k, v] = [1, 2].map(|index| Input::<Cpu<f64>, f64>::to_buffer_end(&cpu, [b, t, hs], &part(index, hs)));
    let strides = HeadStrides { batch: t * hs, token: hs, head: 0 };
    let layout = HeadsLayout::Strided { dims: AttentionDims { b, t, nh, hs }, strides };
    let [k, v] = [&k, &v].map(|tensor| Heads { data: tensor.view(), layout });
    let (mut out, mut lse) = (Output::new(&cpu, [b, t, nh * hs]), Output::<_, f64>::new(&cpu, [b, nh, t]));
    let qkv = Qkv::Separate { q: Heads::token_major(q.view()), k, v };
    cpu.attention_forward(AttentionForward { qkv, causal: false, out: out.view(), lse: lse.view() }).unwrap();
    assert_same_bits("out", &out.read(&cpu), &want);
}
