//! Attention, compared with its formula, query by query.

use std::collections::BTreeSet;

use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::ops::{AttentionBackward, AttentionForward, Backend, Floor, Operation, Qkv, QkvMut};
use ironwarp::tensor::{Storage, Tensor};

use crate::common::attention::{Backward, Inputs, LARGE};
use crate::common::*;
use crate::narrow::Narrow;

mod layouts;

/// B, T, NH, HS and why; the CPU backend processes queries in blocks of 64.
const CASES: [([usize; 4], &str); 8] = [
    ([2, 1, 3, 4], "one token"),
    ([1, 7, 2, 8], "one sequence"),
    ([2, 9, 1, 16], "one head"),
    ([2, 6, 3, 5], "odd head size"),
    ([1, 63, 2, 4], "one query less than a block"),
    ([1, 64, 2, 4], "one full block"),
    ([2, 65, 1, 4], "one block and one query"),
    ([2, 130, 2, 3], "two full blocks and a remainder"),
];

/// Scores are at most √HS <= 4 and have HS roundings. The softmax passes their errors on, and the weighted sums average them. A
/// factor on the queries multiplies the errors of the scores.
const UNITS: f64 = 16.0;

/// One query's attention by the formula: the softmax weights, and lse.
fn weights(inputs: &Inputs, [b, i, head]: [usize; 3]) -> (Vec<f64>, f64) {
    let scale = (inputs.sizes[3] as f64).sqrt();
    let vector = |token, part| inputs.vector([b, token, part, head]);
    let scores: Vec<f64> = inputs.keys(i).map(|j| dot(vector(i, 0), vector(j, 1)) / scale).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
    (scores.iter().map(|s| (s - lse).exp()).collect(), lse)
}

/// For each lse, the largest `Σ |q·k| / √HS` of its query's scores, and at least 1.
fn score_magnitudes(inputs: &Inputs) -> Vec<f64> {
    let [b, t, nh, hs] = inputs.sizes;
    let mut magnitudes = vec![1.0; b * nh * t];
    for [b, i, head] in inputs.queries() {
        let vector = |token, part| inputs.vector([b, token, part, head]).iter();
        for j in inputs.keys(i) {
            let products = vector(i, 0).zip(vector(j, 1)).map(|(q, k)| (q * k).abs());
            let largest = &mut magnitudes[(b * nh + head) * t + i];
            *largest = (products.sum::<f64>() / (hs as f64).sqrt()).max(*largest);
        }
    }
    magnitudes
}

/// `out` and `lse` by the formula.
fn naive_forward(inputs: &Inputs) -> [Vec<f64>; 2] {
    let [b, t, nh, hs] = inputs.sizes;
    let (mut out, mut lse) = (vec![0.0; b * t * nh * hs], vec![0.0; b * nh * t]);
    for query @ [b, i, head] in inputs.queries() {
        let (p, query_lse) = weights(inputs, query);
        lse[(b * nh + head) * t + i] = query_lse;
        for (j, p) in p.iter().enumerate() {
            for (x, v) in inputs.vector([b, j, 2, head]).iter().enumerate() {
                out[((b * t + i) * nh + head) * hs + x] += p * v;
            }
        }
    }
    [out, lse]
}

/// dqkv by the Jacobian of the softmax.
fn naive_backward(inputs: &Inputs, dout: &[f64]) -> Vec<f64> {
    let [_, t, nh, hs] = inputs.sizes;
    let mut dqkv = vec![0.0; inputs.qkv.len()];
    for query @ [b, i, head] in inputs.queries() {
        let (p, _) = weights(inputs, query);
        let dout = &dout[((b * t + i) * nh + head) * hs..][..hs];
        let dp: Vec<f64> = inputs.keys(i).map(|j| dot(dout, inputs.vector([b, j, 2, head]))).collect();
        let mean = dot(&p, &dp);
        let q = inputs.index([b, i, 0, head, 0]);
        for j in inputs.keys(i) {
            let [k, v] = [1, 2].map(|part| inputs.index([b, j, part, head, 0]));
            let ds = p[j] * (dp[j] - mean) / (hs as f64).sqrt();
            for x in 0..hs {
                dqkv[q + x] += ds * inputs.qkv[k + x];
                dqkv[k + x] += ds * inputs.qkv[q + x];
                dqkv[v + x] += p[j] * dout[x];
            }
        }
    }
    dqkv
}

/// Every case with and without the causal mask: inputs, and what they are.
fn cases() -> impl Iterator<Item = (Inputs, String)> {
    CASES.into_iter().flat_map(|(sizes, why)| {
        [true, false].map(|causal| (Inputs { causal, ..Inputs::new(sizes, 1.0) }, format!("{why}, causal: {causal}")))
    })
}

/// The backward's inputs, from the backend's own forward.
fn with_forward<B: Device>(backend: &B, forward: &Inputs) -> Backward {
    Backward::new(forward.clone(), forward.forward(backend))
}

fn forward_is_the_formula<B: Device>(backend: &B) {
    for (inputs, why) in cases() {
        let sizes @ [b, t, nh, hs] = inputs.sizes;
        for factor in [1.0, LARGE] {
            let inputs = Inputs { causal: inputs.causal, ..Inputs::new(sizes, factor) };
            let ([out, lse], [want_out, want_lse]) = (inputs.forward(backend), naive_forward(&inputs));
            let case = format!("({why}, queries × {factor})");
            let out_case = format!("attention_forward out {case}");
            compare::<B::Compute>(&out_case, [b, t, nh, hs], &out, &want_out, UNITS * factor);
            // lse is as exact as the scores, whose terms may be larger than lse and cancel: errors are relative to these.
            let magnitudes = score_magnitudes(&inputs);
            let relative = |lse: Vec<f64>| lse.iter().zip(&magnitudes).map(|(x, size)| x / size).collect::<Vec<_>>();
            let [lse, want_lse] = [lse, want_lse].map(relative);
            compare::<B::Accum>(&format!("attention_forward lse {case}"), [b, nh, t], &lse, &want_lse, UNITS);
        }
    }
}

#[test]
fn forward_matches_the_formula() {
    forward_is_the_formula(&Cpu::<f64>::new());
    forward_is_the_formula(&Cpu::<f32>::new());
}

#[test]
fn large_scores_stay_finite() {
    let inputs = Inputs::new([2, 130, 2, 3], LARGE);
    let [_, lse] = naive_forward(&inputs);
    assert!(lse.iter().any(|&x| x > 1e4) && lse.iter().any(|&x| x < -1e4), "scores do not reach ±1e4");
    // The scores' errors are proportional to the factor; they reach dk through the weights, and again multiplied by q.
    let backward = with_forward(&Cpu::<f64>::new(), &inputs);
    let got = backward.run(&Cpu::<f64>::new());
    let want = naive_backward(&inputs, &backward.dout);
    compare::<f64>("attention_backward dqkv (large)", [2, 130, 3, 6], &got, &want, UNITS * LARGE * LARGE);
    let cpu = Cpu::<f32>::new();
    assert!(with_forward(&cpu, &inputs).run(&cpu).iter().all(|x| x.is_finite()));
}

/// A gradient sums up to T products.
fn backward_is_the_formula<B: Device>(backend: &B) {
    for (inputs, why) in cases() {
        let [b, t, nh, hs] = inputs.sizes;
        let backward = with_forward(backend, &inputs);
        let (got, want) = (backward.run(backend), naive_backward(&inputs, &backward.dout));
        let case = format!("attention_backward dqkv ({why})");
        compare::<B::Compute>(&case, [b, t, 3, nh * hs], &got, &want, 2.0 * UNITS);
    }
}

#[test]
fn backward_matches_the_formula() {
    backward_is_the_formula(&Cpu::<f64>::new());
    backward_is_the_formula(&Cpu::<f32>::new());
}

#[test]
fn backward_matches_central_differences() {
    for (inputs, why) in cases() {
        let backward = with_forward(&Cpu::<f64>::new(), &inputs);
        let gradient = backward.run(&Cpu::<f64>::new());
        // All elements of a small tensor, a seeded choice of a large one.
        let chosen: BTreeSet<usize> = match inputs.qkv.len() {
            few @ 0..400 => (0..few).collect(),
            many => Draws::new(3).ids(120, many).into_iter().map(|i| i as usize).collect(),
        };
        let at = |values: &[f64]| chosen.iter().map(|&i| values[i]).collect::<Vec<_>>();
        let what = format!("attention_backward ({why}) of {chosen:?}");
        check_gradient(&what, &at(&inputs.qkv), &at(&gradient), |point| {
            let mut moved = inputs.clone();
            chosen.iter().zip(point).for_each(|(&i, &x)| moved.qkv[i] = x);
            dot(&naive_forward(&moved)[0], &backward.dout)
        });
    }
}

/// Later tokens change no bit of a token's row.
#[test]
fn attention_is_causal() {
    let inputs = Inputs::new([2, 130, 2, 5], 1.0);
    let other = Draws::new(4).numbers(inputs.qkv.len());
    inputs.assert_causal(&Cpu::<f64>::new(), &other, &[1, 63, 64, 65, 129]);
    inputs.assert_causal(&Cpu::<f32>::new(), &other, &[1, 63, 64, 65, 129]);
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let (backend, inputs) = (Cpu::<f32>::new(), Inputs::new([3, 130, 3, 5], 1.0));
    assert_same_on_any_threads("attention_forward", || inputs.forward(&backend).into());
    assert_same_on_any_threads("attention_backward", || vec![with_forward(&backend, &inputs).run(&backend)]);
}

/// Shapes of a call, valid unless edited: B = 2, T = 3, NH = 2, HS = 4.
struct Call {
    qkv: Vec<usize>,
    num_heads: usize,
    dout: [usize; 3],
    out: [usize; 3],
    lse: [usize; 3],
    dqkv: [usize; 3],
}

impl Call {
    fn new(edit: impl FnOnce(&mut Call)) -> Self {
        let qkv = vec![2, 3, 24];
        let [out, dout] = [[2, 3, 8]; 2];
        let mut call = Call { qkv, num_heads: 2, dout, out, lse: [2, 2, 3], dqkv: [2, 3, 24] };
        edit(&mut call);
        call
    }
}

fn assert_forward_rejected<B: Storage>(storage: &B, message: &str, edit: impl FnOnce(&mut Call)) {
    let call = Call::new(edit);
    let qkv = Tensor::zeros(storage, &call.qkv[..]).unwrap();
    let (mut out, mut lse) = (Tensor::zeros(storage, call.out).unwrap(), Tensor::zeros(storage, call.lse).unwrap());
    let (out, lse) = (out.view_mut(), lse.view_mut());
    let qkv = Qkv::Packed { qkv: qkv.view(), num_heads: call.num_heads };
    let op = AttentionForward::<B> { qkv, causal: true, out, lse };
    assert_rejected(op.check(), &format!("attention_forward: {message}"));
}

fn assert_backward_rejected<B: Storage>(storage: &B, message: &str, edit: impl FnOnce(&mut Call)) {
    let call = Call::new(edit);
    let qkv = Tensor::zeros(storage, &call.qkv[..]).unwrap();
    let [dout, out] = [call.dout, call.out].map(|shape| Tensor::zeros(storage, shape).unwrap());
    let lse = Tensor::zeros(storage, call.lse).unwrap();
    let mut dqkv = Tensor::zeros(storage, call.dqkv).unwrap();
    let op = AttentionBackward::<B> {
        dout: dout.view(),
        qkv: Qkv::Packed { qkv: qkv.view(), num_heads: call.num_heads },
        causal: true,
        out: out.view(),
        lse: lse.view(),
        dqkv: QkvMut::Packed(dqkv.view_mut()),
    };
    assert_rejected(op.check(), &format!("attention_backward: {message}"));
}

#[test]
fn violated_preconditions_are_rejected() {
    let cpu = Cpu::<f32>::new();
    let both = |message: &str, edit: fn(&mut Call)| {
        assert_forward_rejected(&cpu, message, edit);
        assert_backward_rejected(&cpu, message, edit);
    };
    both("qkv has axes (B, T, 3C) failed (qkv is (6, 24))", |call| call.qkv = vec![6, 24]);
    both("qkv not empty failed (qkv is (2, 0, 24))", |call| call.qkv = vec![2, 0, 24]);
    both("3C % (3·NH) == 0 failed (3C = 24, NH = 0)", |call| call.num_heads = 0);
    both("3C % (3·NH) == 0 failed (3C = 24, NH = 5)", |call| call.num_heads = 5);
    both("out (B, T, C) == (2, 3, 8) failed (out is (3, 2, 8))", |call| call.out = [3, 2, 8]);
    both("lse (B, NH, T) == (2, 2, 3) failed (lse is (2, 3, 2))", |call| call.lse = [2, 3, 2]);
    let backward = |message: &str, edit: fn(&mut Call)| assert_backward_rejected(&cpu, message, edit);
    backward("dout (B, T, C) == (2, 3, 8) failed (dout is (2, 3, 4))", |call| call.dout = [2, 3, 4]);
    backward("dqkv (B, T, 3C) == (2, 3, 24) failed (dqkv is (2, 4, 24))", |call| call.dqkv = [2, 4, 24]);
    assert_forward_rejected(&Narrow, "HS % 8 == 0 failed (HS = 4)", |_| {});
    assert_backward_rejected(&Narrow, "HS % 8 == 0 failed (HS = 4)", |_| {});
}

#[test]
fn a_rejected_call_writes_nothing() {
    let backend = Cpu::<f32>::new();
    let qkv: Input<_, f32> = Draws::new(5).input(&backend, [2, 3, 24]);
    let out: Input<_, f32> = Draws::new(6).input(&backend, [2, 3, 8]);
    let [mut written, mut lse] = [[2, 3, 8], [2, 3, 2]].map(|shape| Output::new(&backend, shape));
    let (written_view, lse_view) = (written.view(), lse.view());
    let packed = || Qkv::Packed { qkv: qkv.view(), num_heads: 2 };
    let op = AttentionForward { qkv: packed(), causal: true, out: written_view, lse: lse_view };
    let message = "lse (B, NH, T) == (2, 2, 3) failed (lse is (2, 3, 2))";
    assert_rejected(backend.attention_forward(op), &format!("attention_forward: {message}"));
    written.assert_untouched(&backend);
    lse.assert_untouched(&backend);

    let wrong_lse: Input<_, f32> = Draws::new(7).input(&backend, [2, 3, 2]);
    let mut dqkv = Output::new(&backend, [2, 3, 24]);
    let (dout, out, lse) = (out.view(), out.view(), wrong_lse.view());
    let dqkv_view = QkvMut::Packed(dqkv.view());
    let op = AttentionBackward { dout, qkv: packed(), causal: true, out, lse, dqkv: dqkv_view };
    assert_rejected(backend.attention_backward(op), &format!("attention_backward: {message}"));
    dqkv.assert_untouched(&backend);
}

/// B = 2, T = 3, C = 16: 96 elements of out, 288 of qkv and, with NH = 2, 12 of lse; 2 bytes and 4 bytes each. Without the
/// causal mask, there are twice as many FLOPs.
#[test]
fn floors_by_hand() {
    let [out, dout] = [[2, 3, 16]; 2].map(|shape| Tensor::<Narrow, bf16>::zeros(&Narrow, shape).unwrap());
    let qkv = Tensor::<Narrow, bf16>::zeros(&Narrow, [2, 3, 48]).unwrap();
    let [mut written, mut dqkv] =
        [[2, 3, 16], [2, 3, 48]].map(|shape| Tensor::<Narrow, bf16>::zeros(&Narrow, shape).unwrap());
    let [lse, mut lse_mut] = [(); 2].map(|()| Tensor::<Narrow, f32>::zeros(&Narrow, [2, 2, 3]).unwrap());
    for (causal, factor) in [(true, 1), (false, 2)] {
        let packed = || Qkv::Packed { qkv: qkv.view(), num_heads: 2 };
        let op = AttentionForward::<Narrow> { qkv: packed(), causal, out: written.view_mut(), lse: lse_mut.view_mut() };
        assert_eq!(op.floor(), Floor { bytes: 2 * (288 + 96) + 4 * 12, flops: factor * 2 * 2 * 2 * 9 * 8 });

        let op = AttentionBackward {
            dout: dout.view(),
            qkv: packed(),
            causal,
            out: out.view(),
            lse: lse.view(),
            dqkv: QkvMut::Packed(dqkv.view_mut()),
        };
        let bytes = 2 * (2 * 288 + 2 * 96) + 4 * 12;
        assert_eq!(op.floor(), Floor { bytes, flops: factor * 5 * 2 * 2 * 9 * 8 });
    }
}
