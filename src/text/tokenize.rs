//! Text files into token shards: what `ironwarp tokenize` does.

use std::collections::HashSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};

use super::corpus::{Place, is_shard, is_validation_name, tokenize_file, validation_len};
use super::shard;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// Six digits number the shards of an input, so that their names sort as they follow each other.
const MAX_SHARDS: usize = 1_000_000;

/// How to cut the tokens.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Options {
    /// Most tokens in a shard; 100 million (200 MB) by default, as in llm.c.
    pub shard_tokens: usize,
    /// The last fraction of each input that becomes its validation shards; 0 by default.
    pub validation_fraction: f64,
}

impl Default for Options {
    fn default() -> Self {
        Options { shard_tokens: 100_000_000, validation_fraction: 0.0 }
    }
}

/// What was written.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Written {
    /// Tokens to train on.
    pub train_tokens: u64,
    /// Tokens to validate with.
    pub validation_tokens: u64,
    /// The shards, in the order they were written.
    pub shards: Vec<PathBuf>,
}

/// Tokenizes text and JSONL files (see [`super::corpus::Corpus::open`]) into shards in the folder `out`, which is made
/// if need be.
///
/// The input `<stem>.<extension>` becomes `<stem>_train_000000.bin`, … and, for its last `validation_fraction`,
/// `<stem>_val_000000.bin`, …; all of it becomes the latter if its name says that it is for validation
/// ([`super::corpus::is_validation_name`]). Opening `out` as a corpus then reads the inputs by name.
///
/// # Errors
/// [`Error::Invalid`] for options out of range, no inputs, an input that is a shard already, two inputs of one stem, or
/// shards of an input that are there already: they might be more than the new ones and would then be read with them.
/// [`Error::Io`] and [`Error::Format`] as for a corpus. Each shard is written whole or not at all.
pub fn tokenize(inputs: &[PathBuf], out: &Path, tokenizer: &Tokenizer, options: &Options) -> Result<Written> {
    let stems = check(inputs, out, options)?;
    fs::create_dir_all(out).map_err(|e| Error::io("create", out, e))?;
    let place = if inputs.len() == 1 { Place::Alone } else { Place::AmongOthers };
    let mut written = Written::default();
    for (input, stem) in inputs.iter().zip(stems) {
        let tokens = tokenize_file(input, tokenizer, place)?;
        let validation = match is_validation_name(stem) {
            true => tokens.len(),
            false => validation_len(tokens.len(), options.validation_fraction)?,
        };
        let (train, validation) = tokens.split_at(tokens.len() - validation);
        for (split, tokens) in [("train", train), ("val", validation)] {
            if tokens.len().div_ceil(options.shard_tokens) > MAX_SHARDS {
                return Err(Error::invalid(format!(
                    "{}: {} tokens make more than {MAX_SHARDS} shards of {}",
                    input.display(),
                    tokens.len(),
                    options.shard_tokens
                )));
            }
            for (index, tokens) in tokens.chunks(options.shard_tokens).enumerate() {
                let path = shard_path(out, stem, split, index);
                shard::write(&path, tokens, tokenizer.vocab())?;
                written.shards.push(path);
            }
        }
        written.train_tokens += train.len() as u64;
        written.validation_tokens += validation.len() as u64;
    }
    Ok(written)
}

fn shard_path(out: &Path, stem: &OsStr, split: &str, index: usize) -> PathBuf {
    let mut name = OsString::from(stem);
    name.push(format!("_{split}_{index:06}.bin"));
    out.join(name)
}

/// Checks everything that can be before the first, perhaps long, work; returns the inputs' stems.
fn check<'a>(inputs: &'a [PathBuf], out: &Path, options: &Options) -> Result<Vec<&'a OsStr>> {
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
        let refuse = |message: String| Err(Error::invalid(format!("{}: {message}", input.display())));
        let Some(stem) = input.file_stem() else { return refuse("not the name of a file".into()) };
        if is_shard(input) {
            return refuse("a .bin file is tokenized already".into());
        }
        if !seen.insert(stem) {
            return refuse(format!("two inputs are named '{}': their shards would be too", stem.display()));
        }
        for split in ["train", "val"] {
            let first = shard_path(out, stem, split, 0);
            if first.exists() {
                return refuse(format!("{} is there already: remove it first", first.display()));
            }
        }
        stems.push(stem);
    }
    Ok(stems)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::text::corpus::{Corpus, Tokens};

    fn all(tokens: &Tokens) -> Vec<i32> {
        let mut out = vec![-1; tokens.len()];
        tokens.read(0, &mut out).unwrap();
        out
    }

    fn names(written: &Written) -> Vec<String> {
        written.shards.iter().map(|path| path.file_name().unwrap().to_string_lossy().into_owned()).collect()
    }

    #[test]
    fn the_shards_are_the_corpus_of_the_text() {
        let folder = tempfile::tempdir().unwrap();
        let (input, out) = (folder.path().join("tale.txt"), folder.path().join("shards"));
        fs::write(&input, "Once upon a time, there was a kernel. ".repeat(50)).unwrap();
        for name in Tokenizer::NAMES {
            let tokenizer = Tokenizer::by_name(name).unwrap();
            let options = Options { shard_tokens: 100, validation_fraction: 0.1 };
            let out = out.join(name);
            let written = tokenize(std::slice::from_ref(&input), &out, &tokenizer, &options).unwrap();
            let text = Corpus::open(&input, &tokenizer, 0.1).unwrap();
            let shards = Corpus::open(&out, &tokenizer, 0.1).unwrap();
            assert_eq!(all(&text.train), all(&shards.train));
            assert_eq!(all(&text.validation), all(&shards.validation));
            assert_eq!(written.train_tokens, text.train.len() as u64);
            assert_eq!(written.validation_tokens, text.validation.len() as u64);
            assert_eq!(names(&written)[..2], ["tale_train_000000.bin", "tale_train_000001.bin"]);
            assert!(names(&written).contains(&"tale_val_000000.bin".to_string()));
        }
    }

    #[test]
    fn names_for_validation_are_kept_to() {
        let folder = tempfile::tempdir().unwrap();
        let inputs = ["wiki-valid.txt", "wiki-train.jsonl"].map(|name| folder.path().join(name));
        fs::write(&inputs[0], "abc").unwrap();
        fs::write(&inputs[1], "{\"text\":\"de\"}\n{\"text\":\"f\"}").unwrap();
        let out = folder.path().join("out");
        let written = tokenize(&inputs, &out, &Tokenizer::bytes(), &Options::default()).unwrap();
        assert_eq!(names(&written), ["wiki-valid_val_000000.bin", "wiki-train_train_000000.bin"]);
        assert_eq!((written.train_tokens, written.validation_tokens), (5, 4));
        let corpus = Corpus::open(&out, &Tokenizer::bytes(), 0.5).unwrap();
        assert_eq!(all(&corpus.train), [256, 100, 101, 256, 102]);
        assert_eq!(all(&corpus.validation), [256, 97, 98, 99]);
    }

    #[test]
    fn what_would_mix_or_lose_shards_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(at("a.txt"), "abc").unwrap();
        let run = |inputs: &[PathBuf], options: &Options| {
            tokenize(inputs, &at("out"), &Tokenizer::bytes(), options).unwrap_err().to_string()
        };
        let standard = Options::default();
        assert_eq!(run(&[], &standard), "tokenize: no input files");
        assert!(run(&[at("a.txt"), at("b/a.jsonl")], &standard).contains("two inputs are named 'a'"));
        assert!(run(&[at("a.bin")], &standard).contains("tokenized already"));
        assert!(run(&[at("none.txt")], &standard).contains("none.txt"));
        let (empty, whole) =
            (Options { shard_tokens: 0, ..standard }, Options { validation_fraction: 1.0, ..standard });
        assert!(run(&[at("a.txt")], &empty).contains("1 <= n <= 2147483647 failed (0)"));
        assert!(run(&[at("a.txt")], &whole).contains("0 <= fraction < 1 failed (1)"));
        tokenize(&[at("a.txt")], &at("out"), &Tokenizer::bytes(), &standard).unwrap();
        assert!(run(&[at("a.txt")], &standard).contains("a_train_000000.bin is there already"));
    }
}
