//! `ironwarp info`: devices, and what a model needs.

use std::path::Path;

use anyhow::{Result, bail};
use clap::Args;
use ironwarp::cpu::Cpu;
use ironwarp::model::activations::Recompute;
use ironwarp::model::config::Config;
use ironwarp::model::plan::MemoryPlan;
use ironwarp::train::checkpoint::load_model_folder;
use ironwarp::train::run::check_tokens;
use serde_json::json;

use crate::device::Device;
use crate::output;
use crate::train::read_config;

#[derive(Debug, Args)]
pub struct InfoArgs {
    /// GPU to look for besides the CPU: auto, cuda, cuda:N, emulated; or cpu for none
    #[arg(long, default_value = "auto", value_name = "DEVICE", conflicts_with = "model")]
    device: Device,
    /// Preset, TOML file, or model folder to describe
    #[arg(long, value_name = "NAME|FILE|DIR")]
    model: Option<String>,
    /// Sequences in a micro-batch
    #[arg(long, default_value_t = 4, value_name = "B")]
    batch: usize,
    /// Tokens in a sequence; without it, the model's context
    #[arg(long, value_name = "T")]
    context: Option<usize>,
}

pub fn run(args: InfoArgs, json: bool) -> Result<()> {
    let threads = rayon::current_num_threads();
    let Some(model) = &args.model else {
        let gpu = args.device.gpu();
        if args.device != Device::Auto && gpu.is_err() {
            // Asked for by name, it must be there.
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
        return Ok(());
    };
    let config = if Path::new(model).is_dir() { load_model_folder(model)?.0.config } else { read_config(model)? };
    let context = args.context.unwrap_or(config.context);
    check_tokens(args.batch, context, 1)?;
    if context > config.context {
        bail!("--context {context} is more than the model's context of {}", config.context);
    }
    let plans = [Recompute::None, Recompute::Gelu, Recompute::Layernorm]
        .map(|recompute| (recompute, MemoryPlan::new::<Cpu<f32>>(&config, args.batch, context, recompute)));
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
            "batch": args.batch,
            "context": context,
            "memory": by_recompute,
        }));
    }
    let Config { context: t, vocab, layers, heads, channels } = config;
    output::line(format!("{} parameters", output::thousands(config.parameters() as u64)));
    output::line(format!("L = {layers}, NH = {heads}, C = {channels}, T = {t}, V = {vocab}"));
    output::line(format!("\nmemory of a training step on the CPU in f32, B = {}, T = {context}", args.batch));
    output::line(format!("{:<22}{:>14}{:>14}{:>14}", "--recompute", "none", "gelu", "layernorm"));
    let plans = plans.into_iter().map(|(_, plan)| plan).collect::<Result<Vec<_>, _>>()?;
    let row = |name: &str, value: fn(&MemoryPlan) -> u64| {
        let cells: String = plans.iter().map(|plan| format!("{:>14}", output::bytes(value(plan)))).collect();
        output::line(format!("{name:<22}{cells}"));
    };
    row("weights", |p| p.weights.saturating_add(p.master));
    row("gradients", |p| p.gradients);
    row("moments", |p| p.moments);
    row("activations", |p| p.activations);
    row("activation gradients", |p| p.activation_gradients);
    row("total", MemoryPlan::total);
    Ok(())
}
