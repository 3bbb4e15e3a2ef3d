//! `ironwarp info`: shows devices, and the requirements of a model.

use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;
#[cfg(feature = "cuda")]
use ironwarp::cuda::Cuda;
use ironwarp::memory::Category;
use ironwarp::model::activations::Recompute;
use ironwarp::model::config::Config;
use ironwarp::model::plan::MemoryPlan;
use ironwarp::train::checkpoint::load_model_folder;
use ironwarp::train::settings::check_tokens;
use serde_json::json;

use crate::device::{Device, Runs, on_backend};
use crate::model_file::read_config;
use crate::output;

#[derive(Debug, Args)]
pub struct InfoArgs {
    /// Device to show, or to plan the memory of --model for: auto, cpu, cuda, cuda:N or emulated
    #[arg(long, default_value = "auto", value_name = "DEVICE")]
    device: Device,
    /// Model to describe: a preset, a TOML file or a model folder
    #[arg(long, value_name = "NAME|FILE|DIR")]
    model: Option<String>,
    /// Sequences per micro-batch
    #[arg(long, default_value_t = 4, value_name = "B")]
    batch: usize,
    /// Tokens per sequence [default: the model's context]
    #[arg(long, value_name = "T")]
    context: Option<usize>,
}

pub fn run(args: InfoArgs, json: bool) -> Result<()> {
    let Some(model) = &args.model else { return devices(args.device, json) };
    let config = if Path::new(model).is_dir() { load_model_folder(model)?.0.config } else { read_config(model)? };
    let context = args.context.unwrap_or(config.context);
    check_tokens(args.batch, context, 1)?;
    if context > config.context {
        bail!("--context {context} is more than the model's context of {}", config.context);
    }
    // A memory plan for a GPU does not need the GPU.
    #[cfg(feature = "cuda")]
    if matches!(args.device, Device::Cuda(_) | Device::Emulated) {
        return describe::<Cuda>(&config, args.batch, context, json);
    }
    on_backend!(args.device.open()?.0, backend => describe_on(&backend, &config, args.batch, context, json))
}

fn devices(device: Device, json: bool) -> Result<()> {
    let threads = rayon::current_num_threads();
    let gpu = device.gpu();
    if device != Device::Auto && gpu.is_err() {
        // A device that is requested by name must exist.
        return gpu.map(drop);
    }
    if json {
        return output::json(&json!({
            "version": env!("CARGO_PKG_VERSION"),
            "devices": [{"name": "cpu", "threads": threads}],
            "gpu": gpu.as_ref().ok(),
            "no_gpu": gpu.as_ref().err().map(ToString::to_string),
            "presets": Config::preset_names().collect::<Vec<_>>(),
        }));
    }
    output::line(format!("ironwarp {}", env!("CARGO_PKG_VERSION")));
    output::line(format!("device cpu  f32, {threads} threads"));
    match gpu {
        Ok(Some(gpu)) => output::line(format!("device gpu  {gpu}")),
        Ok(None) if cfg!(feature = "cuda") => {}
        Ok(None) => output::line("no CUDA in this build"),
        Err(why) => output::line(why.to_string()),
    }
    output::line(format!("presets     {}", Config::preset_names().collect::<Vec<_>>().join(", ")));
    Ok(())
}

/// [`describe`], with the backend type inferred from a value.
fn describe_on<B: Runs>(_: &B, config: &Config, batch: usize, context: usize, json: bool) -> Result<()> {
    describe::<B>(config, batch, context, json)
}

/// Prints the sizes of a model, and the memory of a training step for each choice of activation recomputation.
fn describe<B: Runs>(config: &Config, batch: usize, context: usize, json: bool) -> Result<()> {
    let plans = [Recompute::None, Recompute::Gelu, Recompute::Layernorm]
        .map(|recompute| (recompute, MemoryPlan::new::<B>(config, batch, context, recompute)));
    if json {
        let mut by_recompute = serde_json::Map::new();
        for (recompute, plan) in plans {
            let plan = plan?;
            let mut value = serde_json::to_value(plan)?;
            value["total"] = plan.total().into();
            by_recompute.insert(format!("{recompute:?}").to_lowercase(), value);
        }
        return output::json(&json!({
            "model": config,
            "parameters": config.parameters(),
            "batch": batch,
            "context": context,
            "device": B::NAME,
            "memory": by_recompute,
        }));
    }
    let Config { context: t, vocab, layers, heads, channels } = config;
    output::line(format!("{} parameters", output::thousands(config.parameters() as u64)));
    output::line(format!("L = {layers}, NH = {heads}, C = {channels}, T = {t}, V = {vocab}"));
    output::line(format!("\nmemory of a training step on {}, B = {batch}, T = {context}", B::DESCRIPTION));
    output::line(format!("{:<22}{:>14}{:>14}{:>14}", "--recompute", "none", "gelu", "layernorm"));
    let plans = plans.into_iter().map(|(_, plan)| plan).collect::<Result<Vec<_>, _>>()?;
    let row = |name: &str, value: &dyn Fn(&MemoryPlan) -> u64| {
        let cells: String = plans.iter().map(|plan| format!("{:>14}", output::bytes(value(plan)))).collect();
        output::line(format!("{name:<22}{cells}"));
    };
    for (index, category) in Category::ALL.into_iter().enumerate() {
        row(&category.to_string(), &|plan| plan.by_category()[index].1);
    }
    row("total", &MemoryPlan::total);
    Ok(())
}
