//! The data loader of training: batches of B sequences of T tokens from a token stream, resumable at any batch.

use std::fmt;

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::text::corpus::Tokens;

/// The order in which the sequences of the stream are used.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// Windows that do not overlap, in a new random order each epoch.
    ///
    /// Window i has the inputs `tokens[iT..iT + T]`, and its targets are shifted by one token. A stream of n tokens has
    /// W = floor((n - 1) / T) windows. An epoch uses each exactly once; a batch may span the end of one epoch and the start
    /// of the next.
    #[default]
    Shuffled,
    /// From start to end, B·T tokens per batch, like llm.c's dataloader on one shard (`train_gpt2.py`).
    ///
    /// A batch at token p has the inputs `tokens[p..p + B·T]`, split into B rows, and its targets are shifted by one token.
    /// When fewer than B·T + 1 tokens remain, the next epoch starts at token 0.
    Sequential,
}

impl fmt::Display for Order {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Order::Shuffled => "shuffled",
            Order::Sequential => "sequential",
        })
    }
}

/// Configuration of a data loader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderConfig {
    /// B: sequences per batch.
    pub batch: usize,
    /// T: tokens per sequence.
    pub context: usize,
    /// The order of the sequences.
    pub order: Order,
    /// RNG seed of [`Order::Shuffled`].
    pub seed: u64,
}

/// The position of a loader in the data, which a checkpoint stores to resume with the next batch.
///
/// It is valid for the same stream, order, seed and T. B may differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Number of complete epochs.
    pub epoch: u64,
    /// Position in the current epoch: in windows for [`Order::Shuffled`], in tokens for [`Order::Sequential`].
    pub position: u64,
}

/// Largest valid epoch of a cursor. No run reaches it, so a larger one means that the cursor is damaged.
const MAX_EPOCH: u64 = u32::MAX as u64;

/// A micro-batch in host memory, (B, T) row-major each.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct MicroBatch {
    /// Input tokens.
    pub tokens: Vec<i32>,
    /// Target tokens; rows with a negative target are ignored.
    pub targets: Vec<i32>,
}

/// Makes batches from a stream of tokens.
#[derive(Debug)]
pub struct Loader {
    tokens: Tokens,
    config: LoaderConfig,
    epoch: u64,
    position: usize,
    /// Order of the windows in epoch `shuffled_epoch`; empty until it is first needed.
    windows: Vec<u32>,
    shuffled_epoch: u64,
    /// Buffer for the tokens of a window, or of a sequential batch.
    buffer: Vec<i32>,
}

impl Loader {
    /// A loader that starts at the first batch.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the stream and the numbers if B or T is 0, if the stream is shorter than one window (T + 1
    /// tokens; B·T + 1 if sequential) or, if shuffled, if it has more than 2^32 - 1 windows.
    pub fn new(tokens: Tokens, config: LoaderConfig) -> Result<Self> {
        let LoaderConfig { batch, context, order, .. } = config;
        let (needed, rule) = match order {
            Order::Shuffled => (context.checked_add(1), "T + 1"),
            Order::Sequential => (batch.checked_mul(context).and_then(|n| n.checked_add(1)), "B*T + 1"),
        };
        let (source, len) = (tokens.source().to_string(), tokens.len());
        let numbers = format!("(B = {batch}, T = {context}, n = {len})");
        let Some(needed) = needed.filter(|_| batch > 0 && context > 0) else {
            return Err(Error::invalid(format!("{source}: B >= 1 and T >= 1 and no overflow failed {numbers}")));
        };
        if len < needed {
            return Err(Error::invalid(format!(
                "{source}: the text is too short: n >= {rule} = {needed} tokens failed {numbers}"
            )));
        }
        if order == Order::Shuffled && (len - 1) / context > u32::MAX as usize {
            return Err(Error::invalid(format!("{source}: (n - 1) / T <= {} failed {numbers}", u32::MAX)));
        }
        let buffer = vec![0; needed];
        Ok(Loader { tokens, config, epoch: 0, position: 0, windows: Vec::new(), shuffled_epoch: 0, buffer })
    }

    /// The configuration.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }

    /// Number of tokens that an epoch trains on: W·T if shuffled, those of the complete batches if sequential.
    pub fn epoch_tokens(&self) -> usize {
        let step = match self.config.order {
            Order::Shuffled => self.config.context,
            Order::Sequential => self.config.batch * self.config.context,
        };
        (self.tokens.len() - 1) / step * step
    }

    /// The position of the next batch.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.position as u64 }
    }

    /// Moves to a position from [`Loader::cursor`].
    ///
    /// # Errors
    /// [`Error::Invalid`] if the position is beyond the end of the data, e.g. because the data has changed, or is damaged.
    pub fn seek(&mut self, cursor: Cursor) -> Result<()> {
        let (end, unit) = match self.config.order {
            Order::Shuffled => (self.num_windows(), "windows"),
            Order::Sequential => (self.tokens.len(), "tokens"),
        };
        match usize::try_from(cursor.position) {
            Ok(position) if position < end && cursor.epoch <= MAX_EPOCH => {
                (self.epoch, self.position) = (cursor.epoch, position);
                Ok(())
            }
            _ => Err(Error::invalid(format!(
                "{}: cannot resume at epoch {}, position {}: the data has {end} {unit}; has it changed?",
                self.tokens.source(),
                cursor.epoch,
                cursor.position
            ))),
        }
    }

    /// Reads the next batch into `inputs` and `targets`, both (B, T) row-major.
    ///
    /// All token ids are in 0..V; no target is negative, i.e. ignored by the loss.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a slice does not have B·T elements.
    pub fn next_batch(&mut self, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        let LoaderConfig { batch, context, order, .. } = self.config;
        let expected = batch.saturating_mul(context);
        if inputs.len() != expected || targets.len() != expected {
            return Err(Error::invalid(format!(
                "next_batch: inputs and targets of B*T = {expected} tokens failed ({} and {})",
                inputs.len(),
                targets.len()
            )));
        }
        match order {
            Order::Sequential => self.next_sequential(inputs, targets),
            Order::Shuffled => {
                let rows = inputs.chunks_exact_mut(context).zip(targets.chunks_exact_mut(context));
                rows.into_iter().try_for_each(|(inputs, targets)| self.next_window(inputs, targets))
            }
        }
    }

    /// W: number of windows in the stream.
    fn num_windows(&self) -> usize {
        (self.tokens.len() - 1) / self.config.context
    }

    fn next_window(&mut self, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        if self.windows.is_empty() || self.shuffled_epoch != self.epoch {
            let num_windows = self.num_windows() as u32;
            shuffle(&mut self.windows, num_windows, self.config.seed, self.epoch);
            self.shuffled_epoch = self.epoch;
        }
        let window = self.windows[self.position] as usize;
        self.copy(window * self.config.context, inputs, targets)?;
        self.position += 1;
        if self.position == self.windows.len() {
            (self.epoch, self.position) = (self.epoch + 1, 0);
        }
        Ok(())
    }

    fn next_sequential(&mut self, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        if self.tokens.len() - self.position < self.buffer.len() {
            (self.epoch, self.position) = (self.epoch + 1, 0);
        }
        self.copy(self.position, inputs, targets)?;
        self.position += inputs.len();
        Ok(())
    }

    /// Copies the tokens at `start` to `inputs`, and the tokens at `start + 1` to `targets`.
    fn copy(&mut self, start: usize, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        self.tokens.read(start, &mut self.buffer)?;
        inputs.copy_from_slice(&self.buffer[..inputs.len()]);
        targets.copy_from_slice(&self.buffer[1..]);
        Ok(())
    }
}

/// Fills `order` with a permutation of `0..len` that depends only on seed and epoch (Fisher and Yates; Durstenfeld 1964).
///
/// The shuffle and the seeding of its RNG are implemented here, because resuming requires the same order in every later
/// version of this program, which the shuffles of the rand crates do not guarantee.
fn shuffle(order: &mut Vec<u32>, len: u32, seed: u64, epoch: u64) {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(epoch);
    order.clear();
    order.extend(0..len);
    for last in (1..order.len()).rev() {
        // A random 64-bit number scaled to 0..=last. The bias is below 2^-32, which is negligible for a shuffle.
        let pick = (u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64;
        order.swap(last, pick as usize);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tokens 0, 1, 2, …: each token equals its position.
    fn stream(len: usize) -> Tokens {
        Tokens::from_vec("tale.txt", (0..len as u16).collect())
    }

    fn loader(len: usize, batch: usize, context: usize, order: Order) -> Loader {
        Loader::new(stream(len), LoaderConfig { batch, context, order, seed: 42 }).unwrap()
    }

    fn next(loader: &mut Loader) -> Vec<i32> {
        let size = loader.config.batch * loader.config.context;
        let (mut inputs, mut targets) = (vec![-1; size], vec![-1; size]);
        loader.next_batch(&mut inputs, &mut targets).unwrap();
        assert!(inputs.iter().zip(&targets).all(|(input, target)| input + 1 == *target), "targets are one later");
        inputs
    }

    /// The positions of llm.c's dataloader: `current_position += B*T`, and back to 0 if the next batch would be out of
    /// bounds.
    fn llmc_positions(len: usize, step: usize, batches: usize) -> Vec<i32> {
        let mut current_position = 0;
        let mut positions = Vec::new();
        for _ in 0..batches {
            positions.push(current_position as i32);
            current_position += step;
            if current_position + step + 1 > len {
                current_position = 0;
            }
        }
        positions
    }

    #[test]
    fn errors_name_the_text_and_the_numbers() {
        let fail = |len: usize, batch: usize, context: usize, order: Order| {
            Loader::new(stream(len), LoaderConfig { batch, context, order, seed: 0 }).unwrap_err().to_string()
        };
        for (message, expected) in [
            (
                fail(8, 2, 8, Order::Shuffled),
                "tale.txt: the text is too short: n >= T + 1 = 9 tokens failed (B = 2, T = 8, n = 8)",
            ),
            (
                fail(16, 2, 8, Order::Sequential),
                "tale.txt: the text is too short: n >= B*T + 1 = 17 tokens failed (B = 2, T = 8, n = 16)",
            ),
            (
                fail(8, 0, 8, Order::Shuffled),
                "tale.txt: B >= 1 and T >= 1 and no overflow failed (B = 0, T = 8, n = 8)",
            ),
        ] {
            assert_eq!(message, expected);
        }
        assert!(fail(8, 1, 0, Order::Sequential).contains("T >= 1"));
        assert!(fail(8, usize::MAX, 2, Order::Sequential).contains("no overflow"));
        assert!(fail(8, 1, usize::MAX, Order::Shuffled).contains("no overflow"));
        assert!(fail(0, 1, 1, Order::Shuffled).contains("too short"));
        let mut loader = loader(9, 2, 4, Order::Shuffled);
        let error = loader.next_batch(&mut [0; 8], &mut [0; 7]).unwrap_err().to_string();
        assert_eq!(error, "next_batch: inputs and targets of B*T = 8 tokens failed (8 and 7)");
    }

    #[test]
    fn the_shortest_texts_work() {
        assert_eq!(next(&mut loader(5, 3, 4, Order::Shuffled)), [0, 1, 2, 3].repeat(3));
        assert_eq!(next(&mut loader(13, 3, 4, Order::Sequential)), (0..12).collect::<Vec<_>>());
    }

    #[test]
    fn the_shuffle_is_pinned() {
        // Runs that an earlier version saved are resumed in this order. The values are from another ChaCha8 implementation.
        let mut order = Vec::new();
        shuffle(&mut order, 10, 42, 0);
        assert_eq!(order, [7, 6, 5, 1, 0, 4, 8, 9, 2, 3]);
        shuffle(&mut order, 10, 42, 1);
        assert_eq!(order, [4, 6, 8, 9, 2, 3, 0, 5, 1, 7]);
    }

    #[test]
    fn invalid_cursors_and_shrunken_data_are_rejected() {
        for (order, end, unit) in [(Order::Shuffled, 12, "windows"), (Order::Sequential, 100, "tokens")] {
            let mut loader = loader(100, 2, 8, order);
            loader.seek(Cursor { epoch: 3, position: end - 1 }).unwrap();
            let before = loader.cursor();
            for cursor in [(0, end), (0, u64::MAX), (u64::MAX, 0), (MAX_EPOCH + 1, 0)] {
                let cursor = Cursor { epoch: cursor.0, position: cursor.1 };
                let error = loader.seek(cursor).unwrap_err().to_string();
                let expected = format!(
                    "tale.txt: cannot resume at epoch {}, position {}: the data has {end} {unit}; has it changed?",
                    cursor.epoch, cursor.position
                );
                assert_eq!(error, expected);
                assert_eq!(loader.cursor(), before, "a rejected cursor changes nothing");
            }
            next(&mut loader);
        }
    }

    #[test]
    fn cursors_survive_json() {
        let cursor = Cursor { epoch: 2, position: 7 };
        let json = serde_json::to_string(&cursor).unwrap();
        assert_eq!(json, r#"{"epoch":2,"position":7}"#);
        assert_eq!(serde_json::from_str::<Cursor>(&json).unwrap(), cursor);
        assert_eq!(serde_json::to_string(&Order::Sequential).unwrap(), "\"sequential\"");
    }

    proptest! {
        #[test]
        fn an_epoch_uses_every_window_once(
            len in 10_usize..400, batch in 1_usize..7, context in 1_usize..9, seed: u64, epoch in 0_u64..5,
        ) {
            let config = LoaderConfig { batch, context, order: Order::Shuffled, seed };
            let mut loader = Loader::new(stream(len), config).unwrap();
            let num_windows = (len - 1) / context;
            prop_assert_eq!(loader.epoch_tokens(), num_windows * context);
            loader.seek(Cursor { epoch, position: 0 }).unwrap();
            // Two consecutive epochs, which may end within a batch.
            let mut starts = Vec::new();
            while starts.len() < 2 * num_windows {
                starts.extend(next(&mut loader).chunks(context).map(|row| row[0] as usize));
            }
            for epoch in starts[..2 * num_windows].chunks(num_windows) {
                let mut sorted = epoch.to_vec();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..num_windows).map(|i| i * context).collect::<Vec<_>>());
            }
            // The order of the windows depends on seed and epoch only, not on B or on how the epoch was reached.
            let mut other = Loader::new(stream(len), LoaderConfig { batch: 1, ..config }).unwrap();
            other.seek(Cursor { epoch, position: 0 }).unwrap();
            for &start in &starts {
                prop_assert_eq!(next(&mut other)[0] as usize, start);
            }
        }

        #[test]
        fn sequential_order_equals_that_of_llmc(len in 60_usize..400, batch in 1_usize..7, context in 1_usize..9) {
            let mut loader = loader(len, batch, context, Order::Sequential);
            for position in llmc_positions(len, batch * context, 50) {
                let expected: Vec<i32> = (position..position + (batch * context) as i32).collect();
                prop_assert_eq!(next(&mut loader), expected);
            }
        }

        #[test]
        fn resuming_equals_an_uninterrupted_run(
            len in 60_usize..300, batch in 1_usize..7, context in 1_usize..9, sequential: bool,
            done in 0_usize..60, seed: u64,
        ) {
            let order = if sequential { Order::Sequential } else { Order::Shuffled };
            let config = LoaderConfig { batch, context, order, seed };
            let mut steady = Loader::new(stream(len), config).unwrap();
            (0..done).for_each(|_| drop(next(&mut steady)));
            let mut resumed = Loader::new(stream(len), config).unwrap();
            resumed.seek(steady.cursor()).unwrap();
            for _ in 0..30 {
                prop_assert_eq!(next(&mut steady), next(&mut resumed));
                prop_assert_eq!(steady.cursor(), resumed.cursor());
            }
        }
    }

    #[test]
    fn epochs_and_seeds_differ() {
        let order = |seed: u64, epoch: u64| {
            let mut order = Vec::new();
            shuffle(&mut order, 100, seed, epoch);
            order
        };
        assert_ne!(order(1, 0), order(1, 1));
        assert_ne!(order(1, 0), order(2, 0));
        assert_ne!(order(1, 1), order(2, 0));
    }
}
