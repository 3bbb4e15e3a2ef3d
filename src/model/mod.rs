//! GPT-2, written once over the list of operations.

pub mod config;
pub mod params;
