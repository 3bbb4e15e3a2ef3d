//! `ironwarp tokenize`: converts text to token shards.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use ironwarp::message::escaped_path;
use ironwarp::text::corpus::Corpus;
use ironwarp::text::documents::DocumentOptions;
use ironwarp::text::tokenize::{Options, Written, tokenize};
use ironwarp::text::tokenizer::Tokenizer;
use serde_json::json;

use crate::{data, output};

#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// Files of text, JSONL, JSON or Parquet
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Folder for the shards [default: none, only count the tokens]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Tokenizer: gpt2, bytes, a tokenizer.json or a folder with a tokenizer
    #[arg(long, default_value = "gpt2", value_name = "NAME|PATH")]
    tokenizer: String,
    /// Maximum number of tokens per shard
    #[arg(long, default_value_t = Options::default().shard_tokens, value_name = "N")]
    shard_tokens: usize,
    /// Fraction of each input, at its end, that is written to validation shards
    #[arg(long, default_value_t = Options::default().validation_fraction, value_name = "F")]
    val_fraction: f64,
    #[command(flatten)]
    documents: DocumentOptions,
    /// Print the ids of the tokens of one input
    #[arg(long, conflicts_with = "out")]
    ids: bool,
}

pub fn run(args: TokenizeArgs, json: bool) -> Result<()> {
    let tokenizer = Tokenizer::open(&args.tokenizer)?;
    if args.ids {
        return print_ids(&args, &tokenizer, json);
    }
    let written = match &args.out {
        Some(out) => {
            let options = Options {
                documents: args.documents,
                shard_tokens: args.shard_tokens,
                validation_fraction: args.val_fraction,
            };
            tokenize(&args.inputs, out, &tokenizer, &options)?
        }
        None => {
            let [input] = &args.inputs[..] else { bail!("several inputs require --out DIR") };
            let corpus = Corpus::open(&[input], &tokenizer, &args.documents, 0.0)?;
            data::left_out(&corpus.files).for_each(output::note);
            Written {
                train_tokens: corpus.train.len() as u64,
                validation_tokens: corpus.validation.len() as u64,
                skipped: corpus.files.iter().map(|file| file.skipped).sum(),
                ..Written::default()
            }
        }
    };
    let Written { train_tokens, validation_tokens, skipped, shards } = written;
    let tokens = train_tokens + validation_tokens;
    if json {
        return output::json(&json!({
            "tokens": tokens,
            "train_tokens": train_tokens,
            "val_tokens": validation_tokens,
            "skipped_documents": skipped,
            "shards": shards.iter().map(|shard| shard.to_string_lossy()).collect::<Vec<_>>(),
        }));
    }
    output::line(format!("{} tokens", output::thousands(tokens)));
    if skipped > 0 {
        output::line(format!("{} bad documents left out", output::thousands(skipped)));
    }
    for shard in shards {
        output::line(escaped_path(&shard));
    }
    Ok(())
}

/// Prints the ids of the only input, separated by spaces.
fn print_ids(args: &TokenizeArgs, tokenizer: &Tokenizer, json: bool) -> Result<()> {
    let [input] = &args.inputs[..] else { bail!("--ids requires one input") };
    if input.is_dir() {
        bail!("{}: a folder; --ids requires a file", escaped_path(input));
    }
    let tokens = Corpus::open(&[input], tokenizer, &args.documents, 0.0)?.train;
    let mut ids = vec![0; tokens.len()];
    tokens.read(0, &mut ids)?;
    if json {
        return output::json(&json!({ "ids": ids }));
    }
    output::line(ids.iter().map(i32::to_string).collect::<Vec<_>>().join(" "));
    Ok(())
}
