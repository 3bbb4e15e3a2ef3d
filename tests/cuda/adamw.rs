//! AdamW.

use emulator_trials::mutate::Kind;
use half::bf16;
use ironwarp::cpu::Cpu;
use ironwarp::cuda::Cuda;
use ironwarp::ops::philox::{Purpose, draw, round_to_bf16};
use ironwarp::ops::{AdamW, AdamWSettings, Backend, Operation, UpdateGuard};
use ironwarp::tensor::Tensor;

use crate::bounds::TrafficBound;
use crate::common::adamw::{self, Guard, OPEN, State, update};
use crate::common::*;
use crate::emulator::{alone, shared};
use crate::kernel_checks::{Equivalent, Trial, assert_mutants_killed, assert_schedules_agree, equivalent};

/// The shared settings, clipped.
const SETTINGS: AdamWSettings = AdamWSettings { max_norm: 1.0, ..adamw::SETTINGS };

/// Random state whose second moments include subnormal numbers.
fn random_state(p: usize) -> State {
    let mut state = adamw::random_state(p);
    state[2].iter_mut().enumerate().for_each(|(i, v)| *v = if i % 7 == 0 { 1e-41 } else { *v * *v });
    state
}

fn assert_bits(what: &str, got: &State, want: &State) {
    for (name, (got, want)) in ["master", "m", "v"].iter().zip(got.iter().zip(want)) {
        assert_same_bits(&format!("{what}: {name}"), got, want);
    }
}

/// Fails unless the bf16 weights are the master weights, rounded stochastically with the operation's own draws.
fn assert_rounded(what: &str, weight: &[f64], master: &[f64], settings: AdamWSettings) {
    let AdamWSettings { seed, step, first_index, .. } = settings;
    let rounded = master
        .iter()
        .zip(first_index..)
        .map(|(&value, index)| round_to_bf16(value as f32, draw(seed, Purpose::Rounding, step, index)).to_f64());
    assert_same_bits(&format!("{what}: weight"), weight, &rounded.collect::<Vec<_>>());
}

#[test]
fn every_bit_is_that_of_the_reference() {
    for (p, why) in [
        (8, "two threads"),
        (16, "four threads"),
        (1016, "two threads less than a block"),
        (1024, "a block"),
        (1032, "a block and two threads"),
        (100_000, "many blocks"),
    ] {
        let (mut state, grad) = (random_state(p), Draws::new(2).numbers(p));
        for (settings, guard) in [
            (SETTINGS, OPEN),
            (AdamWSettings { step: 2, max_norm: f32::INFINITY, ..SETTINGS }, OPEN),
            (AdamWSettings { step: 1 << 33, seed: u64::MAX - 5, first_index: 1 << 35, ..SETTINGS }, OPEN),
            (AdamWSettings { step: 1000, eps: 1e-3, weight_decay: 0.0, ..SETTINGS }, Guard { norm: 0.25, ..OPEN }),
        ] {
            let what = format!("adamw, P = {p} ({why}), step {}", settings.step);
            let (got, weight) = update(&*shared(), &state, &grad, guard, settings);
            let (want, _) = update(&Cpu::<f32>::new(), &state, &grad, guard, settings);
            assert_bits(&what, &got, &want);
            assert_rounded(&what, &weight, &got[0], settings);
            state = got;
        }
    }
}

#[test]
fn two_calls_give_the_bits_of_one() {
    let p = 4096 + 24;
    let (state, grad) = (random_state(p), Draws::new(4).numbers(p));
    let (whole, weight) = update(&*shared(), &state, &grad, OPEN, SETTINGS);
    let cut = |range: std::ops::Range<usize>| {
        let settings = AdamWSettings { first_index: range.start as u64, ..SETTINGS };
        let part = state.each_ref().map(|x| x[range.clone()].to_vec());
        update(&*shared(), &part, &grad[range], OPEN, settings)
    };
    let ((first, first_weight), (second, second_weight)) = (cut(0..1000), cut(1000..p));
    for part in 0..3 {
        assert_same_bits("two calls", &[&first[part][..], &second[part]].concat(), &whole[part]);
    }
    assert_same_bits("two calls: weight", &[first_weight, second_weight].concat(), &weight);
}

#[test]
fn a_bad_step_changes_no_bit() {
    let (state, grad) = (random_state(1032), Draws::new(5).numbers(1032));
    let state = state.map(|values| values.into_iter().map(|x| f64::from(x as f32)).collect());
    for guard in [
        Guard { norm: f64::NAN, ..OPEN },
        Guard { norm: f64::INFINITY, ..OPEN },
        Guard { loss: f64::NAN, ..OPEN },
        Guard { loss: f64::NEG_INFINITY, ..OPEN },
        Guard { norm_limit: 1.999, ..OPEN },
        Guard { loss_limit: 2.999, ..OPEN },
        Guard { norm_limit: f32::NAN, ..OPEN },
    ] {
        let (after, weight) = update(&*shared(), &state, &grad, guard, SETTINGS);
        assert_bits(&format!("{guard:?}"), &after, &state);
        assert!(weight.iter().all(|x| x.is_nan()), "{guard:?}: a weight was written");
    }
    // Values at the limits are allowed.
    let guard = Guard { norm_limit: 2.0, loss_limit: 3.0, ..OPEN };
    assert_ne!(update(&*shared(), &state, &grad, guard, SETTINGS).0, state);
}

#[test]
fn non_finite_numbers_stay_in_their_element() {
    let (state, clean) = (random_state(64), Draws::new(6).numbers(64));
    let (want, want_weight) = update(&*shared(), &state, &clean, OPEN, SETTINGS);
    for bad in [f64::NAN, f64::INFINITY] {
        let mut grad = clean.clone();
        grad[13] = bad;
        let (mut got, mut weight) = update(&*shared(), &state, &grad, OPEN, SETTINGS);
        assert!(!got[1][13].is_finite() && !got[2][13].is_finite() && weight[13].is_nan(), "{bad}");
        (weight[13], got) = (want_weight[13], got.map(|values| values));
        for (got, want) in got.iter_mut().zip(&want) {
            got[13] = want[13];
        }
        assert_bits(&format!("{bad} in the gradient"), &got, &want);
        assert_same_bits("weight", &weight, &want_weight);
    }
}

#[test]
fn traffic_is_the_floor() {
    for p in [98_304, 1 << 20] {
        let Some(cuda) = alone() else { return };
        let (state, grad) = (random_state(p), vec![0.5; p]);
        let floor = ironwarp::ops::Floor { bytes: 30 * p as u64, flops: 0 };
        let counts = cuda.count(|| drop(update(&*cuda, &state, &grad, OPEN, SETTINGS)));
        TrafficBound { what: &format!("adamw, P = {p}"), floor, bytes: 1.01, sectors: 1.02 }.check(&counts);
    }
}

#[test]
fn misaligned_tensors_are_rejected() {
    let cuda = shared();
    let tensor = |p| Tensor::<Cuda, f32>::zeros(&*cuda, [p]).unwrap();
    let mut weight = Tensor::<Cuda, bf16>::zeros(&*cuda, [16]).unwrap();
    let (grad, one, [mut master, mut m, mut v]) = (tensor(16), tensor(1), [tensor(16), tensor(16), tensor(16)]);
    let guard = UpdateGuard { norm: one.view(), loss: one.view(), norm_limit: 1.0, loss_limit: 1.0 };
    let op = AdamW {
        weight: weight.view_mut().into_part(4, [8]),
        master: Some(master.view_mut().into_part(8, [8])),
        grad: grad.view().part(8, [8]),
        m: m.view_mut().into_part(8, [8]),
        v: v.view_mut().into_part(8, [8]),
        guard,
        settings: SETTINGS,
    };
    assert_eq!(op.floor().bytes, 8 * 30);
    assert_rejected(
        cuda.adamw(op),
        "adamw: weight 16-byte aligned failed (weight begins 8 bytes past a multiple of 16)",
    );
}

fn trials() -> Vec<Trial> {
    let trial = |why, p: usize, guard| Trial {
        why,
        kernels: &["adamw"],
        run: Box::new(move |cuda| {
            let ([master, m, v], weight) = update(cuda, &random_state(p), &Draws::new(2).numbers(p), guard, SETTINGS);
            vec![master, m, v, weight]
        }),
    };
    let not_a_number = |cuda: &Cuda| {
        let ([master, m, v], weight) = update(cuda, &random_state(8), &[f64::NAN; 8], OPEN, SETTINGS);
        vec![master, m, v, weight]
    };
    vec![
        Trial { why: "gradients of NaN", kernels: &["adamw"], run: Box::new(not_a_number) },
        trial("a block and two threads", 1032, OPEN),
        trial("whole blocks", 1024, OPEN),
        trial("norm above the limit", 8, Guard { norm_limit: 1.0, ..OPEN }),
        trial("loss above the limit", 8, Guard { loss_limit: 1.0, ..OPEN }),
        trial("norm not finite", 8, Guard { norm: f64::INFINITY, ..OPEN }),
        trial("loss not finite", 8, Guard { loss: f64::NAN, ..OPEN }),
    ]
}

#[test]
fn any_schedule_gives_the_same_bits() {
    assert_schedules_agree("adamw", &trials());
}

#[test]
fn mutants_are_killed() {
    const EQUIVALENT: &[Equivalent] =
        &[equivalent(1, "adamw", Kind::NeverLeave, "lane_id() < 2", "more lanes than two load the guard's values")];
    assert_mutants_killed("adamw", &trials(), EQUIVALENT);
}
