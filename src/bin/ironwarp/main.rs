//! The `ironwarp` command.

mod bench;
mod data;
mod device;
mod eval;
mod examples;
mod export;
mod generate;
mod host_memory;
mod info;
mod model_file;
mod next;
mod output;
mod profile;
mod recipe;
mod stop;
mod tokenize;
mod tokenizer;
mod train;

use std::io::IsTerminal;
use std::process::ExitCode;

use clap::{ArgMatches, Args, ColorChoice, CommandFactory, FromArgMatches, Parser, Subcommand, value_parser};
use ironwarp::train::run::End;

// The system allocator returns the matmuls' packing buffers to the operating system after every product, which then has to
// zero their pages again.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Train, evaluate and run GPT-2.
///
/// Exit status: 0 success, 1 failure, 2 usage error, 3 stopped by a signal after saving, 4 device lost, 130 ended by a signal
/// before the first step or by a second signal.
#[derive(Debug, Parser)]
#[command(version, max_term_width = 110)]
struct Cli {
    #[command(subcommand)]
    command: Command,
    #[command(flatten)]
    global: Global,
}

#[derive(Debug, Args)]
struct Global {
    /// Print JSON to standard output, one object per line; messages go to standard error
    #[arg(long, global = true)]
    json: bool,
    /// Threads of the CPU backend; 0: one per core
    #[arg(long, global = true, default_value_t = 0, value_name = "N", value_parser = value_parser!(u16).range(..=1024))]
    threads: u16,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model from random weights, from a model folder, or from an earlier run
    Train(Box<train::TrainArgs>),
    /// Continue a prompt
    Generate(generate::GenerateArgs),
    /// Evaluate a model: perplexity of a text, HellaSwag or LAMBADA
    Eval(eval::EvalArgs),
    /// Tokenize text or JSONL files into token shards, or count their tokens
    Tokenize(tokenize::TokenizeArgs),
    /// Train a tokenizer
    Tokenizer(tokenizer::TokenizerArgs),
    /// Export a model as a Hugging Face folder
    Export(export::ExportArgs),
    /// Benchmark operations against the device's limits and against other libraries
    Bench(bench::BenchArgs),
    /// Profile operations on the emulated GPU: count instructions and memory traffic, and compare with the minimum
    Profile(profile::ProfileArgs),
    /// Show the devices, or the size and memory requirements of a model
    Info(info::InfoArgs),
}

/// The command line: that of [`Cli`], with examples and the defaults of the recipe in the help.
fn command() -> clap::Command {
    let command = examples::add(Cli::command()).mut_subcommand("train", recipe::document);
    // A negative number after a flag is its value, which the flag's own check may refuse, and no unknown flag.
    command.mut_subcommands(allow_negative_numbers)
}

fn main() -> ExitCode {
    let mut command = command();
    if !output::allows_colour() {
        command = command.color(ColorChoice::Never);
    }
    let matches = command.get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(!cli.global.json && output::allows_colour() && std::io::stderr().is_terminal())
        .log_internal_errors(false)
        .with_target(false)
        .without_time()
        .with_max_level(tracing::Level::WARN)
        .init();
    match run(cli, &matches) {
        Ok(End::Done) => ExitCode::SUCCESS,
        Ok(End::Stopped) => ExitCode::from(3),
        Err(error) => {
            output::note(format!("error: {}", message(&error)));
            let lost = |cause: &(dyn std::error::Error + 'static)| {
                matches!(cause.downcast_ref(), Some(ironwarp::Error::DeviceLost(_)))
            };
            if error.chain().any(lost) { ExitCode::from(4) } else { ExitCode::FAILURE }
        }
    }
}

/// Lets the flags of a subcommand, and of its own subcommands, have negative numbers as values.
fn allow_negative_numbers(command: clap::Command) -> clap::Command {
    let command = command.mut_args(|arg| {
        let takes_values = arg.get_action().takes_values();
        arg.allow_negative_numbers(takes_values)
    });
    command.mut_subcommands(allow_negative_numbers)
}

/// Formats an error and its causes, except for causes that the message already contains.
fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run(cli: Cli, matches: &ArgMatches) -> anyhow::Result<End> {
    let Global { json, threads } = cli.global;
    if threads > 0 {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    // In the thread pool: a loop that starts on another thread is handed over to the pool, which takes longer than most
    // loops of a small model.
    rayon::scope(|_| execute(cli.command, matches, json))
}

fn execute(command: Command, matches: &ArgMatches, json: bool) -> anyhow::Result<End> {
    match command {
        Command::Train(args) => {
            let (_, matches) = matches.subcommand().expect("the subcommand that was parsed");
            return train::run(*args, matches, json);
        }
        Command::Generate(args) => generate::run(args, json)?,
        Command::Eval(args) => eval::run(args, json)?,
        Command::Tokenize(args) => tokenize::run(args, json)?,
        Command::Tokenizer(args) => tokenizer::run(args, json)?,
        Command::Export(args) => export::run(args, json)?,
        Command::Bench(args) => bench::run(args, json)?,
        Command::Profile(args) => profile::run(args, json)?,
        Command::Info(args) => info::run(args, json)?,
    }
    Ok(End::Done)
}
