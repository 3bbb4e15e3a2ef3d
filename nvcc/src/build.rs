//! The build of a folder of kernels.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::thread;
use std::{env, fs};

use crate::ptxas::Resources;
use crate::unit::Unit;
use crate::{Arch, Error, Nvcc, Result, Search};

/// The sources to compile, the compiler, and the folder for the outputs.
#[derive(Debug, Clone)]
pub struct Build {
    /// Absolute path of the folder that source paths are relative to, in messages and in PTX.
    pub root: PathBuf,
    /// The folder of `.cu` files, relative to the root. Its subfolders are not compiled.
    pub folder: String,
    /// The folder for the outputs.
    pub out: PathBuf,
    /// The project's target folder. Files in it do not count as sources.
    pub target: PathBuf,
    /// The architectures to compile for.
    pub archs: Vec<Arch>,
    /// The compiler.
    pub nvcc: Nvcc,
    /// Whether kernels may spill registers: study kernels may, production kernels may not.
    pub allow_spills: bool,
}

impl Build {
    /// Environment variables that nvcc itself reads flags from.
    pub(crate) const FLAG_VARIABLES: [&str; 3] = ["NVCC_PREPEND_FLAGS", "NVCC_APPEND_FLAGS", "NVCC_CCBIN"];

    /// A build as configured by a build script's environment: `OUT_DIR`, `IRONWARP_ARCHS` and the variables that
    /// [`Search`] reads. `root` is the workspace's folder, relative to the build script's working directory.
    ///
    /// # Errors
    /// When no nvcc is found, or the list of architectures is not valid.
    pub fn from_env(root: impl AsRef<Path>, folder: &str) -> Result<Build> {
        let root = fs::canonicalize(&root).map_err(Error::io("find", root.as_ref()))?;
        let search = Search::from_env(&root);
        let archs = env::var("IRONWARP_ARCHS").unwrap_or_else(|_| Arch::DEFAULT.to_owned());
        Ok(Build {
            folder: folder.to_owned(),
            out: env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts").into(),
            archs: Arch::list(&archs)?,
            nvcc: search.find()?,
            target: search.target,
            allow_spills: false,
            root,
        })
    }

    /// Compiles the files that have changed, writes `kernels.rs` and tells cargo what the outputs depend on.
    ///
    /// `kernels.rs` is an expression: a slice of `Image { stem, arch, ptx, cubin, resources }`, sorted by stem and
    /// architecture. `resources` is a slice of `Resources { kernel, registers, stack_bytes, spill_store_bytes,
    /// spill_load_bytes, shared_bytes }`, sorted by kernel. The including module defines both structs.
    ///
    /// # Errors
    /// All errors of nvcc and all violations of the rules for kernels (spills, lost Hopper instructions), of all files.
    pub fn run(&self) -> Result<()> {
        let units = self.units()?;
        let sources = self.compile(&units)?;
        self.write_table(&units)?;
        // The folder is listed too, so that added files are noticed; headers may be in other folders.
        println!("cargo::rerun-if-changed={}", self.root.join(&self.folder).display());
        for source in sources {
            println!("cargo::rerun-if-changed={}", self.root.join(source).display());
        }
        println!("cargo::rerun-if-changed={}", self.nvcc.path.display());
        let variables = Search::VARIABLES.iter().chain(&Build::FLAG_VARIABLES).chain(&["IRONWARP_ARCHS"]);
        variables.for_each(|name| println!("cargo::rerun-if-env-changed={name}"));
        Ok(())
    }

    /// Every pair of a file and an architecture that it is compiled for, sorted.
    fn units(&self) -> Result<Vec<Unit<'_>>> {
        let folder = self.root.join(&self.folder);
        let entries = fs::read_dir(&folder).and_then(Iterator::collect::<Result<Vec<_>, _>>);
        let paths = entries.map_err(Error::io("list", &folder))?.into_iter().map(|entry| entry.path());
        let kernels = paths.filter(|path| path.extension().is_some_and(|extension| extension == "cu"));
        let mut stems: Vec<String> = kernels.filter_map(|path| Some(path.file_stem()?.to_str()?.to_owned())).collect();
        stems.sort();
        let pairs = stems.iter().flat_map(|stem| self.archs.iter().map(move |&arch| (stem, arch)));
        let pairs = pairs.filter(|(stem, arch)| arch.supports(stem));
        Ok(pairs.map(|(stem, arch)| Unit { build: self, stem: stem.clone(), arch }).collect())
    }

    /// Compiles all units in parallel. Returns the sources of all of them.
    fn compile(&self, units: &[Unit<'_>]) -> Result<BTreeSet<PathBuf>> {
        fs::create_dir_all(&self.out).map_err(Error::io("create", &self.out))?;
        let waiting = Mutex::new(units.iter().enumerate());
        let results = Mutex::new(Vec::new());
        let work = || {
            loop {
                let next = waiting.lock().expect("no worker panics with the lock").next();
                let Some((index, unit)) = next else { return };
                let result = unit.bring_up_to_date();
                results.lock().expect("no worker panics with the lock").push((index, result));
            }
        };
        thread::scope(|scope| (0..workers().min(units.len())).for_each(|_| drop(scope.spawn(work))));
        let mut results = results.into_inner().expect("no worker panics with the lock");
        // Errors are reported in the order of the units, not in the order in which the workers finished.
        results.sort_by_key(|(index, _)| *index);
        let (mut sources, mut errors) = (BTreeSet::new(), Vec::new());
        for (_, result) in results {
            match result {
                Ok(of_unit) => sources.extend(of_unit),
                Err(error) => errors.push(error),
            }
        }
        combine_errors(errors).map(|()| sources)
    }

    fn write_table(&self, units: &[Unit<'_>]) -> Result<()> {
        let mut table = String::from("&[\n");
        for unit in units {
            let cubin = unit.output("cubin");
            // Architectures with the same PTX refer to one file, so that the program contains the text once.
            let same = |other: &&Unit<'_>| other.stem == unit.stem && other.of_ptx() == unit.of_ptx();
            let ptx = units.iter().find(same).unwrap_or(unit).output("ptx");
            table += &format!(
                "    Image {{\n        stem: {:?},\n        arch: \"{}\",\n        ptx: include_str!({ptx:?}),\n        \
                 cubin: include_bytes!({cubin:?}),\n        resources: &[\n",
                unit.stem, unit.arch
            );
            for Resources { kernel, registers, local: [stack, stores, loads], shared } in unit.resources()? {
                table += &format!(
                    "            Resources {{ kernel: {kernel:?}, registers: {registers}, stack_bytes: {stack}, \
                     spill_store_bytes: {stores}, spill_load_bytes: {loads}, shared_bytes: {shared} }},\n"
                );
            }
            table += "        ],\n    },\n";
        }
        table += "]\n";
        let path = self.out.join("kernels.rs");
        fs::write(&path, table).map_err(Error::io("write", &path))
    }
}

/// Number of worker threads: cargo's number of jobs, or the number of cores.
fn workers() -> usize {
    let jobs = env::var("NUM_JOBS").ok().and_then(|jobs| jobs.parse().ok());
    jobs.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from)).max(1)
}

/// `Ok` if there are no errors, else the error, or all of them in one.
pub(crate) fn combine_errors(mut errors: Vec<Error>) -> Result<()> {
    match errors.len() {
        0 => Ok(()),
        1 => Err(errors.remove(0)),
        _ => Err(Error::Several(errors)),
    }
}
