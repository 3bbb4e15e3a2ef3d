//! `ironwarp bench`: measures operations, and compares them with their floor and with other libraries.

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
use ironwarp::files::open_regular;
use ironwarp::message::escaped_path;
use ironwarp::model::config::Config;
use serde_json::{Value, json};

use crate::device::Device;
use crate::output;

#[derive(Debug, Args)]
pub struct BenchArgs {
    /// Operations, or families such as layernorm [default: all]
    #[arg(value_name = "OP")]
    ops: Vec<String>,
    /// Device: cuda, cuda:N or cpu
    #[arg(long, default_value = "cuda", value_name = "DEVICE")]
    device: Device,
    /// Preset whose shapes are benchmarked [default: gpt2-124M, and on a GPU also gpt2-1558M]
    #[arg(long, value_name = "NAME")]
    model: Option<String>,
    /// Tokens per micro-batch [default: on a GPU 65536, or 16384 for models with more than 1024 channels; on the CPU 256]
    #[arg(long, value_name = "N")]
    tokens: Option<usize>,
    /// Sizes that override the model's, such as n=1024,c=768 or variant=bias
    #[arg(long, value_name = "SIZES")]
    shape: Option<String>,
    /// Milliseconds to measure each problem, and each peer on it
    #[arg(long, default_value_t = 400, value_name = "MS", value_parser = clap::value_parser!(u64).range(1..=600_000))]
    ms: u64,
    /// Python interpreter with PyTorch; its operations are measured as peers, interleaved with ours
    #[arg(long, value_name = "PYTHON")]
    peers: Option<PathBuf>,
    /// Folder for results.json, bars.svg and roofline.svg
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// Save the results to this file, for --compare
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Report times that differ from these results by more than 2 % and by more than the spread; fail if any is slower
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
    if args.device == Device::Emulated {
        bail!("the emulated GPU cannot be timed; `ironwarp profile` counts what the operations do on it");
    }
    let cuda = Cuda::new(ordinal).map_err(|why| {
        anyhow!("{why}; --device cpu benchmarks the CPU backend, and `ironwarp profile` works without a GPU")
    })?;
    let cublaslt = |facts: &mut Facts| {
        let version = |peer: &CublasLt| peer.version.clone().into();
        add_peer("cublaslt", CublasLt::new(&cuda), version, facts)
    };
    bench(args, json, &cuda, &format!("cuda:{ordinal}"), cublaslt)
}

#[cfg(not(feature = "cuda"))]
fn on_gpu(_: &BenchArgs, _: bool) -> Result<()> {
    bail!(
        "this build has no CUDA backend, so it cannot use a GPU; use --device cpu for the CPU backend, or build with `make \
         toolkit` and `cargo build --release --features cuda`"
    )
}

/// Benchmarks on a backend. `native` starts the peer that is a library of the device.
fn bench<B: Timed>(
    args: &BenchArgs,
    json: bool,
    backend: &B,
    device: &str,
    native: impl FnOnce(&mut Facts) -> Option<Box<dyn Peer>>,
) -> Result<()> {
    let problems = problems(args, device == "cpu")?;
    if let Some(file) = &args.compare {
        // Read after the measurements, which take minutes: what is no file is reported before them.
        open_regular(file)?;
    }
    if let Some(out) = &args.out {
        std::fs::create_dir_all(out).with_context(|| format!("cannot create {}", escaped_path(out)))?;
    }
    let mut bench = Bench::new(backend, Duration::from_millis(args.ms))?;
    let mut facts = backend.facts(&bench.stopwatch);
    let mut peers = Vec::from_iter(native(&mut facts));
    if let Some(python) = &args.peers {
        let torch = PyTorch::start(python, device);
        peers.extend(add_peer("torch", torch, |torch| torch.facts.clone(), &mut facts));
    }
    let mut report = Report { facts, ceilings: bench.ceilings, rows: Vec::new() };
    if json {
        output::json(&json!({"facts": report.facts, "ceilings": report.ceilings}))?;
    } else {
        // The header; rows are printed as they are measured.
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
        // Saved after each problem, so that an interrupted run leaves its partial results.
        if let Some(out) = &args.out {
            report.save(&out.join("results.json"))?;
        }
        bar.inc(1);
    }
    bar.finish_and_clear();
    finish(args, &report)
}

/// Returns a peer if it started, and adds its description, or the reason for its absence, to the facts.
fn add_peer<P: Peer + 'static>(
    name: &str,
    started: ironwarp::Result<P>,
    describe: impl FnOnce(&P) -> Value,
    facts: &mut Facts,
) -> Option<Box<dyn Peer>> {
    let (fact, peer) = match started {
        Ok(peer) => (describe(&peer), Some(Box::new(peer) as Box<dyn Peer>)),
        Err(why) => {
            output::note(format!("peer {name} is not available: {why}"));
            (format!("absent: {why}").into(), None)
        }
    };
    facts.details.insert(name.into(), fact);
    peer
}

/// Writes the requested files, and compares with saved results.
fn finish(args: &BenchArgs, report: &Report) -> Result<()> {
    if let Some(out) = &args.out {
        plot::bars(report, &out.join("bars.svg"))?;
        plot::roofline(report, &out.join("roofline.svg"))?;
    }
    let changes = args.compare.as_ref().map(|file| report.changes_since(file)).transpose()?;
    // Written after the comparison, because both may be the same file.
    if let Some(file) = &args.save {
        report.save(file)?;
    }
    let Some(changes) = changes else { return Ok(()) };
    changes.iter().for_each(|change| output::note(change.to_string()));
    let slower = changes.iter().filter(|change| change.is_regression()).count();
    match slower {
        0 => output::note("no problem is slower than before"),
        count => bail!("{count} of {} problems are slower than before", report.rows.len()),
    }
    Ok(())
}

/// The problems of the selected operations, without duplicates.
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
