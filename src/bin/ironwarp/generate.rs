//! `ironwarp generate`: continues a prompt.

use std::io::Read;
use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use clap::Args;
use ironwarp::model::generate::{Generator, Sampling};
use ironwarp::ops::Backend;
use serde::Serialize;

use crate::device::{Device, Model, on_backend};
use crate::output;

#[derive(Debug, Args)]
pub struct GenerateArgs {
    /// Model: a run folder, a checkpoint folder or a Hugging Face GPT-2 folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Prompt; '-' reads it from standard input [default: an end-of-text token]
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Maximum number of tokens to generate; when the context is full, generation continues from its last half
    #[arg(long, default_value_t = 100, value_name = "N")]
    max_tokens: usize,
    /// Sampling temperature; 0: always the most likely token
    #[arg(long, default_value_t = 0.8, value_name = "T")]
    temperature: f32,
    /// Sample from the K most likely tokens [default: all]
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    top_k: Option<u64>,
    /// Sample from the smallest set of most likely tokens with total probability P (nucleus sampling)
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    top_p: f32,
    /// RNG seed
    #[arg(long, default_value_t = 0, value_name = "SEED")]
    seed: u64,
    /// Do not stop at an end-of-text token
    #[arg(long)]
    ignore_end: bool,
    /// Tokenizer: gpt2, bytes, a tokenizer.json or a folder with a tokenizer [default: that of the model's folder]
    #[arg(long, value_name = "NAME|PATH")]
    tokenizer: Option<String>,
    /// Device: auto, cpu, cuda, cuda:N or emulated
    #[arg(long, default_value = "auto")]
    device: Device,
}

#[derive(Debug, Serialize)]
struct Generated {
    prompt_tokens: usize,
    /// Ids of the new tokens.
    tokens: Vec<u32>,
    /// The new tokens as text, without a final end-of-text token.
    text: String,
    /// Why generation ended: `length` or `end_of_text`.
    finish: &'static str,
}

pub fn run(args: GenerateArgs, json: bool) -> Result<()> {
    if !(args.temperature.is_finite() && args.temperature >= 0.0) {
        bail!("--temperature must be finite and at least 0, not {}", args.temperature);
    }
    if !(args.top_p > 0.0 && args.top_p <= 1.0) {
        bail!("--top-p must be above 0 and at most 1, not {}", args.top_p);
    }
    on_backend!(args.device.open()?.0, backend => generate(args, json, backend))
}

fn generate<B: Backend>(args: GenerateArgs, json: bool, backend: B) -> Result<()> {
    let prompt = read_prompt(args.prompt)?;
    let model = Model::load(&args.model, args.tokenizer.as_deref(), backend)?;
    let tokenizer = model.tokenizer()?;
    let prompt_ids = match &prompt {
        Some(text) => tokenizer.encode(text)?,
        None => vec![tokenizer.end_of_text()],
    };
    let ids: Vec<i32> = prompt_ids.iter().map(|&id| id as i32).collect();
    let mut generator = Generator::new(model.gpt2(), &ids)?;
    let top_k = args.top_k.map_or(usize::MAX, |k| usize::try_from(k).unwrap_or(usize::MAX));
    let sampling = Sampling { temperature: args.temperature, top_k, top_p: args.top_p, seed: args.seed };

    let mut decoder = tokenizer.decoder();
    let mut tokens = Vec::new();
    let mut text = String::new();
    let mut emit = |piece: String| {
        if !json {
            output::print(&piece);
        }
        text.push_str(&piece);
    };
    if !json {
        output::print(prompt.as_deref().unwrap_or_default());
    }
    let finish = loop {
        if tokens.len() == args.max_tokens {
            break "length";
        }
        let token = generator.sample(sampling)?;
        // Ids beyond the tokenizer's vocabulary are possible if the model's vocabulary is larger.
        tokens.push(token as u32);
        if token as u32 == tokenizer.end_of_text() && !args.ignore_end {
            break "end_of_text";
        }
        emit(decoder.push(token as u32));
        generator.push(token)?;
    };
    emit(decoder.finish());
    if json {
        output::json(&Generated { prompt_tokens: ids.len(), tokens, text, finish })?;
    } else {
        output::line("");
    }
    Ok(())
}

fn read_prompt(prompt: Option<String>) -> Result<Option<String>> {
    if prompt.as_deref() != Some("-") {
        return Ok(prompt);
    }
    let mut bytes = Vec::new();
    std::io::stdin().read_to_end(&mut bytes).context("cannot read the prompt from standard input")?;
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Some(text)),
        Err(e) => bail!("the prompt on standard input is not UTF-8 at byte {}", e.utf8_error().valid_up_to()),
    }
}
