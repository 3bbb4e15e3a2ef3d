//! Compiles variants of the kernels with the build's nvcc, for the emulated GPU to run instead of the kernels of the
//! build.

// Each test program uses only some of these functions.
#![allow(dead_code)]

use std::ffi::OsStr;
use std::fs;
use std::path::Path;
use std::process::Command;

use ironwarp_nvcc::Search;

use crate::environment;

/// Compiles a file of `kernels/` to PTX after replacing texts, each of which must occur exactly once. The compilation
/// uses a copy of the sources.
pub fn ptx(file: &str, changes: &[(&str, &str)]) -> String {
    let folder = tempfile::tempdir().unwrap();
    copy(&environment::project().join("kernels"), &folder.path().join("kernels"));
    let path = folder.path().join("kernels").join(file);
    let mut text = fs::read_to_string(&path).unwrap();
    for (before, after) in changes {
        assert_eq!(text.matches(before).count(), 1, "{before:?} in {file}");
        text = text.replace(before, after);
    }
    fs::write(&path, text).unwrap();
    let kernels = format!("kernels/{file}");
    nvcc(
        folder.path(),
        &["-std=c++17", "-fmad=false", "-lineinfo", "-ptx", "-arch=compute_80", "-o", "variant.ptx", &kernels],
    );
    let ptx = fs::read_to_string(folder.path().join("variant.ptx")).unwrap();
    // The build also writes source paths relative to the project's folder.
    ptx.replace(&format!("{}/", folder.path().canonicalize().unwrap().display()), "")
}

/// Registers per thread that ptxas assigns to a kernel for sm_80. Panics if it spills registers.
pub fn registers(ptx: &str, kernel: &str) -> u32 {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("variant.ptx"), ptx).unwrap();
    let log = nvcc(folder.path(), &["-cubin", "-arch=sm_80", "-Xptxas=-v", "-o", "variant.cubin", "variant.ptx"]);
    let (_, of_kernel) = log.split_once(&format!("entry function '{kernel}'")).expect(kernel);
    let (properties, used) = of_kernel.split_once(": Used ").expect(kernel);
    assert!(properties.contains("0 bytes spill stores, 0 bytes spill loads"), "{kernel}: {properties}");
    used.split(' ').next().and_then(|number| number.parse().ok()).expect(kernel)
}

fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        if path.is_dir() {
            copy(&path, &target);
        } else {
            fs::copy(&path, &target).unwrap();
        }
    }
}

/// Runs nvcc in a folder. Returns its output.
fn nvcc(folder: &Path, args: &[impl AsRef<OsStr>]) -> String {
    let path = Search::from_env(&environment::project()).find().unwrap().path;
    let output = Command::new(path).args(args).current_dir(folder).output().unwrap();
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "{text}");
    text
}
