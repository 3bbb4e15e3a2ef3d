//! Training a GPT-2.

pub mod checkpoint;
