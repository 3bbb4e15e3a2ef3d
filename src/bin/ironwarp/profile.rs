//! `ironwarp profile`: counts what operations do on the emulated GPU, and compares it with the minimum.

use std::path::PathBuf;

use anyhow::Result;
use clap::Args;

#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// Operations, or families such as layernorm, to profile in detail [default: all, without details]
    #[arg(value_name = "OP")]
    ops: Vec<String>,
    /// Sizes that override the default shapes, such as n=64,c=1600
    #[arg(long, value_name = "SIZES")]
    shape: Option<String>,
    /// Print the kernels' source code with the counts of each line
    #[arg(long)]
    source: bool,
    /// Write an HTML page with charts and annotated source code
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
    /// Fail if bytes, sectors or bank conflicts differ from those in this file, and name the source lines
    #[arg(long, value_name = "FILE")]
    check: Option<PathBuf>,
    /// Save the counts to this file, for --check
    #[arg(long, value_name = "FILE")]
    save: Option<PathBuf>,
    /// Profile this PTX file in place of kernels/STEM.cu
    #[arg(long, value_name = "STEM=FILE.ptx")]
    kernels: Vec<String>,
}

#[cfg(not(feature = "cuda"))]
pub fn run(_: ProfileArgs, _: bool) -> Result<()> {
    anyhow::bail!("this build has no CUDA backend (feature cuda), so it has no kernels to profile")
}

#[cfg(feature = "cuda")]
pub fn run(args: ProfileArgs, json: bool) -> Result<()> {
    emulated::run(args, json)
}

#[cfg(feature = "cuda")]
mod emulated {
    use std::path::Path;

    use anyhow::{Context, Result, bail};
    use ironwarp::bench::cases;
    use ironwarp::bench::problem::Problem;
    use ironwarp::cuda::Cuda;
    use ironwarp::files::{open_regular, read_regular_text};
    use ironwarp::message::escaped_path;
    use ironwarp::profile::check::Baseline;
    use ironwarp::profile::counts::{Profile, Profiler};
    use ironwarp::profile::{report, sass};

    use super::ProfileArgs;
    use crate::output;

    /// Maximum size of a PTX file; those of the largest kernels have about a megabyte.
    const MAX_PTX: u64 = 1 << 26;

    pub fn run(args: ProfileArgs, json: bool) -> Result<()> {
        if let Some(file) = &args.check {
            // Read after the counting, which takes minutes: what is no file is reported before it.
            open_regular(file)?;
        }
        let cuda = Cuda::emulated()?;
        let device = &cuda.device().properties().name;
        let mut profiler = Profiler::new(&cuda)?;
        for replacement in &args.kernels {
            let Some((stem, file)) = replacement.split_once('=') else {
                bail!("--kernels '{replacement}' is not of the form STEM=FILE.ptx");
            };
            let ptx = read_regular_text(file, MAX_PTX)?;
            profiler.replace(stem, &ptx)?;
        }
        // Only these outputs show machine code.
        if json || args.html.is_some() || !args.ops.is_empty() {
            profiler = match sass::find() {
                Ok(nvdisasm) => profiler.with_sass(nvdisasm),
                Err(why) => {
                    output::note(format!("the machine code of the kernels is not available: {why}"));
                    profiler
                }
            };
        }
        let profiles = count(&args, json, &mut profiler)?;
        if let Some(path) = &args.html {
            write(path, &report::page(device, &profiles)?)?;
        }
        // Compared before the counts are saved, because both may be the same file.
        let ops: Vec<&str> = cases::select(&args.ops)?.iter().map(|info| info.op).collect();
        let checked = args.check.as_ref().map(|path| check(path, device, &ops, &profiles)).transpose();
        if let Some(path) = &args.save {
            Baseline::of(device, &profiles)?.write(path)?;
        }
        checked.map(drop)
    }

    /// Profiles the selected operations and prints the results.
    fn count(args: &ProfileArgs, json: bool, profiler: &mut Profiler<'_>) -> Result<Vec<Profile>> {
        let mut profiles = Vec::new();
        if !json {
            output::print(&report::header());
        }
        for info in cases::select(&args.ops)? {
            let mut problems = info.small();
            if let (Some(shape), Some(like)) = (&args.shape, info.small().first()) {
                problems = vec![Problem::parse(info, shape, like)?];
            }
            for problem in problems {
                let profile = profiler.profile(info, &problem)?;
                if json {
                    output::json(&profile)?;
                } else {
                    output::print(&report::row(&profile));
                    if !args.ops.is_empty() {
                        output::print(&report::details(&profile));
                    }
                }
                if args.source {
                    output::print(&report::annotated(&profile));
                }
                profiles.push(profile);
            }
        }
        Ok(profiles)
    }

    fn check(path: &Path, device: &str, ops: &[&str], profiles: &[Profile]) -> Result<()> {
        let differences = Baseline::read(path)?.only(ops).differences(device, profiles);
        if differences.is_empty() {
            output::note(format!("the counts of {} problem(s) equal those in {}", profiles.len(), escaped_path(path)));
            return Ok(());
        }
        differences.iter().for_each(output::note);
        bail!(
            "the counts of {} problem(s) differ from those in {}; if this is intended, update the file with `make counts`",
            differences.len(),
            escaped_path(path)
        )
    }

    fn write(path: &Path, text: &str) -> Result<()> {
        std::fs::write(path, text).with_context(|| format!("cannot write {}", escaped_path(path)))
    }
}
