//! `ironwarp eval`: evaluates a model.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use clap::Args;
use ironwarp::message::escaped_path;
use ironwarp::ops::Backend;
use ironwarp::text::corpus::{Corpus, Vocabulary, first_text};
use ironwarp::text::documents::DocumentOptions;
use ironwarp::text::evaluation;
use ironwarp::text::scoring::Scorer;
use serde_json::json;

use crate::device::{Device, Model, on_backend};
use crate::{data, output};

#[derive(Debug, Args)]
pub struct EvalArgs {
    /// Model: a run folder, a checkpoint folder or a Hugging Face GPT-2 folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    #[command(flatten)]
    dataset: Dataset,
    #[command(flatten)]
    documents: DocumentOptions,
    /// Tokens per window of --text [default: the model's context]
    #[arg(long, value_name = "T", value_parser = clap::value_parser!(u64).range(1..), conflicts_with_all = ["hellaswag", "lambada"])]
    context: Option<u64>,
    /// Evaluate only the first N items of --hellaswag or --lambada [default: all]
    #[arg(long, value_name = "N", conflicts_with = "text")]
    limit: Option<usize>,
    /// Tokenizer: gpt2, bytes, a tokenizer.json or a folder with a tokenizer [default: that of the model's folder]
    #[arg(long, value_name = "NAME|PATH")]
    tokenizer: Option<String>,
    /// Device: auto, cpu, cuda, cuda:N or emulated
    #[arg(long, default_value = "auto")]
    device: Device,
}

#[derive(Debug, Args)]
#[group(required = true, multiple = false)]
struct Dataset {
    /// Compute loss and perplexity of a file of text, JSONL, JSON, Parquet or tokens, or of a folder of them
    #[arg(long, value_name = "FILE")]
    text: Option<PathBuf>,
    /// Evaluate on HellaSwag (a JSONL file): completion-style accuracy, by summed and by mean loss
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text_field", "skip_bad_documents"])]
    hellaswag: Option<PathBuf>,
    /// Evaluate on LAMBADA (a JSONL file): last-word accuracy and perplexity
    #[arg(long, value_name = "FILE", conflicts_with_all = ["text_field", "skip_bad_documents"])]
    lambada: Option<PathBuf>,
}

pub fn run(args: EvalArgs, json: bool) -> Result<()> {
    on_backend!(args.device.open()?.0, backend => score(args, json, backend))
}

fn score<B: Backend>(args: EvalArgs, json: bool, backend: B) -> Result<()> {
    let model = Model::load(&args.model, args.tokenizer.as_deref(), backend)?;
    let mut scorer = Scorer::new(model.gpt2());
    let limit = args.limit.unwrap_or(usize::MAX);
    match args.dataset {
        Dataset { text: Some(path), .. } => {
            let corpus = open_text(&model, &path, &args.documents)?;
            let Corpus { train: tokens, validation, files } = corpus;
            if !validation.is_empty() {
                let path = escaped_path(&path);
                bail!("{path}: the folder has training and validation files; pass the file to evaluate on");
            }
            for line in data::left_out(&files) {
                output::note(line);
            }
            let context = args.context.map_or(model.config.context, |t| usize::try_from(t).unwrap_or(usize::MAX));
            let bar = output::progress(tokens.len().saturating_sub(1) as u64, "tokens");
            let score = scorer.perplexity(&tokens, context, |done| bar.set_position(done))?;
            bar.finish_and_clear();
            if json {
                let (loss, perplexity) = (score.loss, score.perplexity());
                return output::json(&json!({"loss": loss, "perplexity": perplexity, "tokens": score.tokens}));
            }
            output::line(format!("loss        {:.4} nats/token", score.loss));
            output::line(format!("perplexity  {:.3}", score.perplexity()));
            output::line(format!("tokens      {} predicted, in windows of {context}", output::thousands(score.tokens)));
        }
        Dataset { hellaswag: Some(path), .. } => {
            let mut items = evaluation::hellaswag(&path, model.tokenizer()?)?;
            items.truncate(limit);
            let bar = output::progress(items.len() as u64, "questions");
            let score = scorer.multiple_choice(&items, |done| bar.set_position(done))?;
            bar.finish_and_clear();
            if json {
                return output::json(&json!({
                    "accuracy": score.accuracy,
                    "accuracy_normalised": score.accuracy_normalised,
                    "items": score.items,
                }));
            }
            output::line(format!(
                "accuracy             {:.4}  by the sum of the losses of a completion",
                score.accuracy
            ));
            output::line(format!("accuracy normalised  {:.4}  by the mean loss per token", score.accuracy_normalised));
            output::line(format!("questions            {}", output::thousands(score.items as u64)));
        }
        Dataset { lambada: Some(path), .. } => {
            let mut items = evaluation::lambada(&path, model.tokenizer()?)?;
            items.truncate(limit);
            let bar = output::progress(items.len() as u64, "passages");
            let score = scorer.last_word(&items, |done| bar.set_position(done))?;
            bar.finish_and_clear();
            if json {
                let (accuracy, perplexity) = (score.accuracy, score.perplexity);
                return output::json(&json!({"accuracy": accuracy, "perplexity": perplexity, "items": score.items}));
            }
            output::line(format!(
                "accuracy    {:.4}  every token of the last word is the most likely one",
                score.accuracy
            ));
            output::line(format!(
                "perplexity  {:.3}  exp of the mean loss per last word, which is the sum over its tokens",
                score.perplexity
            ));
            output::line(format!("passages    {}", output::thousands(score.items as u64)));
        }
        Dataset { text: None, hellaswag: None, lambada: None } => unreachable!("clap requires one of the three"),
    }
    Ok(())
}

/// The tokens of `--text`. Token files need no tokenizer.
fn open_text<B: Backend>(model: &Model<B>, path: &Path, options: &DocumentOptions) -> Result<Corpus> {
    let vocabulary = match model.tokenizer() {
        Ok(tokenizer) => Vocabulary::Tokenizer(tokenizer),
        Err(why) if first_text(&[path])?.is_some() => return Err(why),
        Err(_) => Vocabulary::Size(model.config.vocab),
    };
    Ok(Corpus::open(&[path], vocabulary, options, 0.0)?)
}
