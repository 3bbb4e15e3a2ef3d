//! `ironwarp export`: exports a model as a Hugging Face folder.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use ironwarp::message::escaped_path;
use ironwarp::model::hugging_face;
use ironwarp::text::tokenizer::Tokenizer;
use ironwarp::train::checkpoint::load_model_folder;
use serde_json::json;

use crate::device::choose_tokenizer;
use crate::output;

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Model: a run folder, a checkpoint folder or a Hugging Face GPT-2 folder
    #[arg(value_name = "DIR")]
    model: PathBuf,
    /// Folder to create, with config.json, model.safetensors and the files of the model's tokenizer
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Tokenizer: gpt2, bytes, a tokenizer.json or a folder with a tokenizer [default: that of the model's folder]
    #[arg(long, value_name = "NAME|PATH")]
    tokenizer: Option<String>,
}

pub fn run(args: ExportArgs, json: bool) -> Result<()> {
    let (weights, tokenizer) = load_model_folder(&args.model)?;
    let tokenizer = match (tokenizer, &args.tokenizer) {
        (tokenizer, Some(given)) => Some(choose_tokenizer(Some(given), tokenizer, &weights.config)?),
        (Ok(tokenizer), None) => Some(choose_tokenizer(None, Ok(tokenizer), &weights.config)?),
        (Err(error), None) => {
            output::note(format!("exported without a tokenizer; choose one with --tokenizer: {error}"));
            None
        }
    };
    let files = tokenizer.as_ref().map(Tokenizer::files).unwrap_or_default();
    match &tokenizer {
        Some(tokenizer) if !files.is_empty() => {
            hugging_face::export_with_tokenizer(&weights, &files, tokenizer.end_of_text(), &args.out)?;
        }
        tokenizer => hugging_face::export(&weights, tokenizer.as_ref().map(Tokenizer::name), &args.out)?,
    }
    let parameters = weights.config.parameters();
    if json {
        return output::json(&json!({"out": args.out.to_string_lossy(), "parameters": parameters}));
    }
    output::line(format!("{} parameters in {}", output::thousands(parameters as u64), escaped_path(&args.out)));
    Ok(())
}
