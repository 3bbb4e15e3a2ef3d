//! Where the project and its command lie, and which GPU tests use: a test program may run elsewhere than it was built.

// Each test program uses some of it.
#![allow(dead_code)]

use std::env;
use std::path::{Path, PathBuf};

/// The folder of the package: what cargo, or whoever runs the program, says now; else where it was built.
pub fn project() -> PathBuf {
    env::var_os("CARGO_MANIFEST_DIR").unwrap_or_else(|| env!("CARGO_MANIFEST_DIR").into()).into()
}

/// The command: IRONWARP_BIN; else beside the test program; else where cargo built it.
pub fn command() -> PathBuf {
    if let Some(path) = env::var_os("IRONWARP_BIN") {
        return path.into();
    }
    let program = env::current_exe().expect("the test knows its own path");
    let beside = program.with_file_name("ironwarp");
    match option_env!("CARGO_BIN_EXE_ironwarp") {
        Some(built) if !beside.is_file() => built.into(),
        _ => beside,
    }
}

/// A folder to write to that outlives a test: cargo's; where that is not, the system's.
pub fn scratch() -> PathBuf {
    let cargos = option_env!("CARGO_TARGET_TMPDIR").map(Path::new).filter(|folder| folder.is_dir());
    cargos.map_or_else(env::temp_dir, Path::to_owned)
}

/// The GPU of the real driver that IRONWARP_TEST_DEVICE asks for, `cuda` or `cuda:N`; none for the emulated one.
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

/// Says that a test cannot do its work here, and what it needs.
pub fn skip(needs: &str) {
    let thread = std::thread::current();
    // With one thread libtest runs tests on its own, and has just printed the name.
    let test = thread.name().filter(|name| *name != "main").unwrap_or("this test");
    println!("{test}: needs {needs}");
}
