//! Sampling: its settings, and its call on any backend.

use ironwarp::ops::Sample;

use super::{Device, Input, ids};

/// How tokens are drawn.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    pub temperature: f32,
    pub top_k: usize,
    pub top_p: f32,
    pub seed: u64,
    pub draw: u64,
}

/// Probabilities of 8 tokens in sixty-fourths, not in order, with two equals.
pub const SHARES: [f64; 8] = [2.0, 16.0, 4.0, 1.0, 24.0, 4.0, 8.0, 5.0];

/// The token drawn from each of `rows` rows of logits, of which the first `vocab` columns count.
pub fn sample<B: Device>(backend: &B, rows: usize, vocab: usize, logits: &[f64], settings: Settings) -> Vec<i32> {
    let Settings { temperature, top_k, top_p, seed, draw } = settings;
    let logits = Input::<B, B::Compute>::to_buffer_end(backend, [rows, logits.len() / rows], logits);
    let mut tokens = ids(backend, [rows + 2], &vec![-7; rows + 2]);
    let view = tokens.view_mut().into_part(1, [rows]);
    let op = Sample { logits: logits.view(), vocab, temperature, top_k, top_p, seed, draw, tokens: view };
    backend.sample(op).unwrap();
    let tokens = tokens.to_vec(backend).unwrap();
    assert_eq!((tokens[0], tokens[rows + 1]), (-7, -7), "canaries around the tokens");
    tokens[1..=rows].to_vec()
}
