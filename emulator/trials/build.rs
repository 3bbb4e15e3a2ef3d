//! Compiles `kernels/*.cu` and `kernels/buggy/*.cu` for the feature `kernels`.

use std::path::{Path, PathBuf};
use std::{env, fs, io};

use ironwarp_nvcc::{Arch, Build, Result};

/// The workspace, which the paths in PTX are relative to.
const WORKSPACE: &str = "../..";
const KERNELS: &str = "emulator/trials/kernels";

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if env::var_os("CARGO_FEATURE_KERNELS").is_none() {
        return;
    }
    // `cargo package` builds a copy outside of the workspace, to see that it compiles.
    if !Path::new(WORKSPACE).join(KERNELS).is_dir() {
        embed_nothing().expect("OUT_DIR is writable");
        return;
    }
    if let Err(error) = compile() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn compile() -> Result<()> {
    let mut build = Build::from_env(WORKSPACE, KERNELS)?;
    build.archs = Arch::list("80")?;
    build.run()?;
    build.folder += "/buggy";
    build.out.push("buggy");
    build.allow_spills = true;
    build.run()
}

fn embed_nothing() -> io::Result<()> {
    let out = PathBuf::from(env::var_os("OUT_DIR").expect("cargo sets OUT_DIR for build scripts"));
    fs::create_dir_all(out.join("buggy"))?;
    ["kernels.rs", "buggy/kernels.rs"].into_iter().try_for_each(|table| fs::write(out.join(table), "&[]\n"))
}
