//! A training run: steps, validation, samples, checkpoints and metrics.

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::checkpoint::{Loaded, RunFolder, Snapshot, TensorGroup};
use super::data::{Cursor, Loader, LoaderConfig, MicroBatch};
#[cfg(feature = "plots")]
use super::metrics;
use super::metrics::{Metrics, Record};
use super::settings::{RunOptions, Settings};
use super::trainer::{Outcome, Trainer, TrainerState};
use crate::error::{Error, Result};
use crate::model::generate::{Generator, Sampling};
use crate::model::params::{HostWeights, Layout};
use crate::ops::Backend;
use crate::text::corpus::{Corpus, Tokens};
use crate::text::embedded::PROMPT;
use crate::text::evaluation::windows;
use crate::text::tokenizer::Tokenizer;

/// A run fails after this many consecutive steps with non-finite numbers.
const MAX_BAD_STEPS: u32 = 8;

/// The state of a run that a checkpoint holds in addition to the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// The run's settings.
    pub settings: Settings,
    /// Position in the data.
    pub cursor: Cursor,
    /// Number of tokens in the data, to detect that the data has changed.
    pub data_tokens: u64,
    /// Number of updates, and the losses and norms of recent steps.
    pub trainer: TrainerState,
    /// Number of consecutive steps, up to the last one, whose numbers were not finite.
    pub bad_steps: u32,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Done,
    /// The run was stopped early and saved a checkpoint.
    Stopped,
}

/// Receives the events of a run.
pub trait Observer {
    /// Called after a step.
    fn step(&mut self, record: &Record);
    /// Called after a sample was generated.
    fn sample(&mut self, step: u64, text: &str);
    /// Called after a checkpoint was written.
    fn saved(&mut self, step: u64, path: &Path);
}

/// The micro-batches of the next step, which are read while the device computes the current one.
struct NextStep {
    /// Position in the data before these micro-batches were read.
    cursor: Cursor,
    batches: Result<Vec<MicroBatch>>,
}

/// A run in progress.
pub struct Run<B: Backend> {
    settings: Settings,
    step: u64,
    next: Option<NextStep>,
    trainer: Trainer<B>,
    loader: Loader,
    data_tokens: u64,
    validation: Tokens,
    tokenizer: Option<Tokenizer>,
    folder: RunFolder,
    bad_steps: u32,
}

impl<B: Backend> Run<B> {
    /// Prepares a new run. `tokenizer` is that of the data: samples are decoded by it, and checkpoints contain it. Without
    /// it a run trains on token files and makes no samples.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings that do not fit the model or the data; [`Error::Io`]; an allocation failure.
    pub fn new(
        backend: B,
        settings: Settings,
        weights: HostWeights,
        corpus: Corpus,
        tokenizer: Option<Tokenizer>,
        folder: RunFolder,
    ) -> Result<Self> {
        settings.check(&weights.config, tokenizer.as_ref())?;
        let context = settings.context;
        let RunOptions { batch, order, seed, recompute, optimizer, .. } = settings.options;
        let data_tokens = corpus.train.len() as u64;
        let loader = Loader::new(corpus.train, LoaderConfig { batch, context, order, seed })?;
        let trainer = Trainer::new(backend, weights, (batch, context), recompute, optimizer, seed)?;
        let validation = corpus.validation;
        Ok(Run {
            settings,
            step: 0,
            next: None,
            trainer,
            loader,
            data_tokens,
            validation,
            tokenizer,
            folder,
            bad_steps: 0,
        })
    }

    /// Resumes a run from a checkpoint, with `settings` instead of the saved ones.
    ///
    /// # Errors
    /// As [`Run::new`], and if the saved position is beyond the end of the data.
    pub fn resume(
        backend: B,
        settings: Settings,
        loaded: Loaded<RunState>,
        corpus: Corpus,
        tokenizer: Option<Tokenizer>,
        folder: RunFolder,
    ) -> Result<Self> {
        let Loaded { step, weights, m, v, state, .. } = loaded;
        if state.trainer.updates > step || state.bad_steps >= MAX_BAD_STEPS {
            let RunState { trainer: TrainerState { updates, .. }, bad_steps, .. } = state;
            return Err(Error::invalid(format!(
                "cannot resume at step {step}: the state has {updates} updates and {bad_steps} consecutive steps with \
                 non-finite numbers, which no run of this program saves"
            )));
        }
        let mut run = Run::new(backend, settings, weights, corpus, tokenizer, folder)?;
        if run.data_tokens != state.data_tokens {
            let (now, then) = (run.data_tokens, state.data_tokens);
            tracing::warn!("the data has changed: it has {now} tokens, but had {then} when the checkpoint was saved");
        }
        run.trainer.restore(&m, &v, state.trainer)?;
        run.loader.seek(state.cursor)?;
        run.step = step;
        run.bad_steps = state.bad_steps;
        Ok(run)
    }

    /// Number of steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Number of tokens that an epoch trains on.
    pub fn epoch_tokens(&self) -> usize {
        self.loader.epoch_tokens()
    }

    /// The trainer.
    pub fn trainer(&self) -> &Trainer<B> {
        &self.trainer
    }

    fn metrics_path(&self) -> PathBuf {
        self.folder.dir().join("metrics.jsonl")
    }

    /// Deletes the checkpoints, the metrics and the loss curve of an earlier run in the folder, and nothing else.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear_folder(&self) -> Result<()> {
        for path in [self.metrics_path(), self.loss_curve_path()] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("remove", &path, e)),
                _ => {}
            }
        }
        self.folder.remove_checkpoints()
    }

    /// Path of the loss curve.
    pub fn loss_curve_path(&self) -> PathBuf {
        self.folder.dir().join("loss.svg")
    }

    /// Trains up to the last step, or until `stop` returns true after a step. Saves a checkpoint at the end in both cases.
    ///
    /// # Errors
    /// Those of a step or a save; [`Error::Invalid`] if several consecutive steps have non-finite numbers. After an error,
    /// no further checkpoint is saved.
    pub fn train(&mut self, stop: &dyn Fn() -> bool, observer: &mut dyn Observer) -> Result<End> {
        let RunOptions { val_every, sample_every, save_every, .. } = self.settings.options;
        let steps = self.settings.options.schedule.steps;
        let due = |every: u64, step: u64| every > 0 && step.is_multiple_of(every);
        let mut metrics = Metrics::open(self.metrics_path(), self.step)?;
        let mut saved = self.step;
        while self.step < steps && !stop() {
            let mut record = self.step()?;
            let last = self.step == steps;
            if val_every > 0 && (last || due(val_every, self.step)) {
                record.val_loss = self.validate()?;
            }
            metrics.push(&record)?;
            observer.step(&record);
            if due(sample_every, self.step) {
                match self.sample(stop) {
                    Ok(Some(text)) => observer.sample(self.step, &text),
                    Ok(None) => {}
                    // The memory plan does not include the KV cache of a sample. Training itself can continue.
                    Err(error @ Error::OutOfDeviceMemory(_)) => {
                        tracing::warn!("step {}: no sample: {error}", self.step);
                    }
                    Err(error) => return Err(error),
                }
            }
            if due(save_every, self.step) && !last {
                observer.saved(self.step, &self.save()?);
                saved = self.step;
            }
        }
        if saved != self.step || self.step == 0 {
            observer.saved(self.step, &self.save()?);
        }
        Ok(if self.step < steps { End::Stopped } else { End::Done })
    }

    fn step(&mut self) -> Result<Record> {
        let start = Instant::now();
        let NextStep { cursor, batches } = self.next.take().unwrap_or_else(|| self.read_next());
        let batches = batches?;
        let schedule = self.settings.options.schedule;
        let lr = schedule.learning_rate(self.step);
        let pending = self.trainer.enqueue(&batches, lr)?;
        let mut prefetched = Ok(());
        if self.step + 1 < schedule.steps {
            let next = self.read_next();
            // A read error is reported by the step that needs the data.
            if let Ok(batches) = &next.batches {
                prefetched = self.trainer.prefetch(&batches[0]);
            }
            self.next = Some(next);
        }
        let report = self.trainer.finish(pending, &batches)?;
        self.step += 1;
        // Not fatal: this step is complete, and the next one copies its micro-batch itself.
        if let Err(error) = prefetched {
            tracing::warn!("step {}: cannot prefetch the next micro-batch: {error}", self.step);
        }
        let skipped = match report.outcome {
            Outcome::Updated => None,
            Outcome::Outlier { reason } => Some(format!("outlier: {reason}")),
            Outcome::NonFinite { location } => Some(format!("not finite: {location}")),
        };
        let is_bad = !report.loss.is_finite() || !report.grad_norm.is_finite();
        self.bad_steps = if is_bad { self.bad_steps + 1 } else { 0 };
        if let Some(reason) = &skipped {
            let Cursor { epoch, position } = cursor;
            tracing::warn!(
                "step {}: update skipped ({reason}); its batch is at position {position} of epoch {epoch}",
                self.step
            );
        }
        if self.bad_steps == MAX_BAD_STEPS {
            let reason = skipped.unwrap_or_default();
            let saved = match self.folder.has_checkpoints()? {
                true => "the newest checkpoint is intact",
                false => "the run has no checkpoint yet",
            };
            return Err(Error::invalid(format!(
                "step {}: {MAX_BAD_STEPS} consecutive steps had non-finite numbers (last: {reason}); a lower --lr or a \
                 longer --warmup may help; {saved}",
                self.step
            )));
        }
        let finite = |x: f32| Some(x).filter(|x| x.is_finite());
        Ok(Record {
            step: self.step,
            loss: finite(report.loss),
            lr,
            grad_norm: finite(report.grad_norm),
            tokens_per_second: self.settings.step_tokens() as f64 / start.elapsed().as_secs_f64(),
            val_loss: None,
            skipped,
        })
    }

    fn read_next(&mut self) -> NextStep {
        let cursor = self.loader.cursor();
        let RunOptions { batch, accumulate, .. } = self.settings.options;
        let rows = batch * self.settings.context;
        NextStep { cursor, batches: (0..accumulate).map(|_| self.next_batch(rows)).collect() }
    }

    fn next_batch(&mut self, rows: usize) -> Result<MicroBatch> {
        let mut batch = MicroBatch { tokens: vec![0; rows], targets: vec![0; rows] };
        self.loader.next_batch(&mut batch.tokens, &mut batch.targets)?;
        Ok(batch)
    }

    /// Mean loss over the first `val_batches` micro-batches of the validation windows; `None` if there are no windows.
    fn validate(&mut self) -> Result<Option<f32>> {
        let context = self.settings.context;
        let RunOptions { batch, val_batches, .. } = self.settings.options;
        if self.validation.len() < 2 {
            return Ok(None);
        }
        let windows: Vec<_> =
            windows(self.validation.len(), context)?.take(batch.saturating_mul(val_batches)).collect();
        let (mut total, mut count) = (0.0, 0);
        for group in windows.chunks(batch) {
            // Rows that a short window or a short group leaves unused have the target -1, which the loss ignores.
            let mut rows = MicroBatch { tokens: vec![0; batch * context], targets: vec![-1; batch * context] };
            for (row, window) in group.iter().enumerate() {
                let range = row * context..row * context + window.inputs.len();
                self.validation.read(window.inputs.start, &mut rows.tokens[range.clone()])?;
                self.validation.read(window.targets.start, &mut rows.targets[range])?;
                count += window.targets.len();
            }
            total += self.trainer.evaluate(&rows)?;
        }
        Ok(Some((total / count as f64) as f32))
    }

    /// Generates a text sample, which ends early when `stop` returns true; none if the run has no tokenizer. The prompt is a
    /// line break, which every training text contains. On the embedded corpus [`PROMPT`] follows, which the sample begins
    /// with. The 40 most likely tokens can be drawn: a nucleus (top-p) of 0.95 has only a space in it after many spaces, and
    /// then never ends them.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn sample(&self, stop: &dyn Fn() -> bool) -> Result<Option<String>> {
        let Some(tokenizer) = &self.tokenizer else { return Ok(None) };
        let prompt = if self.settings.options.data.is_empty() { PROMPT } else { "" };
        let start: Vec<i32> = tokenizer.encode(&format!("\n{prompt}"))?.into_iter().map(|id| id as i32).collect();
        let mut generator = Generator::new(self.trainer.model(), &start)?;
        let RunOptions { seed, sample_tokens, .. } = self.settings.options;
        let sampling = Sampling { temperature: 0.8, top_k: 40, top_p: 1.0, seed };
        let mut tokens = Vec::new();
        while tokens.len() < sample_tokens && !stop() {
            let token = generator.sample(sampling)?;
            tokens.push(token as u32);
            generator.push(token)?;
        }
        Ok(Some(format!("{prompt}{}", tokenizer.decode(&tokens))))
    }

    /// Writes a checkpoint and draws the loss curve.
    fn save(&self) -> Result<PathBuf> {
        let state = RunState {
            settings: self.settings.clone(),
            cursor: self.next.as_ref().map_or_else(|| self.loader.cursor(), |next| next.cursor),
            data_tokens: self.data_tokens,
            trainer: self.trainer.state.clone(),
            bad_steps: self.bad_steps,
        };
        let snapshot = Snapshot {
            step: self.step,
            config: &self.settings.model,
            tokenizer: self.tokenizer.as_ref(),
            state: &state,
        };
        let layout = Layout::new(&self.settings.model);
        let ranges = layout.slots.map(|slot| slot.range).into_array();
        let path = self.folder.save(&snapshot, self.settings.options.keep, |group, name| {
            let (_, range) = ranges.iter().find(|(other, _)| *other == name).expect("a name of the layout");
            Ok(Cow::Owned(match group {
                TensorGroup::Weights => self.trainer.weights_f32(range.clone())?,
                TensorGroup::FirstMoment => self.trainer.first_moment_f32(range.clone())?,
                TensorGroup::SecondMoment => self.trainer.second_moment_f32(range.clone())?,
            }))
        })?;
        #[cfg(feature = "plots")]
        self.draw_loss_curve();
        Ok(path)
    }

    /// The checkpoint is complete; a failure to draw the curve must not end the run.
    #[cfg(feature = "plots")]
    fn draw_loss_curve(&self) {
        let records = metrics::read(self.metrics_path());
        let drawn = records.and_then(|records| super::plot::draw_loss(&records, self.loss_curve_path()));
        if let Err(error) = drawn {
            tracing::warn!("cannot draw the loss curve: {error}");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::super::data::Order;
    use super::super::optimizer::OptimizerConfig;
    use super::super::schedule::{Decay, Schedule};
    use super::*;
    use crate::cpu::Cpu;
    use crate::model::activations::Recompute;
    use crate::model::config::Config;
    use crate::model::mutate::{SplitMix, mutate};
    use crate::model::plan::MemoryPlan;
    use crate::text::documents::DocumentOptions;

    #[test]
    fn every_mutated_state_is_answered_at_once() {
        let model = Config { context: 8, vocab: 257, layers: 1, heads: 1, channels: 4 };
        let schedule =
            Schedule { steps: 9, peak: 1e-3, decay: Decay::Cosine, warmup: 1, final_fraction: 0.1, wsd_fraction: 0.2 };
        let optimizer = OptimizerConfig {
            beta1: 0.9,
            beta2: 0.95,
            eps: 1e-8,
            weight_decay: 0.1,
            grad_clip: 1.0,
            skip_loss_z: 0.0,
            skip_norm_z: 0.0,
        };
        let options = RunOptions {
            data: vec!["t.txt".into()],
            documents: DocumentOptions::default(),
            order: Order::Shuffled,
            validation_fraction: 0.05,
            seed: 1,
            val_every: 5,
            val_batches: 2,
            sample_every: 0,
            sample_tokens: 4,
            save_every: 0,
            keep: 2,
            recompute: Recompute::None,
            batch: 2,
            accumulate: 1,
            schedule,
            optimizer,
        };
        let state = RunState {
            settings: Settings { model, tokenizer: Some("bytes".into()), context: 8, options },
            cursor: Cursor { epoch: 0, position: 3 },
            data_tokens: 100,
            trainer: TrainerState::default(),
            bad_steps: 0,
        };
        let corpus = [serde_json::to_vec(&state).unwrap()];
        let fragments = ["0", "-1", "1e400", "16384", "16777216", "18446744073709551615", "null", "\"", "{", "[", ","];
        let mut random = SplitMix(5);
        let (mut parsed, mut accepted) = (0, 0);
        for round in 0..20_000 {
            let bytes = mutate(&mut random, &corpus, &fragments);
            let start = Instant::now();
            if let Ok(state) = serde_json::from_slice::<RunState>(&bytes) {
                parsed += 1;
                let Settings { context, options, .. } = &state.settings;
                if state.settings.check(&model, Some(&Tokenizer::bytes())).is_ok() {
                    accepted += 1;
                    // What a resumed run does with the state before its first step.
                    let RunOptions { batch, order, seed, recompute, .. } = *options;
                    MemoryPlan::new::<Cpu<f32>>(&state.settings.model, batch, *context, recompute).unwrap();
                    let tokens = Tokens::from_vec("t.txt", vec![1; 100]);
                    let config = LoaderConfig { batch, context: *context, order, seed };
                    if let Ok(mut loader) = Loader::new(tokens, config) {
                        let _ = loader.seek(state.cursor);
                    }
                }
            }
            assert!(start.elapsed() < Duration::from_secs(2), "round {round}: {:?}", start.elapsed());
        }
        assert!(parsed > 1000 && accepted > 100 && accepted < parsed, "{parsed} parsed, {accepted} accepted");
    }
}
