//! The CUDA driver: the installed one, or the emulated one.

use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::driver::sys::CUresult::*;
use cudarc::driver::{result, sys};
use libloading::Library;

use super::faults::Fault;
use crate::message::escaped_path;
use crate::{Error, Result, files};

/// The oldest driver that loads what the build compiles: PTX 9.0 and cubins of CUDA 13.0.
const OLDEST: i32 = 13000;
/// NVIDIA's version number of that driver on Linux.
const OLDEST_RELEASE: &str = "580";

/// The library stays loaded for the life of the process, as its functions are handed out.
static EMULATOR: OnceLock<Library> = OnceLock::new();

/// Loads the emulated driver from its file, `libcuda_emulator.so`. The library's soname is `libcuda.so`, so cudarc then
/// finds it as the loaded driver. Call this before any other CUDA function.
///
/// # Errors
/// [`Error::Unavailable`] if the file cannot be loaded, or is another library.
pub fn emulate(path: &Path) -> Result<()> {
    if EMULATOR.get().is_some() {
        return Ok(());
    }
    let unavailable = |cause: String| {
        let path = escaped_path(path);
        Error::Unavailable(format!("no emulated CUDA driver at {path} ({cause}); `make emulator` builds it"))
    };
    if path.exists() {
        // The loader would wait for a writer of a named pipe.
        files::open_regular(path).map_err(|error| unavailable(error.to_string()))?;
    }
    // SAFETY: loading runs the library's initialisers. The emulator's have no effects outside of the library.
    #[allow(unsafe_code)]
    let library = unsafe { Library::new(path) }.map_err(|error| unavailable(error.to_string()))?;
    // SAFETY: the symbol is looked up, but not used.
    #[allow(unsafe_code)]
    let version = unsafe { library.get::<*const ()>(b"ironwarp_emulator_version") };
    version.map_err(|_| unavailable("this library is not the emulator".into()))?;
    // If another thread was faster, the same library is loaded twice. That is harmless, and both stay loaded.
    let _ = EMULATOR.set(library);
    Ok(())
}

/// Finds the file of the emulated driver: the one that IRONWARP_EMULATOR names, or the one that `make emulator` puts into
/// the release folder, which is searched for next to the running program and in the folders above, then in the target
/// folder of the package that cargo runs.
///
/// # Errors
/// [`Error::Unavailable`] with the folders searched.
pub fn find_emulator() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("IRONWARP_EMULATOR") {
        return Ok(path.into());
    }
    let program = std::env::current_exe().map_err(|cause| Error::io("find", "the running program", cause))?;
    let package = package_target();
    let folders = || program.ancestors().skip(1).take(3).chain(package.as_deref());
    // Release builds first: tests of a debug build leave their own emulator next to them, which is slow and may be old.
    let release = folders().map(|folder| folder.join("release/libcuda_emulator.so"));
    let candidates: Vec<PathBuf> = release.chain(folders().map(|folder| folder.join("libcuda_emulator.so"))).collect();
    candidates.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let folders: Vec<String> = folders().map(escaped_path).collect();
        Error::Unavailable(format!(
            "no emulated CUDA driver: libcuda_emulator.so is neither in {} nor in their subfolders `release`; `make \
             emulator` builds it, or set IRONWARP_EMULATOR to its path",
            folders.join(", ")
        ))
    })
}

/// The target folder of the package whose program or test cargo runs. The program of a documentation test is in a
/// temporary folder.
fn package_target() -> Option<PathBuf> {
    let manifest = PathBuf::from(std::env::var_os("CARGO_MANIFEST_DIR")?);
    let target = std::env::var_os("CARGO_TARGET_DIR").unwrap_or_else(|| "target".into());
    manifest.ancestors().map(|folder| folder.join(&target)).find(|folder| folder.is_dir())
}

/// Finds a CUDA driver that can run the kernels and initialises it: the one that [`emulate`] has loaded, or the installed
/// one. Returns the number of devices. cudarc panics without a driver, so this must precede its first call.
///
/// # Errors
/// [`Error::Unavailable`], in one line that says what was found and what is required.
pub fn require() -> Result<usize> {
    let unavailable = |found: String| Err(Error::Unavailable(format!("{found}; the CPU backend works without a GPU")));
    // SAFETY: loads the driver library by its usual names, as cudarc itself does later.
    #[allow(unsafe_code)]
    let present = unsafe { sys::is_culib_present() };
    if !present {
        return unavailable("no CUDA driver: libcuda.so was not found; install NVIDIA's driver".into());
    }
    if let Some(missing) = missing_symbol() {
        return unavailable(format!(
            "no CUDA driver: the libcuda.so found is not a driver, as it does not export {missing}; NVIDIA's driver \
             {OLDEST_RELEASE} or newer is required"
        ));
    }
    let fault = |error| Fault::from(error);
    match result::init().map_err(fault) {
        Ok(()) => {}
        Err(fault) if fault.is(CUDA_ERROR_STUB_LIBRARY) => {
            return unavailable(
                "no CUDA driver: the libcuda.so found is the toolkit's stub, which serves for linking only; put the \
                 folder of the driver's libcuda.so.1 first in the library path"
                    .into(),
            );
        }
        Err(fault) if fault.is(CUDA_ERROR_NO_DEVICE) => {
            return unavailable("no GPU: the CUDA driver found no device".into());
        }
        Err(fault) => return unavailable(format!("the CUDA driver failed to initialise: {fault}")),
    }
    let version = match query_version() {
        Ok(version) => version,
        Err(fault) => return unavailable(format!("cannot query the version of the CUDA driver: {fault}")),
    };
    if version < OLDEST {
        return unavailable(format!(
            "the CUDA driver is too old: it supports CUDA {}, but {} or newer is required (NVIDIA's driver \
             {OLDEST_RELEASE})",
            Version(version),
            Version(OLDEST)
        ));
    }
    match result::device::get_count().map_err(fault) {
        Ok(count) if count > 0 => Ok(count as usize),
        Ok(_) => unavailable("no GPU: the CUDA driver found no device".into()),
        Err(fault) => unavailable(format!("cannot query the number of devices: {fault}")),
    }
}

/// The CUDA version of the driver that [`require`] has found, such as `13.0`.
pub(super) fn version() -> String {
    query_version().map_or_else(|_| "unknown".into(), |version| Version(version).to_string())
}

/// The CUDA version of the driver as 1000 × major + 10 × minor.
fn query_version() -> Result<i32, Fault> {
    let mut version = 0;
    // SAFETY: writes one int.
    #[allow(unsafe_code)]
    let outcome = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    outcome.map(|()| version).map_err(Fault::from)
}

struct Version(i32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// The first of the functions needed to query the driver's version that the library does not export; cudarc panics if one
/// is missing. A driver of a sufficient version exports all others.
fn missing_symbol() -> Option<&'static str> {
    // SAFETY: the library is loaded, and the symbols are looked up, but not used.
    #[allow(unsafe_code)]
    let has = |name: &str| unsafe { sys::culib().get::<*const ()>(name.as_bytes()).is_ok() };
    ["cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuGetErrorName", "cuGetErrorString"]
        .into_iter()
        .find(|name| !has(name))
}

/// The function `ironwarp_emulator_<name>` of the emulated driver, if that is loaded. `F` is the function's type.
pub(super) fn emulator_entry<F: Copy>(name: &str) -> Option<F> {
    // SAFETY: each caller passes the type that `emulator/driver/src/control.rs` declares for the function.
    #[allow(unsafe_code)]
    let symbol = unsafe { EMULATOR.get()?.get::<F>(format!("ironwarp_emulator_{name}").as_bytes()) };
    symbol.ok().map(|symbol| *symbol)
}

/// The emulated driver's explanation of the last failure, if it is loaded and has one.
pub(super) fn emulator_text() -> Option<String> {
    let text: extern "C" fn(*mut u8, usize) -> usize = emulator_entry("last_error")?;
    let mut buffer = vec![0; 4096];
    let length = text(buffer.as_mut_ptr(), buffer.len());
    buffer.truncate(length.min(4095));
    String::from_utf8(buffer).ok().filter(|text| !text.is_empty())
}
