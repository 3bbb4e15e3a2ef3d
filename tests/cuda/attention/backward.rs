//! The backward of causal attention.

use super::*;

#[derive(Clone)]
struct Backward {
    forward: Inputs,
    dout: Vec<f64>,
    out: Vec<f64>,
    lse: Vec<f64>,
}

impl Backward {
    /// With what the reference's forward gives, rounded to the operands' types.
    fn new(forward: Inputs) -> Self {
        let [b, t, nh, hs] = forward.sizes;
        let [out, lse] = forward.forward(&Cpu::<f64>::new());
        let dout = Draws::new(2).numbers(b * t * nh * hs).into_iter().map(narrow).collect();
        let (out, lse) =
            (out.into_iter().map(narrow).collect(), lse.into_iter().map(|x| f64::from(x as f32)).collect());
        Backward { forward, dout, out, lse }
    }

    /// `dqkv`.
    fn run<B: Device>(&self, backend: &B) -> Vec<f64> {
        self.run_by(backend, B::attention_backward)
    }

    /// With so many heads' blocks together.
    fn grouped(&self, cuda: &Cuda, heads: usize) -> Vec<f64> {
        self.run_by(cuda, |cuda, op| attention::backward(cuda, op, Some(heads)))
    }

    fn run_by<B: Device>(&self, backend: &B, run: impl FnOnce(&B, AttentionBackward<'_, B>) -> Result<()>) -> Vec<f64> {
        let [b, t, nh, hs] = self.forward.sizes;
        let qkv: Tensor<B, B::Compute> = tight(backend, [b, t, 3 * nh * hs], &self.forward.qkv);
        let [dout, out]: [Tensor<B, B::Compute>; 2] =
            [&self.dout, &self.out].map(|x| tight(backend, [b, t, nh * hs], x));
        let lse: Tensor<B, B::Accum> = tight(backend, [b, nh, t], &self.lse);
        let mut dqkv = Output::<B, B::Compute>::new(backend, [b, t, 3 * nh * hs]);
        let op = AttentionBackward {
            dout: dout.view(),
            qkv: qkv.view(),
            num_heads: nh,
            out: out.view(),
            lse: lse.view(),
            dqkv: dqkv.view(),
        };
        run(backend, op).unwrap();
        dqkv.read(backend)
    }

    /// The formula in f32 with p and ds rounded to bf16, as the tensor cores take them; and how large the numbers are that
    /// its sums are made of: `Σ |ds·k|` and the like. Where `dp - delta` cancels, 2⁻²⁰ of the terms of both is what is left.
    fn baseline(&self) -> [Vec<f64>; 2] {
        let Inputs { sizes: [b, t, nh, hs], qkv } = &self.forward;
        let (t, nh, hs) = (*t, *nh, *hs);
        // A p that f32 cannot hold is 0: sizes begin with more than that times the largest values.
        let [mut results, mut sizes] = [0.0, 2f32.powi(-80)].map(|size| vec![size; qkv.len()]);
        let scale = 1.0 / (hs as f32).sqrt();
        for (b, head, i) in (0..b * nh * t).map(|n| (n / t / nh, n / t % nh, n % t)) {
            let place = |token, part| self.forward.place([b, token, part, head, 0]);
            let row = |token, part| &qkv[place(token, part)..][..hs];
            let of_query = ((b * t + i) * nh + head) * hs;
            let (dout, out) = (&self.dout[of_query..][..hs], &self.out[of_query..][..hs]);
            let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| *a as f32 * *b as f32).sum::<f32>();
            let size = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a * b).abs() as f32).sum::<f32>();
            let (delta, lse) = (dot(dout, out), self.lse[(b * nh + head) * t + i] as f32);
            for j in 0..=i {
                let p = (dot(row(i, 0), row(j, 1)) * scale - lse).exp();
                let ds = p * (dot(dout, row(j, 2)) - delta);
                let [p, ds] = [p, ds].map(|x| bf16::from_f32(x).to_f32());
                let ds_size = ds.abs() + p * (size(dout, row(j, 2)) + size(dout, out)) * 2f32.powi(-12);
                for x in 0..hs {
                    for (to, weight, size, of) in [
                        (place(i, 0), ds * scale, ds_size * scale, row(j, 1)[x]),
                        (place(j, 1), ds * scale, ds_size * scale, row(i, 0)[x]),
                        (place(j, 2), p, p, dout[x]),
                    ] {
                        results[to + x] += weight * of as f32;
                        sizes[to + x] += size * of.abs() as f32;
                    }
                }
            }
        }
        [results, sizes].map(|values| values.into_iter().map(f64::from).collect())
    }

    /// Of packed values, those of one part.
    fn part(&self, values: &[f64], part: usize) -> Vec<f64> {
        let [_, _, nh, hs] = self.forward.sizes;
        values.chunks(nh * hs).skip(part).step_by(3).flatten().copied().collect()
    }
}

#[test]
fn backward_is_the_formula() {
    let every_size = [([1, 129, 1, 112], "as 80"), ([1, 65, 3, 128], "three heads")];
    for ((sizes, why), factor) in
        CASES.into_iter().chain(every_size).flat_map(|case| [1.0, 16.0, LARGE].map(|factor| (case, factor)))
    {
        let inputs = Backward::new(Inputs::scaled(sizes, factor));
        let got = inputs.run(&*shared());
        let reference = inputs.run(&Cpu::<f64>::new());
        let [baseline, sums] = inputs.baseline();
        for (part, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
            let [got, reference, baseline, sums] =
                [&got, &reference, &baseline, &sums].map(|values| inputs.part(values, part));
            let baseline: Vec<f64> = baseline.into_iter().map(narrow).collect();
            let what = format!("attention_backward, (B, T, NH, HS) = {sizes:?} ({why}), queries × {factor}: {name}");
            let unit = 2f64.powi(-8);
            if factor == LARGE {
                // Scores of 1e4 have errors that the exponential makes those of the weights, in any order of their terms.
                let error = worst(&got, &reference, &sums, unit);
                println!("{what}: {error:.3} units");
                assert!(error <= 8.0, "{what}: {error:.3} units, 8 allowed");
            } else {
                judge(&what, [&got, &reference, &baseline, &sums], unit, 2.0);
            }
        }
    }
}

/// With tokens that are all alike every weight is 1 / (i + 1), and nothing is gained by moving any of them: dq and dk are 0 but
/// for rounding, and dv[j] is the sum of dout[i] / (i + 1) from i = j on.
#[test]
fn equal_tokens_have_no_slope() {
    for hs in [64, 128] {
        let (t, mut forward) = (130, Inputs::new([1, 130, 1, hs]));
        let first = forward.qkv[..3 * hs].to_vec();
        forward.qkv.chunks_mut(3 * hs).for_each(|token| token.copy_from_slice(&first));
        let inputs = Backward::new(forward);
        let got = inputs.run(&*shared());
        // Sums of t terms, each of √HS roundings of numbers of size 1.
        let most = t as f64 * hs as f64 * 2f64.powi(-24);
        for part in [0, 1] {
            let largest = inputs.part(&got, part).iter().fold(0.0f64, |most, x| most.max(x.abs()));
            assert!(largest <= most, "HS = {hs}, part {part}: {largest:e}, {most:e} allowed");
        }
        let (mut want, dv) = (vec![0.0; hs], inputs.part(&got, 2));
        for j in (0..t).rev() {
            for x in 0..hs {
                want[x] += inputs.dout[j * hs + x] / (j + 1) as f64;
                let (got, bound) = (dv[j * hs + x], 2f64.powi(-8) * want[x].abs() + 0.02);
                assert!((got - want[x]).abs() <= bound, "HS = {hs}, dv[{j}, {x}]: {got}, not {}", want[x]);
            }
        }
    }
}

/// dq is of what came before, dk and dv of what comes after: the rest changes no bit.
#[test]
fn attention_backward_is_causal() {
    for sizes @ [b, t, nh, hs] in [[2, 130, 2, 64], [1, 130, 1, 128]] {
        let inputs = Backward::new(Inputs::new(sizes));
        let dqkv = inputs.run(&*shared());
        let (c, other) =
            (nh * hs, Backward::new(Inputs { qkv: Draws::new(4).numbers(inputs.forward.qkv.len()), sizes }));
        for cut in [1, 16, 31, 32, 33, 63, 64, 65, 127, 128, 129] {
            for future in [false, true] {
                let mut changed = inputs.clone();
                let of_sequences = |width: usize, sequence: usize| {
                    let (start, cut) = (sequence * t * width, sequence * t * width + cut * width);
                    if future { cut..start + t * width } else { start..cut }
                };
                for range in (0..b).map(|sequence| of_sequences(3 * c, sequence)) {
                    changed.forward.qkv[range.clone()]
                        .iter_mut()
                        .zip(&other.forward.qkv[range])
                        .for_each(|(x, y)| *x = narrow(*y));
                }
                for range in (0..b).map(|sequence| of_sequences(c, sequence)) {
                    changed.dout[range.clone()].iter_mut().for_each(|x| *x = -*x);
                    changed.out[range.clone()].copy_from_slice(&other.out[range]);
                }
                for range in (0..b * nh).map(|head| of_sequences(1, head)) {
                    changed.lse[range.clone()].copy_from_slice(&other.lse[range]);
                }
                let new = changed.run(&*shared());
                // Of a part, what is on the other side of the cut.
                let kept = |dqkv: &[f64], part: usize| -> Vec<f64> {
                    let values = inputs.part(dqkv, part);
                    let rows = if future { 0..cut * c } else { cut * c..t * c };
                    values.chunks(t * c).flat_map(|sequence| &sequence[rows.clone()]).copied().collect()
                };
                for part in if future { 0..1 } else { 1..3 } {
                    let what = format!("{sizes:?}, cut at {cut}, future {future}, part {part}");
                    assert_same_bits(&what, &kept(&new, part), &kept(&dqkv, part));
                }
                assert_ne!(new, dqkv, "changing tokens on one side of {cut}");
            }
        }
    }
}

/// What a bad number makes of an element.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Fate {
    /// NaN.
    Bad,
    /// Whatever: 0 · NaN is NaN, for the 32 rows that are taken at a time.
    Any,
    /// The same bits.
    Clean,
}

/// Of row `row`, column `x` of dq, dk or dv, where column 5 of row `bad` of an operand is NaN: q, k, v, dout, out, lse.
fn fate(operand: usize, bad: usize, part: usize, row: usize, x: usize) -> Fate {
    let (near, at_x) = (row / 32 == bad / 32, x == 5);
    let choose = |is_bad: bool, is_any: bool| match (is_bad, is_any) {
        (true, _) => Fate::Bad,
        (false, true) => Fate::Any,
        (false, false) => Fate::Clean,
    };
    let (before, after) = (row <= bad, row >= bad);
    match (["q", "k", "v", "dout", "out", "lse"][operand], ["dq", "dk", "dv"][part]) {
        // A key or value is for itself, and for the queries from it on.
        ("k", "dq") => choose(after, near && at_x),
        ("v", "dq") => choose(after, near),
        ("k", _) | ("v", "dk") => choose(row == bad, false),
        ("v" | "out", _) if part == 2 => Fate::Clean,
        // A query and all of its own are for itself, and for the keys up to it.
        (_, "dq") => choose(row == bad, false),
        ("q", "dk") => choose(before, near && at_x),
        ("q", _) => choose(before, false),
        ("dout", "dv") => choose(before && at_x, near && at_x),
        _ => choose(before, near),
    }
}

#[test]
fn bad_numbers_stay_where_they_belong() {
    let sizes @ [_, t, nh, hs] = [2, 130, 2, 64];
    let clean = Backward::new(Inputs::new(sizes));
    let want = clean.run(&*shared());
    for (operand, bad, token) in (0..6).flat_map(|operand| {
        [(f64::NAN, 70), (f64::NAN, 129), (f64::INFINITY, 70)].map(|(bad, token)| (operand, bad, token))
    }) {
        let mut inputs = clean.clone();
        let of_out = (token * nh + 1) * hs + 5;
        match operand {
            0..3 => {
                let place = inputs.forward.place([0, token, operand, 1, 5]);
                inputs.forward.qkv[place] = bad;
            }
            3 => inputs.dout[of_out] = bad,
            4 => inputs.out[of_out] = bad,
            _ => inputs.lse[t + token] = bad,
        }
        let got = inputs.run(&*shared());
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let (x, head, part, row, b) =
                (i % hs, i / hs % nh, i / hs / nh % 3, i / hs / nh / 3 % t, i / hs / nh / 3 / t);
            let fate = if (b, head) == (0, 1) { fate(operand, token, part, row, x) } else { Fate::Clean };
            let what = format!(
                "{bad} in operand {operand}, token {token}: sequence {b}, part {part}, head {head}, [{row}, {x}]"
            );
            match fate {
                Fate::Bad if bad.is_nan() => assert!(got.is_nan(), "{what}: {got}"),
                Fate::Clean => assert_eq!(got.to_bits(), want.to_bits(), "{what}: {got}, not {want}"),
                _ => {}
            }
        }
    }
}

#[test]
fn backward_refuses_what_does_not_fit() {
    let cuda = shared();
    let zeros = |shape: &[usize]| Tensor::<Cuda, bf16>::zeros(&*cuda, shape).unwrap();
    let lse = Tensor::<Cuda, f32>::zeros(&*cuda, [1, 1, 1]).unwrap();
    for hs in [8, 24, 144] {
        let (qkv, out) = (zeros(&[1, 1, 3 * hs]), zeros(&[1, 1, hs]));
        let mut dqkv = Output::<Cuda, bf16>::new(&*cuda, [1, 1, 3 * hs]);
        let (dout, qkv, out, lse) = (out.view(), qkv.view(), out.view(), lse.view());
        let op = AttentionBackward { dout, qkv, num_heads: 1, out, lse, dqkv: dqkv.view() };
        let message = format!("attention_backward: HS % 16 == 0 and HS <= 128 failed (HS = {hs})");
        assert_rejected(cuda.attention_backward(op), &message);
        dqkv.assert_untouched(&cuda);
    }
    let (qkv, out) = (zeros(&[3 * 64 + 8]), zeros(&[64 + 8]));
    let mut dqkv = Output::<Cuda, bf16>::new(&*cuda, [1, 1, 3 * 64 + 8]);
    for (wrong, name) in ["dout", "qkv", "out", "dqkv"].into_iter().enumerate() {
        let shift = |operand| usize::from(operand == wrong);
        let op = AttentionBackward {
            dout: out.view().part(shift(0), [1, 1, 64]),
            qkv: qkv.view().part(shift(1), [1, 1, 3 * 64]),
            num_heads: 1,
            out: out.view().part(shift(2), [1, 1, 64]),
            lse: lse.view(),
            dqkv: dqkv.view().into_part(shift(3), [1, 1, 3 * 64]),
        };
        let message = format!("{name} 16-byte aligned failed ({name} begins 2 bytes past a multiple of 16)");
        assert_rejected(cuda.attention_backward(op), &format!("attention_backward: {message}"));
    }
    dqkv.assert_untouched(&cuda);
}

/// The order of blocks is not the numbers' concern.
#[test]
fn groups_of_heads_give_the_same_bits() {
    let inputs = Backward::new(Inputs::new([2, 260, 5, 16]));
    let cuda = shared();
    let own = inputs.run(&*cuda);
    for heads in [1, 3, 4, 10, 99] {
        assert_same_bits(&format!("{heads} heads together"), &inputs.grouped(&cuda, heads), &own);
    }
}

/// Each kernel: what is of its own rows once, and of the other side's what comes before its last query, or from its first key on.
#[test]
fn traffic_is_the_tiles() {
    for sizes @ [b, t, nh, hs] in [[1, 256, 2, 64], [1, 256, 1, 128], [2, 200, 1, 64], [1, 136, 2, 16], [1, 136, 1, 80]]
    {
        let Some(cuda) = alone() else { return };
        let inputs = Backward::new(Inputs::new(sizes));
        let keys: usize = (0..t.div_ceil(128)).map(|block| t.min(128 * (block + 1))).sum();
        let own_keys = if hs <= 64 { 128 } else { 64 };
        let queries: usize = (0..t.div_ceil(own_keys)).map(|block| t - own_keys * block).sum();
        // q, dout, out and dq; lse and its and delta's writing; then k, v, dk and dv.
        let of_queries = t * (4 * 2 * hs + 4 + 8) + keys * 2 * 2 * hs;
        let of_keys = t * 4 * 2 * hs + queries * (2 * 2 * hs + 8);
        let floor = Floor { bytes: (b * nh * (of_queries + of_keys)) as u64, flops: 0 };
        let counts = cuda.count(|| drop(inputs.run(&*cuda)));
        let what = format!("attention_backward, (B, T, NH, HS) = {sizes:?}");
        Lean { what: &what, floor, bytes: 1.0, sectors: 1.0 }.pass(&counts);
        assert_eq!(counts.global().bytes, floor.bytes, "{what}");
    }
}

const KERNELS: [[&str; 2]; 8] = [
    ["attention_backward_dq_hs16", "attention_backward_dkdv_hs16"],
    ["attention_backward_dq_hs32", "attention_backward_dkdv_hs32"],
    ["attention_backward_dq_hs48", "attention_backward_dkdv_hs48"],
    ["attention_backward_dq_hs64", "attention_backward_dkdv_hs64"],
    ["attention_backward_dq_hs80", "attention_backward_dkdv_hs80"],
    ["attention_backward_dq_hs96", "attention_backward_dkdv_hs96"],
    ["attention_backward_dq_hs112", "attention_backward_dkdv_hs112"],
    ["attention_backward_dq_hs128", "attention_backward_dkdv_hs128"],
];

fn trial(sizes: [usize; 4], heads: usize, why: &'static str) -> Trial {
    let inputs = Backward::new(Inputs::new(sizes));
    let run = move |cuda: &Cuda| vec![inputs.grouped(cuda, heads)];
    Trial { why, kernels: &KERNELS[sizes[3] / 16 - 1], run: Box::new(run) }
}

fn trials() -> Vec<Trial> {
    let of_size = |hs: usize| {
        // Of the first tile and of the second; and in the four rows of eight of a warp, what a lane sums delta of.
        let passes = if hs <= 64 { [4, 28, 44, 52] } else { [4, 12, 20, 28] };
        let edges = passes.into_iter().flat_map(move |t| [t, t + if hs <= 64 { 64 } else { 32 }]);
        let edges =
            edges.map(move |t| trial([1, t, 1, hs], 1, "ends in each of the rows that a thread takes at a time"));
        edges.chain([
            trial([1, 130, 1, hs], 1, "two blocks, and stages used twice"),
            trial([1, 20, 3, hs], 2, "two groups of heads"),
        ])
    };
    (16..=128).step_by(16).flat_map(of_size).collect()
}

#[test]
fn any_schedule_gives_the_same_bits() {
    let trials = [(130, 16), (66, 128)].map(|(t, hs)| trial([1, t, 1, hs], 1, "two blocks of keys, three tiles"));
    assert_any_schedule("attention_backward", &trials);
}

#[test]
fn mutants_die() {
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(
            16,
            "attention",
            Kind::ShiftComparison,
            "if (passing % TILE == 0 && passing + TILE < end) fetch",
            "a tile too many, which is not read",
        ),
        equivalent(
            8,
            "attention",
            Kind::NeverLeave,
            "if (passing % TILE == 0 && passing + TILE < end) fetch",
            "as above",
        ),
        equivalent(8, "attention", Kind::NeverLeave, "if (passing % TILE == 0) {", "a barrier in the middle of a tile"),
    ];
    assert_mutants_die("attention_backward_sm80", &trials(), EQUIVALENT);
}

/// Nothing of size T²: what is held grows as the sequence does.
#[test]
fn memory_grows_with_the_sequence() {
    let _turn = shared();
    let peak = |t| {
        let (cuda, backward) = (own(), Backward::new(Inputs::new([1, t, 1, 16])));
        backward.forward.forward(&cuda);
        backward.run(&cuda);
        cuda.device().peak_memory()
    };
    let [first, peaks @ ..] = [128, 256, 512, 1024].map(|t| (t as u64, peak(t)));
    let rates = peaks.map(|(t, peak)| (peak - first.1) as f64 / (t - first.0) as f64);
    println!("attention, HS = 16: {first:?} and {peaks:?} tokens and bytes, {rates:?} bytes a token more");
    // qkv, dqkv, out, dout; lse, and two numbers of scratch.
    assert_eq!(rates, [(16 * (3 + 3 + 1 + 1) * 2 + 12) as f64; 3]);
}
