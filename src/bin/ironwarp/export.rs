//! `ironwarp export`: exports a model as a Hugging Face folder.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;
use ironwarp::model::hugging_face;
use ironwarp::train::checkpoint::load_model_folder;
use serde_json::json;

use crate::output;

#[derive(Debug, Args)]
pub struct ExportArgs {
    /// Model: a run folder, a checkpoint folder or a Hugging Face GPT-2 folder
    #[arg(value_name = "DIR")]
    model: PathBuf,
    /// Folder to create, with config.json and model.safetensors
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

pub fn run(args: ExportArgs, json: bool) -> Result<()> {
    let (weights, tokenizer) = load_model_folder(&args.model)?;
    hugging_face::export(&weights, tokenizer.as_deref(), &args.out)?;
    let parameters = weights.config.parameters();
    if json {
        return output::json(&json!({"out": args.out, "parameters": parameters}));
    }
    output::line(format!("{} parameters in {}", output::thousands(parameters as u64), args.out.display()));
    Ok(())
}
