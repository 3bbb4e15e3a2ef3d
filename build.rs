//! Feature `cuda`: compiles `kernels/*.cu`, for `src/cuda/images.rs` to embed.
//! Feature `bindgen`: makes `src/cuda/params.rs` of `kernels/params.h`; the result is checked in.

fn main() {
    #[cfg(feature = "bindgen")]
    params::generate();
    #[cfg(feature = "cuda")]
    if let Err(error) = ironwarp_nvcc::Build::from_env(".", "kernels").and_then(|build| build.run()) {
        eprintln!("{error}");
        std::process::exit(1);
    }
    println!("cargo::rerun-if-changed=build.rs");
}

#[cfg(feature = "bindgen")]
mod params {
    use std::fs;

    use bindgen::callbacks::{DeriveInfo, ParseCallbacks, TypeKind};
    use bindgen::{Builder, Formatter};

    const HEADER: &str = "kernels/params.h";
    const BINDINGS: &str = "src/cuda/params.rs";

    /// A launch copies a struct's bytes, so that it must be plain data without padding: what `Pod` asks for.
    #[derive(Debug)]
    struct PlainData;

    impl ParseCallbacks for PlainData {
        fn add_derives(&self, info: &DeriveInfo<'_>) -> Vec<String> {
            let derives: &[&str] = match info.kind {
                TypeKind::Struct => &["bytemuck::Pod", "bytemuck::Zeroable"],
                _ => &[],
            };
            derives.iter().map(ToString::to_string).collect()
        }
    }

    pub fn generate() {
        println!("cargo::rerun-if-changed={HEADER}");
        println!("cargo::rerun-if-changed={BINDINGS}");
        println!("cargo::rerun-if-env-changed=LIBCLANG_PATH");
        println!("cargo::rerun-if-env-changed=BINDGEN_EXTRA_CLANG_ARGS");
        let builder = Builder::default()
            .header(HEADER)
            .clang_args(["-x", "c++", "-std=c++17"])
            .allowlist_file(HEADER)
            .disable_header_comment()
            .raw_line(
                "//! Parameters and constants of launches: `kernels/params.h` by way of bindgen. Not to be edited;",
            )
            .raw_line("//! `make params` makes it.")
            .parse_callbacks(Box::new(PlainData))
            // The same text whatever rustfmt there is.
            .formatter(Formatter::Prettyplease);
        let bindings = builder.generate().unwrap_or_else(|error| panic!("{HEADER}: {error}")).to_string();
        // Written only when it differs, as a newer file would be compiled again.
        if fs::read_to_string(BINDINGS).ok().as_ref() != Some(&bindings) {
            fs::write(BINDINGS, bindings).unwrap_or_else(|error| panic!("{BINDINGS}: {error}"));
        }
    }
}
