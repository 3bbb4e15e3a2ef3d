//! The CUDA driver: the system's, or the emulated one.

use std::ffi::c_char;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use cudarc::driver::sys::CUresult::*;
use cudarc::driver::{result, sys};
use libloading::Library;

use super::faults::Fault;
use crate::{Error, Result};

/// The oldest driver that loads what the build makes: PTX 9.0 and machine code of CUDA 13.0.
const OLDEST: i32 = 13000;
/// NVIDIA's number for it on Linux.
const OLDEST_RELEASE: &str = "580";

/// Stays loaded for the life of the process: functions of it are handed out.
static EMULATOR: OnceLock<Library> = OnceLock::new();

/// Loads the emulated driver from its file, `libcuda_emulator.so`. Its name inside is `libcuda.so`, under which cudarc
/// then finds it loaded: call this before any other CUDA function.
///
/// # Errors
/// [`Error::Unavailable`] if it cannot be loaded, or is something else.
pub fn emulate(path: &Path) -> Result<()> {
    if EMULATOR.get().is_some() {
        return Ok(());
    }
    let refuse = |cause: String| {
        let path = path.display();
        Error::Unavailable(format!("no emulated CUDA driver at {path} ({cause}); `make emulator` builds it"))
    };
    // SAFETY: a library's initialisers run; the emulator's touch nothing but itself.
    #[allow(unsafe_code)]
    let library = unsafe { Library::new(path) }.map_err(|error| refuse(error.to_string()))?;
    // SAFETY: the symbol is looked for, and not used.
    #[allow(unsafe_code)]
    let version = unsafe { library.get::<*const ()>(b"ironwarp_emulator_version") };
    version.map_err(|_| refuse("it is a library, but not the emulator".into()))?;
    // If another thread was first, the same library is loaded twice over, and stays.
    let _ = EMULATOR.set(library);
    Ok(())
}

/// Where the emulated driver is: the file that IRONWARP_EMULATOR names, else the one that `make emulator` leaves in the
/// release folder, looked for beside the running program and in the folders above it.
///
/// # Errors
/// [`Error::Unavailable`] with the places looked at.
pub fn find_emulator() -> Result<PathBuf> {
    if let Some(path) = std::env::var_os("IRONWARP_EMULATOR") {
        return Ok(path.into());
    }
    let program = std::env::current_exe().map_err(|cause| Error::io("find", "the running program", cause))?;
    let folders = || program.ancestors().skip(1).take(3);
    // Release first: tests of a debug build leave an emulator of theirs beside them, a slow one, and perhaps an old one.
    let release = folders().map(|folder| folder.join("release/libcuda_emulator.so"));
    let places: Vec<PathBuf> = release.chain(folders().map(|folder| folder.join("libcuda_emulator.so"))).collect();
    places.iter().find(|path| path.is_file()).cloned().ok_or_else(|| {
        let folders: Vec<String> = folders().map(|folder| folder.display().to_string()).collect();
        Error::Unavailable(format!(
            "no emulated CUDA driver: libcuda_emulator.so is not in {} nor in `release` there; `make emulator` builds \
             it, IRONWARP_EMULATOR names another place",
            folders.join(", ")
        ))
    })
}

/// Finds a CUDA driver that can run the kernels, and starts it: the one that [`emulate`] has loaded, or the system's.
/// cudarc panics where there is none, so this comes before its first call. Answers the number of devices.
///
/// # Errors
/// [`Error::Unavailable`]: one line with what was found, and what is needed.
pub fn require() -> Result<usize> {
    let unavailable = |found: String| Err(Error::Unavailable(format!("{found}; the CPU backend works without")));
    // SAFETY: loads the library by its usual names, as cudarc itself does later; a driver is made for that.
    #[allow(unsafe_code)]
    let present = unsafe { sys::is_culib_present() };
    if !present {
        return unavailable(
            "no CUDA driver: libcuda.so was not found; install NVIDIA's driver, or build the emulated one with \
             `make emulator`"
                .into(),
        );
    }
    if let Some(missing) = missing_symbol() {
        return unavailable(format!(
            "no CUDA driver: the libcuda.so found has no {missing}, so it is none; NVIDIA's driver {OLDEST_RELEASE} or \
             newer is needed"
        ));
    }
    let fault = |error| Fault::from(error);
    match result::init().map_err(fault) {
        Ok(()) => {}
        Err(fault) if fault.is(CUDA_ERROR_STUB_LIBRARY) => {
            return unavailable(
                "no CUDA driver: the libcuda.so found is the toolkit's stub, which programs are only linked with; put \
                 the folder of the driver's own libcuda.so.1 first in the library path"
                    .into(),
            );
        }
        Err(fault) if fault.is(CUDA_ERROR_NO_DEVICE) => {
            return unavailable("no GPU: the CUDA driver found no device".into());
        }
        Err(fault) => return unavailable(format!("the CUDA driver does not start: {fault}")),
    }
    let version = match ask_version() {
        Ok(version) => version,
        Err(fault) => return unavailable(format!("the CUDA driver does not tell its version: {fault}")),
    };
    if version < OLDEST {
        return unavailable(format!(
            "the CUDA driver is too old: it has CUDA {}, {} or newer is needed (NVIDIA's driver {OLDEST_RELEASE})",
            Version(version),
            Version(OLDEST)
        ));
    }
    match result::device::get_count().map_err(fault) {
        Ok(count) if count > 0 => Ok(count as usize),
        Ok(_) => unavailable("no GPU: the CUDA driver found no device".into()),
        Err(fault) => unavailable(format!("the CUDA driver cannot count its devices: {fault}")),
    }
}

/// The version of the driver that [`require`] has found, such as `13.0`.
pub(in crate::cuda) fn version() -> String {
    ask_version().map_or_else(|_| "unknown".into(), |version| Version(version).to_string())
}

/// 1000 × major + 10 × minor.
fn ask_version() -> Result<i32, Fault> {
    let mut version = 0;
    // SAFETY: writes one int.
    #[allow(unsafe_code)]
    let answered = unsafe { sys::cuDriverGetVersion(&mut version) }.result();
    answered.map(|()| version).map_err(Fault::from)
}

struct Version(i32);

impl std::fmt::Display for Version {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.0 / 1000, self.0 % 1000 / 10)
    }
}

/// The first of the functions needed to know the driver's version that the library found does not have: cudarc panics on
/// those. A driver of the right version has all others.
fn missing_symbol() -> Option<&'static str> {
    // SAFETY: the library is present, and the symbols are looked for and not used.
    #[allow(unsafe_code)]
    let has = |name: &str| unsafe { sys::culib().get::<*const ()>(name.as_bytes()).is_ok() };
    ["cuInit", "cuDriverGetVersion", "cuDeviceGetCount", "cuGetErrorName", "cuGetErrorString"]
        .into_iter()
        .find(|name| !has(name))
}

type ErrorText = unsafe extern "C" fn(u32, *mut *const c_char) -> u32;

/// `cuGetErrorName` and `cuGetErrorString`, taking a number: cudarc's take an enum, which has not every code.
pub(in crate::cuda) fn error_texts() -> Option<(ErrorText, ErrorText)> {
    // SAFETY: both functions have this signature, the enum being a C int.
    #[allow(unsafe_code)]
    let find = |name: &str| unsafe { sys::culib().get::<ErrorText>(name.as_bytes()).ok().map(|symbol| *symbol) };
    Some((find("cuGetErrorName")?, find("cuGetErrorString")?))
}

/// A function of the emulated driver's own, `ironwarp_emulator_<name>`, if it is the one in use. `F` is its type.
pub(in crate::cuda) fn emulator_entry<F: Copy>(name: &str) -> Option<F> {
    // SAFETY: each caller names an entry with the type that `emulator/driver/src/control.rs` gives it.
    #[allow(unsafe_code)]
    let symbol = unsafe { EMULATOR.get()?.get::<F>(format!("ironwarp_emulator_{name}").as_bytes()) };
    symbol.ok().map(|symbol| *symbol)
}

/// What the emulated driver says of the last failure, if it is the one in use and has something to say.
pub(in crate::cuda) fn emulator_text() -> Option<String> {
    let text: extern "C" fn(*mut u8, usize) -> usize = emulator_entry("last_error")?;
    let mut buffer = vec![0; 4096];
    let length = text(buffer.as_mut_ptr(), buffer.len());
    buffer.truncate(length.min(4095));
    String::from_utf8(buffer).ok().filter(|text| !text.is_empty())
}
