//! What a launch needs apart from a device: kernel contracts, parameter structs, and the compiled kernels.

pub mod images;
#[rustfmt::skip] // As bindgen writes it.
pub mod params;
pub mod spec;
