//! A program in C that is linked with the library and the driver, as its users build theirs.

use std::path::{Path, PathBuf};
use std::process::Command;

use ironwarp::cuda::runtime::driver;

/// The folder with libironwarp_capi.so of this build.
fn library_folder() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let folder = program.parent().unwrap();
    assert!(folder.join("libironwarp_capi.so").is_file(), "{} has no libironwarp_capi.so", folder.display());
    folder.to_owned()
}

#[test]
fn a_c_program_runs() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/capi/program.c");
    let folder = tempfile::tempdir().unwrap();
    let (program, library) = (folder.path().join("program"), library_folder());
    // Programs and libraries look for the driver by these names.
    let emulator = driver::find_emulator().unwrap();
    for name in ["libcuda.so", "libcuda.so.1"] {
        std::os::unix::fs::symlink(&emulator, folder.path().join(name)).unwrap();
    }
    let mut compiler = Command::new("cc");
    compiler.args(["-std=c99", "-Wall", "-Wextra", "-Werror", "-I"]);
    compiler.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("include")).arg(&source).arg("-o").arg(&program);
    compiler.arg("-L").arg(&library).arg("-lironwarp_capi").arg(folder.path().join("libcuda.so")).arg("-lm");
    let compiled = compiler.output().unwrap();
    assert!(compiled.status.success(), "{}", String::from_utf8_lossy(&compiled.stderr));
    let paths = std::env::join_paths([folder.path(), &library]).unwrap();
    let run = Command::new(&program).env("LD_LIBRARY_PATH", paths).output().unwrap();
    let output = format!("{}{}", String::from_utf8_lossy(&run.stdout), String::from_utf8_lossy(&run.stderr));
    assert!(run.status.success(), "{output}");
    assert_eq!(output, "gelu(33) = 33.0\nmatmul_forward: C % 8 == 0 failed (C = 7)\n");
}
