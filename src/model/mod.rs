//! GPT-2, written once over the list of operations.

pub mod config;
pub(crate) mod json;
pub mod params;
pub mod safetensors;
