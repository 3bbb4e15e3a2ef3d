//! The hand-written CUDA kernels of `kernels/`, compiled when this crate is built with the feature `cuda`.
//!
//! [`images`] has their machine code and PTX, [`params`] what a launch passes to them; [`driver`] finds what runs them. Building needs nvcc and no GPU:
//! `docs/building-kernels.md`.

pub mod driver;
pub mod images;
#[rustfmt::skip] // As bindgen writes it.
pub mod params;
