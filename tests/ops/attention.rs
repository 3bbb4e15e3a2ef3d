//! Attention against its formula, query by query.

use std::collections::BTreeSet;

use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::ops::{AttentionBackward, AttentionDims, AttentionForward, Backend, Floor, Operation};
use ironwarp::tensor::{Storage, Tensor};

use crate::narrow::Narrow;
use crate::support::*;

/// B, T, NH, HS; the CPU takes queries in blocks of 64.
const CASES: [([usize; 4], &str); 8] = [
    ([2, 1, 3, 4], "one token"),
    ([1, 7, 2, 8], "one sequence"),
    ([2, 9, 1, 16], "one head"),
    ([2, 6, 3, 5], "odd head size"),
    ([1, 63, 2, 4], "a block lacks its last query"),
    ([1, 64, 2, 4], "one full block"),
    ([2, 65, 1, 4], "a block of one query"),
    ([2, 130, 2, 3], "two full blocks and a rest"),
];

/// Scores have √HS <= 4 in size and HS roundings; a softmax passes their errors on, and sums of weighted values average
/// them. A factor on the queries multiplies the scores' errors.
const UNITS: f64 = 16.0;

/// Makes scores reach beyond ±1e4.
const LARGE: f64 = 131_072.0;

fn dims([b, t, nh, hs]: [usize; 4]) -> AttentionDims {
    AttentionDims { b, t, nh, hs }
}

/// Random packed values, the queries times a factor.
fn random_qkv(AttentionDims { b, t, nh, hs }: AttentionDims, factor: f64) -> Vec<f64> {
    let c = nh * hs;
    let mut qkv = Draws::new(1).numbers(b * t * 3 * c);
    qkv.chunks_mut(3 * c).for_each(|token| token[..c].iter_mut().for_each(|q| *q *= factor));
    qkv
}

fn random_dout(AttentionDims { b, t, nh, hs }: AttentionDims) -> Vec<f64> {
    Draws::new(2).numbers(b * t * nh * hs)
}

/// Where a head's vector of a token begins: part 0 to 2 for q, k, v.
fn place(AttentionDims { t, nh, hs, .. }: AttentionDims, [b, i, head, part]: [usize; 4]) -> usize {
    (((b * t + i) * 3 + part) * nh + head) * hs
}

/// One query's attention by the formula: the softmax's weights, and lse.
fn weights(dims: AttentionDims, qkv: &[f64], [b, i, head]: [usize; 3]) -> (Vec<f64>, f64) {
    let vector = |token, part| &qkv[place(dims, [b, token, head, part])..][..dims.hs];
    let scores: Vec<f64> = (0..=i).map(|j| dot(vector(i, 0), vector(j, 1)) / (dims.hs as f64).sqrt()).collect();
    let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let lse = max + scores.iter().map(|s| (s - max).exp()).sum::<f64>().ln();
    (scores.iter().map(|s| (s - lse).exp()).collect(), lse)
}

/// For each lse, the largest `Σ |q·k| / √HS` of its query's scores, and 1 at least.
fn score_sizes(dims: AttentionDims, qkv: &[f64]) -> Vec<f64> {
    let AttentionDims { b, t, nh, hs } = dims;
    let mut sizes = vec![1.0; b * nh * t];
    for [b, i, head] in queries(dims) {
        let vector = |token, part| qkv[place(dims, [b, token, head, part])..][..hs].iter();
        for j in 0..=i {
            let size = vector(i, 0).zip(vector(j, 1)).map(|(q, k)| (q * k).abs()).sum::<f64>() / (hs as f64).sqrt();
            let largest = &mut sizes[(b * nh + head) * t + i];
            *largest = size.max(*largest);
        }
    }
    sizes
}

/// Every (sequence, query, head).
fn queries(AttentionDims { b, t, nh, .. }: AttentionDims) -> impl Iterator<Item = [usize; 3]> {
    (0..b * t * nh).map(move |n| [n / nh / t, n / nh % t, n % nh])
}

/// out and lse by the formula.
fn naive_forward(dims: AttentionDims, qkv: &[f64]) -> [Vec<f64>; 2] {
    let AttentionDims { b, t, nh, hs } = dims;
    let (mut out, mut lse) = (vec![0.0; b * t * nh * hs], vec![0.0; b * nh * t]);
    for query @ [b, i, head] in queries(dims) {
        let (p, query_lse) = weights(dims, qkv, query);
        lse[(b * nh + head) * t + i] = query_lse;
        for (j, p) in p.iter().enumerate() {
            for x in 0..hs {
                out[((b * t + i) * nh + head) * hs + x] += p * qkv[place(dims, [b, j, head, 2]) + x];
            }
        }
    }
    [out, lse]
}

/// dqkv through the softmax's Jacobian.
fn naive_backward(dims: AttentionDims, qkv: &[f64], dout: &[f64]) -> Vec<f64> {
    let AttentionDims { t, nh, hs, .. } = dims;
    let mut dqkv = vec![0.0; qkv.len()];
    for query @ [b, i, head] in queries(dims) {
        let (p, _) = weights(dims, qkv, query);
        let dout = &dout[((b * t + i) * nh + head) * hs..][..hs];
        let dp: Vec<f64> = (0..=i).map(|j| dot(dout, &qkv[place(dims, [b, j, head, 2])..][..hs])).collect();
        let mean = dot(&p, &dp);
        let q = place(dims, [b, i, head, 0]);
        for j in 0..=i {
            let [k, v] = [1, 2].map(|part| place(dims, [b, j, head, part]));
            let ds = p[j] * (dp[j] - mean) / (hs as f64).sqrt();
            for x in 0..hs {
                dqkv[q + x] += ds * qkv[k + x];
                dqkv[k + x] += ds * qkv[q + x];
                dqkv[v + x] += p[j] * dout[x];
            }
        }
    }
    dqkv
}

fn forward<B: Device>(backend: &B, dims: AttentionDims, qkv: &[f64]) -> [Vec<f64>; 2] {
    let AttentionDims { b, t, nh, hs } = dims;
    let qkv = Input::<B, B::Compute>::new(backend, [b, t, 3 * nh * hs], qkv);
    let mut out = Output::<B, B::Compute>::new(backend, [b, t, nh * hs]);
    let mut lse = Output::<B, B::Accum>::new(backend, [b, nh, t]);
    let op = AttentionForward { qkv: qkv.view(), num_heads: nh, out: out.view(), lse: lse.view() };
    backend.attention_forward(op).unwrap();
    [out.read(backend), lse.read(backend)]
}

fn backward<B: Device>(backend: &B, dims: AttentionDims, qkv: &[f64], dout: &[f64]) -> Vec<f64> {
    let AttentionDims { b, t, nh, hs } = dims;
    let [out, lse] = forward(backend, dims, qkv);
    let qkv = Input::<B, B::Compute>::new(backend, [b, t, 3 * nh * hs], qkv);
    let [dout, out] = [dout, &out].map(|x| Input::<B, B::Compute>::new(backend, [b, t, nh * hs], x));
    let lse = Input::<B, B::Accum>::new(backend, [b, nh, t], &lse);
    let mut dqkv = Output::<B, B::Compute>::new(backend, [b, t, 3 * nh * hs]);
    let op = AttentionBackward {
        dout: dout.view(),
        qkv: qkv.view(),
        num_heads: nh,
        out: out.view(),
        lse: lse.view(),
        dqkv: dqkv.view(),
    };
    backend.attention_backward(op).unwrap();
    dqkv.read(backend)
}

fn forward_is_the_formula<B: Device>(backend: &B) {
    for (sizes @ [b, t, nh, hs], why) in CASES {
        for factor in [1.0, LARGE] {
            let dims = dims(sizes);
            let qkv = random_qkv(dims, factor);
            let ([out, lse], [want_out, want_lse]) = (forward(backend, dims, &qkv), naive_forward(dims, &qkv));
            let case = format!("({why}, queries × {factor})");
            let out_case = format!("attention_forward out {case}");
            compare::<B::Compute>(&out_case, [b, t, nh, hs], &out, &want_out, UNITS * factor);
            // lse is as exact as the scores, whose terms may be larger than itself and cancel: measured in their size.
            let sizes = score_sizes(dims, &qkv);
            let [lse, want_lse] =
                [lse, want_lse].map(|lse| lse.iter().zip(&sizes).map(|(x, size)| x / size).collect::<Vec<_>>());
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
    let dims = dims([2, 130, 2, 3]);
    let (qkv, dout) = (random_qkv(dims, LARGE), random_dout(dims));
    let [_, lse] = naive_forward(dims, &qkv);
    assert!(lse.iter().any(|&x| x > 1e4) && lse.iter().any(|&x| x < -1e4), "scores do not reach ±1e4");
    // Errors of the scores, relative to the factor, reach dk through the weights and again through q.
    let got = backward(&Cpu::<f64>::new(), dims, &qkv, &dout);
    let want = naive_backward(dims, &qkv, &dout);
    compare::<f64>("attention_backward dqkv (large)", [2, 130, 3, 6], &got, &want, UNITS * LARGE * LARGE);
    assert!(backward(&Cpu::<f32>::new(), dims, &qkv, &dout).iter().all(|x| x.is_finite()));
}

/// A column of T gradients sums T products.
fn backward_is_the_formula<B: Device>(backend: &B) {
    for (sizes @ [b, t, nh, hs], why) in CASES {
        let dims = dims(sizes);
        let (qkv, dout) = (random_qkv(dims, 1.0), random_dout(dims));
        let got = backward(backend, dims, &qkv, &dout);
        let want = naive_backward(dims, &qkv, &dout);
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
fn backward_matches_differences() {
    for (sizes, why) in CASES {
        let dims = dims(sizes);
        let (qkv, dout) = (random_qkv(dims, 1.0), random_dout(dims));
        let gradient = backward(&Cpu::<f64>::new(), dims, &qkv, &dout);
        // All of a few, a seeded choice of many.
        let chosen: BTreeSet<usize> = match qkv.len() {
            few @ 0..400 => (0..few).collect(),
            many => Draws::new(3).ids(120, many).into_iter().map(|i| i as usize).collect(),
        };
        let at = |values: &[f64]| chosen.iter().map(|&i| values[i]).collect::<Vec<_>>();
        check_gradient(&format!("attention_backward ({why}) of {chosen:?}"), &at(&qkv), &at(&gradient), |point| {
            let mut qkv = qkv.clone();
            chosen.iter().zip(point).for_each(|(&i, &x)| qkv[i] = x);
            dot(&naive_forward(dims, &qkv)[0], &dout)
        });
    }
}

/// What comes after a token changes no bit of its row.
fn future_has_no_influence<B: Device>(backend: &B) {
    let dims @ AttentionDims { b, t, nh, hs } = dims([2, 130, 2, 5]);
    let (c, qkv) = (nh * hs, random_qkv(dims, 1.0));
    let [out, lse] = forward(backend, dims, &qkv);
    for cut in [1, 63, 64, 65, 129] {
        let mut changed = qkv.clone();
        let other = Draws::new(4).numbers(qkv.len());
        for sequence in 0..b {
            let future = (sequence * t + cut) * 3 * c..(sequence + 1) * t * 3 * c;
            changed[future.clone()].copy_from_slice(&other[future]);
        }
        let [new_out, new_lse] = forward(backend, dims, &changed);
        let kept = |values: &[f64], width: usize| -> Vec<f64> {
            values.chunks(t * width).flat_map(|sequence| &sequence[..cut * width]).copied().collect()
        };
        assert_same_bits(&format!("out before {cut}"), &kept(&new_out, c), &kept(&out, c));
        assert_same_bits(&format!("lse before {cut}"), &kept(&new_lse, 1), &kept(&lse, 1));
        assert_ne!(new_out, out, "changing tokens from {cut} on");
    }
}

#[test]
fn attention_is_causal() {
    future_has_no_influence(&Cpu::<f64>::new());
    future_has_no_influence(&Cpu::<f32>::new());
}

#[test]
fn threads_change_no_bit() {
    let (backend, dims) = (Cpu::<f32>::new(), dims([3, 130, 3, 5]));
    let (qkv, dout) = (random_qkv(dims, 1.0), random_dout(dims));
    assert_same_on_any_threads("attention_forward", || forward(&backend, dims, &qkv).into());
    assert_same_on_any_threads("attention_backward", || vec![backward(&backend, dims, &qkv, &dout)]);
}

/// Shapes of a call, right unless changed: B = 2, T = 3, NH = 2, HS = 4.
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
    let op = AttentionForward::<B> { qkv: qkv.view(), num_heads: call.num_heads, out, lse };
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
        qkv: qkv.view(),
        num_heads: call.num_heads,
        out: out.view(),
        lse: lse.view(),
        dqkv: dqkv.view_mut(),
    };
    assert_rejected(op.check(), &format!("attention_backward: {message}"));
}

#[test]
fn what_breaks_a_rule_is_rejected() {
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
    let op = AttentionForward { qkv: qkv.view(), num_heads: 2, out: written_view, lse: lse_view };
    let message = "lse (B, NH, T) == (2, 2, 3) failed (lse is (2, 3, 2))";
    assert_rejected(backend.attention_forward(op), &format!("attention_forward: {message}"));
    written.assert_untouched(&backend);
    lse.assert_untouched(&backend);

    let wrong_lse: Input<_, f32> = Draws::new(7).input(&backend, [2, 3, 2]);
    let mut dqkv = Output::new(&backend, [2, 3, 24]);
    let (qkv, dout, out, lse) = (qkv.view(), out.view(), out.view(), wrong_lse.view());
    let op = AttentionBackward { dout, qkv, num_heads: 2, out, lse, dqkv: dqkv.view() };
    assert_rejected(backend.attention_backward(op), &format!("attention_backward: {message}"));
    dqkv.assert_untouched(&backend);
}

/// B = 2, T = 3, C = 16: 96 elements of out, 288 of qkv and, with NH = 2, 12 of lse; 2 bytes and 4 bytes each.
#[test]
fn floors_by_hand() {
    let [out, dout] = [[2, 3, 16]; 2].map(|shape| Tensor::<Narrow, bf16>::zeros(&Narrow, shape).unwrap());
    let qkv = Tensor::<Narrow, bf16>::zeros(&Narrow, [2, 3, 48]).unwrap();
    let mut written = Tensor::<Narrow, bf16>::zeros(&Narrow, [2, 3, 16]).unwrap();
    let mut lse = Tensor::<Narrow, f32>::zeros(&Narrow, [2, 2, 3]).unwrap();
    let (written, lse_mut) = (written.view_mut(), lse.view_mut());
    let op = AttentionForward::<Narrow> { qkv: qkv.view(), num_heads: 2, out: written, lse: lse_mut };
    assert_eq!(op.floor(), Floor { bytes: 2 * (288 + 96) + 4 * 12, flops: 2 * 2 * 2 * 9 * 8 });

    let mut dqkv = Tensor::<Narrow, bf16>::zeros(&Narrow, [2, 3, 48]).unwrap();
    let op = AttentionBackward::<Narrow> {
        dout: dout.view(),
        qkv: qkv.view(),
        num_heads: 2,
        out: out.view(),
        lse: lse.view(),
        dqkv: dqkv.view_mut(),
    };
    assert_eq!(op.floor(), Floor { bytes: 2 * (2 * 288 + 2 * 96) + 4 * 12, flops: 5 * 2 * 2 * 9 * 8 });
}
