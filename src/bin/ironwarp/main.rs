//! The `ironwarp` command.

mod bench;
mod device;
mod eval;
mod export;
mod generate;
mod info;
mod output;
mod profile;
mod tokenize;
mod train;

use std::process::ExitCode;

use clap::{ArgMatches, Args, CommandFactory, FromArgMatches, Parser, Subcommand, value_parser};

// The system's allocator gives the matmuls' packing buffers back after every product and clears their pages anew.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Train, evaluate and run GPT-2.
///
/// Exit status: 0 fine, 1 failure, 2 usage, 3 stopped by a signal after saving, 4 device lost, 130 ended by a second
/// signal.
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
    /// Print JSON on standard output, one object a line; messages go to standard error
    #[arg(long, global = true)]
    json: bool,
    /// Threads of the CPU backend; 0 for one a core
    #[arg(long, global = true, default_value_t = 0, value_name = "N", value_parser = value_parser!(u16).range(..=1024))]
    threads: u16,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Train a model, from random weights, a model folder or an earlier run
    Train(Box<train::TrainArgs>),
    /// Continue a prompt
    Generate(generate::GenerateArgs),
    /// Score a model: perplexity of a text, HellaSwag, LAMBADA
    Eval(eval::EvalArgs),
    /// Turn text or JSONL into token shards, or count its tokens
    Tokenize(tokenize::TokenizeArgs),
    /// Write a model as a Hugging Face folder
    Export(export::ExportArgs),
    /// Time operations beside the device's limits and other libraries
    Bench(bench::BenchArgs),
    /// Count what operations do on the emulated GPU, beside the least that they could
    Profile(profile::ProfileArgs),
    /// Show devices, and the size and memory plan of a model
    Info(info::InfoArgs),
}

/// How a command that did not fail ended.
enum Status {
    Done,
    StoppedAndSaved,
}

fn main() -> ExitCode {
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .log_internal_errors(false)
        .with_target(false)
        .without_time()
        .with_max_level(tracing::Level::WARN)
        .init();
    let matches = Cli::command().get_matches();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|e| e.exit());
    match run(cli, &matches) {
        Ok(Status::Done) => ExitCode::SUCCESS,
        Ok(Status::StoppedAndSaved) => ExitCode::from(3),
        Err(error) => {
            output::note(format!("error: {}", message(&error)));
            let lost = |cause: &(dyn std::error::Error + 'static)| {
                matches!(cause.downcast_ref(), Some(ironwarp::Error::DeviceLost(_)))
            };
            if error.chain().any(lost) { ExitCode::from(4) } else { ExitCode::FAILURE }
        }
    }
}

/// An error and its causes, but for those that it tells already.
fn message(error: &anyhow::Error) -> String {
    let mut text = error.to_string();
    for cause in error.chain().skip(1).map(ToString::to_string) {
        if !text.ends_with(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn run(cli: Cli, matches: &ArgMatches) -> anyhow::Result<Status> {
    let Global { json, threads } = cli.global;
    if threads > 0 {
        rayon::ThreadPoolBuilder::new().num_threads(threads.into()).build_global()?;
    }
    match cli.command {
        Command::Train(args) => {
            let (_, matches) = matches.subcommand().expect("the subcommand that was parsed");
            return train::run(*args, matches, json);
        }
        Command::Generate(args) => generate::run(args, json)?,
        Command::Eval(args) => eval::run(args, json)?,
        Command::Tokenize(args) => tokenize::run(args, json)?,
        Command::Export(args) => export::run(args, json)?,
        Command::Bench(args) => bench::run(args, json)?,
        Command::Profile(args) => profile::run(args, json)?,
        Command::Info(args) => info::run(args, json)?,
    }
    Ok(Status::Done)
}
