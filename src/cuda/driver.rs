//! The CUDA driver: the system's, or the emulated one.

use std::path::Path;
use std::sync::OnceLock;

use cudarc::driver::sys;
use libloading::Library;

use crate::{Error, Result};

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

/// Finds a CUDA driver: the one that [`emulate`] has loaded, or the system's. cudarc panics without one, so this comes
/// before its first call.
///
/// # Errors
/// [`Error::Unavailable`], one line.
pub fn require() -> Result<()> {
    // SAFETY: loads the library by its usual names, as cudarc itself does later; a driver is made for that.
    #[allow(unsafe_code)]
    let present = unsafe { sys::is_culib_present() };
    if present {
        return Ok(());
    }
    Err(Error::Unavailable(
        "no CUDA driver: libcuda.so was not found; install NVIDIA's driver, or build the emulated one with \
         `make emulator`; the CPU backend works without either"
            .into(),
    ))
}
