//! AdamW: settings and state, and its call on any backend.

use ironwarp::ops::{AdamW, AdamWSettings, UpdateGuard};

use super::{Device, Draws, Input, Output};

/// The first step, without clipping.
pub const SETTINGS: AdamWSettings = AdamWSettings {
    learning_rate: 1e-2,
    beta1: 0.9,
    beta2: 0.95,
    eps: 1e-8,
    weight_decay: 0.1,
    step: 1,
    max_norm: f32::INFINITY,
    seed: 42,
    first_index: 0,
};

/// The values of an [`UpdateGuard`].
#[derive(Clone, Copy, Debug)]
pub struct Guard {
    pub norm: f64,
    pub loss: f64,
    pub norm_limit: f32,
    pub loss_limit: f32,
}

/// A guard that allows the update.
pub const OPEN: Guard = Guard { norm: 2.0, loss: 3.0, norm_limit: f32::INFINITY, loss_limit: f32::INFINITY };

/// Weight, m and v in full precision.
pub type State = [Vec<f64>; 3];

/// Random weights and moments; the second moments are not negative.
pub fn random_state(p: usize) -> State {
    let mut draws = Draws::new(1);
    [draws.numbers(p), draws.numbers(p), draws.numbers(p).into_iter().map(f64::abs).collect()]
}

/// The state after one update, and the weight in the type that the model reads: the state's own where that is the full
/// precision, otherwise its rounded copy.
pub fn update<B: Device>(
    backend: &B,
    state: &State,
    grad: &[f64],
    guard: Guard,
    settings: AdamWSettings,
) -> (State, Vec<f64>) {
    let p = grad.len();
    let has_master = size_of::<B::Compute>() < size_of::<B::Accum>();
    let grad = Input::<B, B::Accum>::to_buffer_end(backend, [p], grad);
    let [norm, loss] = [guard.norm, guard.loss].map(|x| Input::<B, B::Accum>::new(backend, [1], &[x]));
    // A rounded copy is overwritten: NaN before. Without a master the weight is updated in place.
    let mut weight = match has_master {
        true => Output::<B, B::Compute>::new(backend, [p]),
        false => Output::with(backend, [p], &state[0]),
    };
    let [mut master, mut m, mut v] = state.each_ref().map(|values| Output::<B, B::Accum>::with(backend, [p], values));
    let Guard { norm_limit, loss_limit, .. } = guard;
    let op = AdamW {
        weight: weight.view(),
        master: has_master.then(|| master.view()),
        grad: grad.view(),
        m: m.view(),
        v: v.view(),
        guard: UpdateGuard { norm: norm.view(), loss: loss.view(), norm_limit, loss_limit },
        settings,
    };
    backend.adamw(op).unwrap();
    let rounded = weight.read(backend);
    let full = if has_master { master.read(backend) } else { rounded.clone() };
    ([full, m.read(backend), v.read(backend)], rounded)
}
