//! Text processing: tokenizers, token shards, corpora and evaluation.
//!
//! - [`tokenizer`]: `gpt2`, `bytes` and the tokenizers of Hugging Face folders; [`tokenizer_training`] makes new ones. [`tokenize`](mod@tokenize) converts
//!   files to token shards, [`shard`] is their format and [`token_file`] reads them.
//! - [`corpus`]: training and validation tokens of files and folders; [`listing`]: its files; [`documents`]: the formats
//!   of texts; [`embedded`] is a corpus that is always there.
//! - [`evaluation`] reads evaluation sets, [`scoring`] runs a model on them.
//!
//! ```
//! use ironwarp::text::corpus::Corpus;
//! use ironwarp::text::tokenizer::Tokenizer;
//!
//! let gpt2 = Tokenizer::by_name("gpt2")?;
//! assert_eq!(gpt2.encode("Hello world")?, [15496, 995]);
//! assert_eq!(gpt2.decode(&[15496, 995]), "Hello world");
//!
//! // The last quarter is held out for validation.
//! let corpus = Corpus::from_text("a text", "to be or not to be", &Tokenizer::bytes(), 0.25)?;
//! assert_eq!((corpus.train.len(), corpus.validation.len()), (14, 4));
//! # Ok::<(), ironwarp::Error>(())
//! ```

mod bpe;
pub mod corpus;
pub mod documents;
pub mod embedded;
pub mod evaluation;
pub(crate) mod hugging_face;
pub mod listing;
mod pretokenize;
pub mod scoring;
pub mod shard;
mod signature;
pub mod token_file;
pub mod tokenize;
pub mod tokenizer;
pub mod tokenizer_training;
mod tokens;
