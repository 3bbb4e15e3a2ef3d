//! Test tooling for the emulator.
//!
//! - `trials::trials()` are correct kernels with their shapes and references. They must pass with every seed, with the
//!   same bits, and their mutants must be killed. `kernels/buggy` contains kernels with one deliberate bug each, which the
//!   tests use. Both need the feature `kernels`.
//! - [`mutate`] generates and runs mutants of any kernel. `cargo run -p emulator-trials --bin mutants` prints which mutants
//!   of the trial kernels are killed.
//! - [`tier`] says how much of all that the tests of the workspace run.

#[cfg(feature = "kernels")]
mod case;
pub mod mutate;
#[cfg(feature = "kernels")]
mod random;
pub mod tier;
#[cfg(feature = "kernels")]
pub mod trials;

#[cfg(feature = "kernels")]
pub use case::{Arg, Case, Device, Done, Expected, Failure, bytes_of};
#[cfg(feature = "kernels")]
pub use random::Random;

/// A compiled kernel file.
#[derive(Debug, Clone, Copy)]
pub struct Image {
    /// The file's name without `.cu`.
    pub stem: &'static str,
    pub arch: &'static str,
    pub ptx: &'static str,
    pub cubin: &'static [u8],
    pub resources: &'static [Resources],
}

/// The resources that a kernel uses, as ptxas reports them.
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
#[cfg(feature = "kernels")]
pub static CORRECT: &[Image] = include!(concat!(env!("OUT_DIR"), "/kernels.rs"));

/// `kernels/buggy/*.cu`
#[cfg(feature = "kernels")]
pub static BUGGY: &[Image] = include!(concat!(env!("OUT_DIR"), "/buggy/kernels.rs"));

/// The PTX of a kernel file.
///
/// # Panics
/// If there is no such file.
pub fn ptx(images: &[Image], stem: &str) -> &'static str {
    let image = images.iter().find(|image| image.stem == stem);
    image.unwrap_or_else(|| panic!("no kernel file {stem}.cu")).ptx
}
