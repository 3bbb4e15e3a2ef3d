//! Kernels that the emulator is tried on.
//!
//! [`trials`] are sound kernels with their shapes and references: they must pass with every seed, with the same bits,
//! and their mutants must be found out. `kernels/buggy` has kernels with one planted bug each, for the tests alone.
//! `cargo run -p emulator-trials --bin mutants` prints what became of the mutants.

mod case;
mod random;
pub mod trials;

pub use case::{Arg, Case, Device, Done, Failure, Want, bytes_of};
pub use random::Random;

/// A kernel file, compiled.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The file's name without `.cu`.
    pub stem: &'static str,
    pub arch: &'static str,
    pub ptx: &'static str,
    pub cubin: &'static [u8],
    pub resources: &'static [Resources],
}

/// What a kernel takes, as ptxas says.
#[derive(Debug, Clone, Copy)]
pub struct Resources {
    pub kernel: &'static str,
    pub registers: u32,
    pub stack_bytes: u32,
    pub spill_store_bytes: u32,
    pub spill_load_bytes: u32,
    pub shared_bytes: u32,
}

/// `kernels/*.cu`
pub static SOUND: &[Image] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// `kernels/buggy/*.cu`
pub static BUGGY: &[Image] = include!(concat!(env!("OUT_DIR"), "/buggy/kernels.rs"));

/// The PTX of a file.
///
/// # Panics
/// If there is no such file.
pub fn ptx(images: &[Image], stem: &str) -> &'static str {
    let image = images.iter().find(|image| image.stem == stem);
    image.unwrap_or_else(|| panic!("no kernel file {stem}.cu")).ptx
}
