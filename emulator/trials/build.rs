//! Compiles `kernels/*.cu` and `kernels/buggy/*.cu` for the feature `kernels`.

use ironwarp_nvcc::{Arch, Build, Result};

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    if std::env::var_os("CARGO_FEATURE_KERNELS").is_none() {
        return;
    }
    if let Err(error) = compile() {
        eprintln!("{error}");
        std::process::exit(1);
    }
}

fn compile() -> Result<()> {
    let mut build = Build::from_env("../..", "emulator/trials/kernels")?;
    build.archs = Arch::list("80")?;
    build.run()?;
    build.folder += "/buggy";
    build.out.push("buggy");
    build.allow_spills = true;
    build.run()
}
