//! Text processing: tokenizers, token shards, corpora and evaluation.

mod bpe;
pub mod corpus;
pub mod embedded;
pub mod evaluation;
mod input;
mod pretokenize;
pub mod scoring;
pub mod shard;
pub mod tokenize;
pub mod tokenizer;
