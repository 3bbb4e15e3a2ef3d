//! Embedding.

use ironwarp::cpu::Cpu;
use ironwarp::ops::{EmbeddingBackward, EmbeddingForward, Floor, Operation, Write};
use ironwarp::tensor::Tensor;

use crate::common::embedding::Case;
use crate::common::*;

/// Cases whose ids are still to be drawn by [`cases`].
const SIZES: [Case; 7] = [
    Case { why: "all sizes are 1", b: 1, t: 1, c: 1, vp: 1, max_t: 1, position: 0, tokens: vec![] },
    Case {
        why: "decoding: one token at the last position",
        b: 3,
        t: 1,
        c: 5,
        vp: 11,
        max_t: 9,
        position: 8,
        tokens: vec![],
    },
    Case { why: "one sequence", b: 1, t: 7, c: 12, vp: 30, max_t: 7, position: 0, tokens: vec![] },
    Case { why: "every id is shared", b: 4, t: 6, c: 3, vp: 2, max_t: 8, position: 0, tokens: vec![] },
    Case { why: "positions in the middle", b: 2, t: 3, c: 17, vp: 19, max_t: 10, position: 4, tokens: vec![] },
    Case { why: "C more than a vector of 16", b: 2, t: 5, c: 33, vp: 7, max_t: 5, position: 0, tokens: vec![] },
    Case {
        why: "GPT-2's C, fewer positions than the table",
        b: 2,
        t: 9,
        c: 768,
        vp: 64,
        max_t: 16,
        position: 0,
        tokens: vec![],
    },
];

/// All cases, with the last id first and id 0 last.
fn cases() -> Vec<Case> {
    let with_ids = |case: Case| {
        let mut tokens = Draws::new(1).ids(case.b * case.t, case.vp);
        tokens[0] = case.vp as i32 - 1;
        *tokens.last_mut().unwrap() = 0;
        Case { tokens, ..case }
    };
    SIZES.into_iter().map(with_ids).collect()
}

fn forward_is_the_formula<B: Device>(backend: &B) {
    for case in cases() {
        let Case { why, b, t, c, vp, max_t, position, .. } = case;
        let mut draws = Draws::new(2);
        let [wte, wpe] = [vp, max_t].map(|rows| draws.numbers(rows * c));
        let mut want = Vec::new();
        for (n, &token) in case.tokens.iter().enumerate() {
            for i in 0..c {
                want.push(wte[token as usize * c + i] + wpe[(position + n % t) * c + i]);
            }
        }
        // One rounding.
        let got = case.forward_of(backend, &wte, &wpe);
        compare::<B::Compute>(&format!("embedding_forward out, {why},"), [b, t, c], &got, &want, 1.0);
    }
}

#[test]
fn forward_is_the_formula_in_f64_and_f32() {
    forward_is_the_formula(&Cpu::<f64>::new());
    forward_is_the_formula(&Cpu::<f32>::new());
}

fn backward_is_the_formula<B: Device>(backend: &B) {
    for (case, write) in cases().iter().flat_map(|case| WRITES.map(|write| (case, write))) {
        let &Case { why, b, t, c, vp, max_t, .. } = case;
        let dout = Draws::new(3).numbers(b * t * c);
        let (mut want_wte, mut want_wpe) = (vec![0.0; vp * c], vec![0.0; max_t * c]);
        for (n, &token) in case.tokens.iter().enumerate() {
            for i in 0..c {
                want_wte[token as usize * c + i] += dout[n * c + i];
                want_wpe[n % t * c + i] += dout[n * c + i];
            }
        }
        let [dwte, dwpe] = case.backward_of(backend, &dout, write);
        // One rounding per summand, of partial sums below B·T.
        let units = (b * t * b * t) as f64;
        let (got_wte, want_wte) = (dwte.read(backend), dwte.expected(Write::Accumulate, &want_wte));
        compare::<B::Accum>(&format!("embedding_backward dwte, {why},"), [vp, c], &got_wte, &want_wte, units);
        let (got_wpe, want_wpe) = (dwpe.read(backend), dwpe.expected(write, &want_wpe));
        compare::<B::Accum>(&format!("embedding_backward dwpe, {why},"), [max_t, c], &got_wpe, &want_wpe, units);
    }
}

#[test]
fn backward_is_the_formula_in_f64_and_f32() {
    backward_is_the_formula(&Cpu::<f64>::new());
    backward_is_the_formula(&Cpu::<f32>::new());
}

/// The backward assumes position 0, so cases with another position are left out.
#[test]
fn backward_is_the_gradient() {
    let backend = Cpu::<f64>::new();
    for case in cases().iter().filter(|case| case.position == 0 && case.c < 100) {
        let &Case { why, b, t, c, vp, max_t, .. } = case;
        let mut draws = Draws::new(4);
        let [wte, wpe, dout] = [vp, max_t, b * t].map(|rows| draws.numbers(rows * c));
        let [dwte, dwpe] = case.backward_of(&backend, &dout, Write::Overwrite);
        let gradient: Vec<f64> =
            dwte.read(&backend).iter().zip(&dwte.before).map(|(after, before)| after - before).collect();
        check_gradient(&format!("embedding_backward dwte, {why}"), &wte, &gradient, |values| {
            dot(&case.forward_of(&backend, values, &wpe), &dout)
        });
        check_gradient(&format!("embedding_backward dwpe, {why}"), &wpe, &dwpe.read(&backend), |values| {
            dot(&case.forward_of(&backend, &wte, values), &dout)
        });
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let backend = Cpu::<f32>::new();
    let tokens = Draws::new(1).ids(5 * 13, 23);
    let case = Case { why: "", b: 5, t: 13, c: 67, vp: 23, max_t: 17, position: 0, tokens };
    assert_same_on_any_threads("embedding", || {
        let mut draws = Draws::new(5);
        let rows = [case.vp, case.max_t, case.b * case.t];
        let [wte, wpe, dout] = rows.map(|rows| draws.numbers(rows * case.c));
        let out = case.forward_of(&backend, &wte, &wpe);
        let gradients = case.backward_of(&backend, &dout, Write::Accumulate).map(|gradient| gradient.read(&backend));
        [vec![out], gradients.into()].concat()
    });
}

/// Shapes and ids of a call, valid unless edited: B = 2, T = 3, C = 4, Vp = 6, T_max = 5.
struct Call {
    tokens: [usize; 2],
    values: Vec<i32>,
    table: [usize; 2],
    positions: [usize; 2],
    rows: [usize; 3],
    position: usize,
}

impl Call {
    fn new(edit: impl FnOnce(&mut Call)) -> Self {
        let (values, rows) = (vec![0, 1, 2, 3, 4, 5], [2, 3, 4]);
        let mut call = Call { tokens: [2, 3], values, table: [6, 4], positions: [5, 4], rows, position: 2 };
        edit(&mut call);
        call
    }
}

fn assert_forward_rejected<B: Device>(backend: &B, message: &str, edit: impl FnOnce(&mut Call)) {
    let call = Call::new(edit);
    let mut draws = Draws::new(6);
    let tokens = ids(backend, call.tokens, &call.values);
    let wte: Input<B, B::Compute> = draws.input(backend, call.table);
    let wpe: Input<B, B::Compute> = draws.input(backend, call.positions);
    let mut out = Output::new(backend, call.rows);
    let (tokens, position) = (tokens.view(), call.position);
    let op = EmbeddingForward { tokens, wte: wte.view(), wpe: wpe.view(), position, out: out.view() };
    assert_rejected(backend.embedding_forward(op), message);
    out.assert_untouched(backend);
}

#[test]
fn forward_rejects_violated_preconditions() {
    let backend = Cpu::<f32>::new();
    let rejected = |message, edit: fn(&mut Call)| assert_forward_rejected(&backend, message, edit);
    rejected("embedding_forward: tokens not empty failed (tokens is (2, 0))", |call| {
        (call.tokens, call.values) = ([2, 0], vec![]);
    });
    rejected("embedding_forward: wpe (T_max, C) == (5, 4) failed (wpe is (5, 3))", |call| call.positions = [5, 3]);
    rejected("embedding_forward: out (B·T, C) == (6, 4) failed (out is (2, 2, 4))", |call| call.rows = [2, 2, 4]);
    rejected("embedding_forward: out (B·T, C) == (6, 4) failed (out is (2, 3, 5))", |call| call.rows = [2, 3, 5]);
    rejected("embedding_forward: position + T <= T_max failed (position = 3, T = 3, T_max = 5)", |call| {
        call.position = 3
    });
    rejected(
        "embedding_forward: position + T <= T_max failed (position = 18446744073709551615, T = 3, T_max = 5)",
        |call| call.position = usize::MAX,
    );
    rejected("embedding_forward: 0 <= token < Vp failed (token 5 = 6, Vp = 6)", |call| call.values[5] = 6);
    rejected("embedding_forward: 0 <= token < Vp failed (token 1 = -1, Vp = 6)", |call| call.values[1] = -1);
}

fn assert_backward_rejected<B: Device>(backend: &B, message: &str, edit: impl FnOnce(&mut Call)) {
    let call = Call::new(edit);
    let tokens = ids(backend, call.tokens, &call.values);
    let dout: Input<B, B::Compute> = Draws::new(7).input(backend, call.rows);
    let mut dwte = Output::to(backend, call.table, Write::Accumulate);
    let mut dwpe = Output::new(backend, call.positions);
    let op = EmbeddingBackward {
        tokens: tokens.view(),
        dout: dout.view(),
        dwte: dwte.view(),
        dwpe: dwpe.view(),
        write: Write::Overwrite,
    };
    assert_rejected(backend.embedding_backward(op), message);
    dwte.assert_untouched(backend);
    dwpe.assert_untouched(backend);
}

#[test]
fn backward_rejects_violated_preconditions() {
    let backend = Cpu::<f32>::new();
    let rejected = |message, edit: fn(&mut Call)| assert_backward_rejected(&backend, message, edit);
    rejected("embedding_backward: tokens not empty failed (tokens is (0, 3))", |call| {
        (call.tokens, call.values) = ([0, 3], vec![]);
    });
    rejected("embedding_backward: dwpe (T_max, C) == (5, 4) failed (dwpe is (5, 5))", |call| call.positions = [5, 5]);
    rejected("embedding_backward: dout (B·T, C) == (6, 4) failed (dout is (3, 3, 4))", |call| call.rows = [3, 3, 4]);
    rejected("embedding_backward: T <= T_max failed (T = 3, T_max = 2)", |call| call.positions = [2, 4]);
    rejected("embedding_backward: 0 <= token < Vp failed (token 0 = 6, Vp = 6)", |call| call.values[0] = 6);
    rejected("embedding_backward: 0 <= token < Vp failed (token 2 = -7, Vp = 6)", |call| call.values[2] = -7);
}

/// B = 2, T = 3, C = 4 in f32: one token row, three position rows and six output rows, and six ids.
#[test]
fn floors_by_hand() {
    let backend = Cpu::<f32>::new();
    let tokens = ids(&backend, [2, 3], &[0; 6]);
    let zeros = |shape: [usize; 2]| Tensor::<Cpu<f32>, f32>::zeros(&backend, shape).unwrap();
    let (wte, wpe, dout) = (zeros([10, 4]), zeros([5, 4]), zeros([6, 4]));
    let (mut out, mut dwte, mut dwpe) = (zeros([6, 4]), zeros([10, 4]), zeros([5, 4]));
    let op: EmbeddingForward<Cpu<f32>> =
        EmbeddingForward { tokens: tokens.view(), wte: wte.view(), wpe: wpe.view(), position: 0, out: out.view_mut() };
    assert_eq!(op.floor(), Floor { bytes: 6 * 4 + (4 + 12 + 24) * 4, flops: 0 });

    // Overwriting writes all 5 positions; accumulating reads and writes those of the 3 tokens.
    for (write, positions) in [(Write::Overwrite, 5), (Write::Accumulate, 2 * 3)] {
        let (dwte, dwpe) = (dwte.view_mut(), dwpe.view_mut());
        let op: EmbeddingBackward<Cpu<f32>> =
            EmbeddingBackward { tokens: tokens.view(), dout: dout.view(), dwte, dwpe, write };
        assert_eq!(op.floor(), Floor { bytes: 6 * 4 + 24 * 4 + (2 * 4 + positions * 4) * 4, flops: 0 });
    }
}
