//! `ironwarp train`.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context, Result, bail};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args};
use indicatif::ProgressBar;
use ironwarp::Error;
use ironwarp::model::activations::Recompute;
use ironwarp::model::config::Config;
use ironwarp::model::init;
use ironwarp::model::plan::MemoryPlan;
use ironwarp::text::corpus::Corpus;
use ironwarp::text::embedded;
use ironwarp::text::tokenizer::Tokenizer;
use ironwarp::train::checkpoint::{self, Loaded, RunFolder, load_model_folder};
use ironwarp::train::data::Order;
use ironwarp::train::metrics::Record;
use ironwarp::train::run::{End, Observer, Run, RunState, Settings, check_tokens};
use ironwarp::train::schedule::{Decay, Schedule};
use ironwarp::train::trainer::Optimizer;
use serde::de::DeserializeOwned;
use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::flag;

use crate::device::{self, Device, Runs, choose_tokenizer, on_backend};
use crate::{Status, output};

/// Exit status of a second signal, SIGINT or SIGTERM: what a shell reports for the first of them.
const KILLED: i32 = 130;

#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Preset (tiny, gpt2-124M, gpt3-1.3B, d6 … d48, …) or a TOML file with context, vocab, layers, heads, channels
    #[arg(long, default_value = "tiny", value_name = "NAME|FILE", help_heading = "Model")]
    model: String,
    /// Start from the weights of a run, a checkpoint or a Hugging Face GPT-2 folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "resume"], help_heading = "Model")]
    init_from: Option<PathBuf>,
    /// gpt2 or bytes; without it, the one with the model's vocabulary
    #[arg(long, value_name = "NAME", help_heading = "Model")]
    tokenizer: Option<String>,

    /// Text, JSONL or shard file, or a folder of them; without it, the embedded corpus: this project's sources
    #[arg(long, value_name = "FILE|DIR", help_heading = "Data")]
    data: Option<PathBuf>,
    /// Order of the data: windows in a seeded order, each once an epoch, or one after the other as llm.c does
    #[arg(long, default_value = "shuffled", value_parser = one_of::<Order>(["shuffled", "sequential"]), value_name = "ORDER", help_heading = "Data")]
    order: Order,
    /// Last part of the data that is kept for validation, where it has no validation files of its own
    #[arg(long, default_value_t = 0.05, value_name = "F", help_heading = "Data")]
    val_fraction: f64,

    /// Run folder: checkpoints, metrics.jsonl, loss.svg [default: runs/<model>]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    out: Option<PathBuf>,
    /// Go on from the newest checkpoint in --out, with its settings but for the flags given
    #[arg(long, conflicts_with = "overwrite", help_heading = "Run")]
    resume: bool,
    /// Start over in --out: its checkpoints, metrics and curve are removed
    #[arg(long, help_heading = "Run")]
    overwrite: bool,
    /// auto, cpu, cuda, cuda:N or emulated
    #[arg(long, default_value = "auto", help_heading = "Run")]
    device: Device,
    /// Of the initial weights, the order of the data and the samples
    #[arg(long, default_value_t = 1337, value_name = "S", help_heading = "Run")]
    seed: u64,
    /// Steps between validations; 0 for none
    #[arg(long, default_value_t = 50, value_name = "N", help_heading = "Run")]
    val_every: u64,
    /// Micro-batches in a validation, at most
    #[arg(long, default_value_t = 20, value_name = "N", help_heading = "Run")]
    val_batches: usize,
    /// Steps between samples; 0 for none
    #[arg(long, default_value_t = 0, value_name = "N", help_heading = "Run")]
    sample_every: u64,
    /// Tokens in a sample
    #[arg(long, default_value_t = 256, value_name = "N", help_heading = "Run")]
    sample_tokens: usize,
    /// Steps between checkpoints; 0 for the last alone
    #[arg(long, default_value_t = 200, value_name = "N", help_heading = "Run")]
    save_every: u64,
    /// Newest checkpoints that are kept
    #[arg(long, default_value_t = 2, value_name = "N", help_heading = "Run")]
    keep: usize,
    /// Activations that the backward computes again to save memory
    #[arg(long, default_value = "none", value_parser = one_of::<Recompute>(["none", "gelu", "layernorm"]), value_name = "WHAT", help_heading = "Run")]
    recompute: Recompute,

    /// Optimizer steps
    #[arg(long, default_value_t = 300, value_name = "N", help_heading = "Optimization")]
    steps: u64,
    /// Sequences in a micro-batch
    #[arg(long, default_value_t = 8, value_name = "B", help_heading = "Optimization")]
    batch: usize,
    /// Tokens in a sequence; without it, the model's context
    #[arg(long, value_name = "T", help_heading = "Optimization")]
    context: Option<usize>,
    /// Micro-batches in a step
    #[arg(long, default_value_t = 1, value_name = "N", help_heading = "Optimization")]
    accumulate: usize,
    /// Peak learning rate
    #[arg(long, default_value_t = 6e-4, value_name = "LR", help_heading = "Optimization")]
    lr: f32,
    /// Course of the learning rate after the warmup
    #[arg(long, default_value = "cosine", value_parser = one_of::<Decay>(["cosine", "linear", "constant", "wsd"]), value_name = "COURSE", help_heading = "Optimization")]
    schedule: Decay,
    /// Steps of linear warmup
    #[arg(long, default_value_t = 20, value_name = "N", help_heading = "Optimization")]
    warmup: u64,
    /// Learning rate at the end, as a fraction of the peak
    #[arg(long, default_value_t = 0.1, value_name = "F", help_heading = "Optimization")]
    final_lr_fraction: f32,
    /// Share of the steps over which the wsd schedule decays
    #[arg(long, default_value_t = 0.2, value_name = "F", help_heading = "Optimization")]
    wsd_fraction: f32,
    /// AdamW's decay of the first moment
    #[arg(long, default_value_t = Optimizer::default().beta1, value_name = "X", help_heading = "Optimization")]
    beta1: f32,
    /// AdamW's decay of the second moment
    #[arg(long, default_value_t = Optimizer::default().beta2, value_name = "X", help_heading = "Optimization")]
    beta2: f32,
    /// AdamW's ε
    #[arg(long, default_value_t = Optimizer::default().eps, value_name = "X", help_heading = "Optimization")]
    eps: f32,
    /// Decoupled weight decay of the 2-D tensors
    #[arg(long, default_value_t = Optimizer::default().weight_decay, value_name = "X", help_heading = "Optimization")]
    weight_decay: f32,
    /// Largest global gradient norm; 0 for no clipping
    #[arg(long, default_value_t = Optimizer::default().grad_clip, value_name = "X", help_heading = "Optimization")]
    grad_clip: f32,
    /// Skip a step whose loss is this many standard deviations above the last 128; 0 for never
    #[arg(long, default_value_t = Optimizer::default().skip_loss_z, value_name = "Z", help_heading = "Optimization")]
    skip_loss_z: f32,
    /// Skip a step whose gradient norm is this many standard deviations above the last 128; 0 for never
    #[arg(long, default_value_t = Optimizer::default().skip_norm_z, value_name = "Z", help_heading = "Optimization")]
    skip_norm_z: f32,
}

/// Parses a flag whose values are the serialised names of `T`.
fn one_of<T: DeserializeOwned + Clone + Send + Sync + 'static>(
    names: impl IntoIterator<Item = &'static str>,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(names).try_map(|name| serde_json::from_value(name.into()))
}

impl TrainArgs {
    /// The settings that the flags say, for a model.
    fn settings(&self, model: Config, tokenizer: &Tokenizer) -> Settings {
        Settings {
            model,
            tokenizer: tokenizer.name().to_string(),
            // Absolute, so that a run can be resumed from another folder.
            data: self.data.as_ref().map(|path| std::path::absolute(path).unwrap_or_else(|_| path.clone())),
            batch: self.batch,
            context: self.context.unwrap_or(model.context),
            accumulate: self.accumulate,
            schedule: Schedule {
                decay: self.schedule,
                peak: self.lr,
                warmup: self.warmup,
                steps: self.steps,
                final_fraction: self.final_lr_fraction,
                wsd_fraction: self.wsd_fraction,
            },
            optimizer: Optimizer {
                beta1: self.beta1,
                beta2: self.beta2,
                eps: self.eps,
                weight_decay: self.weight_decay,
                grad_clip: self.grad_clip,
                skip_loss_z: self.skip_loss_z,
                skip_norm_z: self.skip_norm_z,
            },
            order: self.order,
            seed: self.seed,
            validation_fraction: self.val_fraction,
            val_every: self.val_every,
            val_batches: self.val_batches,
            sample_every: self.sample_every,
            sample_tokens: self.sample_tokens,
            save_every: self.save_every,
            keep: self.keep,
            recompute: self.recompute,
        }
    }
}

/// The saved settings with those of `flags` that were given on the command line.
fn merge(saved: Settings, flags: Settings, matches: &ArgMatches) -> Settings {
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    let mut merged = saved;
    macro_rules! take {
        ($($id:literal => $($field:ident).+,)*) => {$(
            if given($id) {
                merged.$($field).+ = flags.$($field).+;
            }
        )*};
    }
    take! {
        "data" => data,
        "order" => order,
        "val_fraction" => validation_fraction,
        "seed" => seed,
        "val_every" => val_every,
        "val_batches" => val_batches,
        "sample_every" => sample_every,
        "sample_tokens" => sample_tokens,
        "save_every" => save_every,
        "keep" => keep,
        "recompute" => recompute,
        "steps" => schedule.steps,
        "batch" => batch,
        "context" => context,
        "accumulate" => accumulate,
        "lr" => schedule.peak,
        "schedule" => schedule.decay,
        "warmup" => schedule.warmup,
        "final_lr_fraction" => schedule.final_fraction,
        "wsd_fraction" => schedule.wsd_fraction,
        "beta1" => optimizer.beta1,
        "beta2" => optimizer.beta2,
        "eps" => optimizer.eps,
        "weight_decay" => optimizer.weight_decay,
        "grad_clip" => optimizer.grad_clip,
        "skip_loss_z" => optimizer.skip_loss_z,
        "skip_norm_z" => optimizer.skip_norm_z,
    }
    merged
}

pub fn run(args: TrainArgs, matches: &ArgMatches, json: bool) -> Result<Status> {
    let stop = watch_signals()?;
    let (opened, choice) = args.device.open()?;
    if !json && let Some(choice) = choice {
        output::tell(choice);
    }
    on_backend!(opened, backend => train(prepare(backend, &args, matches)?, &stop, json))
}

/// The run that the flags ask for, begun or resumed.
fn prepare<B: Runs>(backend: B, args: &TrainArgs, matches: &ArgMatches) -> Result<Run<B>> {
    let out = args.out.clone().unwrap_or_else(|| default_out(args));
    if !args.resume && args.init_from.is_none() {
        // Before anything is made for a model that there is not, or that does not fit.
        let config = read_config(&args.model)?;
        check_memory(&backend, &args.settings(config, &Tokenizer::bytes()), 0)?;
    }
    if args.resume && !out.join("checkpoints").is_dir() {
        bail!("{}: no run to resume; there is no checkpoints folder", out.display());
    }
    let folder = RunFolder::open(&out)?;
    if args.resume {
        let Some(loaded) = checkpoint::load_newest::<RunState>(&out, None)? else {
            bail!("{}: no checkpoint to resume from", out.display());
        };
        let (settings, tokenizer) = resumed_settings(args, matches, &loaded)?;
        check_memory(&backend, &settings, 3 * size_of_val(&loaded.weights.data[..]))?;
        let corpus = open_corpus(&settings, &tokenizer)?;
        return Ok(Run::resume(backend, settings, loaded, corpus, tokenizer, folder)?);
    }
    if folder.has_checkpoints()? && !args.overwrite {
        bail!("{}: holds a run already; --resume goes on with it, --overwrite starts over", out.display());
    }
    let (weights, named) = match &args.init_from {
        Some(dir) => load_model_folder(dir)?,
        None => (init::random(read_config(&args.model)?, args.seed), None),
    };
    let tokenizer = choose_tokenizer(args.tokenizer.as_deref().or(named.as_deref()), &weights.config)?;
    let settings = args.settings(weights.config, &tokenizer);
    check_memory(&backend, &settings, size_of_val(&weights.data[..]))?;
    let corpus = open_corpus(&settings, &tokenizer)?;
    let run = Run::new(backend, settings, weights, corpus, tokenizer, folder)?;
    if args.overwrite {
        // Last, when nothing that was asked for can turn out wrong any more.
        run.clear_folder()?;
    }
    Ok(run)
}

fn train<B: Runs>(mut run: Run<B>, stop: &AtomicBool, json: bool) -> Result<Status> {
    let mut observer = Terminal::new(&run, json)?;
    let end = run.train(&|| stop.load(Ordering::Relaxed), &mut observer)?;
    observer.bar.finish_and_clear();
    if !json {
        if end == End::Done {
            match run.sample() {
                Ok(text) => output::tell(format!("\nsample:\n{text}\n")),
                // The run is saved, and has all it needed; anything else that fails is told by the exit status.
                Err(error @ Error::OutOfDeviceMemory(_)) => output::note(format!("no sample: {error}")),
                Err(error) => return Err(error.into()),
            }
        }
        observer.summary(&run);
    }
    if end == End::Stopped {
        let (done, steps) = (run.steps_done(), run.settings().schedule.steps);
        output::note(format!("stopped by a signal after step {done} of {steps}; saved, and --resume goes on"));
        return Ok(Status::StoppedAndSaved);
    }
    Ok(Status::Done)
}

/// A flag that the first SIGINT or SIGTERM raises; the second ends the process at once.
fn watch_signals() -> Result<Arc<AtomicBool>> {
    let stop = Arc::new(AtomicBool::new(false));
    for signal in [SIGINT, SIGTERM] {
        flag::register_conditional_shutdown(signal, KILLED, stop.clone()).context("cannot handle signals")?;
        flag::register(signal, stop.clone()).context("cannot handle signals")?;
    }
    Ok(stop)
}

fn default_out(args: &TrainArgs) -> PathBuf {
    let model = args.init_from.as_deref().unwrap_or(Path::new(&args.model));
    let name = model.file_name().and_then(|name| name.to_str()).unwrap_or("model");
    Path::new("runs").join(name.strip_suffix(".toml").unwrap_or(name))
}

fn plan<B: Runs>(settings: &Settings) -> Result<MemoryPlan> {
    let Settings { model, batch, context, recompute, .. } = settings;
    Ok(MemoryPlan::new::<B>(model, *batch, *context, *recompute)?)
}

/// Holds a run's memory plan against what the device has. `in_host` bytes are those of weights that were loaded.
fn check_memory<B: Runs>(backend: &B, settings: &Settings, in_host: usize) -> Result<()> {
    check_tokens(settings.batch, settings.context, settings.accumulate)?;
    device::check_memory(backend, &plan::<B>(settings)?, in_host as u64)
}

/// A preset, or a TOML file of sizes.
pub fn read_config(model: &str) -> Result<Config> {
    let path = Path::new(model);
    if path.extension().is_none_or(|extension| extension != "toml") {
        return Ok(Config::preset(model)?);
    }
    let text = std::fs::read_to_string(path).with_context(|| format!("cannot read {model}"))?;
    let config: Config = toml::from_str(&text).with_context(|| format!("{model} does not describe a model"))?;
    config.check().with_context(|| model.to_string())?;
    Ok(config)
}

fn resumed_settings(
    args: &TrainArgs,
    matches: &ArgMatches,
    loaded: &Loaded<RunState>,
) -> Result<(Settings, Tokenizer)> {
    let saved = loaded.state.settings.clone();
    let tokenizer = Tokenizer::by_name(&saved.tokenizer)?;
    let given = |id: &str| matches.value_source(id) == Some(ValueSource::CommandLine);
    if given("model") && read_config(&args.model)? != saved.model {
        let asked = read_config(&args.model)?;
        bail!("--model {} is {asked:?}, but the run to resume is {:?}", args.model, saved.model);
    }
    if args.tokenizer.as_deref().is_some_and(|name| name != saved.tokenizer) {
        bail!("the run to resume was trained with the tokenizer '{}'", saved.tokenizer);
    }
    let flags = args.settings(saved.model, &tokenizer);
    let merged = merge(saved.clone(), flags, matches);
    // The place in the data means nothing in another order.
    if (merged.order, merged.context, merged.seed) != (saved.order, saved.context, saved.seed) {
        bail!(
            "--order, --context and --seed cannot change on --resume: the run has {:?}, {} and {}",
            saved.order,
            saved.context,
            saved.seed
        );
    }
    Ok((merged, tokenizer))
}

fn open_corpus(settings: &Settings, tokenizer: &Tokenizer) -> Result<Corpus> {
    let fraction = settings.validation_fraction;
    Ok(match &settings.data {
        Some(path) => Corpus::open(path, tokenizer, fraction)?,
        None => Corpus::from_text("the embedded corpus", &embedded::sources(), tokenizer, fraction)?,
    })
}

/// Tells a person, or a program that reads JSON, how the run goes.
struct Terminal {
    json: bool,
    bar: ProgressBar,
    first_loss: Option<f32>,
    last_loss: Option<f32>,
    val_loss: Option<f32>,
    checkpoint: Option<PathBuf>,
}

impl Terminal {
    fn new<B: Runs>(run: &Run<B>, json: bool) -> Result<Self> {
        let settings = run.settings();
        let bar = output::progress(settings.schedule.steps, "steps");
        bar.set_position(run.steps_done());
        bar.reset_eta();
        if !json {
            let tokens = settings.batch * settings.context * settings.accumulate;
            output::tell(format!(
                "{} parameters, {} tokens a step, {} tokens an epoch",
                output::thousands(settings.model.parameters() as u64),
                output::thousands(tokens as u64),
                output::thousands(run.epoch_tokens() as u64),
            ));
            let plan = plan::<B>(settings)?;
            output::tell(format!("memory {}: {}", output::bytes(plan.total()), device::parts(&plan)));
        }
        Ok(Terminal { json, bar, first_loss: None, last_loss: None, val_loss: None, checkpoint: None })
    }

    /// A line above the bar.
    fn line(&self, text: String) {
        self.bar.suspend(|| output::tell(text));
    }

    fn summary<B: Runs>(&self, run: &Run<B>) {
        let show = |loss: Option<f32>| loss.map_or("none".to_string(), |loss| format!("{loss:.4}"));
        output::tell(format!("loss        {} -> {}", show(self.first_loss), show(self.last_loss)));
        output::tell(format!("validation  {}", show(self.val_loss)));
        if let Some(peak) = run.trainer().backend().peak() {
            output::tell(format!("memory      {} at most", output::bytes(peak)));
        }
        output::tell(format!("curve       {}", run.curve().display()));
        if let Some(path) = &self.checkpoint {
            output::tell(format!("checkpoint  {}", path.display()));
        }
    }
}

impl Observer for Terminal {
    fn step(&mut self, record: &Record) {
        self.first_loss = self.first_loss.or(record.loss);
        self.last_loss = record.loss;
        self.val_loss = record.val_loss.or(self.val_loss);
        self.bar.set_position(record.step);
        let speed = record.tokens_per_second;
        self.bar.set_message(format!(", loss {:.4}, {speed:.0} tokens/s", record.loss.unwrap_or(f32::NAN)));
        if self.json {
            // The fields are numbers and text, which always make JSON.
            self.line(serde_json::to_string(record).unwrap_or_default());
        } else if record.val_loss.is_some() || record.step == 1 {
            let val = record.val_loss.map_or(String::new(), |val| format!("  validation {val:.4}"));
            let loss = record.loss.unwrap_or(f32::NAN);
            self.line(format!(
                "step {:>6}  loss {loss:.4}{val}  lr {:.2e}  {speed:.0} tokens/s",
                record.step, record.lr
            ));
        }
    }

    fn sample(&mut self, step: u64, text: &str) {
        let text = format!("--- sample at step {step}\n{text}\n---");
        if self.json {
            self.bar.suspend(|| output::note(&text));
        } else {
            self.line(text);
        }
    }

    fn saved(&mut self, _step: u64, path: &Path) {
        self.checkpoint = Some(path.to_path_buf());
    }
}
