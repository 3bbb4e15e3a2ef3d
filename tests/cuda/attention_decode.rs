//! Attention of one token over a KV cache, and storing tokens into the cache.

use emulator_trials::mutate::Kind;
use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{AttentionDecode, Backend, KvCacheStore, Operation};
use ironwarp::tensor::Tensor;

use crate::bounds::{AccuracyBound, TrafficBound};
use crate::common::*;
use crate::emulator::{Alone, alone, shared};
use crate::kernel_checks::{Equivalent, Trial, assert_mutants_killed, assert_schedules_agree, equivalent};

const HS64: &str = "attention_decode_hs64";
const HS128: &str = "attention_decode_hs128";
const HS256: &str = "attention_decode_hs256";
const COMBINE: &str = "attention_decode_combine";
const STORE: &str = "kv_cache_store";

/// Numbers in [-magnitude, magnitude) that bf16 represents.
fn numbers(seed: u64, len: usize, magnitude: f64) -> Vec<f64> {
    rounded::<bf16>(Draws::new(seed).numbers(len).iter().map(|x| x * magnitude).collect())
}

/// A call of either operation, and the contents of its tensors.
#[derive(Clone)]
struct Call {
    b: usize,
    t: usize,
    nh: usize,
    position: usize,
    max_t: usize,
    c: usize,
    qkv: Vec<f64>,
    /// NaN from `position` on: reading it makes a result NaN.
    k: Vec<f64>,
    v: Vec<f64>,
}

impl Call {
    fn store([b, t, nh, hs]: [usize; 4], position: usize, max_t: usize) -> Self {
        Call::new([b, t, nh, hs], position, max_t, 1.0)
    }

    fn decode([b, nh, hs]: [usize; 3], position: usize, magnitude: f64) -> Self {
        Call::new([b, 1, nh, hs], position, position + 1 + position % 3, magnitude)
    }

    fn new([b, t, nh, hs]: [usize; 4], position: usize, max_t: usize, magnitude: f64) -> Self {
        let c = nh * hs;
        let cache = |seed| {
            let mut values = numbers(seed, b * max_t * c, magnitude);
            values.chunks_mut(max_t * c).for_each(|sequence| sequence[position * c..].fill(f64::NAN));
            values
        };
        Call { b, t, nh, position, max_t, c, qkv: numbers(1, b * t * 3 * c, magnitude), k: cache(2), v: cache(3) }
    }

    /// Calls `kv_cache_store`: both caches.
    fn stored<B: Device>(&self, backend: &B) -> [Vec<f64>; 2] {
        let Call { b, t, nh: num_heads, position, max_t, c, .. } = *self;
        let qkv: Input<B, B::Compute> = Input::new(backend, [b, t, 3 * c], &self.qkv);
        let [mut k, mut v] =
            [&self.k, &self.v].map(|cache| Output::<B, B::Compute>::with(backend, [b, max_t, c], cache));
        let (k_cache, v_cache) = (k.view(), v.view());
        backend.kv_cache_store(KvCacheStore { qkv: qkv.view(), num_heads, position, k_cache, v_cache }).unwrap();
        [k.read(backend), v.read(backend)]
    }

    /// Calls `attention_decode`: `out`, and both caches.
    fn decoded<B: Device>(&self, backend: &B) -> [Vec<f64>; 3] {
        let Call { b, nh: num_heads, position, max_t, c, .. } = *self;
        let qkv: Input<B, B::Compute> = Input::new(backend, [b, 1, 3 * c], &self.qkv);
        let [mut k, mut v] =
            [&self.k, &self.v].map(|cache| Output::<B, B::Compute>::with(backend, [b, max_t, c], cache));
        let mut out = Output::<B, B::Compute>::new(backend, [b, 1, c]);
        let (k_cache, v_cache) = (k.view(), v.view());
        let op = AttentionDecode { qkv: qkv.view(), num_heads, position, k_cache, v_cache, out: out.view() };
        backend.attention_decode(op).unwrap();
        [out.read(backend), k.read(backend), v.read(backend)]
    }

    /// Either call with tensors that fill their buffers: an access past their ends is out of bounds.
    fn filling_buffers(&self, cuda: &Cuda, decode: bool) -> Vec<Vec<f64>> {
        let Call { b, t, nh: num_heads, position, max_t, c, .. } = *self;
        let tensor = |shape: [usize; 3], values: &[f64]| {
            let values = values.iter().map(|&x| bf16::from_f64(x)).collect();
            Tensor::<Cuda, bf16>::from_vec(cuda, shape, values).unwrap()
        };
        let qkv = tensor([b, t, 3 * c], &self.qkv);
        let [mut k, mut v] = [&self.k, &self.v].map(|cache| tensor([b, max_t, c], cache));
        let mut out = tensor([b, t, c], &vec![f64::NAN; b * t * c]);
        let (qkv, k_cache, v_cache) = (qkv.view(), k.view_mut(), v.view_mut());
        if decode {
            let op = AttentionDecode { qkv, num_heads, position, k_cache, v_cache, out: out.view_mut() };
            cuda.attention_decode(op).unwrap();
        } else {
            cuda.kv_cache_store(KvCacheStore { qkv, num_heads, position, k_cache, v_cache }).unwrap();
        }
        let read = |tensor: &Tensor<Cuda, bf16>| tensor.to_vec(cuda).unwrap().into_iter().map(Number::wide).collect();
        [out, k, v].iter().map(read).collect()
    }
}

#[test]
fn storing_copies_the_bits() {
    for (sizes, position, max_t, why) in [
        ([1, 1, 1, 8], 0, 1, "one vector, a full cache"),
        ([2, 3, 1, 8], 4, 9, "rows before and after, two sequences"),
        ([3, 5, 2, 24], 0, 5, "90 threads of a block"),
        ([2, 16, 1, 64], 3, 20, "one block"),
        ([2, 43, 3, 8], 1, 44, "one block and two threads"),
        ([1, 7, 12, 64], 100, 107, "GPT-2's channels"),
        ([2, 5, 25, 64], 2, 9, "GPT-2 XL's channels"),
        ([1, 2, 1, 512], 0, 3, "a head larger than decoding allows"),
    ] {
        let call = Call::store(sizes, position, max_t);
        let (got, want) = (call.stored(&*shared()), call.stored(&Cpu::<f32>::new()));
        for (cache, (got, want)) in ["k_cache", "v_cache"].iter().zip(got.iter().zip(&want)) {
            assert_same_bits(&format!("kv_cache_store {cache}, {sizes:?} at {position} ({why})"), got, want);
        }
    }
}

/// B, NH, HS, position and why.
const SHAPES: [([usize; 3], usize, &str); 24] = [
    ([1, 1, 8], 0, "the new token alone, one lane"),
    ([2, 1, 8], 1, "one position before it"),
    ([1, 2, 16], 3, "the positions of one group of lanes"),
    ([1, 2, 24], 4, "three lanes, one position in the second iteration of a group"),
    ([2, 3, 64], 15, "one iteration of a warp"),
    ([2, 3, 64], 16, "one position for the second warp"),
    ([1, 12, 64], 63, "one iteration of a block"),
    ([1, 12, 64], 64, "one position in the second iteration"),
    ([1, 3, 56], 100, "an idle lane"),
    ([1, 2, 64], 127, "the most positions for one split"),
    ([1, 2, 64], 128, "two splits, the second of one position"),
    ([1, 2, 64], 191, "two splits, the second of one iteration"),
    ([2, 12, 64], 255, "whole splits"),
    ([1, 25, 64], 700, "six splits, the last of 61 positions"),
    ([1, 1, 72], 5, "more than 64 columns"),
    ([2, 2, 96], 150, "96 columns"),
    ([1, 2, 128], 31, "one iteration of a block, 128 columns"),
    ([1, 2, 128], 300, "splits, 128 columns"),
    ([1, 1, 136], 7, "more than 128 columns"),
    ([2, 2, 200], 15, "one iteration of a block, 256 columns"),
    ([1, 1, 256], 40, "the most columns"),
    ([1, 1, 256], 300, "splits, the most columns"),
    ([700, 1, 8], 300, "so many heads that two splits suffice"),
    ([1040, 1, 8], 200, "so many heads that nothing is split"),
];

#[test]
fn decoding_is_the_formula() {
    for (magnitude, ulps) in [(1.0, 1.0), (4.0, 4.0)] {
        for (sizes, position, why) in SHAPES {
            let call = Call::decode(sizes, position, magnitude);
            let what = format!("attention_decode out, {sizes:?} at {position} ({why}), numbers to ±{magnitude}");
            let [out, k, v] = call.decoded(&*shared());
            let [reference, want_k, want_v] = call.decoded(&Cpu::<f64>::new());
            let [baseline, ..] = call.decoded(&Cpu::<f32>::new());
            assert_same_bits(&format!("{what}: k_cache"), &k, &want_k);
            assert_same_bits(&format!("{what}: v_cache"), &v, &want_v);
            AccuracyBound { what: &what, reference: &reference, baseline: &baseline, ulps }.check::<bf16>(&out);
        }
    }
}

/// Scores differ so much that one position has all the weight: out is its v, to the last bit, for every index of the position.
#[test]
fn one_position_can_have_all_the_weight() {
    for sizes @ [_, _, hs] in [[1, 1, 8], [1, 1, 64], [1, 1, 128], [1, 1, 256]] {
        for (position, at) in [(0, 0), (77, 0), (77, 77), (300, 0), (300, 127), (300, 128), (300, 200), (300, 300)] {
            let mut call = Call::decode(sizes, position, 1.0);
            call.qkv[..2 * hs].fill(-30.0);
            call.k[..position * hs].fill(-30.0);
            call.k[..position * hs].iter_mut().for_each(|x| *x = 30.0);
            call.qkv[hs..2 * hs].fill(30.0);
            let row = if at == position { &mut call.qkv[hs..2 * hs] } else { &mut call.k[at * hs..][..hs] };
            row.fill(-30.0);
            let want = if at == position { &call.qkv[2 * hs..] } else { &call.v[at * hs..][..hs] };
            let [out, ..] = call.decoded(&*shared());
            assert_same_bits(&format!("HS = {hs}, position {at} of {position}"), &out, want);
        }
    }
}

/// NaN and infinity affect the same elements as in the reference, and no other head.
#[test]
fn non_finite_numbers_stay_in_their_head() {
    let (hs, nh) = (16, 3);
    for position in [5, 200] {
        for bad in [f64::NAN, f64::INFINITY, f64::NEG_INFINITY] {
            for operand in 0..5 {
                let mut call = Call::decode([2, nh, hs], position, 1.0);
                let c = nh * hs;
                // In the second sequence's second head.
                let (token, row) = (3 * c + hs, call.max_t * c + 2 * c + hs);
                let number = match operand {
                    0 => &mut call.qkv[token],
                    1 => &mut call.qkv[token + c],
                    2 => &mut call.qkv[token + 2 * c],
                    3 => &mut call.k[row],
                    _ => &mut call.v[row],
                };
                *number = bad;
                let ([got, ..], [want, ..]) = (call.decoded(&*shared()), call.decoded(&Cpu::<f64>::new()));
                let what = format!("attention_decode out, {bad} in operand {operand}, position {position}");
                AccuracyBound { what: &what, reference: &want, baseline: &want, ulps: 0.55 }.check::<bf16>(&got);
            }
        }
    }
}

#[test]
fn each_head_size_has_its_kernel() {
    let Some(cuda) = alone() else { return };
    for (sizes @ [b, nh, hs], position, why) in SHAPES {
        let kernel = match hs {
            ..=64 => HS64,
            65..=128 => HS128,
            _ => HS256,
        };
        let split = position >= 128 && b * nh < 1024;
        let counts = cuda.count(|| drop(Call::decode(sizes, position, 1.0).decoded(&*cuda)));
        assert_eq!(counts.kernels(), if split { vec![kernel, COMBINE] } else { vec![kernel] }, "{why}");
    }
}

fn check_store_traffic(cuda: &Alone, [b, t, nh, hs]: [usize; 4], sectors: f64) {
    let c = nh * hs;
    let qkv: Input<Cuda, bf16> = Input::new(&**cuda, [b, t, 3 * c], &vec![1.0; b * t * 3 * c]);
    let [mut k, mut v] = [(); 2].map(|()| Output::<Cuda, bf16>::new(&**cuda, [b, t, c]));
    let (k_cache, v_cache) = (k.view(), v.view());
    let op = KvCacheStore { qkv: qkv.view(), num_heads: nh, position: 0, k_cache, v_cache };
    let floor = op.floor();
    let counts = cuda.count(|| cuda.kv_cache_store(op).unwrap());
    let what = format!("kv_cache_store, B = {b}, T = {t}, NH = {nh}, HS = {hs}");
    TrafficBound { what: &what, floor, bytes: 1.0, sectors }.check(&counts);
}

fn check_decode_traffic(cuda: &Alone, [b, nh, hs]: [usize; 3], position: usize, [bytes, sectors]: [f64; 2]) {
    let (c, max_t) = (nh * hs, position + 1);
    let qkv: Input<Cuda, bf16> = Input::new(&**cuda, [b, 1, 3 * c], &vec![1.0; b * 3 * c]);
    let [mut k, mut v] =
        [(); 2].map(|()| Output::<Cuda, bf16>::with(&**cuda, [b, max_t, c], &vec![1.0; b * max_t * c]));
    let mut out = Output::<Cuda, bf16>::new(&**cuda, [b, 1, c]);
    let (k_cache, v_cache) = (k.view(), v.view());
    let op = AttentionDecode { qkv: qkv.view(), num_heads: nh, position, k_cache, v_cache, out: out.view() };
    let floor = op.floor();
    let counts = cuda.count(|| cuda.attention_decode(op).unwrap());
    let what = format!("attention_decode, B = {b}, NH = {nh}, HS = {hs}, position {position}");
    TrafficBound { what: &what, floor, bytes, sectors }.check(&counts);
}

#[test]
fn traffic_is_the_floor() {
    let Some(cuda) = alone() else { return };
    check_store_traffic(&cuda, [1, 64, 12, 64], 1.0);
    check_store_traffic(&cuda, [2, 16, 25, 64], 1.0);
    // Four warps read q; the partial sums of a split are written and read in f32.
    check_decode_traffic(&cuda, [2, 12, 64], 127, [1.02, 1.0]);
    check_decode_traffic(&cuda, [2, 12, 64], 255, [1.06, 1.01]);
    check_decode_traffic(&cuda, [1, 25, 64], 1023, [1.06, 1.01]);
    check_decode_traffic(&cuda, [1, 4, 128], 511, [1.06, 1.01]);
    check_decode_traffic(&cuda, [1, 2, 256], 511, [1.06, 1.01]);
}

#[test]
fn misaligned_tensors_are_rejected() {
    let cuda = shared();
    let [qkv, aligned]: [Input<Cuda, bf16>; 2] = [[1, 1, 32]; 2].map(|shape| Input::new(&*cuda, shape, &[0.0; 32]));
    let [mut k, mut v, mut out]: [Output<Cuda, bf16>; 3] =
        [(); 3].map(|()| Output::with(&*cuda, [1, 2, 16], &[0.0; 32]));
    for wrong in 0..4 {
        let shift = |index| if index == wrong { 4 } else { 0 };
        let name = ["qkv", "k_cache", "v_cache", "out"][wrong];
        let message = format!("{name} 16-byte aligned failed ({name} begins 8 bytes past a multiple of 16)");
        let qkv = || if wrong == 0 { qkv.view().part(4, [1, 1, 24]) } else { aligned.view().part(0, [1, 1, 24]) };
        if wrong < 3 {
            let (k_cache, v_cache) = (k.view().into_part(shift(1), [1, 2, 8]), v.view().into_part(shift(2), [1, 2, 8]));
            let op = KvCacheStore { qkv: qkv(), num_heads: 1, position: 0, k_cache, v_cache };
            assert_rejected(cuda.kv_cache_store(op), &format!("kv_cache_store: {message}"));
        }
        let (k_cache, v_cache) = (k.view().into_part(shift(1), [1, 2, 8]), v.view().into_part(shift(2), [1, 2, 8]));
        let out = out.view().into_part(shift(3), [1, 1, 8]);
        let op = AttentionDecode { qkv: qkv(), num_heads: 1, position: 0, k_cache, v_cache, out };
        assert_rejected(cuda.attention_decode(op), &format!("attention_decode: {message}"));
    }
    [k, v, out].iter().for_each(|output| output.assert_untouched(&*cuda));
}

#[test]
fn a_head_of_more_than_256_is_rejected() {
    let cuda = shared();
    let qkv: Input<Cuda, bf16> = Input::new(&*cuda, [1, 1, 792], &[0.0; 792]);
    let [mut k, mut v, mut out]: [Output<Cuda, bf16>; 3] = [(); 3].map(|()| Output::new(&*cuda, [1, 1, 264]));
    let (qkv, k_cache, v_cache) = (qkv.view(), k.view(), v.view());
    let op = AttentionDecode { qkv, num_heads: 1, position: 0, k_cache, v_cache, out: out.view() };
    assert_rejected(cuda.attention_decode(op), "attention_decode: HS <= 256 failed (264)");
    [k, v, out].iter().for_each(|output| output.assert_untouched(&*cuda));
}

fn store_trial(why: &'static str, sizes: [usize; 4], position: usize, max_t: usize) -> Trial {
    let call = Call::store(sizes, position, max_t);
    Trial { why, kernels: &[STORE], run: Box::new(move |cuda| call.filling_buffers(cuda, false)) }
}

fn decode_trial(why: &'static str, kernels: &'static [&'static str], sizes: [usize; 3], position: usize) -> Trial {
    let call = Call::decode(sizes, position, 4.0);
    Trial { why, kernels, run: Box::new(move |cuda| call.filling_buffers(cuda, true)) }
}

fn trials() -> Vec<Trial> {
    vec![
        store_trial("two blocks, the second of two threads", [2, 43, 3, 8], 1, 46),
        decode_trial("two sequences, two heads, three lanes", &[HS64], [2, 2, 24], 70),
        decode_trial("two splits", &[HS64, COMBINE], [1, 2, 16], 130),
        decode_trial("nine lanes", &[HS128], [1, 2, 72], 37),
        decode_trial("seventeen lanes", &[HS256], [1, 2, 136], 18),
    ]
}

/// [`trials`], and those that only the mutants need.
fn more_trials() -> Vec<Trial> {
    let mut all = trials();
    all.push(store_trial("a full block", [2, 16, 1, 64], 0, 16));
    all.push(decode_trial("17 blocks of the combine kernel", &[COMBINE], [9, 27, 72], 128));
    for positions in 1..10 {
        all.push(decode_trial("splits", &[COMBINE], [1, 1, 8], 128 * positions + 1));
    }
    for (kernel, hs) in [(&[HS64], 64), (&[HS128], 128), (&[HS256], 256)] {
        all.push(decode_trial("the new token alone", kernel, [1, 1, hs], 0));
        all.push(decode_trial("each lane has columns", kernel, [2, 1, hs], 70));
        all.push(decode_trial("splits", kernel, [1, 2, hs - 8], 200));
        for position in 1..17 {
            all.push(decode_trial("the last position at each index", kernel, [1, 1, hs], position));
        }
    }
    all
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_schedules_agree("attention_decode", &trials());
}

#[test]
fn mutants_are_killed() {
    const QUERY: &str = "more lanes load q than use it";
    const ITERATION: &str = "an iteration without positions has scores of -infinity, which add nothing";
    const FIRST: &str =
        "a warp with one position at a time always has the first of its iteration, which the loop condition checks";
    const COMBINED: &str = "other warps combine values that are not used";
    const ENTRY: &str = "there is always a first split";
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(1, HS64, Kind::ShiftComparison, "if (lane_id() < vectors)", QUERY),
        equivalent(1, HS64, Kind::NeverLeave, "if (lane_id() < vectors)", QUERY),
        equivalent(1, HS64, Kind::ShiftComparison, "for (uint32_t first = begin", ITERATION),
        equivalent(1, HS64, Kind::NeverLeave, "for (uint32_t first = begin", ITERATION),
        equivalent(1, HS128, Kind::ShiftComparison, "if (lane_id() < vectors)", QUERY),
        equivalent(1, HS128, Kind::NeverLeave, "if (lane_id() < vectors)", QUERY),
        equivalent(2, HS128, Kind::ShiftComparison, "for (uint32_t first = begin", ITERATION),
        equivalent(1, HS128, Kind::NeverLeave, "for (uint32_t first = begin", ITERATION),
        equivalent(1, HS256, Kind::NeverLeave, "if (lane_id() < vectors)", QUERY),
        equivalent(2, HS256, Kind::ShiftComparison, "for (uint32_t first = begin", ITERATION),
        equivalent(1, HS256, Kind::NeverLeave, "for (uint32_t first = begin", ITERATION),
        equivalent(2, HS256, Kind::ShiftComparison, "if (position >= end", FIRST),
        equivalent(1, HS256, Kind::SelectFirst, "scores[i] = first", FIRST),
        equivalent(1, HS256, Kind::NeverLeave, "if (threadIdx.x >= LANES)", COMBINED),
        equivalent(2, COMBINE, Kind::NeverLeave, "split < params.num_splits", ENTRY),
    ];
    assert_mutants_killed("attention_decode", &more_trials(), EQUIVALENT);
}
