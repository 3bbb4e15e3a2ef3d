//! Embedding.

use emulator_trials::mutate::Kind;
use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, EmbeddingBackward, EmbeddingForward, Floor, Write};
use ironwarp::tensor::Tensor;

use crate::bounds::{AccuracyBound, TrafficBound};
use crate::common::embedding::Case;
use crate::common::*;
use crate::emulator::{alone, shared};
use crate::kernel_checks::{Equivalent, Trial, assert_mutants_killed, assert_schedules_agree, equivalent};

/// Random ids, positions from 0, and three more positions in `wpe` than tokens in a sequence.
fn case(why: &'static str, [b, t, c, vp]: [usize; 4]) -> Case {
    let tokens = Draws::new(11).ids(b * t, vp);
    Case { why, b, t, c, vp, max_t: t + 3, position: 0, tokens }
}

/// The case with the ids that `id` gives for each token's number.
fn with_ids(case: Case, id: impl Fn(usize) -> i32) -> Case {
    Case { tokens: (0..case.b * case.t).map(id).collect(), ..case }
}

fn what(case: &Case, output: &str) -> String {
    let Case { why, b, t, c, vp, .. } = case;
    format!("embedding {output}, B = {b}, T = {t}, C = {c}, Vp = {vp} ({why})")
}

fn is_valid(case: &Case, n: usize) -> bool {
    (0..case.vp as i64).contains(&case.tokens[n].into())
}

/// `out` of random tables.
fn forward<B: Device>(case: &Case, backend: &B) -> Vec<f64> {
    let mut draws = Draws::new(1);
    // Rounded to bf16, so that the references read the same values as the kernel.
    let [wte, wpe] = [case.vp, case.max_t].map(|rows| rounded::<bf16>(draws.numbers(rows * case.c)));
    case.forward_of(backend, &wte, &wpe)
}

/// `dwte` and `dwpe` of a random gradient, which `edit` changes first.
fn backward<B: Device>(case: &Case, backend: &B, write: Write, edit: impl FnOnce(&mut [f64])) -> [Vec<f64>; 2] {
    let mut dout = rounded::<bf16>(Draws::new(2).numbers(case.b * case.t * case.c));
    edit(&mut dout);
    case.backward_of(backend, &dout, write).map(|gradient| gradient.read(backend))
}

/// The case for a reference, which rejects invalid ids: they become the id of an additional row.
fn for_reference(case: &Case) -> Case {
    let tokens = (0..case.tokens.len()).map(|n| if is_valid(case, n) { case.tokens[n] } else { case.vp as i32 });
    Case { vp: case.vp + 1, tokens: tokens.collect(), ..case.clone() }
}

fn check_backward(case: &Case, write: Write) {
    let reference = for_reference(case);
    let got = backward(case, &*shared(), write, |_| ());
    let mut want = backward(&reference, &Cpu::<f64>::new(), write, |_| ());
    let mut baseline = backward(&reference, &Cpu::<f32>::new(), write, |_| ());
    // The initial values of dwte are drawn row by row, so the additional row at the end does not change the others.
    for dwte in [&mut want[0], &mut baseline[0]] {
        dwte.truncate(case.vp * case.c);
    }
    for (output, name) in ["dwte", "dwpe"].into_iter().enumerate() {
        let what = what(case, &format!("{name}, {write:?}"));
        let (reference, baseline) = (&want[output], &baseline[output]);
        // In units of the remainder where a thousand numbers cancel; the f32 reference, which sums from the first row to the
        // last, has up to 4096.
        AccuracyBound { what: &what, reference, baseline, ulps: 64.0 }.check::<f32>(&got[output]);
    }
}

#[test]
fn forward_is_the_formula() {
    for case in [
        case("all sizes are 1", [1, 1, 8, 1]),
        Case { position: 3, ..case("decoding, at the last position", [5, 1, 24, 11]) },
        Case { position: 2, ..case("one sequence from the middle", [1, 7, 40, 30]) },
        case("one sequence more than are in flight", [9, 1, 8, 7]),
        case("vectors of two positions in one block", [3, 5, 776, 9]),
        case("sequences of several rows of blocks", [70, 2, 8, 40]),
        case("GPT-2's C", [2, 9, 768, 64]),
    ] {
        let (got, reference) = (forward(&case, &*shared()), forward(&case, &Cpu::<f64>::new()));
        let baseline = forward(&case, &Cpu::<f32>::new());
        // The sum in f32 is exact, or its rounding is invisible in bf16 except next to a tie.
        AccuracyBound { what: &what(&case, "out"), reference: &reference, baseline: &baseline, ulps: 0.51 }
            .check::<bf16>(&got);
    }
}

/// Shapes and ids at every boundary of the backward's kernels.
fn backward_cases() -> Vec<Case> {
    vec![
        case("all sizes are 1", [1, 1, 8, 1]),
        case("one token per sequence", [45, 1, 8, 9]),
        case("one sequence", [1, 77, 24, 30]),
        with_ids(case("all tokens the same, several blocks", [1, 1000, 136, 10]), |_| 9),
        with_ids(case("all tokens different", [4, 100, 8, 1000]), |n| 999 - 2 * n as i32),
        with_ids(case("runs of the 16 entries of a warp", [1, 300, 8, 30]), |n| n as i32 / 16),
        with_ids(case("runs of 15", [1, 300, 8, 30]), |n| n as i32 / 15),
        with_ids(case("runs of 17", [2, 150, 8, 30]), |n| n as i32 / 17),
        with_ids(case("runs of the 128 entries of a block", [1, 640, 16, 9]), |n| n as i32 / 128),
        with_ids(case("runs of 127", [1, 640, 16, 9]), |n| n as i32 / 127),
        with_ids(case("runs of 129", [5, 129, 264, 9]), |n| n as i32 / 129),
        with_ids(case("runs over several blocks, from the middle of one", [1, 1500, 8, 9]), |n| (n as i32 + 200) / 600),
        with_ids(case("a run of 63, one of 64, one of 65", [1, 192, 8, 3]), |n| (n > 62) as i32 + (n > 126) as i32),
        case("sequences shared by two warps", [33, 3, 16, 40]),
        case("sequences shared by four warps, the last of which has fewer", [65, 3, 16, 40]),
        case("sequences shared by eight warps", [130, 9, 8, 40]),
        case("GPT-2's C", [2, 9, 768, 64]),
        case("one key less than a tile", [5, 819, 8, 300]),
        case("a tile", [4, 1024, 8, 300]),
        case("a tile and one key", [17, 241, 8, 300]),
        case("ids of one byte, and the key of invalid ids", [4, 20, 8, 256]),
        case("two passes, GPT-2's vocabulary", [5, 1000, 8, 50_304]),
        case("three passes, one tile", [3, 30, 8, 70_000]),
        case("three passes, two tiles", [8, 600, 8, 70_000]),
        case("ten tiles", [8, 4700, 8, 3000]),
        with_ids(case("invalid ids", [5, 100, 136, 64]), mixed_id),
        with_ids(case("only invalid ids", [2, 100, 8, 64]), |n| [-1, 64][n % 2]),
        with_ids(case("invalid ids next to ids of 16 bits", [5, 1000, 8, 65_536]), |n| {
            [65_535, 65_536, -1, i32::MAX, i32::MIN, 0][n * n % 6]
        }),
    ]
}

/// Ids of a vocabulary of 64; every second one is invalid.
fn mixed_id(n: usize) -> i32 {
    if n.is_multiple_of(2) { (n * n % 64) as i32 } else { [-1, 64, i32::MIN, i32::MAX, -64, 65_536][n / 2 % 6] }
}

#[test]
fn backward_is_the_formula() {
    for (case, write) in backward_cases().iter().flat_map(|case| WRITES.map(|write| (case, write))) {
        check_backward(case, write);
    }
}

#[test]
fn dwpe_past_t_is_zero_or_untouched() {
    let case = Case { max_t: 29, ..case("many positions past T", [2, 5, 24, 7]) };
    for write in WRITES {
        check_backward(&case, write);
    }
    let [_, dwpe] = backward(&case, &*shared(), Write::Overwrite, |_| ());
    assert!(dwpe[5 * 24..].iter().all(|x| x.to_bits() == 0));
}

#[test]
fn an_invalid_id_gives_a_row_of_nan() {
    let case = with_ids(case("invalid ids", [3, 16, 24, 64]), mixed_id);
    let tokens = (0..case.tokens.len()).map(|n| if is_valid(&case, n) { case.tokens[n] } else { 0 });
    let good = Case { tokens: tokens.collect(), ..case.clone() };
    let cuda = shared();
    let (got, want) = (forward(&case, &*cuda), forward(&good, &*cuda));
    for (n, (got, want)) in got.chunks(case.c).zip(want.chunks(case.c)).enumerate() {
        if is_valid(&case, n) {
            assert_same_bits("a row next to one of NaN", got, want);
        } else {
            assert!(got.iter().all(|x| x.is_nan()), "token {n} is {}", case.tokens[n]);
        }
    }
}

#[test]
fn non_finite_numbers_stay_in_their_rows() {
    let case = Case { max_t: 60, ..case("", [3, 57, 24, 40]) };
    let (at, cuda) = (100, shared());
    for write in WRITES {
        let want = backward(&case, &*cuda, write, |_| ());
        for bad in [f64::NAN, f64::INFINITY] {
            let got = backward(&case, &*cuda, write, |dout| dout[at * case.c..][..case.c].fill(bad));
            let rows = [case.tokens[at] as usize, at % case.t];
            for ((got, want), bad_row) in got.iter().zip(&want).zip(rows) {
                for (row, (got, want)) in got.chunks(case.c).zip(want.chunks(case.c)).enumerate() {
                    if row == bad_row {
                        assert!(got.iter().all(|x| x.is_nan() && bad.is_nan() || *x == bad), "row {row}");
                    } else {
                        assert_same_bits("another row", got, want);
                    }
                }
            }
        }
    }
}

#[test]
fn many_equal_tokens_are_summed() {
    // 65,536 rows and 512 blocks whose first run continues the block before. The bounds allow for the rounding of sums of that
    // length in another order.
    let case = with_ids(case("GPT-2's batch, one token", [64, 1024, 8, 50_304]), |_| 50_256);
    let got = backward(&case, &*shared(), Write::Overwrite, |_| ());
    let want = backward(&case, &Cpu::<f64>::new(), Write::Overwrite, |_| ());
    compare::<f32>("embedding_backward dwte", [50_304, 8], &got[0], &want[0], 256.0);
    compare::<f32>("embedding_backward dwpe", [1027, 8], &got[1], &want[1], 64.0);
}

/// Partial sums by `sum` of values with the indices from `first` on, divided at multiples of `unit`.
fn partial_sums(values: &[f32], first: usize, unit: usize, sum: impl Fn(&[f32], usize) -> f32) -> Vec<f32> {
    let mut sums = Vec::new();
    let mut at = 0;
    while at < values.len() {
        let end = ((first + at) / unit * unit + unit - first).min(values.len());
        sums.push(sum(&values[at..end], first + at));
        at = end;
    }
    sums
}

fn in_order(values: &[f32]) -> f32 {
    values.iter().copied().reduce(|sum, x| sum + x).unwrap_or(0.0)
}

/// The bits are those of the documented order: the entries of one token in the order of their positions, summed over 16 entries,
/// then over 128 entries, then over the blocks' first runs in eight shares.
#[test]
fn sums_are_in_the_order_that_the_kernel_documents() {
    let case = with_ids(case("", [4, 1100, 8, 9]), |n| if n % 3 == 0 { 7 } else { n as i32 * 5 % 9 });
    // Magnitudes differ so much that every sum is rounded: sums of similar numbers are exact in any order.
    let spread = |dout: &mut [f64]| dout.iter_mut().enumerate().for_each(|(i, x)| *x *= (i as f64 % 37.0).exp2());
    let (c, mut dout) = (case.c, rounded::<bf16>(Draws::new(2).numbers(4400 * 8)));
    spread(&mut dout);
    let mut sorted: Vec<usize> = (0..4400).collect();
    sorted.sort_by_key(|&n| case.tokens[n]);
    let mut want: Vec<f32> = Draws::new(99).numbers(9 * c).into_iter().map(|x| x as f32).collect();
    for (i, want) in want.iter_mut().enumerate() {
        let (token, column) = ((i / c) as i32, i % c);
        let Some(first) = sorted.iter().position(|&n| case.tokens[n] == token) else { continue };
        let run = sorted.iter().filter(|&&n| case.tokens[n] == token);
        let values: Vec<f32> = run.map(|&n| dout[n * c + column] as f32).collect();
        let of_block = |values: &[f32], first| in_order(&partial_sums(values, first, 16, |values, _| in_order(values)));
        let blocks = partial_sums(&values, first, 128, of_block);
        let heads = &blocks[1..];
        let shares: Vec<f32> = heads.chunks(heads.len().div_ceil(8).max(1)).map(in_order).collect();
        *want += blocks[0];
        *want += in_order(&shares);
    }
    let [dwte, _] = backward(&case, &*shared(), Write::Accumulate, spread);
    assert_same_bits("dwte", &dwte, &want.into_iter().map(f64::from).collect::<Vec<_>>());
}

/// Zeros, for large tables whose values do not matter.
fn zeros<E: Number>(cuda: &Cuda, shape: [usize; 2]) -> Tensor<Cuda, E> {
    Tensor::zeros(cuda, shape).unwrap()
}

const GPT2_VP: usize = 50_304;

#[test]
fn forward_traffic_is_near_the_floor() {
    for (b, t, c) in [(8, 32, 768), (2, 32, 1600)] {
        let Some(cuda) = alone() else { return };
        let n = b * t;
        let values = Draws::new(3).ids(n, GPT2_VP);
        let tokens = ids(&*cuda, [b, t], &values);
        let (wte, wpe) = (zeros(&cuda, [GPT2_VP, c]), zeros(&cuda, [t, c]));
        let mut out: Output<Cuda, bf16> = Output::new(&*cuda, [n, c]);
        let counts = cuda.count(|| {
            let (tokens, wte, wpe, out) = (tokens.view(), wte.view(), wpe.view(), out.view());
            cuda.embedding_forward(EmbeddingForward { tokens, wte, wpe, position: 0, out }).unwrap();
        });
        // The operation's floor counts one row of wte; this one counts a row per distinct id.
        let floor = Floor { bytes: (4 * n + 2 * c * (distinct(&values) + t + n)) as u64, flops: 0 };
        // The thread of every vector requests its id, 4 bytes by 32 lanes, which are one sector. wpe is read by two rows of
        // blocks, as the shape is small.
        let what = format!("embedding_forward, N = {n}, C = {c}");
        TrafficBound { what: &what, floor, bytes: 1.20, sectors: 0.95 }.check(&counts);
    }
}

fn distinct(ids: &[i32]) -> usize {
    ids.iter().collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn backward_traffic_is_the_floor_and_a_second_read_of_dout() {
    for (b, t, c) in [(8, 32, 768), (2, 32, 1600)] {
        let Some(cuda) = alone() else { return };
        let n = b * t;
        let values = Draws::new(3).ids(n, GPT2_VP);
        let tokens = ids(&*cuda, [b, t], &values);
        let dout = zeros(&cuda, [n, c]);
        let (mut dwte, mut dwpe) = (zeros(&cuda, [GPT2_VP, c]), zeros(&cuda, [t, c]));
        let counts = cuda.count(|| {
            let (dwte, dwpe, write) = (dwte.view_mut(), dwpe.view_mut(), Write::Overwrite);
            let (tokens, dout) = (tokens.view(), dout.view());
            cuda.embedding_backward(EmbeddingBackward { tokens, dout, dwte, dwpe, write }).unwrap();
        });
        let floor = 4 * n + 2 * n * c + 4 * c * (2 * distinct(&values) + t);
        let (requested, moved) = (counts.global().bytes as f64, 32.0 * counts.global().sectors as f64);
        println!(
            "embedding_backward, N = {n}, C = {c}: {:.3} of the floor, {:.3} of that and a second read of dout; {:.3} \
             of the ideal sectors; {} bank conflicts; {}",
            requested / floor as f64,
            requested / (floor + 2 * n * c) as f64,
            moved / requested,
            counts.bank_conflicts(),
            counts.kernels().join(" ")
        );
        // Each slice of columns reads the pairs of (key, position): 8 bytes per 256 bytes of dout.
        assert!(requested <= 1.02 * (floor + 2 * n * c) as f64);
        assert!(moved <= 1.02 * requested);
        // The sort counts and scatters keys by their digits, which are random: at most two conflicts per pass and key. The sums
        // have no conflicts.
        assert!(counts.bank_conflicts() <= 4 * n as u64);
    }
}

#[test]
fn misaligned_tensors_are_rejected() {
    let cuda = shared();
    let tokens = ids(&*cuda, [2, 3], &[0; 6]);
    let input: Input<Cuda, bf16> = Input::new(&*cuda, [7, 8], &[0.0; 56]);
    let (aligned, shifted) = (input.view().part(0, [6, 8]), input.view().part(4, [6, 8]));
    let mut out: Output<Cuda, bf16> = Output::new(&*cuda, [6, 8]);
    for (wte, wpe, name) in [(shifted, aligned, "wte"), (aligned, shifted, "wpe")] {
        let op = EmbeddingForward { tokens: tokens.view(), wte, wpe, position: 0, out: out.view() };
        let message = format!("{name} 16-byte aligned failed ({name} begins 8 bytes past a multiple of 16)");
        assert_rejected(cuda.embedding_forward(op), &format!("embedding_forward: {message}"));
    }
    out.assert_untouched(&*cuda);

    let mut dwte = Output::to(&*cuda, [7, 8], Write::Accumulate);
    let mut dwpe = Output::to(&*cuda, [7, 8], Write::Accumulate);
    let (tokens, write) = (tokens.view(), Write::Accumulate);
    let op = EmbeddingBackward { tokens, dout: shifted, dwte: dwte.view(), dwpe: dwpe.view(), write };
    let rejected = cuda.embedding_backward(op);
    assert_rejected(
        rejected,
        "embedding_backward: dout 16-byte aligned failed (dout begins 8 bytes past a multiple of 16)",
    );
    dwte.assert_untouched(&*cuda);
    dwpe.assert_untouched(&*cuda);
}

const ONE_TILE: &[&str] = &["embedding_backward_sort", "embedding_backward_sum", "embedding_backward_reduce"];
const SORTS: &[&str] = &["embedding_backward_sort"];
const SUMS: &[&str] = &["embedding_backward_sum", "embedding_backward_reduce"];
const COUNTS: &[&str] = &["embedding_backward_count", "embedding_backward_sort"];

fn backward_trial(kernels: &'static [&'static str], write: Write, case: Case) -> Trial {
    Trial { why: case.why, kernels, run: Box::new(move |cuda| backward(&case, cuda, write, |_| ()).into()) }
}

fn forward_trial(case: Case) -> Trial {
    Trial { why: case.why, kernels: &["embedding_forward"], run: Box::new(move |cuda| vec![forward(&case, cuda)]) }
}

fn trials() -> Vec<Trial> {
    use Write::{Accumulate, Overwrite};
    vec![
        // First, while scratch memory has exactly this size, so that an access past its end is out of bounds.
        backward_trial(ONE_TILE, Accumulate, case("five keys in two passes", [1, 5, 8, 300])),
        forward_trial(with_ids(case("invalid ids", [9, 5, 24, 64]), mixed_id)),
        backward_trial(ONE_TILE, Overwrite, with_ids(case("invalid ids, two slices", [9, 20, 136, 64]), mixed_id)),
        backward_trial(ONE_TILE, Accumulate, with_ids(case("one token, three blocks", [1, 300, 8, 9]), |_| 7)),
        backward_trial(SUMS, Overwrite, case("warps that share a position", [33, 3, 8, 5])),
        backward_trial(SORTS, Accumulate, case("warps of one tile, two passes", [300, 1, 8, 300])),
    ]
}

/// [`trials`], and those that only the mutants need: the last key, and the end of a run, in every iteration of unrolled loops.
fn more_trials() -> Vec<Trial> {
    use Write::{Accumulate, Overwrite};
    let mut trials = trials();
    let mut sums = |write, case| trials.push(backward_trial(SUMS, write, case));
    sums(Accumulate, with_ids(case("adjacent rows, columns past the last", [2, 10, 136, 5]), |n| n as i32 % 3));
    for len in 0..9 {
        sums(Accumulate, with_ids(case("token 0 first", [1, 20, 8, 5]), move |n| 3 * (n >= len) as i32));
        sums(Accumulate, with_ids(case("token 0 last", [2, 10, 136, 5]), move |n| 3 * (n < len) as i32));
        sums(Accumulate, with_ids(case("invalid ids", [1, len + 3, 8, 5]), |n| 4 + (n > 2) as i32));
    }
    for warp in 1..8 {
        let ids = move |n| (n > 100) as i32 + (n > 132 + 16 * warp) as i32;
        sums(Accumulate, with_ids(case("a run from one block into each warp of the next block", [300, 1, 8, 5]), ids));
    }
    for log2 in 0..4 {
        sums(Overwrite, case("warps that share a position", [(16 << log2) + 1, 5, 16, 40]));
    }
    sums(Overwrite, case("as many sequences as are in flight", [8, 3, 8, 40]));
    sums(Accumulate, with_ids(case("as many blocks' first runs as are in flight", [8192, 1, 8, 9]), |_| 7));
    sums(Accumulate, with_ids(case("runs over blocks", [3000, 1, 8, 9]), |n| n as i32 / 1100));
    sums(Accumulate, with_ids(case("runs of blocks", [640, 1, 16, 9]), |n| n as i32 / 128));
    sums(Accumulate, with_ids(case("runs of warps", [128, 1, 8, 9]), |n| n as i32 / 16));
    for index in 0..9 {
        let bad = move |n| if n == index { 7 } else { 3 };
        trials.push(forward_trial(with_ids(case("an invalid id at each index", [4, 1, 24, 7]), bad)));
        trials.push(forward_trial(case("each number of sequences", [index + 1, 1, 8, 7])));
    }
    for round in 0..8 {
        let sorts = case("a last key in each round", [32 * round + 5, 1, 8, 300]);
        trials.push(backward_trial(SORTS, Accumulate, sorts));
        let counts = case("a last key in each round, two tiles", [4101 + 544 * round, 1, 8, 300]);
        trials.push(backward_trial(COUNTS, Accumulate, counts));
    }
    trials.push(backward_trial(COUNTS, Accumulate, case("three passes", [4097, 1, 8, 70_000])));
    trials.push(backward_trial(COUNTS, Accumulate, case("three tiles", [8193, 1, 8, 300])));
    trials.push(backward_trial(COUNTS, Accumulate, case("four tiles", [12_289, 1, 8, 300])));
    trials.push(backward_trial(COUNTS, Accumulate, case("five tiles", [16_385, 1, 8, 300])));
    trials
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_schedules_agree("embedding", &trials());
}

#[test]
fn mutants_are_killed() {
    use Kind::{NeverLeave, RemoveWarpBarrier, SelectSecond, ShiftComparison};
    const FORWARD: &str = "embedding_forward";
    const COUNT: &str = "embedding_backward_count";
    const SORT: &str = "embedding_backward_sort";
    const SUM: &str = "embedding_backward_sum";
    const REDUCE: &str = "embedding_backward_reduce";
    const FIRST: &str =
        "the grid has at most as many rows of blocks as sequences, so a thread's first sequence is always valid";
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(2, FORWARD, ShiftComparison, "for (uint32_t first = blockIdx.y", FIRST),
        equivalent(1, FORWARD, NeverLeave, "for (uint32_t first = blockIdx.y", FIRST),
        equivalent(1, FORWARD, ShiftComparison, "const bool in_bounds", FIRST),
        equivalent(1, FORWARD, NeverLeave, "tokens[r] = in_bounds", FIRST),
        equivalent(1, FORWARD, ShiftComparison, "if (sequence >= params.b) break", FIRST),
        equivalent(1, FORWARD, NeverLeave, "if (sequence >= params.b) break", FIRST),
        equivalent(
            1,
            COUNT,
            NeverLeave,
            "for (uint32_t pass = 1",
            "with one pass, zeros are written where carries are written later",
        ),
        // In rank_in_warp and in the sum over tiles, which are inlined through this line.
        equivalent(
            8,
            SORT,
            NeverLeave,
            "sort_pass(params, pass)",
            "a lane without a key reads a count that it does not use",
        ),
        equivalent(
            1,
            SORT,
            RemoveWarpBarrier,
            "sort_pass(params, pass)",
            "the last round is followed by __syncthreads",
        ),
        equivalent(1, SORT, SelectSecond, "sort_pass(params, pass)", "no tile follows the last"),
        // In sum_by_position: the minimum of two equal numbers, and a loop that is always entered.
        equivalent(1, SUM, ShiftComparison, "sum_by_position(params", "either of two equal numbers is the minimum"),
        equivalent(1, SUM, NeverLeave, "sum_by_position(params", "a warp always has a sequence: 16 per warp"),
        equivalent(1, REDUCE, NeverLeave, "while (end - last > 1)", "a search in a single block ends there"),
        equivalent(
            1,
            REDUCE,
            ShiftComparison,
            "sum = reduce_warps(",
            "the sum of a warp other than the first, which is not read",
        ),
    ];
    assert_mutants_killed("embedding", &more_trials(), EQUIVALENT);
}
