//! The training data loader: batches of B sequences of T tokens out of a stream, resumable to the batch.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::text::corpus::Tokens;

/// In which order the stream is gone through.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Order {
    /// In windows that do not overlap, in a new random order each epoch.
    ///
    /// Window i has the inputs `tokens[iT..iT + T]` and the targets one token later; of n tokens there are
    /// W = floor((n - 1) / T). An epoch sees each exactly once; a batch may take the last of one epoch and the first
    /// of the next.
    #[default]
    Shuffled,
    /// As it stands, B·T tokens a batch, as llm.c's dataloader does on one shard (`train_gpt2.py`).
    ///
    /// A batch at token p has the inputs `tokens[p..p + B·T]`, cut into B rows, and the targets one token later. When
    /// fewer than B·T + 1 tokens remain, the next epoch starts at token 0.
    Sequential,
}

/// What batches to make.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LoaderConfig {
    /// B: sequences in a batch.
    pub batch: usize,
    /// T: tokens in a sequence.
    pub context: usize,
    /// The order of the batches.
    pub order: Order,
    /// Seed of [`Order::Shuffled`].
    pub seed: u64,
}

/// How far a loader has come: all that a checkpoint needs to go on with the next batch.
///
/// It holds for the stream, order, seed and T it was made with. B may differ.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Epochs done.
    pub epoch: u64,
    /// Done in this epoch: windows if [`Order::Shuffled`], tokens if [`Order::Sequential`].
    pub position: u64,
}

/// No run gets to an epoch above this: a cursor that says so is damaged.
const MAX_EPOCH: u64 = u32::MAX as u64;

/// Makes batches of a stream of tokens.
#[derive(Debug)]
pub struct Loader {
    tokens: Tokens,
    config: LoaderConfig,
    epoch: u64,
    position: usize,
    /// Order of the windows in epoch `shuffled_epoch`; empty until it is first needed.
    windows: Vec<u32>,
    shuffled_epoch: u64,
    /// Room for the tokens of a window, or for those of a sequential batch.
    buffer: Vec<i32>,
}

impl Loader {
    /// A loader at the first batch.
    ///
    /// # Errors
    /// [`Error::Invalid`] naming the stream and the numbers if B or T is 0 or the stream is shorter than one window
    /// (T + 1 tokens; B·T + 1 if sequential) or, shuffled, longer than 2^32 - 1 windows.
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

    /// What it makes.
    pub fn config(&self) -> &LoaderConfig {
        &self.config
    }

    /// Tokens that an epoch trains on: W·T if shuffled, the whole batches' if sequential.
    pub fn epoch_tokens(&self) -> usize {
        let step = match self.config.order {
            Order::Shuffled => self.config.context,
            Order::Sequential => self.config.batch * self.config.context,
        };
        (self.tokens.len() - 1) / step * step
    }

    /// Where the next batch starts.
    pub fn cursor(&self) -> Cursor {
        Cursor { epoch: self.epoch, position: self.position as u64 }
    }

    /// Goes to where [`Loader::cursor`] was.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the cursor lies beyond the data, which has then become less since, or is damaged.
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
                "{}: cannot resume at epoch {}, position {}: there are {end} {unit}; has the data changed?",
                self.tokens.source(),
                cursor.epoch,
                cursor.position
            ))),
        }
    }

    /// Fills the next batch: `inputs` and `targets`, both (B, T) row-major.
    ///
    /// Token ids are in 0..V. A negative target would tell the loss to ignore it; none is made here.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a slice has not B·T elements.
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
            Order::Sequential => self.next_stretch(inputs, targets),
            Order::Shuffled => {
                let rows = inputs.chunks_exact_mut(context).zip(targets.chunks_exact_mut(context));
                rows.into_iter().try_for_each(|(inputs, targets)| self.next_window(inputs, targets))
            }
        }
    }

    /// W: whole windows in the stream.
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

    fn next_stretch(&mut self, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        if self.tokens.len() - self.position < self.buffer.len() {
            (self.epoch, self.position) = (self.epoch + 1, 0);
        }
        self.copy(self.position, inputs, targets)?;
        self.position += inputs.len();
        Ok(())
    }

    /// Tokens from `start` on into `inputs`, and those one later into `targets`.
    fn copy(&mut self, start: usize, inputs: &mut [i32], targets: &mut [i32]) -> Result<()> {
        self.tokens.read(start, &mut self.buffer)?;
        inputs.copy_from_slice(&self.buffer[..inputs.len()]);
        targets.copy_from_slice(&self.buffer[1..]);
        Ok(())
    }
}

/// Fills `order` with a permutation of `0..len` that seed and epoch alone determine (Fisher and Yates; Durstenfeld
/// 1964).
///
/// Written out, and its generator keyed by hand, because resuming needs the same order from every later version of
/// this program, which the shuffles of the rand crates do not promise.
fn shuffle(order: &mut Vec<u32>, len: u32, seed: u64, epoch: u64) {
    let mut key = [0; 32];
    key[..8].copy_from_slice(&seed.to_le_bytes());
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(epoch);
    order.clear();
    order.extend(0..len);
    for last in (1..order.len()).rev() {
        // A draw of 64 bits scaled to 0..=last: its bias, below 2^-32, is nothing to a shuffle.
        let pick = (u128::from(rng.next_u64()) * (last as u128 + 1)) >> 64;
        order.swap(last, pick as usize);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Tokens 0, 1, 2, …: a token is its own place.
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

    /// What llm.c's dataloader does, in its own words: `current_position += B*T`, and back to 0 if the next batch would
    /// be out of bounds.
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
        // Runs saved by an earlier version resume in this order. The values are from another implementation of ChaCha8.
        let mut order = Vec::new();
        shuffle(&mut order, 10, 42, 0);
        assert_eq!(order, [7, 6, 5, 1, 0, 4, 8, 9, 2, 3]);
        shuffle(&mut order, 10, 42, 1);
        assert_eq!(order, [4, 6, 8, 9, 2, 3, 0, 5, 1, 7]);
    }

    #[test]
    fn hostile_cursors_and_shrunken_data_are_refused() {
        for (order, end, unit) in [(Order::Shuffled, 12, "windows"), (Order::Sequential, 100, "tokens")] {
            let mut loader = loader(100, 2, 8, order);
            loader.seek(Cursor { epoch: 3, position: end - 1 }).unwrap();
            let before = loader.cursor();
            for cursor in [(0, end), (0, u64::MAX), (u64::MAX, 0), (MAX_EPOCH + 1, 0)] {
                let cursor = Cursor { epoch: cursor.0, position: cursor.1 };
                let error = loader.seek(cursor).unwrap_err().to_string();
                let expected = format!(
                    "tale.txt: cannot resume at epoch {}, position {}: there are {end} {unit}; has the data changed?",
                    cursor.epoch, cursor.position
                );
                assert_eq!(error, expected);
                assert_eq!(loader.cursor(), before, "a refused cursor changes nothing");
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
        fn an_epoch_shows_every_window_once(
            len in 10_usize..400, batch in 1_usize..7, context in 1_usize..9, seed: u64, epoch in 0_u64..5,
        ) {
            let config = LoaderConfig { batch, context, order: Order::Shuffled, seed };
            let mut loader = Loader::new(stream(len), config).unwrap();
            let num_windows = (len - 1) / context;
            prop_assert_eq!(loader.epoch_tokens(), num_windows * context);
            loader.seek(Cursor { epoch, position: 0 }).unwrap();
            // Two epochs in a row, wherever the batches end.
            let mut starts = Vec::new();
            while starts.len() < 2 * num_windows {
                starts.extend(next(&mut loader).chunks(context).map(|row| row[0] as usize));
            }
            for epoch in starts[..2 * num_windows].chunks(num_windows) {
                let mut sorted = epoch.to_vec();
                sorted.sort_unstable();
                prop_assert_eq!(sorted, (0..num_windows).map(|i| i * context).collect::<Vec<_>>());
            }
            // Which windows come depends on seed and epoch, not on B or on the way there.
            let mut other = Loader::new(stream(len), LoaderConfig { batch: 1, ..config }).unwrap();
            other.seek(Cursor { epoch, position: 0 }).unwrap();
            for &start in &starts {
                prop_assert_eq!(next(&mut other)[0] as usize, start);
            }
        }

        #[test]
        fn sequential_is_llmc_s_order(len in 60_usize..400, batch in 1_usize..7, context in 1_usize..9) {
            let mut loader = loader(len, batch, context, Order::Sequential);
            for position in llmc_positions(len, batch * context, 50) {
                let expected: Vec<i32> = (position..position + (batch * context) as i32).collect();
                prop_assert_eq!(next(&mut loader), expected);
            }
        }

        #[test]
        fn resuming_is_as_if_never_stopped(
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
