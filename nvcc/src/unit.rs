//! The compilation of one kernel file for one architecture.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};

use crate::assemble::{self, check, flags};
use crate::portable::{normalise, portable};
use crate::ptxas::Resources;
use crate::stamp::{prerequisites, stamp, unchanged};
use crate::{Arch, Build, Error, Result, ptxas};

/// Flags for C++ to PTX. `-lineinfo` lets profilers and the emulator name source lines; it does not change the code.
/// `-fmad=false` fuses multiplications and additions only where the source calls `fmaf`. Otherwise ptxas would decide
/// for each architecture, and the emulator would round where a GPU does not.
const COMPILE: [&str; 6] = ["-std=c++17", "-fmad=false", "-lineinfo", "-Werror", "all-warnings", "-ptx"];
/// Incremented when this crate produces different outputs from the same sources, to force a rebuild.
const REVISION: u32 = 3;

/// A kernel file and an architecture to compile it for.
pub(crate) struct Unit<'a> {
    pub build: &'a Build,
    /// The file's name without `.cu`.
    pub stem: String,
    pub arch: Arch,
}

impl Unit<'_> {
    /// Path of the file, relative to the build's root.
    fn file(&self) -> String {
        format!("{}/{}.cu", self.build.folder, self.stem)
    }

    /// The architecture that the file is compiled to PTX for.
    pub fn of_ptx(&self) -> Arch {
        self.arch.of_ptx(&self.stem)
    }

    /// File name of an output in the build's `out`.
    pub fn output(&self, extension: &str) -> String {
        format!("{}.sm_{}.{extension}", self.stem, self.arch)
    }

    fn path(&self, extension: &str) -> PathBuf {
        self.build.out.join(self.output(extension))
    }

    /// Compiles if something has changed. Returns the file and the headers that it includes, relative to the build's
    /// root.
    pub fn bring_up_to_date(&self) -> Result<Vec<PathBuf>> {
        let recipe = self.recipe();
        let [ptx, cubin, log, stamp_file] = ["ptx", "cubin", "log", "stamp"].map(|extension| self.path(extension));
        if let Ok(old) = fs::read_to_string(&stamp_file)
            && let Some(sources) = unchanged(&old, &recipe, &self.build.root)
            && [&ptx, &cubin, &log].iter().all(|output| output.is_file())
        {
            return Ok(sources);
        }
        // The stamp is removed first: outputs without a stamp are ignored, so an interrupted build leaves no mixture.
        fs::remove_file(&stamp_file).or_else(|error| match error.kind() {
            std::io::ErrorKind::NotFound => Ok(()),
            _ => Err(Error::io("remove", &stamp_file)(error)),
        })?;
        let sources = self.compile(&ptx)?;
        self.assemble(&ptx, &cubin, &log)?;
        if let Some(stamp) = stamp(&recipe, &self.build.root, &sources) {
            fs::write(&stamp_file, stamp).map_err(Error::io("write", &stamp_file))?;
        }
        Ok(sources)
    }

    /// Everything that the outputs depend on except the sources: flags, environment and compiler version.
    fn recipe(&self) -> String {
        let environment = Build::FLAG_VARIABLES.map(|name| std::env::var_os(name).unwrap_or_default());
        let flags = (COMPILE, assemble::FLAGS, self.arch.to_string(), self.build.allow_spills, environment);
        format!("{REVISION} {flags:?}\n{}", self.build.nvcc.version)
    }

    /// Compiles to PTX. Returns the sources.
    fn compile(&self, ptx: &Path) -> Result<Vec<PathBuf>> {
        let rule = self.path("d");
        let mut flags = COMPILE.map(OsString::from).to_vec();
        flags.push(format!("-arch=compute_{}", self.of_ptx()).into());
        flags.extend(["-MD".into(), "-MF".into(), rule.clone().into_os_string()]);
        self.nvcc(&flags, self.file().as_ref(), ptx)?;
        let text = fs::read_to_string(ptx).map_err(Error::io("read", ptx))?;
        let text = portable(&text, |path| self.build.rename(path));
        fs::write(ptx, text).map_err(Error::io("write", ptx))?;
        let rule = fs::read_to_string(&rule).map_err(Error::io("read", &rule))?;
        Ok(prerequisites(&rule).iter().filter_map(|path| self.build.source(path)).collect())
    }

    /// Assembles the PTX that is embedded next to the cubin, checks the kernels, and keeps the output of ptxas for
    /// builds that have nothing to compile.
    fn assemble(&self, ptx: &Path, cubin: &Path, log: &Path) -> Result<()> {
        let output = self.nvcc(&flags(self.arch), ptx, cubin)?;
        fs::write(log, &output).map_err(Error::io("write", log))?;
        let text = fs::read_to_string(ptx).map_err(Error::io("read", ptx))?;
        check(&output, &text, &self.file(), self.arch, self.build.allow_spills)
    }

    /// Resources of the kernels, sorted by name.
    pub fn resources(&self) -> Result<Vec<Resources>> {
        let log = self.path("log");
        fs::read_to_string(&log).map(|log| ptxas::resources(&log)).map_err(Error::io("read", &log))
    }

    /// Runs nvcc in the build's root, so that its messages name files relative to the root. Returns its output.
    fn nvcc(&self, flags: &[OsString], input: &Path, output: &Path) -> Result<String> {
        self.build.nvcc.run(&self.build.root, &self.file(), self.arch, flags, input, output)
    }
}

impl Build {
    /// The path of a file that nvcc names, relative to the root. `None` if it is not a source of the project, but of
    /// the toolkit or the system.
    fn source(&self, path: &Path) -> Option<PathBuf> {
        let path = normalise(&self.root.join(path));
        // The toolkit may be installed within the project's folder.
        let headers = self.nvcc.path.ancestors().nth(2).map(|toolkit| toolkit.join("include"));
        if path.starts_with(&self.target) || headers.is_some_and(|headers| path.starts_with(headers)) {
            return None;
        }
        Some(path.strip_prefix(&self.root).ok()?.to_owned())
    }

    /// The path of a file in PTX: a source of the project relative to the root, another file relative to its include
    /// folder.
    fn rename(&self, path: &Path) -> String {
        if let Some(source) = self.source(path) {
            return source.display().to_string();
        }
        let path = normalise(path).display().to_string();
        match path.rfind("/include/") {
            Some(at) => path[at + 1..].to_owned(),
            None => path.rsplit('/').next().unwrap_or(&path).to_owned(),
        }
    }
}
