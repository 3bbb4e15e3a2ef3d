//! Text in and out: tokenizers, token shards, corpora and evaluation sets.

mod bpe;
mod pretokenize;
pub mod shard;
pub mod tokenizer;
