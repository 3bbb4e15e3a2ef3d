//! `cvt`: conversions between integers, floating-point numbers and packed formats.

mod decode;
mod execute;
mod packed;
mod types;

pub(super) use decode::decode;
pub(super) use execute::execute;
pub use packed::ConvertPacked;
pub(super) use packed::execute as execute_packed;
pub use types::Convert;
