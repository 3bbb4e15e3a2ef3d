//! Finds nvcc. The order of locations is that of `scripts/cuda-toolkit.sh`, which installs nvcc in the last one.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

use crate::assemble::temporary;
use crate::{Arch, Error, Result};

/// The oldest supported release of CUDA, as major and minor number.
pub(crate) const OLDEST: (u32, u32) = (13, 0);

/// The nvcc that `scripts/cuda-toolkit.sh` installs, relative to the target folder.
const PROJECT_NVCC: &str = "cuda-toolkit/nvidia/cu13/bin/nvcc";

/// A usable nvcc.
#[derive(Debug, Clone)]
pub struct Nvcc {
    /// The program.
    pub path: PathBuf,
    /// The output of `nvcc --version`, which includes the build number.
    pub version: String,
}

impl Nvcc {
    /// Compiles one file to PTX with line numbers, for programs that load kernels while they run, such as a test that runs
    /// a kernel on the emulated GPU.
    ///
    /// # Errors
    /// [`Error::Compile`] with nvcc's output.
    pub fn ptx(&self, source: &Path, arch: Arch) -> Result<String, Error> {
        let path = temporary("ptx");
        let flags = ["-ptx".into(), "-std=c++17".into(), "-lineinfo".into(), format!("-arch=compute_{arch}").into()];
        let compiled = self.run(Path::new("."), &source.display().to_string(), arch, &flags, source, &path);
        let ptx = compiled.and_then(|_| fs::read_to_string(&path).map_err(Error::io("read", &path)));
        let _ = fs::remove_file(&path);
        ptx
    }

    /// Runs `nvcc --version`. An error is a text that says why this nvcc cannot be used.
    fn check(path: &Path) -> Result<Nvcc, String> {
        let output = Command::new(path).arg("--version").output().map_err(|error| match error.kind() {
            std::io::ErrorKind::NotFound => "not found".to_owned(),
            _ => format!("does not run: {error}"),
        })?;
        let version = String::from_utf8_lossy(&output.stdout).into_owned();
        match release(&version) {
            _ if !output.status.success() => Err(format!("nvcc --version failed ({})", output.status)),
            None => Err("nvcc --version names no release".to_owned()),
            Some(found) if found < OLDEST => Err(format!("too old: release {}.{}", found.0, found.1)),
            Some(_) => Ok(Nvcc { path: path.to_owned(), version }),
        }
    }
}

/// (13, 0) of `Cuda compilation tools, release 13.0, V13.0.88`.
fn release(version: &str) -> Option<(u32, u32)> {
    let (_, rest) = version.split_once("release ")?;
    let (major, minor) = rest.split_once(',')?.0.split_once('.')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The locations that are searched for nvcc.
#[derive(Debug, Clone, Default)]
pub struct Search {
    /// `NVCC`: if set, only this nvcc may be used.
    pub nvcc: Option<PathBuf>,
    /// `CUDA_HOME`: a toolkit's folder.
    pub cuda_home: Option<PathBuf>,
    /// `CUDA_PATH`: another name for the same.
    pub cuda_path: Option<PathBuf>,
    /// `PATH`.
    pub path: Option<OsString>,
    /// `NVCC_CCBIN`: a host compiler to use instead of g++.
    pub host_compiler: Option<OsString>,
    /// The project's target folder.
    pub target: PathBuf,
}

impl Search {
    /// The variables that cause a rebuild. `PATH` is not one of them: it changes too often without a change of nvcc.
    pub(crate) const VARIABLES: [&str; 4] = ["NVCC", "CUDA_HOME", "CUDA_PATH", "CARGO_TARGET_DIR"];

    /// The locations that the environment of this process names, for the workspace in `root`. An empty variable counts
    /// as not set.
    pub fn from_env(root: &Path) -> Search {
        let variable = |name| env::var_os(name).filter(|value| !value.is_empty());
        let target = variable("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
        Search {
            nvcc: variable("NVCC").map(PathBuf::from),
            cuda_home: variable("CUDA_HOME").map(PathBuf::from),
            cuda_path: variable("CUDA_PATH").map(PathBuf::from),
            path: variable("PATH"),
            host_compiler: variable("NVCC_CCBIN"),
            target: root.join(target),
        }
    }

    /// Finds the first nvcc that is new enough.
    ///
    /// # Errors
    /// [`Error::NoNvcc`] if there is none, or if the one that `NVCC` names cannot be used; [`Error::NoHostCompiler`].
    pub fn find(&self) -> Result<Nvcc> {
        let mut rejected = Vec::new();
        for (location, candidate) in self.candidates() {
            let reason = match candidate.map(|path| (Nvcc::check(&path), path)) {
                Ok((Ok(nvcc), _)) => return self.with_host_compiler(nvcc),
                Ok((Err(reason), path)) => format!("{}: {reason}", path.display()),
                Err(reason) => reason.to_owned(),
            };
            rejected.push(format!("{location}: {reason}"));
            // An explicitly named nvcc must not be replaced by another one.
            if location == "NVCC" && self.nvcc.is_some() {
                break;
            }
        }
        Err(Error::NoNvcc { rejected })
    }

    /// Name of each location with its nvcc, or with the reason why it has none.
    fn candidates(&self) -> [(&'static str, Result<PathBuf, &'static str>); 5] {
        let home = |folder: &Option<PathBuf>| folder.as_ref().map(|folder| folder.join("bin/nvcc")).ok_or("not set");
        // A name without a folder is searched for in PATH.
        let named = |nvcc: &PathBuf| self.on_path(nvcc).unwrap_or_else(|| nvcc.clone());
        [
            ("NVCC", self.nvcc.as_ref().map(named).ok_or("not set")),
            ("CUDA_HOME", home(&self.cuda_home)),
            ("CUDA_PATH", home(&self.cuda_path)),
            ("PATH", self.on_path("nvcc").ok_or("no nvcc in its folders")),
            ("project toolkit", Ok(self.target.join(PROJECT_NVCC))),
        ]
    }

    /// The first such program in `PATH`. An absolute path is used as it is.
    fn on_path(&self, program: impl AsRef<Path>) -> Option<PathBuf> {
        let mut candidates = self.path.iter().flat_map(env::split_paths).map(|folder| folder.join(program.as_ref()));
        candidates.find(|candidate| candidate.is_file())
    }

    fn with_host_compiler(&self, nvcc: Nvcc) -> Result<Nvcc> {
        if self.host_compiler.is_some() || self.on_path("g++").is_some() {
            return Ok(nvcc);
        }
        Err(Error::NoHostCompiler { nvcc: nvcc.path })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn releases_are_read() {
        let text = "nvcc: NVIDIA (R) Cuda compiler driver\nCuda compilation tools, release 13.0, V13.0.88\n";
        assert_eq!(release(text), Some((13, 0)));
        assert_eq!(release("Cuda compilation tools, release 9.2, V9.2.148"), Some((9, 2)));
        assert_eq!(release("gcc (Debian 12.2.0)"), None);
    }
}
