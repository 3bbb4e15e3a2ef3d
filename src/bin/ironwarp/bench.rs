//! `ironwarp bench`: times of operations beside their floor and their peers.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use clap::Args;
use ironwarp::bench::cases::{self, Info};
use ironwarp::bench::measure::Timed;
use ironwarp::bench::peers::{Peer, PyTorch};
use ironwarp::bench::plot;
use ironwarp::bench::problem::{Problem, Workload};
use ironwarp::bench::report::{self, Facts, Report};
use ironwarp::bench::suite::Bench;
use ironwarp::cpu::Cpu;
use ironwarp::model::config::Config;
use serde_json::{Value, json};

use crate::device::Device;
use crate::output;

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Operations, or families such as layernorm; all without
    #[arg(value_name = "OP")]
    ops: Vec<String>,
    /// What to time: cuda, cuda:N, or cpu
    #[arg(long, default_value = "cuda", value_name = "DEVICE")]
    device: Device,
    /// Take the shapes of this preset; without it, on a GPU gpt2-124M's and gpt2-1558M's, on the CPU gpt2-124M's
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Tokens of a micro-batch; without it, on a GPU 65536 (16384 for models wider than 1024), on the CPU 256
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Sizes in place of the model's, such as n=1024,c=768 or variant=bias
    #[arg(long, value_name = "SIZES")]
    shape: Option<String>,
    /// Milliseconds to spend on a problem, and on each peer
    #[arg(long, default_value_t = 400, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    ms: u64,
    /// A Python with PyTorch, to take turns with
    #[arg(long, value_name = "PYTHON")]
    peers: Option<PathBuf>,
    /// Folder for results.json, bars.svg and roofline.svg
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Keep the results here, to compare with later
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Name what takes another time than in these results, by more than 2 % and more than the spread; fail if slower
    #[arg(long, value_name = "FILE")]
    compare: Option<PathBuf>,
}

pub fn run(args: BenchArgs, json: bool) -> Result<()> {
    match args.device {
        Device::Cpu => bench(&args, json, &Cpu::<f32>::new(), "cpu", |_| None),
        Device::Auto | Device::Cuda(_) | Device::Emulated => on_gpu(&args, json),
    }
}

#[cfg(feature = "cuda")]
fn on_gpu(args: &BenchArgs, json: bool) -> Result<()> {
    use anyhow::anyhow;
    use ironwarp::bench::cublaslt::CublasLt;
    use ironwarp::cuda::Cuda;

    let ordinal = if let Device::Cuda(ordinal) = args.device { ordinal } else { 0 };
    let opened = if args.device == Device::Emulated { Cuda::emulated() } else { Cuda::new(ordinal) };
    let cuda = opened.map_err(|why| {
        anyhow!("{why}; --device cpu times the CPU backend, and `ironwarp profile` counts without a GPU")
    })?;
    let cublaslt = |facts: &mut Facts| {
        let says = |peer: &CublasLt| peer.version.clone().into();
        present("cublaslt", CublasLt::new(&cuda), says, facts)
    };
    bench(args, json, &cuda, &format!("cuda:{ordinal}"), cublaslt)
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(_: &BenchArgs, _: bool) -> Result<()> {
    bail!("this build has no CUDA backend (feature cuda), so no GPU can be timed; --device cpu times the CPU backend")
}

/// `native` starts the peer that is a library of the device's.
fn bench<B: Timed>(
    args: &BenchArgs,
    json: bool,
    backend: &B,
    device: &str,
    native: impl FnOnce(&mut Facts) -> Option<Box<dyn Peer>>,
) -> Result<()> {
    let problems = problems(args, device == "cpu")?;
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", out.display()))?;
    }
    let mut bench = Bench::new(backend, Duration::from_millis(args.ms))?;
    let mut facts = backend.facts(&bench.stopwatch);
    let mut peers = Vec::from_iter(native(&mut facts));
    if let Some(python) = &args.peers {
        let torch = PyTorch::start(python, device);
        peers.extend(present("torch", torch, |torch| torch.facts.clone(), &mut facts));
    }
    let mut report = Report { facts, ceilings: bench.ceilings, rows: Vec::new() };
    if json {
        output::json(&json!({"facts": report.facts, "ceilings": report.ceilings}))?;
    } else {
        // The rows come as they are measured.
        output::print(&report.table());
    }
    let bar = output::progress(problems.len() as u64, "problems");
    for (info, problem) in problems {
        let row = bench.row(info, &problem, &mut peers)?;
        bar.suspend(|| {
            if json {
                return output::json(&row);
            }
            output::print(&report::lines(&row));
            Ok(())
        })?;
        report.rows.push(row);
        // After each, so that a run that is ended leaves what it has.
        if let Some(out) = &args.out {
            report.save(&out.join("results.json"))?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    keep(args, &report)
}

/// A peer, if it can be had; the facts have what it says of itself, or why it is absent.
fn present<P: Peer + 'static>(
    name: &str,
    started: ironwarp::Result<P>,
    says: impl FnOnce(&P) -> Value,
    facts: &mut Facts,
) -> Option<Box<dyn Peer>> {
    let (fact, peer) = match started {
        Ok(peer) => (says(&peer), Some(Box::new(peer) as Box<dyn Peer>)),
        Err(why) => {
            output::note(format!("the peer {name} is absent: {why}"));
            (format!("absent: {why}").into(), None)
        }
    };
    facts.details.insert(name.into(), fact);
    peer
}

/// Writes what was asked for, and compares.
fn keep(args: &BenchArgs, report: &Report) -> Result<()> {
    if let Some(out) = &args.out {
        plot::bars(report, &out.join("bars.svg"))?;
        plot::roofline(report, &out.join("roofline.svg"))?;
    }
    let changes = args.compare.as_ref().map(|file| report.changes_since(file)).transpose()?;
    // After the comparison: both may be the same file.
    if let Some(file) = &args.save {
        report.save(file)?;
    }
    let Some(changes) = changes else { return Ok(()) };
    changes.iter().for_each(|change| output::note(change.to_string()));
    let slower = changes.iter().filter(|change| change.is_regression()).count();
    match slower {
        0 => output::note("nothing is slower than it was"),
        count => bail!("{count} of {} problems are slower than they were", report.rows.len()),
    }
    Ok(())
}

/// The problems of the named operations, each once.
fn problems(args: &BenchArgs, on_cpu: bool) -> Result<Vec<(&'static Info, Problem)>> {
    let models: Vec<&str> = match &args.model {
        Some(name) => vec![name],
        None if on_cpu => vec!["gpt2-124M"],
        None => vec!["gpt2-124M", "gpt2-1558M"],
    };
    let mut all = Vec::new();
    for name in &models {
        let config = Config::preset(name)?;
        let tokens = args.tokens.unwrap_or(match (on_cpu, config.channels) {
            (true, _) => config.context.min(256),
            (false, ..=1024) => 65536,
            (false, _) => 16384,
        });
        let workload = Workload::new(config, tokens).with_context(|| format!("--tokens of {name}"))?;
        for info in cases::select(&args.ops)? {
            for problem in info.training(&workload) {
                let problem = match &args.shape {
                    Some(shape) => Problem::parse(info, shape, &problem)?,
                    None => problem,
                };
                if !all.iter().any(|(_, listed)| *listed == problem) {
                    all.push((info, problem));
                }
            }
        }
    }
    Ok(all)
}
