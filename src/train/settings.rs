//! The settings of a run: what decides its results. They are the flags of `ironwarp train` and are saved in checkpoints.

use std::path::PathBuf;

use serde::{Deserialize, Deserializer, Serialize};

use super::data::Order;
#[cfg(feature = "cli")]
use super::flag::{absolute_path, one_of};
use super::optimizer::OptimizerConfig;
use super::schedule::Schedule;
use crate::error::{Error, Result};
use crate::message::escaped_path;
use crate::model::activations::Recompute;
use crate::model::config::Config;
use crate::text::documents::DocumentOptions;
use crate::text::tokenizer::Tokenizer;

/// Most tokens in a step: about twenty times GPT-3's. Byte counts of larger steps could overflow 64 bits.
const MAX_STEP_TOKENS: usize = 1 << 26;

/// Most micro-batches in a step, which are read before it: forty times those of GPT-3 in sequences one by one.
const MAX_ACCUMULATE: usize = 1 << 16;

/// Most tokens of a text sample, which is held in memory: ten novels.
const MAX_SAMPLE_TOKENS: usize = 1 << 20;

/// Everything that decides what a run computes; saved in its checkpoints.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Settings {
    /// Sizes of the model.
    pub model: Config,
    /// Name of the tokenizer; none for a run on token files alone.
    pub tokenizer: Option<String>,
    /// T: tokens per sequence.
    pub context: usize,
    /// The settings that do not depend on the model.
    #[serde(flatten)]
    pub options: RunOptions,
}

/// The settings that do not depend on the model. Each field is a flag of `ironwarp train`; its comment is the help text.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
pub struct RunOptions {
    /// Training data: a file of text, JSONL, JSON, Parquet or tokens, or a folder of them; may be given several times
    /// [default: the embedded corpus, which is this project's source code].
    #[cfg_attr(feature = "cli", arg(long, value_parser = absolute_path(), value_name = "FILE|DIR", help_heading = "Data"))]
    #[serde(deserialize_with = "one_or_several")]
    pub data: Vec<PathBuf>,
    /// How documents are read from files.
    #[cfg_attr(feature = "cli", command(flatten))]
    #[serde(flatten)]
    pub documents: DocumentOptions,
    /// Order of the training sequences: "shuffled" draws every sequence once per epoch in a seeded random order,
    /// "sequential" reads the data from start to end as llm.c does.
    #[cfg_attr(feature = "cli", arg(long, default_value = "shuffled", value_parser = one_of::<Order>(["shuffled", "sequential"]), value_name = "ORDER", help_heading = "Data"))]
    pub order: Order,
    /// Fraction of the tokens, at the end of the data, that is held out for validation; unused if the data has validation
    /// files of its own.
    #[cfg_attr(
        feature = "cli",
        arg(long = "val-fraction", default_value_t = 0.05, value_name = "F", help_heading = "Data")
    )]
    pub validation_fraction: f64,

    /// RNG seed of the initial weights, the data order and the samples.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 1337, value_name = "SEED", help_heading = "Run"))]
    pub seed: u64,
    /// Steps between validations; 0: no validation.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 50, value_name = "N", help_heading = "Run"))]
    pub val_every: u64,
    /// Maximum number of micro-batches per validation.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 20, value_name = "N", help_heading = "Run"))]
    pub val_batches: usize,
    /// Steps between text samples; 0: no samples.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 0, value_name = "N", help_heading = "Run"))]
    pub sample_every: u64,
    /// Tokens per text sample.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 256, value_name = "N", help_heading = "Run"))]
    pub sample_tokens: usize,
    /// Steps between checkpoints; 0: only at the end.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 200, value_name = "N", help_heading = "Run"))]
    pub save_every: u64,
    /// Number of newest checkpoints to keep.
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 2, value_name = "N", help_heading = "Run"))]
    pub keep: usize,
    /// Activations to recompute in the backward pass instead of storing them, to save memory.
    #[cfg_attr(feature = "cli", arg(long, default_value = "none", value_parser = one_of::<Recompute>(["none", "gelu", "layernorm"]), value_name = "WHAT", help_heading = "Run"))]
    pub recompute: Recompute,

    /// Sequences per micro-batch (B).
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 8, value_name = "B", help_heading = "Optimization"))]
    pub batch: usize,
    /// Micro-batches per optimizer step (gradient accumulation).
    #[cfg_attr(feature = "cli", arg(long, default_value_t = 1, value_name = "N", help_heading = "Optimization"))]
    pub accumulate: usize,
    /// Learning rate over the steps.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub schedule: Schedule,
    /// Settings of the optimizer.
    #[cfg_attr(feature = "cli", command(flatten))]
    pub optimizer: OptimizerConfig,
}

impl Settings {
    /// Checks the settings against each other, the model and the tokenizer.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the violated rule and the values.
    pub fn check(&self, model: &Config, tokenizer: Option<&Tokenizer>) -> Result<()> {
        let reject = |message: String| Err(Error::Invalid(message));
        let Settings { context, options, .. } = self;
        model.check()?;
        if self.model != *model {
            return reject(format!("the settings are for a model {}, but the weights are of {model}", self.model));
        }
        if let Some(path) = options.data.iter().find(|path| path.to_str().is_none()) {
            return reject(format!(
                "--data {}: the path is saved in checkpoints and must be UTF-8",
                escaped_path(path)
            ));
        }
        if *context > model.context {
            return reject(format!("--context {context} is more than the model's context of {}", model.context));
        }
        if let Some(tokenizer) = tokenizer.filter(|tokenizer| tokenizer.vocab() > model.vocab) {
            return reject(format!(
                "the tokenizer '{}' has {} tokens, more than the model's vocabulary of {}",
                tokenizer.name(),
                tokenizer.vocab(),
                model.vocab
            ));
        }
        check_tokens(options.batch, *context, options.accumulate)?;
        options.check()
    }

    /// Tokens per optimizer step.
    pub fn step_tokens(&self) -> usize {
        self.options.batch * self.context * self.options.accumulate
    }
}

impl RunOptions {
    /// Checks the settings that do not depend on the model.
    ///
    /// # Errors
    /// [`Error::Invalid`] with the violated rule and the values.
    pub fn check(&self) -> Result<()> {
        let reject = |message: String| Err(Error::Invalid(message));
        for (name, value) in [("--keep", self.keep), ("--val-batches", self.val_batches)] {
            if value == 0 {
                return reject(format!("{name} must be at least 1"));
            }
        }
        for (name, value, max) in [
            ("--sample-tokens", self.sample_tokens, MAX_SAMPLE_TOKENS),
            ("--accumulate", self.accumulate, MAX_ACCUMULATE),
        ] {
            if value > max {
                return reject(format!("{name} <= {max} failed ({value})"));
            }
        }
        let OptimizerConfig { beta1, beta2, eps, weight_decay, grad_clip, skip_loss_z, skip_norm_z } = self.optimizer;
        let Schedule { peak, final_fraction, wsd_fraction, .. } = self.schedule;
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
                return reject(format!("0 <= {name} < {below} failed ({value})"));
            }
        }
        // With ε = 0, the update of an element that never had a gradient would be 0/0.
        if !(eps > 0.0 && eps < f32::INFINITY) {
            return reject(format!("0 < --eps < inf failed ({eps})"));
        }
        Ok(())
    }
}

/// The paths of the data; an earlier version saved one path or null.
fn one_or_several<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<PathBuf>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Paths {
        Several(Vec<PathBuf>),
        One(Option<PathBuf>),
    }
    Ok(match Paths::deserialize(deserializer)? {
        Paths::Several(paths) => paths,
        Paths::One(path) => path.into_iter().collect(),
    })
}

/// Checks the number of tokens per step.
///
/// # Errors
/// [`Error::Invalid`] with the sizes, if the number is zero or larger than any training needs.
pub fn check_tokens(batch: usize, context: usize, accumulate: usize) -> Result<()> {
    let tokens = batch.checked_mul(context).and_then(|n| n.checked_mul(accumulate));
    if tokens.is_none_or(|n| n == 0 || n > MAX_STEP_TOKENS) {
        return Err(Error::invalid(format!(
            "1 <= --batch x --context x --accumulate <= {MAX_STEP_TOKENS} tokens per step failed ({batch} x {context} x \
             {accumulate})"
        )));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_of_earlier_versions_are_read() {
        #[derive(Deserialize)]
        struct Data {
            #[serde(deserialize_with = "one_or_several")]
            data: Vec<PathBuf>,
        }
        for (json, expected) in [("null", &[][..]), ("\"a\"", &["a"][..]), ("[\"a\", \"b\"]", &["a", "b"][..])] {
            let found: Data = serde_json::from_str(&format!("{{\"data\": {json}}}")).unwrap();
            assert_eq!(found.data, expected.iter().map(PathBuf::from).collect::<Vec<_>>());
        }
    }
}
