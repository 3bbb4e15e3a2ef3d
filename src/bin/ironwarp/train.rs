//! `ironwarp train`.

use std::ops::Range;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};
use clap::parser::ValueSource;
use clap::{ArgMatches, Args, FromArgMatches};
use indicatif::{HumanDuration, ProgressBar};
use ironwarp::Error;
use ironwarp::cpu::Cpu;
use ironwarp::message::{escaped_path, printable};
use ironwarp::model::config::Config;
use ironwarp::model::init;
use ironwarp::model::plan::MemoryPlan;
use ironwarp::text::corpus::{Corpus, Vocabulary, first_text};
use ironwarp::text::embedded;
use ironwarp::text::tokenizer::Tokenizer;
use ironwarp::train::checkpoint::{self, Loaded, load_model_folder};
use ironwarp::train::metrics::Record;
use ironwarp::train::run::{End, Observer, Run, RunState};
use ironwarp::train::settings::{RunOptions, Settings, check_tokens};

use crate::device::{self, Device, Runs, find_tokenizer, on_backend, tokenizer_of_size};
use crate::model_file::read_config;
use crate::next::NextSteps;
use crate::stop::Stop;
use crate::{data, output, recipe};

/// Time between lines of progress if there is no progress bar.
const LOG_INTERVAL: Duration = Duration::from_secs(10);

/// A run on a CPU that will take longer than this is announced with a warning.
const LONG_RUN: Duration = Duration::from_secs(3 * 3600);

#[derive(Debug, Args)]
pub struct TrainArgs {
    /// Model preset (tiny, gpt2-124M, gpt3-1.3B, d6 … d48, …), or a TOML file with the keys context, vocab, layers, heads
    /// and channels; some defaults below depend on it
    #[arg(long, default_value = "tiny", value_name = "NAME|FILE", help_heading = "Model")]
    model: String,
    /// Start from the weights of a run folder, a checkpoint folder or a Hugging Face GPT-2 folder
    #[arg(long, value_name = "DIR", conflicts_with_all = ["model", "resume"], help_heading = "Model")]
    init_from: Option<PathBuf>,
    /// Tokenizer: gpt2, bytes, a tokenizer.json or a folder with a tokenizer [default: that of --init-from, otherwise the
    /// one of gpt2 and bytes with the model's vocabulary size]
    #[arg(long, value_name = "NAME|PATH", help_heading = "Model")]
    tokenizer: Option<String>,

    /// Run folder, for checkpoints, metrics.jsonl and loss.svg [default: runs/<model>]
    #[arg(long, value_name = "DIR", help_heading = "Run")]
    out: Option<PathBuf>,
    /// Resume from the newest checkpoint in --out, with its settings; flags on the command line override them
    #[arg(long, conflicts_with = "overwrite", help_heading = "Run")]
    resume: bool,
    /// Start over in --out: delete its checkpoints, metrics and loss curve
    #[arg(long, help_heading = "Run")]
    overwrite: bool,
    /// List the files of --data with their documents and tokens, and stop before training
    #[arg(long, conflicts_with = "resume", help_heading = "Data")]
    data_dry_run: bool,
    /// Device: auto, cpu, cuda, cuda:N or emulated
    #[arg(long, default_value = "auto", help_heading = "Run")]
    device: Device,

    /// Steps between lines of progress; 0: only validations [default: a line every 10 seconds if standard error is not a
    /// terminal]
    #[arg(long, value_name = "N", help_heading = "Run")]
    log_every: Option<u64>,

    #[command(flatten)]
    options: RunOptions,
    /// Tokens per sequence [default: the model's context]
    #[arg(long, value_name = "T", help_heading = "Optimization", display_order = 0)]
    context: Option<usize>,
}

impl TrainArgs {
    /// The settings of a new run.
    fn settings(&self, model: Config, tokenizer: Option<&Tokenizer>) -> Settings {
        Settings {
            model,
            tokenizer: tokenizer.map(|tokenizer| tokenizer.name().to_string()),
            context: self.context.unwrap_or(model.context),
            options: self.options.clone(),
        }
    }
}

/// Whether the command line has the flag `id`.
pub fn is_given(matches: &ArgMatches, id: &str) -> bool {
    matches.value_source(id) == Some(ValueSource::CommandLine)
}

/// The settings of a resumed run: the saved ones, overridden by the flags on the command line.
fn resumed(saved: &Settings, args: &TrainArgs, matches: &ArgMatches) -> Result<Settings> {
    let mut given = matches.clone();
    for flag in matches.ids().filter(|flag| !is_given(matches, flag.as_str())) {
        given.try_clear_id(flag.as_str())?;
    }
    let mut settings = saved.clone();
    settings.options.update_from_arg_matches_mut(&mut given)?;
    settings.context = args.context.unwrap_or(saved.context);
    Ok(settings)
}

/// Trains, and returns whether the run is done or was stopped by a signal.
pub fn run(mut args: TrainArgs, matches: &ArgMatches, json: bool) -> Result<End> {
    if args.data_dry_run {
        list_data(&args, json)?;
        return Ok(End::Done);
    }
    if !args.resume && args.init_from.is_none() {
        let line = recipe::apply(&args.model, &mut args.options, |id| is_given(matches, id));
        line.filter(|_| !json).into_iter().for_each(output::tell);
    }
    args.options.check()?;
    let stop = Stop::watch()?;
    let (opened, choice) = args.device.open()?;
    if !json && let Some(choice) = choice {
        output::tell(choice);
    }
    on_backend!(opened, backend => train(prepare(backend, &args, matches, &stop, json)?, &args, matches, &stop, json))
}

/// Whether a run on this backend validates, or generates samples, though no flag says so. On the emulated GPU it does not,
/// because each takes minutes there.
fn by_default<B: Runs>(backend: &B, matches: &ArgMatches, flags: [&str; 2]) -> bool {
    !backend.is_emulated() || flags.into_iter().any(|flag| is_given(matches, flag))
}

/// Prepares the new or resumed run that the flags describe.
fn prepare<B: Runs>(backend: B, args: &TrainArgs, matches: &ArgMatches, stop: &Stop, json: bool) -> Result<Run<B>> {
    let out = args.out.clone().unwrap_or_else(|| default_out(args));
    if !args.resume && args.init_from.is_none() {
        // Checked before the run folder is created, in case the model does not exist or does not fit the memory.
        let config = read_config(&args.model)?;
        check_memory(&backend, &args.settings(config, None), 0)?;
    }
    if args.resume && !out.join("checkpoints").is_dir() {
        bail!("{}: no run to resume: the folder has no checkpoints folder", escaped_path(&out));
    }
    let folder = stop.open_folder(&out)?;
    if args.resume {
        let Some(loaded) = checkpoint::load_newest::<RunState>(&out, None)? else {
            bail!("{}: no checkpoint to resume from", escaped_path(&out));
        };
        let (settings, tokenizer) = check_resumed(args, matches, &loaded)?;
        check_memory(&backend, &settings, 3 * size_of_val(&loaded.weights.data[..]))?;
        if let Some(data) = settings.options.data.iter().find(|path| !is_given(matches, "data") && !path.exists()) {
            bail!(
                "{}: the data of the run is not at this path any more; pass its new path with --data",
                escaped_path(data)
            );
        }
        let (corpus, tokenizer) = open_corpus(&settings.options, tokenizer, &settings.model)?;
        data::tell(&corpus, json);
        stop.begin_training();
        return Ok(Run::resume(backend, settings, loaded, corpus, tokenizer, folder)?);
    }
    if folder.has_checkpoints()? && !args.overwrite {
        bail!(
            "{}: already contains a run; use --resume to continue it or --overwrite to start over",
            escaped_path(&out)
        );
    }
    let (weights, named) = match &args.init_from {
        Some(dir) => load_model_folder(dir)?,
        None => {
            let weights = init::random(read_config(&args.model)?, args.options.seed)?;
            let tokenizer = tokenizer_of_size(weights.config.vocab);
            (weights, tokenizer)
        }
    };
    let tokenizer = find_tokenizer(args.tokenizer.as_deref(), named, &weights.config)?;
    let mut settings = args.settings(weights.config, tokenizer.as_ref().ok());
    if !by_default(&backend, matches, ["val_every", "val_batches"]) {
        output::note("no validation: it takes minutes on the emulated GPU; --val-every N requests it");
        settings.options.val_every = 0;
    }
    check_memory(&backend, &settings, size_of_val(&weights.data[..]))?;
    let (corpus, tokenizer) = open_corpus(&settings.options, tokenizer, &settings.model)?;
    data::tell(&corpus, json);
    stop.begin_training();
    let run = Run::new(backend, settings, weights, corpus, tokenizer, folder)?;
    if args.overwrite {
        // Done last, when all flags and files have been checked.
        run.clear_folder()?;
    }
    Ok(run)
}

fn train<B: Runs>(mut run: Run<B>, args: &TrainArgs, matches: &ArgMatches, stop: &Stop, json: bool) -> Result<End> {
    let (done, steps) = (run.steps_done(), run.settings().options.schedule.steps);
    if args.resume && done >= steps {
        output::note(format!("the run is finished: step {done} of {steps}; --steps N with N > {done} continues it"));
        return Ok(End::Done);
    }
    let mut observer = Terminal::new(&run, args.log_every, json)?;
    let end = run.train(&|| stop.is_requested(), &mut observer)?;
    observer.bar.finish_and_clear();
    if !json {
        if end == End::Done && !by_default(run.trainer().backend(), matches, ["sample_every", "sample_tokens"]) {
            output::note("no sample: it takes minutes on the emulated GPU; --sample-tokens N requests it");
        } else if end == End::Done {
            match run.sample(&|| stop.is_requested()) {
                Ok(Some(text)) => output::tell(format!("\nsample:\n{}\n", printable(&text))),
                // A note at the start said that there are no samples.
                Ok(None) => {}
                // The run is complete and saved, so a sample that does not fit the memory is not an error.
                Err(error @ Error::OutOfDeviceMemory(_)) => output::note(format!("no sample: {error}")),
                Err(error) => return Err(error.into()),
            }
        }
        observer.summary(&run);
    }
    let out = args.out.clone().unwrap_or_else(|| default_out(args));
    let next = NextSteps::new(&out, matches, run.settings());
    if end == End::Stopped {
        let (done, resume) = (run.steps_done(), next.resume(None));
        output::note(format!(
            "stopped by a signal after step {done} of {steps}; saved; use --resume to continue: {resume}"
        ));
    } else if !json {
        output::tell(format!("\nnext\n{}", next.lines().join("\n")));
    }
    Ok(end)
}

fn default_out(args: &TrainArgs) -> PathBuf {
    let model = args.init_from.as_deref().unwrap_or(Path::new(&args.model));
    let name = model.file_name().and_then(|name| name.to_str()).unwrap_or("model");
    Path::new("runs").join(name.strip_suffix(".toml").unwrap_or(name))
}

fn plan<B: Runs>(settings: &Settings) -> Result<MemoryPlan> {
    let Settings { model, context, options, .. } = settings;
    Ok(MemoryPlan::new::<B>(model, options.batch, *context, options.recompute)?)
}

/// Checks that a run fits the memory of the device. `in_host` bytes of weights are already in host memory.
fn check_memory<B: Runs>(backend: &B, settings: &Settings, in_host: usize) -> Result<()> {
    check_tokens(settings.options.batch, settings.context, settings.options.accumulate)?;
    device::check_memory(backend, &plan::<B>(settings)?, in_host as u64)
}

/// The settings and the tokenizer of a resumed run, or why it has none, after checking that the flags do not change what must
/// not change. A run that has no tokenizer may get one.
fn check_resumed(
    args: &TrainArgs,
    matches: &ArgMatches,
    loaded: &Loaded<RunState>,
) -> Result<(Settings, Result<Tokenizer>)> {
    let saved = &loaded.state.settings;
    if is_given(matches, "model") {
        let requested = read_config(&args.model)?;
        if requested != saved.model {
            bail!("--model {} is {requested}, but the model of the run to resume is {}", args.model, saved.model);
        }
    }
    let unnamed = || ironwarp::Error::format(&loaded.path, "the run has no tokenizer");
    let named = loaded.tokenizer.clone().ok_or_else(unnamed);
    if let (Some(given), Ok(tokenizer)) = (&args.tokenizer, &named)
        && Tokenizer::open(given)? != *tokenizer
    {
        bail!("the run to resume was trained with the tokenizer '{}'", tokenizer.name());
    }
    let tokenizer = find_tokenizer(args.tokenizer.as_deref(), named, &saved.model)?;
    let mut settings = resumed(saved, args, matches)?;
    settings.tokenizer = tokenizer.as_ref().ok().map(|tokenizer| tokenizer.name().to_string());
    // Checked before anything is computed from the sizes in the state, which may be others than those of the weights.
    settings.check(&loaded.weights.config, tokenizer.as_ref().ok())?;
    // The saved position in the data is valid only for the same sequences in the same order.
    let data_order = |settings: &Settings| (settings.options.order, settings.context, settings.options.seed);
    if data_order(&settings) != data_order(saved) {
        let (order, context, seed) = data_order(saved);
        bail!("--order, --context and --seed cannot change on --resume: the run has {order}, {context} and {seed}");
    }
    Ok((settings, tokenizer))
}

/// Lists the data of the run that the flags describe.
fn list_data(args: &TrainArgs, json: bool) -> Result<()> {
    let (config, named) = match &args.init_from {
        Some(dir) => {
            let (weights, tokenizer) = load_model_folder(dir)?;
            (weights.config, tokenizer)
        }
        None => {
            let config = read_config(&args.model)?;
            (config, tokenizer_of_size(config.vocab))
        }
    };
    let tokenizer = find_tokenizer(args.tokenizer.as_deref(), named, &config)?;
    let (corpus, _) = open_corpus(&args.options, tokenizer, &config)?;
    if json {
        return data::json(&corpus);
    }
    data::tell(&corpus, false);
    Ok(())
}

/// Opens the data of a run, and returns its tokenizer with it. Without a tokenizer, token files can be read, but no texts.
fn open_corpus(
    options: &RunOptions,
    tokenizer: Result<Tokenizer>,
    model: &Config,
) -> Result<(Corpus, Option<Tokenizer>)> {
    let fraction = options.validation_fraction;
    if options.data.is_empty() {
        let tokenizer = tokenizer?;
        let corpus = Corpus::from_text("the embedded corpus", &embedded::sources(), &tokenizer, fraction)?;
        return Ok((corpus, Some(tokenizer)));
    }
    let open = |vocabulary| Corpus::open(&options.data, vocabulary, &options.documents, fraction);
    let why = match tokenizer {
        Ok(tokenizer) => return Ok((open(Vocabulary::Tokenizer(&tokenizer))?, Some(tokenizer))),
        Err(why) => why,
    };
    if let Some(text) = first_text(&options.data)? {
        bail!("{}: a text needs a tokenizer: {why:#}", escaped_path(&text));
    }
    let corpus = open(Vocabulary::Size(model.vocab))?;
    output::note(format!("the run has no tokenizer, and therefore no samples: {why:#}"));
    Ok((corpus, None))
}

/// Reports the progress of a run on the terminal, as text or as JSON.
struct Terminal {
    json: bool,
    bar: ProgressBar,
    log_every: Option<u64>,
    /// Number of steps done before the start of this process, and of all steps of the run.
    steps: Range<u64>,
    start: Instant,
    /// End of the first step, which takes longer than the others.
    first_step: Option<Instant>,
    last_line: Instant,
    on_cpu: bool,
    first_loss: Option<f32>,
    last_loss: Option<f32>,
    val_loss: Option<f32>,
    checkpoint: Option<PathBuf>,
}

impl Terminal {
    fn new<B: Runs>(run: &Run<B>, log_every: Option<u64>, json: bool) -> Result<Self> {
        let settings = run.settings();
        let bar = output::progress(settings.options.schedule.steps, "steps");
        bar.set_position(run.steps_done());
        bar.reset_eta();
        if !json {
            output::tell(format!(
                "{} parameters, {} tokens/step, {} tokens/epoch",
                output::thousands(settings.model.parameters() as u64),
                output::thousands(settings.step_tokens() as u64),
                output::thousands(run.epoch_tokens() as u64),
            ));
            let plan = plan::<B>(settings)?;
            output::tell(format!("memory {}: {}", output::bytes(plan.total()), device::breakdown(&plan)));
        }
        Ok(Terminal {
            json,
            bar,
            log_every,
            steps: run.steps_done()..settings.options.schedule.steps,
            start: Instant::now(),
            first_step: None,
            last_line: Instant::now(),
            on_cpu: B::NAME == Cpu::<f32>::NAME,
            first_loss: None,
            last_loss: None,
            val_loss: None,
            checkpoint: None,
        })
    }

    /// Prints a line above the progress bar.
    fn line(&self, text: String) {
        self.bar.suspend(|| output::tell(text));
    }

    /// Estimated time to the end of the run, after `step` steps.
    fn time_left(&self, step: u64) -> Duration {
        let done = step.saturating_sub(self.steps.start).max(1);
        let (start, done) = match self.first_step {
            Some(first) if done > 1 => (first, done - 1),
            _ => (self.start, done),
        };
        let left = self.steps.end.saturating_sub(step);
        let seconds = start.elapsed().as_secs_f64() / done as f64 * left as f64;
        Duration::try_from_secs_f64(seconds).unwrap_or(Duration::MAX)
    }

    /// Whether a line of progress is due after `step`.
    fn is_line_due(&self, step: u64) -> bool {
        match self.log_every {
            Some(every) => every > 0 && step.is_multiple_of(every),
            None => self.bar.is_hidden() && self.last_line.elapsed() >= LOG_INTERVAL,
        }
    }

    fn summary<B: Runs>(&self, run: &Run<B>) {
        let show = |loss: Option<f32>| loss.map_or("none".to_string(), |loss| format!("{loss:.4}"));
        output::tell(format!("loss        {} -> {}", show(self.first_loss), show(self.last_loss)));
        output::tell(format!("validation  {}", show(self.val_loss)));
        if let Some(peak) = run.trainer().backend().peak_memory() {
            output::tell(format!("memory      {} peak", output::bytes(peak)));
        }
        output::tell(format!("curve       {}", escaped_path(&run.loss_curve_path())));
        if let Some(path) = &self.checkpoint {
            output::tell(format!("checkpoint  {}", escaped_path(path)));
        }
    }
}

impl Observer for Terminal {
    fn step(&mut self, record: &Record) {
        self.first_step.get_or_insert_with(Instant::now);
        self.first_loss = self.first_loss.or(record.loss);
        self.last_loss = record.loss;
        self.val_loss = record.val_loss.or(self.val_loss);
        self.bar.set_position(record.step);
        let speed = record.tokens_per_second;
        self.bar.set_message(format!(", loss {:.4}, {speed:.0} tokens/s", record.loss.unwrap_or(f32::NAN)));
        if self.json {
            // Serialising numbers and strings to JSON cannot fail.
            self.line(serde_json::to_string(record).unwrap_or_default());
        } else if record.val_loss.is_some() || record.step == 1 || self.is_line_due(record.step) {
            let val = record.val_loss.map_or(String::new(), |val| format!("  validation {val:.4}"));
            let loss = record.loss.unwrap_or(f32::NAN);
            // The first step takes longer than the others, up to five times in a small model.
            let left = match record.step == self.steps.start + 1 {
                true => String::new(),
                false => format!("  {:#} left", HumanDuration(self.time_left(record.step))),
            };
            self.line(format!(
                "step {:>6}  loss {loss:.4}{val}  lr {:.2e}  {speed:.0} tokens/s{left}",
                record.step, record.lr
            ));
            self.last_line = Instant::now();
        }
        // The first step predicts the time of the others well enough.
        let left = self.time_left(record.step);
        if self.on_cpu && record.step == self.steps.start + 1 && left > LONG_RUN {
            let left = HumanDuration(left);
            self.bar.suspend(|| {
                output::note(format!(
                    "warning: at this speed the run takes {left} on the CPU; a smaller --model, fewer --steps or a GPU \
                     shorten it"
                ));
            });
        }
    }

    fn sample(&mut self, step: u64, text: &str) {
        let text = format!("--- sample at step {step}\n{}\n---", printable(text));
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
