//! GPT-2, written once over the list of operations.

pub mod config;
pub mod hugging_face;
pub(crate) mod json;
#[cfg(test)]
mod mutate;
pub mod params;
pub mod safetensors;
