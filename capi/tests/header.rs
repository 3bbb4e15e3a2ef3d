//! The checked-in header is what cbindgen generates, and C and C++ compilers accept it.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::{env, fs};

fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn header() -> PathBuf {
    folder().join("include/ironwarp.h")
}

/// `make header` sets IRONWARP_WRITE_HEADER, which writes the file instead of comparing it.
#[test]
fn the_header_is_current() {
    let config = cbindgen::Config::from_file(folder().join("cbindgen.toml")).unwrap();
    let mut generated = Vec::new();
    cbindgen::generate_with_config(folder(), config).unwrap().write(&mut generated);
    let generated = String::from_utf8(generated).unwrap();
    if env::var_os("IRONWARP_WRITE_HEADER").is_some() {
        fs::write(header(), &generated).unwrap();
    }
    let found = fs::read_to_string(header()).unwrap_or_default();
    let differing = generated.lines().zip(found.lines()).find(|(new, old)| new != old);
    assert!(found == generated, "`make header` regenerates {}: {differing:?}", header().display());
}

#[test]
fn compilers_accept_the_header() {
    for (compiler, language, standard) in [("cc", "c", "c99"), ("c++", "c++", "c++11")] {
        let output = Command::new(compiler)
            .args(["-x", language, &format!("-std={standard}"), "-Wall", "-Wextra", "-Wpedantic", "-Werror"])
            .arg("-fsyntax-only")
            .arg(header())
            .output()
            .unwrap();
        assert!(output.status.success(), "{compiler}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
