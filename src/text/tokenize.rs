//! Conversion of text files to token shards, for `ironwarp tokenize`.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::ops::Range;
use std::path::{Path, PathBuf};

use super::corpus::{FileRole, Tokenized, tokenize_file};
use super::documents::DocumentOptions;
use super::documents::compression::without_suffix;
use super::listing::{is_token_file, is_validation_name};
use super::shard;
use super::tokenizer::Tokenizer;
use super::tokens::{TokenIds, validation_len};
use crate::error::{Error, Result};
use crate::message::escaped_path;

/// Maximum number of shards per input: six digits number them, so that the order of their names is the order of the shards.
const MAX_SHARDS: usize = 1_000_000;

/// How to split the tokens into shards.
#[derive(Debug, Clone, PartialEq)]
pub struct Options {
    /// How documents are read from the files.
    pub documents: DocumentOptions,
    /// Maximum number of tokens per shard; 100 million (200 MB) by default, as in llm.c.
    pub shard_tokens: usize,
    /// Fraction of each input, at its end, that is written to validation shards; 0 by default.
    pub validation_fraction: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options { documents: DocumentOptions::default(), shard_tokens: 100_000_000, validation_fraction: 0.0 }
    }
}

/// The result of [`tokenize`].
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Number of training tokens.
    pub train_tokens: u64,
    /// Number of validation tokens.
    pub validation_tokens: u64,
    /// Number of bad documents that were left out.
    pub skipped: u64,
    /// The shards, in the order they were written.
    pub shards: Vec<PathBuf>,
}

/// Tokenizes files of documents (see [`super::documents`]) into shards in the folder `out`, which is created if
/// it does not exist.
///
/// The input `<stem>.<extension>` is written to `<stem>_train_000000.bin`, … and its last `validation_fraction` to
/// `<stem>_val_000000.bin`, …. An input with a validation name ([`super::listing::is_validation_name`]) is written to the
/// latter completely. Opening `out` as a corpus reads the shards in the order of the inputs' names.
///
/// # Errors
/// [`Error::Invalid`] if an option is out of range, there are no inputs, an input is already a shard, two inputs have the
/// same stem, or shards of an input already exist (there might be more of them than new ones, and a corpus would read both).
/// [`Error::Io`] and [`Error::Format`] as for a corpus. Each shard is written atomically.
pub fn tokenize(inputs: &[PathBuf], out: &Path, tokenizer: &Tokenizer, options: &Options) -> Result<Written> {
    let stems = check(inputs, out, options)?;
    fs::create_dir_all(out).map_err(|e| Error::io("create", out, e))?;
    let role = if inputs.len() == 1 { FileRole::Single } else { FileRole::OneOfSeveral };
    let mut written = Written::default();
    for (input, stem) in inputs.iter().zip(stems) {
        let Tokenized { tokens, documents } = tokenize_file(input, tokenizer, &options.documents, role)?;
        written.skipped += documents.skipped;
        let validation = match is_validation_name(&stem) {
            true => tokens.len(),
            false => validation_len(tokens.len(), options.validation_fraction)?,
        };
        let (train, end) = (tokens.len() - validation, tokens.len());
        for (split, range) in [("train", 0..train), ("val", train..end)] {
            let shards = range.len().div_ceil(options.shard_tokens);
            if shards > MAX_SHARDS {
                return Err(Error::invalid(format!(
                    "{}: {} tokens would need more than {MAX_SHARDS} shards of {} tokens",
                    escaped_path(input),
                    range.len(),
                    options.shard_tokens
                )));
            }
            for index in 0..shards {
                let start = range.start + index * options.shard_tokens;
                let path = shard_path(out, &stem, split, index);
                write(&path, &tokens, start..range.end.min(start + options.shard_tokens), tokenizer.vocab())?;
                written.shards.push(path);
            }
        }
        written.train_tokens += train as u64;
        written.validation_tokens += validation as u64;
    }
    Ok(written)
}

/// Writes the tokens of a range to a shard.
fn write(path: &Path, tokens: &TokenIds, range: Range<usize>, vocab: usize) -> Result<()> {
    match tokens {
        TokenIds::U16(tokens) => shard::write(path, &tokens[range], vocab),
        TokenIds::U32(tokens) => shard::write(path, &tokens[range], vocab),
    }
}

fn shard_path(out: &Path, stem: &OsStr, split: &str, index: usize) -> PathBuf {
    let mut name = OsString::from(stem);
    name.push(format!("_{split}_{index:06}.bin"));
    out.join(name)
}

/// Checks all options and inputs before the tokenization, which may take long; returns the stems of the inputs.
fn check(inputs: &[PathBuf], out: &Path, options: &Options) -> Result<Vec<OsString>> {
    validation_len(0, options.validation_fraction)?;
    if options.shard_tokens == 0 || options.shard_tokens > i32::MAX as usize {
        let message = format!("tokens in a shard: 1 <= n <= {} failed ({})", i32::MAX, options.shard_tokens);
        return Err(Error::invalid(message));
    }
    if inputs.is_empty() {
        return Err(Error::invalid("tokenize: no input files"));
    }
    let mut stems = Vec::with_capacity(inputs.len());
    let mut seen = HashSet::new();
    for input in inputs {
        let reject = |message: String| Err(Error::invalid(format!("{}: {message}", escaped_path(input))));
        let name = without_suffix(input);
        let Some(stem) = name.file_stem() else { return reject("not a file name".into()) };
        if is_token_file(input) {
            return reject("the file is already tokenized".into());
        }
        if !seen.insert(stem.to_os_string()) {
            return reject(format!(
                "two inputs have the stem '{}', so their shards would have the same names",
                escaped_path(Path::new(stem))
            ));
        }
        for split in ["train", "val"] {
            let first = shard_path(out, stem, split, 0);
            if first.exists() {
                return reject(format!("{} already exists; delete it first", escaped_path(&first)));
            }
        }
        stems.push(stem.to_os_string());
    }
    Ok(stems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::corpus::Corpus;
    use crate::text::tokens::all;

    fn names(written: &Written) -> Vec<String> {
        written.shards.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_shards_have_the_tokens_of_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let (input, out) = (folder.path().join("tale.txt"), folder.path().join("shards"));
        fs::write(&input, "Once upon a time, there was a kernel. ".repeat(50)).unwrap();
        for name in Tokenizer::NAMES {
            let tokenizer = Tokenizer::by_name(name).unwrap();
            let options = Options { shard_tokens: 100, validation_fraction: 0.1, ..Options::default() };
            let out = out.join(name);
            let written = tokenize(std::slice::from_ref(&input), &out, &tokenizer, &options).unwrap();
            let text = Corpus::open(&[&input], &tokenizer, &DocumentOptions::default(), 0.1).unwrap();
            let shards = Corpus::open(&[&out], &tokenizer, &DocumentOptions::default(), 0.1).unwrap();
            assert_eq!(all(&text.train), all(&shards.train));
            assert_eq!(all(&text.validation), all(&shards.validation));
            assert_eq!(written.train_tokens, text.train.len() as u64);
            assert_eq!(written.validation_tokens, text.validation.len() as u64);
            assert_eq!(names(&written)[..2], ["tale_train_000000.bin", "tale_train_000001.bin"]);
            assert!(names(&written).contains(&"tale_val_000000.bin".to_string()));
        }
    }

    #[test]
    fn a_vocabulary_above_65536_is_held_and_written_in_32_bits() {
        let json = br#"{"version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
            "truncation": null, "padding": null, "pre_tokenizer": null, "decoder": null,
            "model": {"type": "BPE", "merges": [], "vocab": {"</s>": 131071, "a": 1, "b": 70000, "c": 65536}}}"#;
        let tokenizer = Tokenizer::from_bytes(Path::new("tokenizer.json"), json, b"{}").unwrap();
        assert_eq!((tokenizer.vocab(), tokenizer.end_of_text()), (131072, 131071));
        let folder = tempfile::tempdir().unwrap();
        let (input, out) = (folder.path().join("a.jsonl"), folder.path().join("out"));
        fs::write(&input, "{\"text\": \"abc\"}\n{\"text\": \"b\"}").unwrap();
        let options = Options { shard_tokens: 4, ..Options::default() };
        let written = tokenize(std::slice::from_ref(&input), &out, &tokenizer, &options).unwrap();
        assert_eq!(fs::metadata(&written.shards[0]).unwrap().len(), 1024 + 4 * 4);
        let expected = [131071, 1, 70000, 65536, 131071, 70000];
        for path in [&input, &out] {
            assert_eq!(
                all(&Corpus::open(&[path], &tokenizer, &DocumentOptions::default(), 0.0).unwrap().train),
                expected
            );
        }
        let narrow = Corpus::from_text("a text", "a", &tokenizer, 0.0).unwrap();
        assert_eq!(all(&narrow.train), [1]);
    }

    #[test]
    fn inputs_with_validation_names_become_validation_shards() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = ["wiki-valid.txt", "wiki-train.jsonl"].map(|name| folder.path().join(name));
        fs::write(&inputs[0], "abc").unwrap();
        fs::write(&inputs[1], "{\"text\":\"de\"}\n{\"text\":\"f\"}").unwrap();
        let out = folder.path().join("out");
        let written = tokenize(&inputs, &out, &Tokenizer::bytes(), &Options::default()).unwrap();
        assert_eq!(names(&written), ["wiki-valid_val_000000.bin", "wiki-train_train_000000.bin"]);
        assert_eq!((written.train_tokens, written.validation_tokens), (5, 4));
        let corpus = Corpus::open(&[&out], &Tokenizer::bytes(), &DocumentOptions::default(), 0.5).unwrap();
        assert_eq!(all(&corpus.train), [256, 100, 101, 256, 102]);
        assert_eq!(all(&corpus.validation), [256, 97, 98, 99]);
    }

    #[test]
    fn inputs_that_would_mix_or_lose_shards_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.txt"), "abc").unwrap();
        let run = |inputs: &[PathBuf], options: &Options| {
            tokenize(inputs, &at("out"), &Tokenizer::bytes(), options).unwrap_err().to_string()
        };
        let standard = Options::default();
        assert_eq!(run(&[], &standard), "tokenize: no input files");
        assert!(run(&[at("a.txt"), at("b/a.jsonl")], &standard).contains("two inputs have the stem 'a'"));
        assert!(run(&[at("a.bin")], &standard).contains("already tokenized"));
        assert!(run(&[at("none.txt")], &standard).contains("none.txt"));
        let (empty, whole) = (
            Options { shard_tokens: 0, ..Options::default() },
            Options { validation_fraction: 1.0, ..Options::default() },
        );
        assert!(run(&[at("a.txt")], &empty).contains("1 <= n <= 2147483647 failed (0)"));
        assert!(run(&[at("a.txt")], &whole).contains("0 <= fraction < 1 failed (1)"));
        tokenize(&[at("a.txt")], &at("out"), &Tokenizer::bytes(), &standard).unwrap();
        assert!(run(&[at("a.txt")], &standard).contains("a_train_000000.bin already exists"));
    }
}
