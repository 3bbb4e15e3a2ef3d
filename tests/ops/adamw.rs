//! AdamW against its formula in f64, and its guard.

use ironwarp::cpu::Cpu;
use ironwarp::ops::{AdamW, AdamWSettings, Backend, Floor, Operation, UpdateGuard};
use ironwarp::tensor::{Shape, Storage, Tensor};

use crate::common::adamw::{self, Guard, OPEN, SETTINGS, State, random_state};
use crate::common::*;
use crate::narrow::Narrow;

/// The state after one update of a backend whose weights are in full precision.
fn update<B: Device>(backend: &B, state: &State, grad: &[f64], guard: Guard, settings: AdamWSettings) -> State {
    adamw::update(backend, state, grad, guard, settings).0
}

/// The formula for one parameter.
fn formula([w, m, v]: [f64; 3], grad: f64, norm: f64, settings: AdamWSettings) -> [f64; 3] {
    let AdamWSettings { learning_rate, beta1, beta2, eps, weight_decay, max_norm, .. } = settings;
    let [lr, beta1, beta2, eps, decay, max_norm] =
        [learning_rate, beta1, beta2, eps, weight_decay, max_norm].map(f64::from);
    let g = grad * (max_norm / (norm + 1e-6)).min(1.0);
    let m = beta1 * m + (1.0 - beta1) * g;
    let v = beta2 * v + (1.0 - beta2) * g * g;
    let (mut power1, mut power2) = (1.0, 1.0);
    for _ in 0..settings.step {
        (power1, power2) = (power1 * beta1, power2 * beta2);
    }
    let direction = m / (1.0 - power1) / ((v / (1.0 - power2)).sqrt() + eps);
    [w - lr * (direction + decay * w), m, v]
}

/// Each step rounds a weight once, and its change, which is of the size of the learning rate, about 20 times.
fn steps_are_the_formula<B: Device>(backend: &B) {
    // The CPU backend processes 2^14 elements at a time.
    for (p, why) in [(1, "one parameter"), (7, "few parameters"), (16_385, "a chunk and one parameter")] {
        for max_norm in [0.5, 2.0, 8.0, f32::INFINITY] {
            for (first, weight_decay) in [(1, 0.1), (1, 0.0), (1000, 0.1)] {
                let zero = vec![0.0; p];
                let mut state =
                    if first == 1 { [Draws::new(2).numbers(p), zero.clone(), zero] } else { random_state(p) };
                let mut want = state.clone();
                for step in first..first + 4 {
                    let settings = AdamWSettings { step, max_norm, weight_decay, ..SETTINGS };
                    let grad = Draws::new(step).numbers(p);
                    state = update(backend, &state, &grad, OPEN, settings);
                    for i in 0..p {
                        let new = formula([0, 1, 2].map(|part| want[part][i]), grad[i], OPEN.norm, settings);
                        (0..3).for_each(|part| want[part][i] = new[part]);
                    }
                    let case = format!("({why}, max_norm {max_norm}, step {step}, decay {weight_decay})");
                    compare::<B::Compute>(&format!("adamw weight {case}"), [p], &state[0], &want[0], 8.0);
                    compare::<B::Accum>(&format!("adamw m {case}"), [p], &state[1], &want[1], 8.0);
                    let relative: Vec<f64> = state[2].iter().zip(&want[2]).map(|(got, want)| got / want).collect();
                    compare::<B::Accum>(&format!("adamw v {case}, relative,"), [p], &relative, &vec![1.0; p], 16.0);
                }
            }
        }
    }
}

#[test]
fn steps_match_the_formula() {
    steps_are_the_formula(&Cpu::<f64>::new());
    steps_are_the_formula(&Cpu::<f32>::new());
}

#[test]
fn without_gradients_weights_only_decay() {
    let state = [vec![2.0, -4.0], vec![0.0; 2], vec![0.0; 2]];
    let settings = AdamWSettings { learning_rate: 0.25, weight_decay: 0.5, ..SETTINGS };
    let guard = Guard { norm: 0.0, ..OPEN };
    let want = [vec![1.75, -3.5], vec![0.0; 2], vec![0.0; 2]];
    assert_eq!(update(&Cpu::<f32>::new(), &state, &[0.0; 2], guard, settings), want);
    let clipped = AdamWSettings { max_norm: 1.0, ..settings };
    assert_eq!(update(&Cpu::<f32>::new(), &state, &[0.0; 2], guard, clipped), want);
}

fn guard_decides<B: Device>(backend: &B) {
    let (state, grad) = (random_state(50), Draws::new(3).numbers(50));
    let (nan, infinity) = (f64::NAN, f64::INFINITY);
    let limited = Guard { norm_limit: 2.0, loss_limit: 3.0, ..OPEN };
    let forbidden = [
        Guard { norm: nan, ..OPEN },
        Guard { norm: infinity, ..OPEN },
        Guard { norm: -infinity, ..OPEN },
        Guard { loss: nan, ..OPEN },
        Guard { loss: infinity, ..OPEN },
        Guard { loss: -infinity, ..OPEN },
        Guard { norm: 2.000001, ..limited },
        Guard { loss: 3.000001, ..limited },
        Guard { norm: nan, loss: infinity, ..limited },
    ];
    for guard in forbidden {
        let after = update(backend, &state, &grad, guard, SETTINGS);
        for (part, (after, state)) in after.iter().zip(&state).enumerate() {
            assert_same_bits(&format!("part {part} under {guard:?}"), after, state);
        }
    }
    for guard in [OPEN, limited, Guard { norm: 0.0, loss: 0.0, norm_limit: 0.0, loss_limit: 0.0 }] {
        let after = update(backend, &state, &grad, guard, SETTINGS);
        for part in 0..3 {
            assert!(after[part].iter().zip(&state[part]).all(|(a, b)| a != b), "part {part} under {guard:?}");
        }
    }
}

#[test]
fn a_bad_step_changes_no_bit() {
    guard_decides(&Cpu::<f64>::new());
    guard_decides(&Cpu::<f32>::new());
}

#[test]
fn two_calls_give_the_bits_of_one() {
    let (backend, p) = (Cpu::<f32>::new(), 16_500);
    let (state, grad) = (random_state(p), Draws::new(4).numbers(p));
    let whole = update(&backend, &state, &grad, OPEN, SETTINGS);
    let cut = |range: std::ops::Range<usize>| {
        let settings = AdamWSettings { first_index: range.start as u64, ..SETTINGS };
        update(&backend, &state.each_ref().map(|x| x[range.clone()].to_vec()), &grad[range.clone()], OPEN, settings)
    };
    let (first, second) = (cut(0..101), cut(101..p));
    for part in 0..3 {
        let both = [&first[part][..], &second[part]].concat();
        assert_same_bits(&format!("part {part} of two calls"), &both, &whole[part]);
    }
}

#[test]
fn any_number_of_threads_gives_the_same_bits() {
    let (state, grad) = (random_state(100_003), Draws::new(5).numbers(100_003));
    let settings = AdamWSettings { step: 3, max_norm: 1.0, ..SETTINGS };
    assert_same_on_any_threads("adamw", || update(&Cpu::<f32>::new(), &state, &grad, OPEN, settings).into());
}

/// A call on zeros, valid unless edited: P = 6.
struct Call {
    weight: Shape,
    master: Option<Shape>,
    grad: Shape,
    m: Shape,
    v: Shape,
    norm: Shape,
    loss: Shape,
    settings: AdamWSettings,
}

/// Builds the call on `storage`, edited, and passes it to `then`.
fn with_call<S: Storage, T>(storage: &S, edit: impl FnOnce(&mut Call), then: impl FnOnce(&AdamW<'_, S>) -> T) -> T {
    let p: Shape = [6].into();
    let one: Shape = [1].into();
    let mut call = Call { weight: p, master: None, grad: p, m: p, v: p, norm: one, loss: one, settings: SETTINGS };
    edit(&mut call);
    let mut weight = Tensor::zeros(storage, call.weight).unwrap();
    let mut master = call.master.map(|shape| Tensor::zeros(storage, shape).unwrap());
    let [grad, mut m, mut v, norm, loss] =
        [call.grad, call.m, call.v, call.norm, call.loss].map(|shape| Tensor::zeros(storage, shape).unwrap());
    let limit = f32::INFINITY;
    then(&AdamW {
        weight: weight.view_mut(),
        master: master.as_mut().map(Tensor::view_mut),
        grad: grad.view(),
        m: m.view_mut(),
        v: v.view_mut(),
        guard: UpdateGuard { norm: norm.view(), loss: loss.view(), norm_limit: limit, loss_limit: limit },
        settings: call.settings,
    })
}

#[test]
fn violated_preconditions_are_rejected() {
    let rejected = |message: &str, edit: fn(&mut Call)| {
        with_call(&Cpu::<f32>::new(), edit, |op| assert_rejected(op.check(), &format!("adamw: {message}")));
    };
    rejected("weight not empty failed (weight is (0))", |call| call.weight = [0].into());
    rejected("grad (P) == (6) failed (grad is (7))", |call| call.grad = [7].into());
    rejected("m (P) == (6) failed (m is (2, 2))", |call| call.m = [2, 2].into());
    rejected("v (P) == (6) failed (v is (5))", |call| call.v = [5].into());
    rejected("master exactly when weights are narrower failed (master given: true, needed: false)", |call| {
        call.master = Some([6].into())
    });
    rejected("norm (1) == (1) failed (norm is (2))", |call| call.norm = [2].into());
    rejected("loss (1) == (1) failed (loss is (1, 1))", |call| call.loss = [1, 1].into());
    rejected("0 <= β1 < 1 failed (β1 = 1)", |call| call.settings.beta1 = 1.0);
    rejected("0 <= β1 < 1 failed (β1 = -0.1)", |call| call.settings.beta1 = -0.1);
    rejected("0 <= β2 < 1 failed (β2 = NaN)", |call| call.settings.beta2 = f32::NAN);
    rejected("step >= 1 failed (step = 0)", |call| call.settings.step = 0);
    rejected("lr finite failed (lr = inf)", |call| call.settings.learning_rate = f32::INFINITY);
    rejected("weight_decay finite failed (weight_decay = NaN)", |call| call.settings.weight_decay = f32::NAN);
    rejected("max_norm > 0 failed (max_norm = NaN)", |call| call.settings.max_norm = f32::NAN);
    rejected("max_norm > 0 failed (max_norm = -1)", |call| call.settings.max_norm = -1.0);
    rejected("ε > 0 failed (ε = 0)", |call| call.settings.eps = 0.0);

    let narrow = |message: &str, edit: fn(&mut Call)| {
        with_call(&Narrow, edit, |op| assert_rejected(op.check(), &format!("adamw: {message}")));
    };
    narrow("master exactly when weights are narrower failed (master given: false, needed: true)", |_| {});
    narrow("master (P) == (6) failed (master is (5))", |call| call.master = Some([5].into()));
}

#[test]
fn a_rejected_call_writes_nothing() {
    let backend = Cpu::<f32>::new();
    let mut state = [(); 3].map(|()| Output::with(&backend, [4], &[1.0, 2.0, 3.0, 4.0]));
    let input = |len: usize| Draws::new(6).input::<_, f32>(&backend, [len]);
    let (grad, one) = (input(4), input(1));
    let [weight, m, v] = state.each_mut().map(Output::view);
    let limit = f32::INFINITY;
    let guard = UpdateGuard { norm: one.view(), loss: one.view(), norm_limit: limit, loss_limit: limit };
    let settings = AdamWSettings { step: 0, ..SETTINGS };
    let op = AdamW { weight, master: None, grad: grad.view(), m, v, guard, settings };
    assert_rejected(backend.adamw(op), "adamw: step >= 1 failed (step = 0)");
    state.iter().for_each(|output| output.assert_untouched(&backend));
}

/// P = 6: the gradient is read; m, v and the weights are read and written. With a master, its bf16 copy is written, too.
#[test]
fn floors_by_hand() {
    let floor = |bytes| Floor { bytes, flops: 0 };
    with_call(&Cpu::<f32>::new(), |_| {}, |op| assert_eq!(op.floor(), floor(7 * 6 * 4)));
    with_call(&Narrow, |call| call.master = Some([6].into()), |op| assert_eq!(op.floor(), floor(7 * 6 * 4 + 6 * 2)));
}
