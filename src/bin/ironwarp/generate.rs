//! `ironwarp generate`: continue a prompt.

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
    /// A run, a checkpoint or a Hugging Face GPT-2 folder
    #[arg(long, value_name = "DIR")]
    model: PathBuf,
    /// Text to continue; '-' reads standard input; without it, the model starts after an end-of-text token
    #[arg(long, value_name = "TEXT", allow_hyphen_values = true)]
    prompt: Option<String>,
    /// Tokens to generate, at most; past the context, the model sees the last half of it and what follows
    #[arg(long, default_value_t = 100, value_name = "N")]
    max_tokens: usize,
    /// Spread of the draws; 0 takes the most likely token every time
    #[arg(long, default_value_t = 0.8, value_name = "T")]
    temperature: f32,
    /// Consider only the K most likely tokens; without it, all
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u64).range(1..))]
    top_k: Option<u64>,
    /// Consider only the most likely tokens that make up this share of the probability
    #[arg(long, default_value_t = 1.0, value_name = "P")]
    top_p: f32,
    /// Key of the draws
    #[arg(long, default_value_t = 0, value_name = "S")]
    seed: u64,
    /// Go on after an end-of-text token
    #[arg(long)]
    ignore_end: bool,
    /// Tokenizer, where the folder does not tell: gpt2 or bytes
    #[arg(long, value_name = "NAME")]
    tokenizer: Option<String>,
    /// auto, cpu, cuda, cuda:N or emulated
    #[arg(long, default_value = "auto")]
    device: Device,
}

#[derive(Debug, Serialize)]
struct Generated {
    prompt_tokens: usize,
    /// Ids of the new tokens.
    tokens: Vec<u32>,
    /// The new tokens as text, without an end-of-text token that ended it.
    text: String,
    /// Why it ended: `length` or `end_of_text`.
    finish: &'static str,
}

pub fn run(args: GenerateArgs, json: bool) -> Result<()> {
    if !(args.temperature.is_finite() && args.temperature >= 0.0) {
        bail!("--temperature must be a number from 0 up, not {}", args.temperature);
    }
    if !(args.top_p > 0.0 && args.top_p <= 1.0) {
        bail!("--top-p must be above 0 and at most 1, not {}", args.top_p);
    }
    on_backend!(args.device.open()?.0, backend => generate(args, json, backend))
}

fn generate<B: Backend>(args: GenerateArgs, json: bool, backend: B) -> Result<()> {
    let prompt = read_prompt(args.prompt)?;
    let model = Model::load(&args.model, args.tokenizer.as_deref(), backend)?;
    let tokenizer = &model.tokenizer;
    let prompt_ids = match &prompt {
        Some(text) => tokenizer.encode(text),
        None => vec![tokenizer.end_of_text()],
    };
    let ids: Vec<i32> = prompt_ids.iter().map(|&id| id as i32).collect();
    let mut generator = Generator::new(model.gpt2(), &ids)?;
    let top_k = args.top_k.map_or(usize::MAX, |k| usize::try_from(k).unwrap_or(usize::MAX));
    let sampling = Sampling { temperature: args.temperature, top_k, top_p: args.top_p, seed: args.seed };

    let mut decoder = tokenizer.decoder();
    let mut tokens = Vec::new();
    let mut text = String::new();
    let mut show = |piece: String| {
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
        // Ids past the tokenizer's are padding that a model may have been trained with.
        tokens.push(token as u32);
        if token as u32 == tokenizer.end_of_text() && !args.ignore_end {
            break "end_of_text";
        }
        show(decoder.push(token as u32));
        generator.push(token)?;
    };
    show(decoder.finish());
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
