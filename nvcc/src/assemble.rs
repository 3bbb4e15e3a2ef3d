//! The assembly of PTX to machine code, and the rules that kernels must keep.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::{env, fs};

use crate::build::combine_errors;
use crate::{Arch, Error, Nvcc, Resources, Result, ptxas};

/// Flags for PTX to cubin. `-v` prints the resources of the kernels, including spills.
pub(crate) const FLAGS: [&str; 5] = ["-lineinfo", "-Werror", "all-warnings", "-Xptxas=-v", "-cubin"];

impl Nvcc {
    /// Assembles PTX to machine code, as a build does with the PTX of a kernel file, and discards the machine code.
    /// PTX for one architecture assembles for newer ones too, unless it is specific to its own, as for `90a`. `file`
    /// names the PTX in messages. Returns the resources of the kernels, sorted by name.
    ///
    /// # Errors
    /// All errors and warnings of ptxas, and all violations of the rules for kernels: [`Error::Compile`],
    /// [`Error::Rejected`].
    pub fn assemble(&self, file: &str, ptx: &str, arch: Arch) -> Result<Vec<Resources>> {
        let [input, output] = ["ptx", "cubin"].map(temporary);
        let log = fs::write(&input, ptx)
            .map_err(Error::io("write", &input))
            .and_then(|()| self.run(Path::new("."), file, arch, &flags(arch), &input, &output));
        for path in [&input, &output] {
            let _ = fs::remove_file(path);
        }
        let log = log?;
        check(&log, ptx, file, arch, false)?;
        Ok(ptxas::resources(&log))
    }

    /// Runs nvcc in a folder. Returns its output.
    pub(crate) fn run(
        &self,
        folder: &Path,
        file: &str,
        arch: Arch,
        flags: &[OsString],
        input: &Path,
        output: &Path,
    ) -> Result<String> {
        let mut command = Command::new(&self.path);
        command.args(flags).arg("-o").arg(output).arg(input).current_dir(folder);
        let result = command.output().map_err(Error::io("run", &self.path))?;
        let text = [result.stdout, result.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
        if result.status.success() {
            return Ok(text);
        }
        Err(Error::Compile { file: file.to_owned(), arch, status: result.status, output: text })
    }
}

/// nvcc's flags that assemble PTX for an architecture.
pub(crate) fn flags(arch: Arch) -> Vec<OsString> {
    FLAGS.map(OsString::from).into_iter().chain([format!("-arch=sm_{arch}").into()]).collect()
}

/// Checks the output of ptxas on `ptx` by the rules for kernels. Returns all violations.
pub(crate) fn check(log: &str, ptx: &str, file: &str, arch: Arch, allow_spills: bool) -> Result<()> {
    let rejected = |kernel: String, fault| Error::Rejected { file: file.to_owned(), arch, kernel, fault };
    let faults = ptxas::findings(log, ptx).into_iter().filter(|finding| !(finding.spill && allow_spills));
    let faults = faults.map(|finding| rejected(finding.kernel, finding.fault));
    let known = ptxas::resources(log);
    let unknown = ptxas::entries(ptx).into_iter().filter(|name| known.iter().all(|known| known.kernel != *name));
    let unknown = unknown.map(|name| rejected(name.to_owned(), "ptxas does not report its resources".to_owned()));
    combine_errors(faults.chain(unknown).collect())
}

/// A path for a temporary file that no other call uses.
pub(crate) fn temporary(extension: &str) -> PathBuf {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let number = NEXT.fetch_add(1, Ordering::Relaxed);
    env::temp_dir().join(format!("ironwarp-nvcc-{}-{number}.{extension}", std::process::id()))
}
