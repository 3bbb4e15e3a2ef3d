//! Decoding token by token, compared with the attention of the whole sequence.

use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::ops::{AttentionDecode, AttentionForward, Backend, Floor, KvCacheStore, Operation, Qkv};
use ironwarp::tensor::{Storage, Tensor};

use crate::common::*;
use crate::narrow::Narrow;

/// B, T, NH, HS, length of the prompt, T_max.
const CASES: [([usize; 6], &str); 5] = [
    ([2, 9, 3, 5, 4, 12], "odd head size, a cache with free positions"),
    ([2, 7, 1, 8, 1, 7], "one head, a prompt of one token, a full cache"),
    ([1, 6, 2, 4, 0, 6], "one sequence, no prompt"),
    ([2, 5, 2, 4, 5, 8], "only a prompt"),
    ([2, 130, 2, 3, 62, 140], "more queries than the CPU backend's blocks of 64"),
];

/// Tokens `from..to` of each sequence of length `t`.
fn tokens(values: &[f64], t: usize, width: usize, from: usize, to: usize) -> Vec<f64> {
    values.chunks(t * width).flat_map(|sequence| &sequence[from * width..to * width]).copied().collect()
}

/// k or v of packed values.
fn part(qkv: &[f64], c: usize, index: usize) -> Vec<f64> {
    qkv.chunks(3 * c).flat_map(|token| &token[index * c..(index + 1) * c]).copied().collect()
}

/// The expected cache: `values` of the first `len` tokens, then NaN.
fn filled(values: &[f64], t: usize, width: usize, len: usize, max_t: usize) -> Vec<f64> {
    let sequence = |values: &[f64]| [&values[..len * width], &vec![f64::NAN; (max_t - len) * width]].concat();
    values.chunks(t * width).flat_map(sequence).collect()
}

/// Positions that are not stored yet are NaN, so that reading them makes a result NaN.
fn decoding_is_the_forward<B: Device>(backend: &B) {
    for (sizes @ [b, t, nh, hs, prompt, max_t], why) in CASES {
        let c = nh * hs;
        let qkv: Input<B, B::Compute> = Draws::new(1).input(backend, [b, t, 3 * c]);
        let mut out = Output::<B, B::Compute>::new(backend, [b, t, c]);
        let mut lse = Output::<B, B::Accum>::new(backend, [b, nh, t]);
        let op = AttentionForward {
            qkv: Qkv::Packed { qkv: qkv.view(), num_heads: nh },
            causal: true,
            out: out.view(),
            lse: lse.view(),
        };
        backend.attention_forward(op).unwrap();
        let want = out.read(backend);

        let [mut k_cache, mut v_cache] = [(); 2].map(|()| Output::<B, B::Compute>::new(backend, [b, max_t, c]));
        let packed = |from, to| {
            Input::<B, B::Compute>::new(backend, [b, to - from, 3 * c], &tokens(&qkv.values, t, 3 * c, from, to))
        };
        if prompt > 0 {
            // In two calls, as a prompt may be stored.
            for (from, to) in [(0, prompt.div_ceil(2)), (prompt.div_ceil(2), prompt)] {
                if from == to {
                    continue;
                }
                let (qkv, k_cache, v_cache) = (packed(from, to), k_cache.view(), v_cache.view());
                let op = KvCacheStore { qkv: qkv.view(), num_heads: nh, position: from, k_cache, v_cache };
                backend.kv_cache_store(op).unwrap();
            }
        }
        for position in prompt..=t {
            for (index, cache) in [(1, &k_cache), (2, &v_cache)] {
                let want = filled(&part(&qkv.values, c, index), t, c, position, max_t);
                assert_same_bits(&format!("cache {index} of {sizes:?} at {position}"), &cache.read(backend), &want);
            }
            if position == t {
                break;
            }
            let qkv = packed(position, position + 1);
            let mut out = Output::<B, B::Compute>::new(backend, [b, 1, c]);
            let (qkv, k_cache, v_cache) = (qkv.view(), k_cache.view(), v_cache.view());
            let op = AttentionDecode { qkv, num_heads: nh, position, k_cache, v_cache, out: out.view() };
            backend.attention_decode(op).unwrap();
            let (got, want) = (out.read(backend), tokens(&want, t, c, position, position + 1));
            assert_same_bits(&format!("attention_decode ({why}) at {position}"), &got, &want);
        }
    }
}

#[test]
fn decoding_matches_the_forward() {
    decoding_is_the_forward(&Cpu::<f64>::new());
    decoding_is_the_forward(&Cpu::<f32>::new());
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let (backend, [b, nh, hs, max_t]) = (Cpu::<f32>::new(), [3, 5, 16, 200]);
    let c = nh * hs;
    let qkv: Input<_, f32> = Draws::new(2).input(&backend, [b, 1, 3 * c]);
    let cache = Draws::new(3).numbers(b * max_t * c);
    assert_same_on_any_threads("attention_decode", || {
        let [mut k_cache, mut v_cache] = [(); 2].map(|()| Output::<_, f32>::with(&backend, [b, max_t, c], &cache));
        let mut out = Output::new(&backend, [b, 1, c]);
        let (k, v) = (k_cache.view(), v_cache.view());
        let op =
            AttentionDecode { qkv: qkv.view(), num_heads: nh, position: 190, k_cache: k, v_cache: v, out: out.view() };
        backend.attention_decode(op).unwrap();
        vec![out.read(&backend), k_cache.read(&backend), v_cache.read(&backend)]
    });
}

/// A call, valid unless edited: B = 2, T = 1, NH = 2, HS = 4, T_max = 5.
struct Call {
    qkv: Vec<usize>,
    num_heads: usize,
    position: usize,
    k_cache: Vec<usize>,
    v_cache: Vec<usize>,
    out: Vec<usize>,
}

impl Call {
    fn new(edit: impl FnOnce(&mut Call)) -> Self {
        let [k_cache, v_cache] = [(); 2].map(|()| vec![2, 5, 8]);
        let mut call = Call { qkv: vec![2, 1, 24], num_heads: 2, position: 4, k_cache, v_cache, out: vec![2, 1, 8] };
        edit(&mut call);
        call
    }
}

fn assert_store_rejected<S: Storage>(storage: &S, message: &str, edit: impl FnOnce(&mut Call)) {
    let call = Call::new(edit);
    let qkv = Tensor::zeros(storage, &call.qkv[..]).unwrap();
    let [mut k, mut v] = [&call.k_cache, &call.v_cache].map(|shape| Tensor::zeros(storage, &shape[..]).unwrap());
    let Call { num_heads, position, .. } = call;
    let (k_cache, v_cache) = (k.view_mut(), v.view_mut());
    let op = KvCacheStore::<S> { qkv: qkv.view(), num_heads, position, k_cache, v_cache };
    assert_rejected(op.check(), &format!("kv_cache_store: {message}"));
}

fn assert_decode_rejected<S: Storage>(storage: &S, message: &str, edit: impl FnOnce(&mut Call)) {
    let call = Call::new(edit);
    let qkv = Tensor::zeros(storage, &call.qkv[..]).unwrap();
    let [mut k, mut v, mut out] =
        [&call.k_cache, &call.v_cache, &call.out].map(|shape| Tensor::zeros(storage, &shape[..]).unwrap());
    let Call { num_heads, position, .. } = call;
    let (k_cache, v_cache, out) = (k.view_mut(), v.view_mut(), out.view_mut());
    let op = AttentionDecode::<S> { qkv: qkv.view(), num_heads, position, k_cache, v_cache, out };
    assert_rejected(op.check(), &format!("attention_decode: {message}"));
}

#[test]
fn violated_preconditions_are_rejected() {
    let cpu = Cpu::<f32>::new();
    let both = |message: &str, edit: fn(&mut Call)| {
        assert_store_rejected(&cpu, message, edit);
        assert_decode_rejected(&cpu, message, edit);
    };
    both("qkv has axes (B, T, 3C) failed (qkv is (2, 24))", |call| call.qkv = vec![2, 24]);
    both("qkv not empty failed (qkv is (0, 1, 24))", |call| call.qkv = vec![0, 1, 24]);
    both("3C % (3·NH) == 0 failed (3C = 24, NH = 3)", |call| call.num_heads = 3);
    both("k_cache (B, T_max, C) == (2, 5, 8) failed (k_cache is (3, 5, 8))", |call| call.k_cache = vec![3, 5, 8]);
    both("k_cache (B, T_max, C) == (2, 0, 8) failed (k_cache is (80))", |call| call.k_cache = vec![80]);
    both("v_cache (B, T_max, C) == (2, 5, 8) failed (v_cache is (2, 6, 8))", |call| call.v_cache = vec![2, 6, 8]);
    both("position + T <= T_max failed (position = 5, T = 1, T_max = 5)", |call| call.position = 5);
    let overflow = "position + T <= T_max failed (position = 18446744073709551615, T = 1, T_max = 5)";
    both(overflow, |call| call.position = usize::MAX);
    assert_store_rejected(&cpu, "position + T <= T_max failed (position = 4, T = 2, T_max = 5)", |call| {
        call.qkv = vec![2, 2, 24]
    });
    assert_decode_rejected(&cpu, "T == 1 failed (T = 2)", |call| (call.qkv, call.position) = (vec![2, 2, 24], 3));
    assert_decode_rejected(&cpu, "out (B, 1, C) == (2, 1, 8) failed (out is (2, 8))", |call| call.out = vec![2, 8]);
    assert_store_rejected(&Narrow, "HS % 8 == 0 failed (HS = 4)", |_| {});
    assert_decode_rejected(&Narrow, "HS % 8 == 0 failed (HS = 4)", |_| {});
}

#[test]
fn a_rejected_call_writes_nothing() {
    let backend = Cpu::<f32>::new();
    let qkv: Input<_, f32> = Draws::new(5).input(&backend, [2, 1, 24]);
    let [mut k, mut v] = [(); 2].map(|()| Output::<_, f32>::new(&backend, [2, 5, 8]));
    let mut out = Output::new(&backend, [2, 1, 8]);
    let message = "position + T <= T_max failed (position = 5, T = 1, T_max = 5)";
    let (k_cache, v_cache) = (k.view(), v.view());
    let op = KvCacheStore { qkv: qkv.view(), num_heads: 2, position: 5, k_cache, v_cache };
    assert_rejected(backend.kv_cache_store(op), &format!("kv_cache_store: {message}"));
    let (k_cache, v_cache) = (k.view(), v.view());
    let op = AttentionDecode { qkv: qkv.view(), num_heads: 2, position: 5, k_cache, v_cache, out: out.view() };
    assert_rejected(backend.attention_decode(op), &format!("attention_decode: {message}"));
    [k, v, out].iter().for_each(|output| output.assert_untouched(&backend));
}

/// B = 2, C = 16 in bf16. Storing 3 tokens reads k and v of 96 elements each and writes them; decoding at position 4 reads
/// 96 of qkv and 4 rows a cache and sequence, and writes one a cache and sequence and 32 of out.
#[test]
fn floors_by_hand() {
    let zeros = |shape: [usize; 3]| Tensor::<Narrow, bf16>::zeros(&Narrow, shape).unwrap();
    let [mut k, mut v, mut out] = [zeros([2, 8, 16]), zeros([2, 8, 16]), zeros([2, 1, 16])];
    let (qkv, k_cache, v_cache) = (zeros([2, 3, 48]), k.view_mut(), v.view_mut());
    let op = KvCacheStore::<Narrow> { qkv: qkv.view(), num_heads: 2, position: 4, k_cache, v_cache };
    assert_eq!(op.floor(), Floor { bytes: 2 * (4 * 96), flops: 0 });

    let (qkv, k_cache, v_cache) = (zeros([2, 1, 48]), k.view_mut(), v.view_mut());
    let op =
        AttentionDecode::<Narrow> { qkv: qkv.view(), num_heads: 2, position: 4, k_cache, v_cache, out: out.view_mut() };
    let elements = 96 + 2 * 2 * 4 * 16 + 2 * 2 * 16 + 32;
    assert_eq!(op.floor(), Floor { bytes: 2 * elements, flops: 2 * 2 * 2 * 5 * 16 });
}
