//! Cross-entropy and the sum of losses: host values of their inputs, and their calls on any backend.

use ironwarp::ops::{CrossEntropyBackward, CrossEntropyForward, LossSum, Write};

use super::{Device, Draws, Input, Output, ids};

/// Scale of the gradient and of the sum. A power of two is exact in every type.
pub const SCALE: f64 = 0.25;

/// Rows of logits with their targets. The padding of the logits holds NaN.
#[derive(Clone)]
pub struct Rows {
    pub n: usize,
    pub v: usize,
    pub vp: usize,
    /// (N, Vp)
    pub logits: Vec<f64>,
    /// (N)
    pub targets: Vec<i32>,
    pub scale: f64,
}

impl Rows {
    /// Logits in [-magnitude, magnitude), exact in f32 for a power of two, and targets, all drawn from `seed`.
    pub fn new(seed: u64, [n, v, vp]: [usize; 3], magnitude: f64) -> Self {
        let mut draws = Draws::new(seed);
        let mut logits: Vec<f64> = draws.numbers(n * vp).iter().map(|x| x * magnitude).collect();
        logits.chunks_mut(vp).for_each(|row| row[v..].fill(f64::NAN));
        Rows { n, v, vp, logits, targets: draws.ids(n, v), scale: SCALE }
    }

    /// Losses.
    pub fn forward<B: Device>(&self, backend: &B) -> Vec<f64> {
        let logits: Input<B, B::Compute> = Input::new(backend, [self.n, self.vp], &self.logits);
        let targets = ids(backend, [self.n], &self.targets);
        let mut losses = Output::new(backend, [self.n]);
        let (logits, targets, vocab) = (logits.view(), targets.view(), self.v);
        backend.cross_entropy_forward(CrossEntropyForward { logits, targets, vocab, losses: losses.view() }).unwrap();
        losses.read(backend)
    }

    /// The gradient, which replaces the logits, and losses.
    pub fn backward<B: Device>(&self, backend: &B) -> [Vec<f64>; 2] {
        let mut logits = Output::with(backend, [self.n, self.vp], &self.logits);
        let targets = ids(backend, [self.n], &self.targets);
        let mut losses = Output::new(backend, [self.n]);
        let op = CrossEntropyBackward {
            logits: logits.view(),
            targets: targets.view(),
            vocab: self.v,
            scale: self.scale,
            losses: losses.view(),
        };
        backend.cross_entropy_backward(op).unwrap();
        [logits.read(backend), losses.read(backend)]
    }
}

/// The total of losses that begin `offset` elements into their buffer, times [`SCALE`].
pub fn loss_sum<B: Device>(backend: &B, losses: &[f64], offset: usize, write: Write) -> Output<B, B::Accum> {
    let buffer = [&vec![f64::NAN; offset], losses].concat();
    let buffer: Input<B, B::Accum> = Input::new(backend, [buffer.len()], &buffer);
    let mut total = Output::to(backend, [1], write);
    let losses = buffer.view().part(offset, [losses.len()]);
    backend.loss_sum(LossSum { losses, scale: SCALE, total: total.view(), write }).unwrap();
    total
}
