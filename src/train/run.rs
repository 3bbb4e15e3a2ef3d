//! A training run: steps, validation, samples, checkpoints and the record of it all.

use std::borrow::Cow;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::Instant;

use serde::{Deserialize, Serialize};

use super::checkpoint::{Loaded, Part, RunFolder, Snapshot};
use super::data::{Cursor, Loader, LoaderConfig, Order};
use super::metrics::{self, Metrics, Record};
use super::schedule::Schedule;
use super::trainer::{MicroBatch, Optimizer, Outcome, Trainer, TrainerState};
use crate::error::{Error, Result};
use crate::model::activations::Recompute;
use crate::model::config::Config;
use crate::model::generate::{Generator, Sampling};
use crate::model::params::{HostWeights, Layout};
use crate::ops::Backend;
use crate::text::corpus::{Corpus, Tokens};
use crate::text::evaluation::windows;
use crate::text::tokenizer::Tokenizer;

/// Steps in a row whose numbers are not finite after which a run gives up.
const MAX_BAD_STEPS: u32 = 8;

/// Most tokens in a step: some twenty times GPT-3's, and no count of bytes passes 64 bits.
const MAX_STEP_TOKENS: usize = 1 << 26;

/// Everything that decides what a run computes; kept in its checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Sizes of the model.
    pub model: Config,
    /// Name of the tokenizer.
    pub tokenizer: String,
    /// File or folder of the data; `None` for the embedded corpus.
    pub data: Option<PathBuf>,
    /// B: sequences in a micro-batch.
    pub batch: usize,
    /// T: tokens in a sequence.
    pub context: usize,
    /// Micro-batches in a step.
    pub accumulate: usize,
    /// Learning rate over the steps.
    pub schedule: Schedule,
    /// The optimizer.
    pub optimizer: Optimizer,
    /// Order of the data.
    pub order: Order,
    /// Of the initial weights, the order of the data and the samples.
    pub seed: u64,
    /// Share of the tokens that is kept for validation, where the data has none of its own.
    pub validation_fraction: f64,
    /// Steps from validation to validation; 0 for none.
    pub val_every: u64,
    /// Most micro-batches in a validation.
    pub val_batches: usize,
    /// Steps from sample to sample; 0 for none.
    pub sample_every: u64,
    /// Tokens in a sample.
    pub sample_tokens: usize,
    /// Steps from checkpoint to checkpoint; 0 for the last alone.
    pub save_every: u64,
    /// Checkpoints that are kept.
    pub keep: usize,
    /// What the backward computes again.
    pub recompute: Recompute,
}

/// What a checkpoint holds beside the tensors.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunState {
    /// The run's settings.
    pub settings: Settings,
    /// Place in the data.
    pub cursor: Cursor,
    /// Tokens in the data, to notice when it has become another.
    pub data_tokens: u64,
    /// Updates and the recent losses and norms.
    pub trainer: TrainerState,
    /// Steps in a row, up to now, whose numbers were not finite.
    pub bad_steps: u32,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// All steps are done.
    Done,
    /// It was asked to stop; what was done is saved.
    Stopped,
}

/// Who is told what a run does.
pub trait Observer {
    /// A step is done.
    fn step(&mut self, record: &Record);
    /// A sample was drawn.
    fn sample(&mut self, step: u64, text: &str);
    /// A checkpoint was written.
    fn saved(&mut self, step: u64, path: &Path);
}

/// The micro-batches of the next step, read while the device was at work.
struct Upcoming {
    /// Where they begin in the data.
    from: Cursor,
    batches: Result<Vec<MicroBatch>>,
}

/// A run in progress.
pub struct Run<B: Backend> {
    settings: Settings,
    step: u64,
    upcoming: Option<Upcoming>,
    trainer: Trainer<B>,
    loader: Loader,
    data_tokens: u64,
    validation: Tokens,
    tokenizer: Tokenizer,
    folder: RunFolder,
    bad_steps: u32,
}

impl<B: Backend> Run<B> {
    /// A run from its first step.
    ///
    /// # Errors
    /// [`Error::Invalid`] for settings that do not fit the model or the data; [`Error::Io`]; no memory.
    pub fn new(
        backend: B,
        settings: Settings,
        weights: HostWeights,
        corpus: Corpus,
        tokenizer: Tokenizer,
        folder: RunFolder,
    ) -> Result<Self> {
        check(&settings, &weights.config, &tokenizer)?;
        let Settings { batch, context, order, seed, recompute, optimizer, .. } = settings;
        let data_tokens = corpus.train.len() as u64;
        let loader = Loader::new(corpus.train, LoaderConfig { batch, context, order, seed })?;
        let trainer = Trainer::new(backend, weights, (batch, context), recompute, optimizer, seed)?;
        let validation = corpus.validation;
        Ok(Run {
            settings,
            step: 0,
            upcoming: None,
            trainer,
            loader,
            data_tokens,
            validation,
            tokenizer,
            folder,
            bad_steps: 0,
        })
    }

    /// Goes on from a checkpoint, with `settings` in place of those it was saved with.
    ///
    /// # Errors
    /// As [`Run::new`], and a cursor that the data does not reach.
    pub fn resume(
        backend: B,
        settings: Settings,
        loaded: Loaded<RunState>,
        corpus: Corpus,
        tokenizer: Tokenizer,
        folder: RunFolder,
    ) -> Result<Self> {
        let Loaded { step, weights, m, v, state, .. } = loaded;
        let mut run = Run::new(backend, settings, weights, corpus, tokenizer, folder)?;
        if run.data_tokens != state.data_tokens {
            let (now, then) = (run.data_tokens, state.data_tokens);
            tracing::warn!(
                "the data has {now} tokens, and had {then} when the checkpoint was saved: it is not the same"
            );
        }
        run.trainer.restore(&m, &v, state.trainer)?;
        run.loader.seek(state.cursor)?;
        run.step = step;
        run.bad_steps = state.bad_steps;
        Ok(run)
    }

    /// Steps done.
    pub fn steps_done(&self) -> u64 {
        self.step
    }

    /// The settings.
    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Tokens that an epoch trains on.
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

    /// Removes what an earlier run left in the folder: its checkpoints, record and curve, nothing else.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn clear_folder(&self) -> Result<()> {
        for path in [self.metrics_path(), self.curve()] {
            match fs::remove_file(&path) {
                Err(e) if e.kind() != ErrorKind::NotFound => return Err(Error::io("remove", &path, e)),
                _ => {}
            }
        }
        self.folder.remove_checkpoints()
    }

    /// Where the loss curve is drawn.
    pub fn curve(&self) -> PathBuf {
        self.folder.dir().join("loss.svg")
    }

    /// Trains to the last step, or until `stop` says so after a step; saves at the end in either case.
    ///
    /// # Errors
    /// Those of a step or a save; [`Error::Invalid`] when the numbers of several steps in a row are not finite. Then the
    /// newest checkpoint is the one before.
    pub fn train(&mut self, stop: &dyn Fn() -> bool, observer: &mut dyn Observer) -> Result<End> {
        let steps = self.settings.schedule.steps;
        let due = |every: u64, step: u64| every > 0 && step.is_multiple_of(every);
        let mut metrics = Metrics::open(self.metrics_path(), self.step)?;
        let mut saved = self.step;
        while self.step < steps && !stop() {
            let mut record = self.step()?;
            let last = self.step == steps;
            if self.settings.val_every > 0 && (last || due(self.settings.val_every, self.step)) {
                record.val_loss = self.validate()?;
            }
            metrics.push(&record)?;
            observer.step(&record);
            if due(self.settings.sample_every, self.step) {
                match self.sample() {
                    Ok(text) => observer.sample(self.step, &text),
                    // Its cache is not in the plan; the training has what it needs.
                    Err(error @ Error::OutOfDeviceMemory(_)) => {
                        tracing::warn!("step {}: no sample: {error}", self.step);
                    }
                    Err(error) => return Err(error),
                }
            }
            if due(self.settings.save_every, self.step) && !last {
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
        let Upcoming { from: place, batches } = self.upcoming.take().unwrap_or_else(|| self.read_ahead());
        let batches = batches?;
        let lr = self.settings.schedule.learning_rate(self.step);
        let queued = self.trainer.queue(&batches, lr)?;
        let mut staged = Ok(());
        if self.step + 1 < self.settings.schedule.steps {
            let upcoming = self.read_ahead();
            // What could not be read is said when its step comes.
            if let Ok(next) = &upcoming.batches {
                staged = self.trainer.stage(&next[0]);
            }
            self.upcoming = Some(upcoming);
        }
        let report = self.trainer.finish(queued, &batches)?;
        self.step += 1;
        // The step that was queued is over; what could not be sent ahead is sent when its step comes.
        if let Err(error) = staged {
            tracing::warn!("step {}: the next micro-batch could not be sent ahead: {error}", self.step);
        }
        let skipped = match report.outcome {
            Outcome::Updated => None,
            Outcome::Outlier { reason } => Some(format!("outlier: {reason}")),
            Outcome::NonFinite { place } => Some(format!("not finite: {place}")),
        };
        let is_bad = !report.loss.is_finite() || !report.grad_norm.is_finite();
        self.bad_steps = if is_bad { self.bad_steps + 1 } else { 0 };
        if let Some(reason) = &skipped {
            let Cursor { epoch, position } = place;
            tracing::warn!("step {}: no update ({reason}); its batch is at {position} of epoch {epoch}", self.step);
        }
        if self.bad_steps == MAX_BAD_STEPS {
            let reason = skipped.unwrap_or_default();
            return Err(Error::invalid(format!(
                "step {}: {MAX_BAD_STEPS} steps in a row had numbers that are not finite, the last {reason}; a lower \
                 --lr or a longer --warmup may help, and the newest checkpoint is from before",
                self.step
            )));
        }
        let finite = |x: f32| Some(x).filter(|x| x.is_finite());
        Ok(Record {
            step: self.step,
            loss: finite(report.loss),
            lr,
            grad_norm: finite(report.grad_norm),
            tokens_per_second: self.step_tokens() as f64 / start.elapsed().as_secs_f64(),
            val_loss: None,
            skipped,
        })
    }

    fn step_tokens(&self) -> usize {
        self.settings.batch * self.settings.context * self.settings.accumulate
    }

    fn read_ahead(&mut self) -> Upcoming {
        let from = self.loader.cursor();
        let rows = self.settings.batch * self.settings.context;
        Upcoming { from, batches: (0..self.settings.accumulate).map(|_| self.next_batch(rows)).collect() }
    }

    fn next_batch(&mut self, rows: usize) -> Result<MicroBatch> {
        let mut batch = MicroBatch { tokens: vec![0; rows], targets: vec![0; rows] };
        self.loader.next_batch(&mut batch.tokens, &mut batch.targets)?;
        Ok(batch)
    }

    /// Mean loss over the validation windows, the first `val_batches` micro-batches of them; `None` without any.
    fn validate(&mut self) -> Result<Option<f32>> {
        let Settings { batch, context, val_batches, .. } = self.settings;
        if self.validation.len() < 2 {
            return Ok(None);
        }
        let windows: Vec<_> =
            windows(self.validation.len(), context)?.take(batch.saturating_mul(val_batches)).collect();
        let (mut total, mut count) = (0.0, 0);
        for group in windows.chunks(batch) {
            // Rows that a short window or group leaves over are ignored by the loss.
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

    /// Text that the model draws after a line break, which any text has.
    ///
    /// # Errors
    /// Those of the operations.
    pub fn sample(&self) -> Result<String> {
        let start: Vec<i32> = self.tokenizer.encode("\n").into_iter().map(|id| id as i32).collect();
        let mut generator = Generator::new(self.trainer.model(), &start)?;
        let sampling = Sampling { temperature: 0.8, top_k: usize::MAX, top_p: 0.95, seed: self.settings.seed };
        let mut tokens = Vec::new();
        while tokens.len() < self.settings.sample_tokens {
            let token = generator.sample(sampling)?;
            tokens.push(token as u32);
            generator.push(token)?;
        }
        Ok(self.tokenizer.decode(&tokens))
    }

    /// Writes a checkpoint and draws the loss curve.
    fn save(&self) -> Result<PathBuf> {
        let state = RunState {
            settings: self.settings.clone(),
            cursor: self.upcoming.as_ref().map_or_else(|| self.loader.cursor(), |upcoming| upcoming.from),
            data_tokens: self.data_tokens,
            trainer: self.trainer.state.clone(),
            bad_steps: self.bad_steps,
        };
        let snapshot = Snapshot {
            step: self.step,
            config: &self.settings.model,
            tokenizer: Some(&self.settings.tokenizer),
            state: &state,
        };
        let layout = Layout::new(&self.settings.model);
        let ranges = layout.slots.map(|slot| slot.range).into_array();
        let path = self.folder.save(&snapshot, self.settings.keep, |part, name| {
            let (_, range) = ranges.iter().find(|(other, _)| *other == name).expect("a name of the layout");
            Ok(Cow::Owned(match part {
                Part::Weights => self.trainer.weights_f32(range.clone())?,
                Part::FirstMoment => self.trainer.first_moment_f32(range.clone())?,
                Part::SecondMoment => self.trainer.second_moment_f32(range.clone())?,
            }))
        })?;
        // The checkpoint is safe; a picture is no reason to stop a run.
        let drawn = metrics::read(self.metrics_path()).and_then(|records| metrics::draw_loss(&records, self.curve()));
        if let Err(error) = drawn {
            tracing::warn!("no loss curve: {error}");
        }
        Ok(path)
    }
}

/// Settings against each other, the model and the tokenizer.
fn check(settings: &Settings, model: &Config, tokenizer: &Tokenizer) -> Result<()> {
    let refuse = |message: String| Err(Error::Invalid(message));
    model.check()?;
    if settings.model != *model {
        return refuse(format!("the settings are for {:?}, and the weights are of {model:?}", settings.model));
    }
    if let Some(path) = settings.data.as_ref().filter(|path| path.to_str().is_none()) {
        return refuse(format!("--data {}: the path is kept in checkpoints and must be UTF-8", path.display()));
    }
    if settings.context > model.context {
        return refuse(format!("--context {} is more than the model's context of {}", settings.context, model.context));
    }
    if tokenizer.vocab() > model.vocab {
        return refuse(format!(
            "the tokenizer '{}' has {} tokens, more than the model's vocabulary of {}",
            tokenizer.name(),
            tokenizer.vocab(),
            model.vocab
        ));
    }
    for (name, value) in [("--keep", settings.keep), ("--val-batches", settings.val_batches)] {
        if value == 0 {
            return refuse(format!("{name} must be at least 1"));
        }
    }
    check_tokens(settings.batch, settings.context, settings.accumulate)?;
    let Optimizer { beta1, beta2, eps, weight_decay, grad_clip, skip_loss_z, skip_norm_z } = settings.optimizer;
    let Schedule { peak, final_fraction, wsd_fraction, .. } = settings.schedule;
    for (name, value, below) in [
        ("--lr", peak, f32::INFINITY),
        ("--final-lr-fraction", final_fraction, f32::INFINITY),
        ("--wsd-fraction", wsd_fraction, f32::INFINITY),
        ("--beta1", beta1, 1.0),
        ("--beta2", beta2, 1.0),
        ("--weight-decay", weight_decay, f32::INFINITY),
        ("--grad-clip", grad_clip, f32::INFINITY),
        ("--skip-loss-z", skip_loss_z, f32::INFINITY),
        ("--skip-norm-z", skip_norm_z, f32::INFINITY),
    ] {
        if !(value >= 0.0 && value < below) {
            return refuse(format!("0 <= {name} < {below} failed ({value})"));
        }
    }
    // At 0, an element that never had a gradient would become 0/0.
    if !(eps > 0.0 && eps < f32::INFINITY) {
        return refuse(format!("0 < --eps < inf failed ({eps})"));
    }
    Ok(())
}

/// Checks the tokens of a step.
///
/// # Errors
/// [`Error::Invalid`] with the sizes, if there are none or more than any training has.
pub fn check_tokens(batch: usize, context: usize, accumulate: usize) -> Result<()> {
    let tokens = batch.checked_mul(context).and_then(|n| n.checked_mul(accumulate));
    if tokens.is_none_or(|n| n == 0 || n > MAX_STEP_TOKENS) {
        return Err(Error::invalid(format!(
            "1 <= --batch x --context x --accumulate <= {MAX_STEP_TOKENS} tokens a step failed ({batch} x {context} x \
             {accumulate})"
        )));
    }
    Ok(())
}
