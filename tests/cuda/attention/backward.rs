//! The backward of attention.

use super::*;

/// The backward's inputs, from the reference's forward rounded to the types of a device.
fn with_forward(forward: Inputs) -> Backward {
    let [out, lse] = forward.forward(&Cpu::<f64>::new());
    let inputs = Backward::new(forward, [rounded::<bf16>(out), rounded::<f32>(lse)]);
    Backward { dout: rounded::<bf16>(inputs.dout), ..inputs }
}

/// [`with_forward`] of random inputs.
fn backward_inputs(sizes: [usize; 4]) -> Backward {
    with_forward(inputs(sizes, 1.0))
}

/// `dqkv` with `heads` heads per rasterization group.
fn grouped(inputs: &Backward, cuda: &Cuda, heads: usize) -> Vec<f64> {
    inputs.run_by(cuda, |cuda, op| attention::backward(cuda, op, Some(heads)))
}

/// dqkv by the formula in f32, with p and ds rounded to bf16 as the tensor cores read them; and the magnitudes that its sums
/// are made of, such as `Σ |ds·k|`. Where `dp - delta` cancels, 2⁻¹² of the terms of both counts: 2⁻²⁰ in units of 2⁻⁸.
fn baseline(inputs: &Backward) -> [Vec<f64>; 2] {
    let Inputs { sizes: [b, t, nh, hs], ref qkv, .. } = inputs.forward;
    // A p that underflows in f32 is 0: magnitudes start above what that costs with the largest values.
    let [mut results, mut magnitudes] = [0.0, 2f32.powi(-80)].map(|size| vec![size; qkv.len()]);
    let scale = 1.0 / (hs as f32).sqrt();
    for (b, head, i) in (0..b * nh * t).map(|n| (n / t / nh, n / t % nh, n % t)) {
        let index = |token, part| inputs.forward.index([b, token, part, head, 0]);
        let row = |token, part| inputs.forward.vector([b, token, part, head]);
        let of_query = ((b * t + i) * nh + head) * hs;
        let (dout, out) = (&inputs.dout[of_query..][..hs], &inputs.out[of_query..][..hs]);
        let dot = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| *a as f32 * *b as f32).sum::<f32>();
        let magnitude = |a: &[f64], b: &[f64]| a.iter().zip(b).map(|(a, b)| (a * b).abs() as f32).sum::<f32>();
        let (delta, lse) = (dot(dout, out), inputs.lse[(b * nh + head) * t + i] as f32);
        for j in inputs.forward.keys(i) {
            let p = (dot(row(i, 0), row(j, 1)) * scale - lse).exp();
            let ds = p * (dot(dout, row(j, 2)) - delta);
            let [p, ds] = [p, ds].map(|x| bf16::from_f32(x).to_f32());
            let ds_size = ds.abs() + p * (magnitude(dout, row(j, 2)) + magnitude(dout, out)) * 2f32.powi(-12);
            for x in 0..hs {
                for (to, weight, size, of) in [
                    (index(i, 0), ds * scale, ds_size * scale, row(j, 1)[x]),
                    (index(j, 1), ds * scale, ds_size * scale, row(i, 0)[x]),
                    (index(j, 2), p, p, dout[x]),
                ] {
                    results[to + x] += weight * of as f32;
                    magnitudes[to + x] += size * of.abs() as f32;
                }
            }
        }
    }
    [results, magnitudes].map(|values| values.into_iter().map(f64::from).collect())
}

/// The values of dq, dk or dv, `part` 0, 1 or 2, in packed ones.
fn part(inputs: &Backward, values: &[f64], part: usize) -> Vec<f64> {
    let [_, _, nh, hs] = inputs.forward.sizes;
    values.chunks(nh * hs).skip(part).step_by(3).flatten().copied().collect()
}

#[test]
fn backward_is_the_formula() {
    for (forward, factor, case) in cases() {
        let inputs = with_forward(forward);
        let got = inputs.run(&*shared());
        let reference = inputs.run(&Cpu::<f64>::new());
        let [baseline, magnitudes] = baseline(&inputs);
        for (index, name) in ["dq", "dk", "dv"].into_iter().enumerate() {
            let [got, reference, baseline, magnitudes] =
                [&got, &reference, &baseline, &magnitudes].map(|values| part(&inputs, values, index));
            let baseline = rounded::<bf16>(baseline);
            let what = format!("attention_backward, {case}: {name}");
            let unit = 2f64.powi(-8);
            if factor == LARGE {
                // The rounding errors of scores near 1e4 dominate those of the weights in any order of summation, so the
                // baseline says nothing.
                let error = worst(&got, &reference, &magnitudes, unit);
                println!("{what}: {error:.3} units");
                assert!(error <= 8.0, "{what}: {error:.3} units, 8 allowed");
            } else {
                check_accuracy(&what, [&got, &reference, &baseline, &magnitudes], unit, 2.0);
            }
        }
    }
}

/// With equal tokens every weight is 1 / (i + 1) and the scores have no gradient: dq and dk are 0 except for rounding errors,
/// and dv[j] is the sum of dout[i] / (i + 1) over i >= j.
#[test]
fn equal_tokens_have_no_score_gradient() {
    for hs in [64, 128] {
        let (t, mut forward) = (130, inputs([1, 130, 1, hs], 1.0));
        let first = forward.qkv[..3 * hs].to_vec();
        forward.qkv.chunks_mut(3 * hs).for_each(|token| token.copy_from_slice(&first));
        let inputs = with_forward(forward);
        let got = inputs.run(&*shared());
        // Sums of T products, each with √HS roundings of numbers of size 1.
        let most = t as f64 * hs as f64 * 2f64.powi(-24);
        for index in [0, 1] {
            let largest = part(&inputs, &got, index).iter().fold(0.0f64, |most, x| most.max(x.abs()));
            assert!(largest <= most, "HS = {hs}, part {index}: {largest:e}, {most:e} allowed");
        }
        let (mut want, dv) = (vec![0.0; hs], part(&inputs, &got, 2));
        for j in (0..t).rev() {
            for x in 0..hs {
                want[x] += inputs.dout[j * hs + x] / (j + 1) as f64;
                let (got, bound) = (dv[j * hs + x], 2f64.powi(-8) * want[x].abs() + 0.02);
                assert!((got - want[x]).abs() <= bound, "HS = {hs}, dv[{j}, {x}]: {got}, not {}", want[x]);
            }
        }
    }
}

/// dq depends on earlier tokens alone, dk and dv on later ones: the other tokens change no bit.
#[test]
fn attention_backward_is_causal() {
    for sizes @ [b, t, nh, hs] in [[2, 130, 2, 64], [1, 130, 1, 128]] {
        let inputs = backward_inputs(sizes);
        let dqkv = inputs.run(&*shared());
        let (c, other) = (
            nh * hs,
            with_forward(Inputs { qkv: Draws::new(4).numbers(inputs.forward.qkv.len()), ..inputs.forward.clone() }),
        );
        for cut in [1, 16, 31, 32, 33, 63, 64, 65, 127, 128, 129] {
            for future in [false, true] {
                let mut changed = inputs.clone();
                let of_sequences = |width: usize, sequence: usize| {
                    let (start, cut) = (sequence * t * width, sequence * t * width + cut * width);
                    if future { cut..start + t * width } else { start..cut }
                };
                for range in (0..b).map(|sequence| of_sequences(3 * c, sequence)) {
                    let values = rounded::<bf16>(other.forward.qkv[range.clone()].to_vec());
                    changed.forward.qkv[range].copy_from_slice(&values);
                }
                for range in (0..b).map(|sequence| of_sequences(c, sequence)) {
                    changed.dout[range.clone()].iter_mut().for_each(|x| *x = -*x);
                    changed.out[range.clone()].copy_from_slice(&other.out[range]);
                }
                for range in (0..b * nh).map(|head| of_sequences(1, head)) {
                    changed.lse[range.clone()].copy_from_slice(&other.lse[range]);
                }
                let new = changed.run(&*shared());
                // The rows of a part on the other side of the cut.
                let kept = |dqkv: &[f64], index: usize| -> Vec<f64> {
                    let values = part(&inputs, dqkv, index);
                    let rows = if future { 0..cut * c } else { cut * c..t * c };
                    values.chunks(t * c).flat_map(|sequence| &sequence[rows.clone()]).copied().collect()
                };
                for index in if future { 0..1 } else { 1..3 } {
                    let what = format!("{sizes:?}, cut at {cut}, future {future}, part {index}");
                    assert_same_bits(&what, &kept(&new, index), &kept(&dqkv, index));
                }
                assert_ne!(new, dqkv, "changing tokens on one side of {cut}");
            }
        }
    }
}

/// The effect of a NaN on an element of the result.
#[derive(Clone, Copy, PartialEq, Debug)]
enum Effect {
    /// The element is NaN.
    Nan,
    /// Unspecified: the element's tile of 32 rows multiplies the NaN by a weight of 0, which gives NaN.
    Any,
    /// The element has the same bits.
    None,
}

/// The effect on row `row`, column `x` of dq, dk or dv, `part` 0, 1 or 2, of a NaN in row `bad`, column 5 of an operand: q, k,
/// v, dout, out or lse, `operand` 0 to 5.
fn effect(operand: usize, bad: usize, part: usize, row: usize, x: usize) -> Effect {
    let (near, at_x) = (row / 32 == bad / 32, x == 5);
    let choose = |is_nan: bool, is_any: bool| match (is_nan, is_any) {
        (true, _) => Effect::Nan,
        (false, true) => Effect::Any,
        (false, false) => Effect::None,
    };
    let (before, after) = (row <= bad, row >= bad);
    match (["q", "k", "v", "dout", "out", "lse"][operand], ["dq", "dk", "dv"][part]) {
        // A key or value affects its own gradient, and the queries from its own on.
        ("k", "dq") => choose(after, near && at_x),
        ("v", "dq") => choose(after, near),
        ("k", _) | ("v", "dk") => choose(row == bad, false),
        ("v" | "out", _) if part == 2 => Effect::None,
        // A query's row of q, dout, out and lse affects its own gradient, and the keys up to its own.
        (_, "dq") => choose(row == bad, false),
        ("q", "dk") => choose(before, near && at_x),
        ("q", _) => choose(before, false),
        ("dout", "dv") => choose(before && at_x, near && at_x),
        _ => choose(before, near),
    }
}

#[test]
fn non_finite_numbers_stay_in_their_rows() {
    let sizes @ [_, t, nh, hs] = [2, 130, 2, 64];
    let clean = backward_inputs(sizes);
    let want = clean.run(&*shared());
    for (operand, bad, token) in (0..6).flat_map(|operand| {
        [(f64::NAN, 70), (f64::NAN, 129), (f64::INFINITY, 70)].map(|(bad, token)| (operand, bad, token))
    }) {
        let mut inputs = clean.clone();
        let of_out = (token * nh + 1) * hs + 5;
        match operand {
            0..3 => {
                let index = inputs.forward.index([0, token, operand, 1, 5]);
                inputs.forward.qkv[index] = bad;
            }
            3 => inputs.dout[of_out] = bad,
            4 => inputs.out[of_out] = bad,
            _ => inputs.lse[t + token] = bad,
        }
        let got = inputs.run(&*shared());
        for (i, (got, want)) in got.iter().zip(&want).enumerate() {
            let (x, head, part, row, b) =
                (i % hs, i / hs % nh, i / hs / nh % 3, i / hs / nh / 3 % t, i / hs / nh / 3 / t);
            let effect = if (b, head) == (0, 1) { effect(operand, token, part, row, x) } else { Effect::None };
            let what = format!(
                "{bad} in operand {operand}, token {token}: sequence {b}, part {part}, head {head}, [{row}, {x}]"
            );
            match effect {
                Effect::Nan if bad.is_nan() => assert!(got.is_nan(), "{what}: {got}"),
                Effect::None => assert_eq!(got.to_bits(), want.to_bits(), "{what}: {got}, not {want}"),
                _ => {}
            }
        }
    }
}

#[test]
fn backward_rejects_violated_preconditions() {
    let cuda = shared();
    let zeros = |shape: &[usize]| Tensor::<Cuda, bf16>::zeros(&*cuda, shape).unwrap();
    let lse = Tensor::<Cuda, f32>::zeros(&*cuda, [1, 1, 1]).unwrap();
    for hs in [8, 24, 144] {
        let (qkv, out) = (zeros(&[1, 1, 3 * hs]), zeros(&[1, 1, hs]));
        let mut dqkv = Output::<Cuda, bf16>::new(&*cuda, [1, 1, 3 * hs]);
        let (dout, out, lse) = (out.view(), out.view(), lse.view());
        let (qkv, dqkv_view) = (Qkv::Packed { qkv: qkv.view(), num_heads: 1 }, QkvMut::Packed(dqkv.view()));
        let op = AttentionBackward { dout, qkv, causal: true, out, lse, dqkv: dqkv_view };
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
            qkv: Qkv::Packed { qkv: qkv.view().part(shift(1), [1, 1, 3 * 64]), num_heads: 1 },
            causal: true,
            out: out.view().part(shift(2), [1, 1, 64]),
            lse: lse.view(),
            dqkv: QkvMut::Packed(dqkv.view().into_part(shift(3), [1, 1, 3 * 64])),
        };
        let message = format!("{name} 16-byte aligned failed ({name} begins 2 bytes past a multiple of 16)");
        assert_rejected(cuda.attention_backward(op), &format!("attention_backward: {message}"));
    }
    dqkv.assert_untouched(&cuda);
}

/// The rasterization order of blocks does not change the results.
#[test]
fn groups_of_heads_give_the_same_bits() {
    let inputs = backward_inputs([2, 260, 5, 16]);
    let cuda = shared();
    let own = inputs.run(&*cuda);
    for heads in [1, 3, 4, 10, 99] {
        assert_same_bits(&format!("{heads} heads per group"), &grouped(&inputs, &cuda, heads), &own);
    }
}

/// Each kernel reads and writes the tensors of its resident tile once. The dQ kernel streams the keys and values up to its last
/// query, the dKdV kernel everything of the queries from its first key on; without the causal mask, both stream all.
#[test]
fn traffic_is_that_of_the_tiles() {
    for (sizes @ [b, t, nh, hs], causal) in TRAFFIC.into_iter().flat_map(|sizes| [(sizes, true), (sizes, false)]) {
        let Some(cuda) = alone() else { return };
        let layout = if causal { Layout::Packed } else { Layout::HeadMajor };
        let inputs = with_forward(Inputs { causal, layout, ..inputs(sizes, 1.0) });
        let last_key = |block: usize| if causal { t.min(128 * (block + 1)) } else { t };
        let keys: usize = (0..t.div_ceil(128)).map(last_key).sum();
        let resident_keys = if hs <= 64 { 128 } else { 64 };
        let first_query = |block: usize| if causal { resident_keys * block } else { 0 };
        let queries: usize = (0..t.div_ceil(resident_keys)).map(|block| t - first_query(block)).sum();
        // q, dout, out and dq; lse read, and lse and delta written; then k, v, dk and dv.
        let of_queries = t * (4 * 2 * hs + 4 + 8) + keys * 2 * 2 * hs;
        let of_keys = t * 4 * 2 * hs + queries * (2 * 2 * hs + 8);
        let floor = Floor { bytes: (b * nh * (of_queries + of_keys)) as u64, flops: 0 };
        let counts = cuda.count(|| drop(inputs.run(&*cuda)));
        let what = format!("attention_backward, (B, T, NH, HS) = {sizes:?}, causal: {causal}");
        TrafficBound { what: &what, floor, bytes: 1.0, sectors: 1.0 }.check(&counts);
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

/// Makes all scores about -64·√HS, so that a key past the end, whose zero-filled row has the score 0, has an infinite weight.
/// A finite weight would be multiplied by zeros and have no effect.
fn very_negative(mut inputs: Inputs) -> Inputs {
    let [_, _, nh, hs] = inputs.sizes;
    for token in inputs.qkv.chunks_mut(3 * nh * hs) {
        let (q, kv) = token.split_at_mut(nh * hs);
        q.iter_mut().for_each(|x| *x = -64.0 - 8.0 * x.abs());
        kv[..nh * hs].iter_mut().for_each(|x| *x = 1.0 + x.abs() / 16.0);
    }
    Inputs { qkv: rounded::<bf16>(inputs.qkv), ..inputs }
}

fn trial(sizes: [usize; 4], heads: usize, why: &'static str) -> Trial {
    trial_of(backward_inputs(sizes), heads, why)
}

fn trial_of(inputs: Backward, heads: usize, why: &'static str) -> Trial {
    let sizes = inputs.forward.sizes;
    let run = move |cuda: &Cuda| vec![grouped(&inputs, cuda, heads)];
    Trial { why, kernels: &KERNELS[sizes[3] / 16 - 1], run: Box::new(run) }
}

fn trials() -> Vec<Trial> {
    let of_size = |hs: usize| {
        // The last row lies in the first or the second tile, and in each of the four groups of eight rows of a warp for which
        // a lane sums delta.
        let passes = if hs <= 48 { [4, 28, 44, 52] } else { [4, 12, 20, 28] };
        let edges = passes.into_iter().flat_map(move |t| [t, t + if hs <= 48 { 64 } else { 32 }]);
        let edges = edges.map(move |t| {
            trial([1, t, 1, hs], 1, "the last row in each of the rows that a thread processes at a time")
        });
        edges
            .chain([
                trial([1, 130, 1, hs], 1, "two blocks, and pipeline stages used twice"),
                trial([1, 20, 3, hs], 2, "two groups of heads"),
            ])
            .chain(ends(hs).map(|inputs| trial_of(with_forward(very_negative(inputs)), 1, ENDS)))
            .chain([trial_of(with_forward(strided(hs)), 2, STRIDED)])
    };
    (16..=128).step_by(16).flat_map(of_size).collect()
}

#[test]
fn any_schedule_gives_the_same_bits() {
    let [small, large] =
        [(130, 16), (66, 128)].map(|(t, hs)| trial([1, t, 1, hs], 1, "two blocks of keys, three tiles"));
    let full = with_forward(Inputs { causal: false, ..inputs([1, 130, 1, 64], 1.0) });
    let full = trial_of(full, 1, "two blocks of keys, each with five tiles of queries");
    assert_schedules_agree("attention_backward", &[small, large, full]);
}

#[test]
fn mutants_are_killed() {
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(
            16,
            "attention",
            Kind::ShiftComparison,
            "if (row % STREAMED_ROWS == 0 && row + STREAMED_ROWS < end) issue_stage",
            "one streamed tile too many, which is not read",
        ),
        equivalent(
            10,
            "attention",
            Kind::NeverLeave,
            "if (row % STREAMED_ROWS == 0 && row + STREAMED_ROWS < end) issue_stage",
            "as above",
        ),
        equivalent(
            6,
            "attention",
            Kind::NeverLeave,
            "if (row % STREAMED_ROWS == 0) {",
            "a barrier in the middle of a tile",
        ),
        equivalent(
            8,
            "attention_backward_dkdv",
            Kind::SelectFirst,
            "uint32_t row = C::DKDV && params.causal ? first_row : 0;",
            "the queries before the block's keys are copied, too, and skipped",
        ),
        equivalent(
            8,
            "attention_backward_dq",
            Kind::SelectFirst,
            "const uint32_t row_limit = ",
            "the keys after the block's queries are copied, too, and skipped",
        ),
        equivalent(
            8,
            "attention_backward_dq",
            Kind::ShiftComparison,
            "const uint32_t row_limit = ",
            "the lesser of two equal numbers",
        ),
        // The resident tiles, the first streamed ones and the others, of two kernels for each of the four head sizes whose
        // copies are not in one column.
        equivalent(24, "attention", Kind::ShiftComparison, FIRST_PASS, "checked before the first pass: always true"),
        equivalent(24, "attention", Kind::NeverLeave, FIRST_PASS, "as above"),
    ];
    assert_mutants_killed("attention_backward_sm80", &trials(), EQUIVALENT);
}

/// No tensor of size T² is allocated: memory grows linearly with the sequence.
#[test]
fn memory_grows_linearly_with_the_sequence() {
    let _shared = shared();
    let peak = |t| {
        let (cuda, backward) = (own(), backward_inputs([1, t, 1, 16]));
        backward.forward.forward(&cuda);
        backward.run(&cuda);
        cuda.device().peak_memory()
    };
    let [first, peaks @ ..] = [128, 256, 512, 1024].map(|t| (t as u64, peak(t)));
    let rates = peaks.map(|(t, peak)| (peak - first.1) as f64 / (t - first.0) as f64);
    println!("attention, HS = 16: {first:?} and {peaks:?} tokens and bytes, {rates:?} bytes per additional token");
    // qkv, dqkv, out, dout; lse, and two floats of scratch memory.
    assert_eq!(rates, [(16 * (3 + 3 + 1 + 1) * 2 + 12) as f64; 3]);
}
