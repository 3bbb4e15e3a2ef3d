//! `ironwarp tokenizer`: makes tokenizers.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Args, Subcommand};
use ironwarp::message::escaped_path;
use ironwarp::text::documents::DocumentOptions;
use ironwarp::text::tokenizer_training::{Texts, check_folder, check_vocab, read, save, train};
use serde_json::json;

use crate::output;

#[derive(Debug, Args)]
pub struct TokenizerArgs {
    #[command(subcommand)]
    command: TokenizerCommand,
}

#[derive(Debug, Subcommand)]
enum TokenizerCommand {
    /// Train a tokenizer on texts: byte-level BPE as GPT-2's
    Train(TrainArgs),
}

#[derive(Debug, Args)]
struct TrainArgs {
    /// Files of text, JSONL, JSON or Parquet
    #[arg(required = true, value_name = "INPUT")]
    inputs: Vec<PathBuf>,
    /// Number of tokens (V), of which 256 are bytes and one ends a text
    #[arg(long, value_name = "N")]
    vocab: usize,
    /// Folder to create, with tokenizer.json and tokenizer_config.json, for --tokenizer
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    #[command(flatten)]
    documents: DocumentOptions,
}

pub fn run(args: TokenizerArgs, json: bool) -> Result<()> {
    let TokenizerCommand::Train(TrainArgs { inputs, vocab, out, documents }) = args.command;
    // Checked before the texts are read, which may take long.
    check_vocab(vocab)?;
    check_folder(&out)?;
    let Texts { documents: texts, skipped } = read(&inputs, &documents)?;
    let tokenizer = train(&texts, vocab)?;
    let found = tokenizer.vocab();
    if found < vocab {
        output::note(format!(
            "{} tokens instead of {}: after these, no pair of tokens occurs twice in the texts",
            output::thousands(found as u64),
            output::thousands(vocab as u64)
        ));
    }
    save(&tokenizer, &out)?;
    let bytes: usize = texts.iter().map(String::len).sum();
    let mut tokens = 0;
    for text in &texts {
        tokens += tokenizer.encode_ids(text)?.len();
    }
    let bytes_per_token = bytes as f64 / tokens as f64;
    if json {
        return output::json(&json!({
            "vocab": found,
            "documents": texts.len(),
            "skipped_documents": skipped,
            "bytes": bytes,
            "tokens": tokens,
            "bytes_per_token": bytes_per_token,
            "out": out.to_string_lossy(),
        }));
    }
    output::line(format!("vocabulary  {} tokens", output::thousands(found as u64)));
    if skipped > 0 {
        output::line(format!("left out    {} bad documents", output::thousands(skipped)));
    }
    output::line(format!(
        "texts       {} bytes, {} tokens, {bytes_per_token:.2} bytes per token",
        output::thousands(bytes as u64),
        output::thousands(tokens as u64)
    ));
    output::line(format!("tokenizer   {}", escaped_path(&out)));
    Ok(())
}
