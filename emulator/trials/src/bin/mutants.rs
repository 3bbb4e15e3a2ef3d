//! Prints which mutants of the trial kernels are killed.

use anyhow::{Context, Result, bail};
use clap::Parser;
use emulator_trials::mutate::{Survey, mutants, survey};
use emulator_trials::trials::trials;

/// Generates the mutants of the trial kernels' PTX, each with one change, runs them and prints which are killed.
#[derive(Debug, Parser)]
struct Args {
    /// Number of seeds that a mutant must survive to count as a survivor.
    #[arg(long, default_value_t = 8)]
    seeds: u64,
    /// Survey only this kernel.
    #[arg(long)]
    kernel: Option<String>,
    /// Print every mutant with its result.
    #[arg(long)]
    all: bool,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let seeds: Vec<u64> = (0..args.seeds).collect();
    let mut total = Survey::default();
    let wanted = |kernel: &str| args.kernel.as_deref().is_none_or(|wanted| wanted == kernel);
    for trial in trials().iter().filter(|trial| wanted(trial.kernel)) {
        let mutants = mutants(trial.ptx(), Some(trial.kernel))?;
        let run = |ptx: &str, seed| trial.outcome(ptx, seed);
        let of_kernel = survey(trial.ptx(), &mutants, &seeds, run).with_context(|| trial.kernel)?;
        let (killed, all) = of_kernel.total();
        eprintln!("{:<20} {killed:>4} of {all:>4} killed", trial.kernel);
        total.merge(of_kernel);
    }
    if total.results.is_empty() {
        bail!("no trial kernel {}", args.kernel.unwrap_or_default());
    }
    if args.all {
        print!("{total:#}")
    } else {
        print!("{total}")
    }
    Ok(())
}
