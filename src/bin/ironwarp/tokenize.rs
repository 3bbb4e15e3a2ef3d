//! `ironwarp tokenize`: converts text to token shards.

use std::path::PathBuf;

use anyhow::{Result, bail};
use clap::Args;
use ironwarp::text::corpus::Corpus;
use ironwarp::text::tokenize::{Options, Written, tokenize};
use ironwarp::text::tokenizer::Tokenizer;
use serde_json::json;

use crate::output;

#[derive(Debug, Args)]
pub struct TokenizeArgs {
    /// Text or JSONL files
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
            let options = Options { shard_tokens: args.shard_tokens, validation_fraction: args.val_fraction };
            tokenize(&args.inputs, out, &tokenizer, &options)?
        }
        None => {
            let [input] = &args.inputs[..] else { bail!("several inputs require --out DIR") };
            let tokens = Corpus::open(input, &tokenizer, 0.0)?.train.len() as u64;
            Written { train_tokens: tokens, ..Written::default() }
        }
    };
    let Written { train_tokens, validation_tokens, shards } = written;
    let tokens = train_tokens + validation_tokens;
    if json {
        return output::json(&json!({
            "tokens": tokens,
            "train_tokens": train_tokens,
            "val_tokens": validation_tokens,
            "shards": shards,
        }));
    }
    output::line(format!("{} tokens", output::thousands(tokens)));
    for shard in shards {
        output::line(shard.display().to_string());
    }
    Ok(())
}

/// Prints the ids of the only input, separated by spaces.
fn print_ids(args: &TokenizeArgs, tokenizer: &Tokenizer, json: bool) -> Result<()> {
    let [input] = &args.inputs[..] else { bail!("--ids requires one input") };
    let tokens = Corpus::open(input, tokenizer, 0.0)?.train;
    let mut ids = vec![0; tokens.len()];
    tokens.read(0, &mut ids)?;
    if json {
        return output::json(&json!({ "ids": ids }));
    }
    output::line(ids.iter().map(i32::to_string).collect::<Vec<_>>().join(" "));
    Ok(())
}
