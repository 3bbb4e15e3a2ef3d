//! Embedding.

use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::{Backend, EmbeddingBackward, EmbeddingForward, Floor, Write};
use ironwarp::tensor::Tensor;
use ptx_emulator::mutate::Kind;

use crate::emulator::{alone, shared};
use crate::gauntlet::{Equivalent, Trial, assert_any_schedule, assert_mutants_die, equivalent};
use crate::judge::{Lean, Verdict};
use crate::support::*;

/// Sizes, and the ids of all B·T tokens.
#[derive(Clone)]
struct Case {
    why: &'static str,
    b: usize,
    t: usize,
    c: usize,
    vp: usize,
    max_t: usize,
    position: usize,
    tokens: Vec<i32>,
}

impl Case {
    /// Random ids, positions from 0, three rows of `wpe` too many.
    fn new(why: &'static str, [b, t, c, vp]: [usize; 4]) -> Self {
        let tokens = Draws::new(11).ids(b * t, vp);
        Case { why, b, t, c, vp, max_t: t + 3, position: 0, tokens }
    }

    fn with_ids(mut self, id: impl Fn(usize) -> i32) -> Self {
        self.tokens = (0..self.b * self.t).map(id).collect();
        self
    }

    fn what(&self, output: &str) -> String {
        let Case { why, b, t, c, vp, .. } = self;
        format!("embedding {output}, B = {b}, T = {t}, C = {c}, Vp = {vp} ({why})")
    }

    fn valid(&self, n: usize) -> bool {
        (0..self.vp as i64).contains(&self.tokens[n].into())
    }

    fn forward<B: Device>(&self, backend: &B) -> Vec<f64> {
        let &Case { b, t, c, vp, max_t, position, .. } = self;
        let mut draws = Draws::new(1);
        // As the f64 and f32 references must see what bf16 sees.
        let mut rounded = |rows| -> Vec<f64> { draws.numbers(rows * c).into_iter().map(round).collect() };
        let wte: Input<B, B::Compute> = Input::new(backend, [vp, c], &rounded(vp));
        let wpe: Input<B, B::Compute> = Input::new(backend, [max_t, c], &rounded(max_t));
        let tokens = ids(backend, [b, t], &self.tokens);
        let mut out = Output::new(backend, [b, t, c]);
        let op =
            EmbeddingForward { tokens: tokens.view(), wte: wte.view(), wpe: wpe.view(), position, out: out.view() };
        backend.embedding_forward(op).unwrap();
        out.read(backend)
    }

    /// `dwte` and `dwpe`; `edit` changes the gradient first.
    fn backward<B: Device>(&self, backend: &B, write: Write, edit: impl FnOnce(&mut [f64])) -> [Vec<f64>; 2] {
        let &Case { b, t, c, vp, max_t, .. } = self;
        let mut values: Vec<f64> = Draws::new(2).numbers(b * t * c).into_iter().map(round).collect();
        edit(&mut values);
        let dout: Input<B, B::Compute> = Input::new(backend, [b, t, c], &values);
        let tokens = ids(backend, [b, t], &self.tokens);
        let mut dwte = Output::to(backend, [vp, c], Write::Accumulate);
        let mut dwpe = Output::to(backend, [max_t, c], write);
        let op =
            EmbeddingBackward { tokens: tokens.view(), dout: dout.view(), dwte: dwte.view(), dwpe: dwpe.view(), write };
        backend.embedding_backward(op).unwrap();
        [dwte.read(backend), dwpe.read(backend)]
    }

    /// The references refuse ids that are none: a row more takes them.
    fn for_reference(&self) -> Case {
        let tokens = (0..self.tokens.len()).map(|n| if self.valid(n) { self.tokens[n] } else { self.vp as i32 });
        Case { vp: self.vp + 1, tokens: tokens.collect(), ..self.clone() }
    }

    fn assert_backward(&self, write: Write) {
        let reference = self.for_reference();
        let got = self.backward(&*shared(), write, |_| ());
        let mut want = reference.backward(&Cpu::<f64>::new(), write, |_| ());
        let mut baseline = reference.backward(&Cpu::<f32>::new(), write, |_| ());
        // What was in dwte before is drawn row by row, so that without the row too many it is the same.
        for dwte in [&mut want[0], &mut baseline[0]] {
            dwte.truncate(self.vp * self.c);
        }
        for (output, name) in ["dwte", "dwpe"].into_iter().enumerate() {
            let what = self.what(&format!("{name}, {write:?}"));
            let (reference, baseline) = (&want[output], &baseline[output]);
            // Of what is left where a thousand numbers cancel; the f32 reference, one sum from the first row to the last,
            // has up to 4096.
            Verdict { what: &what, reference, baseline, ulps: 64.0 }.pass::<f32>(&got[output]);
        }
    }
}

fn round(x: f64) -> f64 {
    bf16::from_f64(x).to_f64()
}

#[test]
fn forward_is_the_formula() {
    for case in [
        Case::new("everything is one", [1, 1, 8, 1]),
        Case { position: 3, ..Case::new("decoding, at the last position", [5, 1, 24, 11]) },
        Case { position: 2, ..Case::new("one sequence from the middle", [1, 7, 40, 30]) },
        Case::new("every number of sequences under way", [9, 1, 8, 7]),
        Case::new("vectors of two positions in one block", [3, 5, 776, 9]),
        Case::new("sequences of several rows of blocks", [70, 2, 8, 40]),
        Case::new("GPT-2's C", [2, 9, 768, 64]),
    ] {
        let (got, reference) = (case.forward(&*shared()), case.forward(&Cpu::<f64>::new()));
        let baseline = case.forward(&Cpu::<f32>::new());
        // The sum in f32 is exact, or rounds where bf16 does not see it but next to a tie.
        Verdict { what: &case.what("out"), reference: &reference, baseline: &baseline, ulps: 0.51 }.pass::<bf16>(&got);
    }
}

/// Shapes and ids at every border that the backward's kernels have.
fn backward_cases() -> Vec<Case> {
    let case = Case::new;
    vec![
        case("everything is one", [1, 1, 8, 1]),
        case("one token a sequence", [45, 1, 8, 9]),
        case("one sequence", [1, 77, 24, 30]),
        case("all tokens the same, several blocks", [1, 1000, 136, 10]).with_ids(|_| 9),
        case("all tokens different", [4, 100, 8, 1000]).with_ids(|n| 999 - 2 * n as i32),
        case("runs of a warp's 16 places", [1, 300, 8, 30]).with_ids(|n| n as i32 / 16),
        case("runs of 15", [1, 300, 8, 30]).with_ids(|n| n as i32 / 15),
        case("runs of 17", [2, 150, 8, 30]).with_ids(|n| n as i32 / 17),
        case("runs of a block's 128 places", [1, 640, 16, 9]).with_ids(|n| n as i32 / 128),
        case("runs of 127", [1, 640, 16, 9]).with_ids(|n| n as i32 / 127),
        case("runs of 129", [5, 129, 264, 9]).with_ids(|n| n as i32 / 129),
        case("runs over several blocks, from the middle of one", [1, 1500, 8, 9]).with_ids(|n| (n as i32 + 200) / 600),
        case("a run of 63, one of 64, one of 65", [1, 192, 8, 3]).with_ids(|n| (n > 62) as i32 + (n > 126) as i32),
        case("sequences shared by two warps", [33, 3, 16, 40]),
        case("by four, the last of which has fewer", [65, 3, 16, 40]),
        case("by eight", [130, 9, 8, 40]),
        case("GPT-2's C", [2, 9, 768, 64]),
        case("a tile but one key", [5, 819, 8, 300]),
        case("a tile", [4, 1024, 8, 300]),
        case("a tile and one key", [17, 241, 8, 300]),
        case("a byte of ids, and the key of none", [4, 20, 8, 256]),
        case("two passes, GPT-2's vocabulary", [5, 1000, 8, 50_304]),
        case("three passes, one tile", [3, 30, 8, 70_000]),
        case("three passes, two tiles", [8, 600, 8, 70_000]),
        case("ten tiles", [8, 4700, 8, 3000]),
        case("ids that are none", [5, 100, 136, 64]).with_ids(bad_id),
        case("no id at all", [2, 100, 8, 64]).with_ids(|n| [-1, 64][n % 2]),
        case("ids that are none, next to ids of 16 bits", [5, 1000, 8, 65_536])
            .with_ids(|n| [65_535, 65_536, -1, i32::MAX, i32::MIN, 0][n * n % 6]),
    ]
}

/// Ids of a vocabulary of 64 and, for every other, one that is none.
fn bad_id(n: usize) -> i32 {
    if n.is_multiple_of(2) { (n * n % 64) as i32 } else { [-1, 64, i32::MIN, i32::MAX, -64, 65_536][n / 2 % 6] }
}

#[test]
fn backward_is_the_formula() {
    for (case, write) in backward_cases().iter().flat_map(|case| WRITES.map(|write| (case, write))) {
        case.assert_backward(write);
    }
}

/// Positions past T.
#[test]
fn dwpe_past_t_is_zero_or_untouched() {
    let case = Case { max_t: 29, ..Case::new("many positions past T", [2, 5, 24, 7]) };
    for write in WRITES {
        case.assert_backward(write);
    }
    let [_, dwpe] = case.backward(&*shared(), Write::Overwrite, |_| ());
    assert!(dwpe[5 * 24..].iter().all(|x| x.to_bits() == 0));
}

#[test]
fn an_id_that_is_none_is_a_row_of_nan() {
    let case = Case::new("ids that are none", [3, 16, 24, 64]).with_ids(bad_id);
    let tokens = (0..case.tokens.len()).map(|n| if case.valid(n) { case.tokens[n] } else { 0 });
    let good = Case { tokens: tokens.collect(), ..case.clone() };
    let cuda = shared();
    let (got, want) = (case.forward(&*cuda), good.forward(&*cuda));
    for (n, (got, want)) in got.chunks(case.c).zip(want.chunks(case.c)).enumerate() {
        if case.valid(n) {
            assert_same_bits("a row beside one of NaN", got, want);
        } else {
            assert!(got.iter().all(|x| x.is_nan()), "token {n} is {}", case.tokens[n]);
        }
    }
}

#[test]
fn bad_numbers_stay_in_their_rows() {
    let case = Case { max_t: 60, ..Case::new("", [3, 57, 24, 40]) };
    let (at, cuda) = (100, shared());
    for write in WRITES {
        let want = case.backward(&*cuda, write, |_| ());
        for bad in [f64::NAN, f64::INFINITY] {
            let got = case.backward(&*cuda, write, |dout| dout[at * case.c..][..case.c].fill(bad));
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
    // 65,536 rows, 512 blocks' heads; and the rounding of sums of that length in another order.
    let case = Case::new("GPT-2's batch, one token", [64, 1024, 8, 50_304]).with_ids(|_| 50_256);
    let got = case.backward(&*shared(), Write::Overwrite, |_| ());
    let want = case.backward(&Cpu::<f64>::new(), Write::Overwrite, |_| ());
    compare::<f32>("embedding_backward dwte", [50_304, 8], &got[0], &want[0], 256.0);
    compare::<f32>("embedding_backward dwpe", [1027, 8], &got[1], &want[1], 64.0);
}

/// Sums numbers whose places, from `first` on, are cut at multiples of `unit`, each part by `sum`, in order.
fn in_parts(values: &[f32], first: usize, unit: usize, sum: impl Fn(&[f32], usize) -> f32) -> Vec<f32> {
    let mut parts = Vec::new();
    let mut at = 0;
    while at < values.len() {
        let end = ((first + at) / unit * unit + unit - first).min(values.len());
        parts.push(sum(&values[at..end], first + at));
        at = end;
    }
    parts
}

fn in_order(values: &[f32]) -> f32 {
    values.iter().copied().reduce(|sum, x| sum + x).unwrap_or(0.0)
}

/// To the bit: 16 places, 128 places, blocks' heads by eight warps; rows of one token in the order of positions.
#[test]
fn sums_are_in_the_order_that_the_kernel_states() {
    let case = Case::new("", [4, 1100, 8, 9]).with_ids(|n| if n % 3 == 0 { 7 } else { n as i32 * 5 % 9 });
    // So unequal that every sum is rounded: sums of like numbers are exact in any order.
    let spread = |dout: &mut [f64]| dout.iter_mut().enumerate().for_each(|(i, x)| *x *= (i as f64 % 37.0).exp2());
    let (c, mut dout) = (case.c, Draws::new(2).numbers(4400 * 8).into_iter().map(round).collect::<Vec<_>>());
    spread(&mut dout);
    let mut places: Vec<usize> = (0..4400).collect();
    places.sort_by_key(|&n| case.tokens[n]);
    let mut want: Vec<f32> = Draws::new(99).numbers(9 * c).into_iter().map(|x| x as f32).collect();
    for (i, want) in want.iter_mut().enumerate() {
        let (token, column) = ((i / c) as i32, i % c);
        let Some(first) = places.iter().position(|&n| case.tokens[n] == token) else { continue };
        let run = places.iter().filter(|&&n| case.tokens[n] == token);
        let values: Vec<f32> = run.map(|&n| dout[n * c + column] as f32).collect();
        let of_block = |values: &[f32], first| in_order(&in_parts(values, first, 16, |values, _| in_order(values)));
        let blocks = in_parts(&values, first, 128, of_block);
        let heads = &blocks[1..];
        let shares: Vec<f32> = heads.chunks(heads.len().div_ceil(8).max(1)).map(in_order).collect();
        *want += blocks[0];
        *want += in_order(&shares);
    }
    let [dwte, _] = case.backward(&*shared(), Write::Accumulate, spread);
    assert_same_bits("dwte", &dwte, &want.into_iter().map(f64::from).collect::<Vec<_>>());
}

/// A tensor of zeros: large tables, whose values do not matter.
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
        // The operation's floor has one row of wte; these are as many as there are ids.
        let floor = Floor { bytes: (4 * n + 2 * c * (distinct(&values) + t + n)) as u64, flops: 0 };
        // Every vector's thread asks for its id, 4 bytes by 32; the 32 lanes' are one sector. And wpe is read by two rows of
        // blocks, as the shape is small.
        let what = format!("embedding_forward, N = {n}, C = {c}");
        Lean { what: &what, floor, bytes: 1.20, sectors: 0.95 }.pass(&counts);
    }
}

fn distinct(ids: &[i32]) -> usize {
    ids.iter().collect::<std::collections::BTreeSet<_>>().len()
}

#[test]
fn backward_traffic_is_the_floor_and_a_second_reading() {
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
        let (asked, moved) = (counts.global().bytes as f64, 32.0 * counts.global().sectors as f64);
        println!(
            "embedding_backward, N = {n}, C = {c}: {:.3} of the floor, {:.3} of that and a second reading of dout; {:.3} \
             of the ideal sectors; {} bank conflicts; {}",
            asked / floor as f64,
            asked / (floor + 2 * n * c) as f64,
            moved / asked,
            counts.bank_conflicts(),
            counts.kernels().join(" ")
        );
        // Pairs of (key, position) are read by each slice of columns: 8 bytes by 256 of dout.
        assert!(asked <= 1.02 * (floor + 2 * n * c) as f64);
        assert!(moved <= 1.02 * asked);
        // Keys are counted and placed by their digits, at random; two for each pass and key at most. Sums have none.
        assert!(counts.bank_conflicts() <= 4 * n as u64);
    }
}

#[test]
fn what_does_not_fit_is_refused() {
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
    let refused = cuda.embedding_backward(op);
    assert_rejected(
        refused,
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
    Trial { why: case.why, kernels, run: Box::new(move |cuda| case.backward(cuda, write, |_| ()).into()) }
}

fn forward_trial(case: Case) -> Trial {
    Trial { why: case.why, kernels: &["embedding_forward"], run: Box::new(move |cuda| vec![case.forward(cuda)]) }
}

/// For a thousand schedules.
fn trials() -> Vec<Trial> {
    use Write::{Accumulate, Overwrite};
    let case = Case::new;
    vec![
        // First, while scratch memory is as small as that: what goes past its end is seen.
        backward_trial(ONE_TILE, Accumulate, case("five keys in two passes", [1, 5, 8, 300])),
        forward_trial(case("ids that are none", [9, 5, 24, 64]).with_ids(bad_id)),
        backward_trial(ONE_TILE, Overwrite, case("ids that are none, two slices", [9, 20, 136, 64]).with_ids(bad_id)),
        backward_trial(ONE_TILE, Accumulate, case("one token, three blocks", [1, 300, 8, 9]).with_ids(|_| 7)),
        backward_trial(SUMS, Overwrite, case("warps that share a position", [33, 3, 8, 5])),
        backward_trial(SORTS, Accumulate, case("warps of one tile, two passes", [300, 1, 8, 300])),
    ]
}

/// For mutants alone: every place of unrolled loops has the last key, and ends a run.
fn more_trials() -> Vec<Trial> {
    use Write::{Accumulate, Overwrite};
    let case = Case::new;
    let mut trials = trials();
    let mut sums = |write, case| trials.push(backward_trial(SUMS, write, case));
    sums(Accumulate, case("rows side by side, columns past the last", [2, 10, 136, 5]).with_ids(|n| n as i32 % 3));
    for len in 0..9 {
        sums(Accumulate, case("token 0 first", [1, 20, 8, 5]).with_ids(move |n| 3 * (n >= len) as i32));
        sums(Accumulate, case("token 0 last", [2, 10, 136, 5]).with_ids(move |n| 3 * (n < len) as i32));
        sums(Accumulate, case("ids that are none", [1, len + 3, 8, 5]).with_ids(|n| 4 + (n > 2) as i32));
    }
    for warp in 1..8 {
        let ids = move |n| (n > 100) as i32 + (n > 132 + 16 * warp) as i32;
        sums(Accumulate, case("a run from one block into each warp of the next", [300, 1, 8, 5]).with_ids(ids));
    }
    for log2 in 0..4 {
        sums(Overwrite, case("warps that share a position", [(16 << log2) + 1, 5, 16, 40]));
    }
    sums(Overwrite, case("as many sequences as are under way", [8, 3, 8, 40]));
    sums(Accumulate, case("as many heads as are under way", [8192, 1, 8, 9]).with_ids(|_| 7));
    sums(Accumulate, case("runs over blocks", [3000, 1, 8, 9]).with_ids(|n| n as i32 / 1100));
    sums(Accumulate, case("runs of blocks", [640, 1, 16, 9]).with_ids(|n| n as i32 / 128));
    sums(Accumulate, case("runs of warps", [128, 1, 8, 9]).with_ids(|n| n as i32 / 16));
    for place in 0..9 {
        let bad = move |n| if n == place { 7 } else { 3 };
        trials.push(forward_trial(case("an id that is none at each place", [4, 1, 24, 7]).with_ids(bad)));
        trials.push(forward_trial(case("each number of sequences", [place + 1, 1, 8, 7])));
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
    assert_any_schedule("embedding", &trials());
}

#[test]
fn mutants_die() {
    use Kind::{NeverLeave, RemoveWarpBarrier, SelectSecond, ShiftComparison};
    const FORWARD: &str = "embedding_forward";
    const COUNT: &str = "embedding_backward_count";
    const SORT: &str = "embedding_backward_sort";
    const SUM: &str = "embedding_backward_sum";
    const JOIN: &str = "embedding_backward_reduce";
    const FIRST: &str =
        "the grid has no more rows of blocks than there are sequences: a thread's first is always there";
    const EQUIVALENT: &[Equivalent] = &[
        equivalent(2, FORWARD, ShiftComparison, "for (uint32_t first = blockIdx.y", FIRST),
        equivalent(1, FORWARD, NeverLeave, "for (uint32_t first = blockIdx.y", FIRST),
        equivalent(1, FORWARD, ShiftComparison, "const bool there", FIRST),
        equivalent(1, FORWARD, NeverLeave, "tokens[r] = there", FIRST),
        equivalent(1, FORWARD, ShiftComparison, "if (sequence >= params.b) break", FIRST),
        equivalent(1, FORWARD, NeverLeave, "if (sequence >= params.b) break", FIRST),
        equivalent(1, COUNT, NeverLeave, "for (uint32_t pass = 1", "with one pass zeros go where heads will be"),
        // Of rank_in_warp and of the sum over tiles, which are inlined by way of this line.
        equivalent(8, SORT, NeverLeave, "sort_pass(params, pass)", "a lane without a key reads a count for nothing"),
        equivalent(
            1,
            SORT,
            RemoveWarpBarrier,
            "sort_pass(params, pass)",
            "the last round is followed by __syncthreads",
        ),
        equivalent(1, SORT, SelectSecond, "sort_pass(params, pass)", "the last tile comes before no other"),
        // Of sum_positions: the lesser of two that are equal, and a loop that is always entered.
        equivalent(1, SUM, ShiftComparison, "sum_positions(params", "of two that are equal either is the lesser"),
        equivalent(1, SUM, NeverLeave, "sum_positions(params", "a share has a sequence: 16 for each that shares"),
        equivalent(1, JOIN, NeverLeave, "while (end - has > 1)", "a search among one block ends there"),
        equivalent(
            1,
            JOIN,
            ShiftComparison,
            "sum = sum_shares(",
            "the sum of a warp but the first, which nobody reads",
        ),
    ];
    assert_mutants_die("embedding", &more_trials(), EQUIVALENT);
}
