//! Compiles a folder of CUDA kernels for a build script: every `.cu` to PTX and cubin, for each architecture.
//!
//! ```no_run
//! // build.rs
//! if let Err(error) = ironwarp_nvcc::Build::from_env(".", "kernels").and_then(|build| build.run()) {
//!     eprintln!("{error}");
//!     std::process::exit(1);
//! }
//! ```
//!
//! ```
//! # macro_rules! include { ($path:expr) => { &[] }; }
//! // In the crate, which defines `Image` and `Resources` with these fields:
//! struct Image {
//!     stem: &'static str,
//!     arch: &'static str,
//!     ptx: &'static str,
//!     cubin: &'static [u8],
//!     resources: &'static [Resources],
//! }
//! struct Resources {
//!     kernel: &'static str,
//!     registers: u32,
//!     stack_bytes: u32,
//!     spill_store_bytes: u32,
//!     spill_load_bytes: u32,
//!     shared_bytes: u32,
//! }
//! static IMAGES: &[Image] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));
//! ```
//!
//! A file is recompiled for an architecture only when the file, a header that it includes, the flags or nvcc have
//! changed. The outputs depend only on sources and toolkit, not on the folder that contains them. A kernel that spills
//! registers, or for which ptxas serialises `wgmma` or ignores `setmaxnreg`, fails the build.
//!
//! `docs/building-kernels.md` is the guide.

#![warn(missing_docs)]

mod arch;
mod assemble;
mod build;
mod locate;
mod portable;
mod ptxas;
mod stamp;
mod unit;

use std::path::{Path, PathBuf};

pub use arch::Arch;
pub use build::Build;
pub use locate::{Nvcc, Search};
pub use ptxas::Resources;

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why kernels could not be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No usable nvcc; lists the locations that were searched and why each was rejected.
    #[error(
        "no nvcc of CUDA {}.{} or newer was found. Looked for:\n  {}\n\
         nvcc compiles the kernels of feature `cuda`; no GPU is needed. In the repository, this command installs it in \
         the last of these locations:\n  scripts/cuda-toolkit.sh\nElsewhere, install a CUDA toolkit and name its folder \
         in CUDA_HOME",
        locate::OLDEST.0, locate::OLDEST.1, rejected.join("\n  ")
    )]
    NoNvcc {
        /// One line for each location.
        rejected: Vec<String>,
    },

    /// nvcc was found, but not the host compiler that it needs.
    #[error(
        "{} needs a host compiler, and there is no g++ in PATH. Install one (Debian, Ubuntu: apt-get install g++) or \
         name another in NVCC_CCBIN",
        nvcc.display()
    )]
    NoHostCompiler {
        /// The nvcc.
        nvcc: PathBuf,
    },

    /// The list of architectures is not valid.
    #[error(
        "IRONWARP_ARCHS = {list:?}: {entry:?} is not an architecture; expected `all`, or numbers from 80, such as 80,90a"
    )]
    Archs {
        /// The whole list.
        list: String,
        /// The entry that is not valid.
        entry: String,
    },

    /// An operation of the file system, or the start of a process, failed.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What failed, as a verb.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        cause: std::io::Error,
    },

    /// nvcc failed to compile a file.
    #[error("{file} for sm_{arch}: nvcc failed ({status}):\n{output}")]
    Compile {
        /// The kernel file.
        file: String,
        /// The architecture.
        arch: Arch,
        /// nvcc's exit status.
        status: std::process::ExitStatus,
        /// nvcc's complete output.
        output: String,
    },

    /// A kernel compiles, but violates a rule for kernels.
    #[error("{file}: kernel {kernel} for sm_{arch}: {fault}")]
    Rejected {
        /// The kernel file.
        file: String,
        /// The function, as ptxas names it.
        kernel: String,
        /// The architecture.
        arch: Arch,
        /// The violation, with the numbers or the text of ptxas.
        fault: String,
    },

    /// Several errors, sorted by file and architecture.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Error>),
}

impl Error {
    /// Makes an [`Error::Io`]; for use with `map_err`.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |cause| Error::Io { action, path: path.to_owned(), cause }
    }
}
