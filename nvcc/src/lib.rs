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
//! ```ignore
//! // In the crate: `Image` and `Resources` are structs of its own with these fields.
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
//! A pair of file and architecture is compiled again only when the file, a header it includes, the flags or nvcc have
//! changed. What comes out depends on sources and toolkit alone, not on the folder they lie in. A kernel that spills
//! registers, or for which ptxas serialises `wgmma` or ignores `setmaxnreg`, fails the build.
//!
//! `docs/building-kernels.md` is the guide.

#![warn(missing_docs)]

mod arch;
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

/// Result with this crate's [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why kernels could not be compiled.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// No nvcc that can be used; lists the places and why each would not do.
    #[error(
        "no nvcc of CUDA {}.{} or newer was found. Looked at:\n  {}\n\
         It compiles the kernels of feature `cuda`; no GPU is needed for that. This command sets one up in the last of \
         these places:\n  scripts/cuda-toolkit.sh",
        locate::OLDEST.0, locate::OLDEST.1, looked_at.join("\n  ")
    )]
    NoNvcc {
        /// One line a place.
        looked_at: Vec<String>,
    },

    /// nvcc is there and the compiler that it drives is not.
    #[error(
        "{} needs a host compiler, and there is no g++ in PATH. Install one (Debian, Ubuntu: apt-get install g++) or \
         name another in NVCC_CCBIN",
        nvcc.display()
    )]
    NoHostCompiler {
        /// The nvcc.
        nvcc: PathBuf,
    },

    /// The list of architectures makes no sense.
    #[error("IRONWARP_ARCHS = {list:?}: {entry:?} is no architecture; write numbers from 80 on as in 80,90a")]
    Archs {
        /// The whole list.
        list: String,
        /// The entry at fault.
        entry: String,
    },

    /// The operating system refused something.
    #[error("cannot {action} {}: {cause}", path.display())]
    Io {
        /// What was tried, as a verb.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// The system's answer.
        cause: std::io::Error,
    },

    /// nvcc found fault with a file.
    #[error("{file} for sm_{arch}: nvcc failed ({status}):\n{output}")]
    Compile {
        /// The kernel file.
        file: String,
        /// The architecture.
        arch: Arch,
        /// How nvcc ended.
        status: std::process::ExitStatus,
        /// All that nvcc said.
        output: String,
    },

    /// A kernel compiles, but not to what may be shipped.
    #[error("{file}: kernel {kernel} for sm_{arch}: {fault}")]
    Rejected {
        /// The kernel file.
        file: String,
        /// The function, as ptxas names it.
        kernel: String,
        /// The architecture.
        arch: Arch,
        /// What is wrong, with ptxas's numbers or words.
        fault: String,
    },

    /// All that went wrong, by file and architecture.
    #[error("{}", .0.iter().map(ToString::to_string).collect::<Vec<_>>().join("\n"))]
    Several(Vec<Error>),
}

impl Error {
    /// For `map_err`.
    fn io(action: &'static str, path: &Path) -> impl FnOnce(std::io::Error) -> Error {
        move |cause| Error::Io { action, path: path.to_owned(), cause }
    }
}
