//! What a launch needs apart from a device: kernel contracts, parameter structs, and the compiled kernels.

pub mod device_ptr;
pub mod images;
#[rustfmt::skip] // The file is kept as bindgen writes it.
pub mod params;
pub mod spec;
