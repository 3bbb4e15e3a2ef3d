//! The environment of a test program: paths of the project and of its command, and the GPU to test on. A test program
//! may run on another machine than it was built on.

// Each test program uses only some of these functions.
#![allow(dead_code)]

use std::env;
use std::path::{Path, PathBuf};

/// The folder of the package: CARGO_MANIFEST_DIR of the running process, which cargo or the caller sets, else the
/// folder at compile time.
pub fn project() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

/// Path of the command `ironwarp`: IRONWARP_BIN, else next to the test program, else where cargo built it.
pub fn command() -> PathBuf {
    if let Some(path) = env::var_os("IRONWARP_BIN") {
        return path.into();
    }
    let program = env::current_exe().expect("the path of the running program");
    let neighbour = program.with_file_name("ironwarp");
    match option_env!("CARGO_BIN_EXE_ironwarp") {
        Some(built) if !neighbour.is_file() => built.into(),
        _ => neighbour,
    }
}

/// A folder for files that outlive a test: cargo's, or the system's folder for temporary files if cargo's does not
/// exist.
pub fn scratch() -> PathBuf {
    let cargos = option_env!("CARGO_TARGET_TMPDIR").map(Path::new).filter(|folder| folder.is_dir());
    cargos.map_or_else(env::temp_dir, Path::to_owned)
}

/// Ordinal of the real GPU to test on, if IRONWARP_TEST_DEVICE is `cuda` or `cuda:N`; `None` for the emulated GPU.
pub fn real_gpu() -> Option<usize> {
    let text = env::var_os("IRONWARP_TEST_DEVICE")?;
    let text = text.to_string_lossy();
    let ordinal = match &*text {
        "emulated" => return None,
        "cuda" => Some(0),
        _ => text.strip_prefix("cuda:").and_then(|ordinal| ordinal.parse().ok()),
    };
    Some(ordinal.unwrap_or_else(|| panic!("IRONWARP_TEST_DEVICE='{text}': expected emulated, cuda or cuda:N")))
}

/// Prints that a test is skipped, and what it needs.
pub fn skip(needs: &str) {
    let thread = std::thread::current();
    // With one test thread, libtest runs tests on the main thread and has just printed the test's name.
    let test = thread.name().filter(|name| *name != "main").unwrap_or("this test");
    println!("{test}: needs {needs}");
}
