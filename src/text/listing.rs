//! What a corpus was read from: its files, and how each of them is used.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::error::{Error, Result};

/// How a file of a corpus is used.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Use {
    /// For training; its end may be held out for validation if the corpus has no validation files.
    Train,
    /// For validation.
    Validation,
    /// Not read, for this reason.
    Unused(String),
}

impl fmt::Display for Use {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Use::Train => "train",
            Use::Validation => "validation",
            Use::Unused(_) => "unused",
        })
    }
}

/// A file of a corpus.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct DataFile {
    /// The file.
    pub path: PathBuf,
    /// How it is used.
    #[serde(rename = "use")]
    pub usage: Use,
    /// Number of documents; `None` for a token shard, whose tokens are not searched for the ends of documents.
    pub documents: Option<u64>,
    /// Number of tokens, with the end-of-text tokens that precede documents; 0 for a file that is not read.
    pub tokens: u64,
}

/// Whether a file name marks a validation file: one of its words is `val`, `valid` or `validation`.
///
/// Words are separated by characters that are not letters. `fineweb_val_000000.bin` and `val.bin` match; `values.rs` does
/// not.
pub fn is_validation_name(name: &OsStr) -> bool {
    has_word(name, &["val", "valid", "validation"])
}

/// Whether a file name marks a test file, which is used neither for training nor for validation: one of its words is
/// `test`. Words are separated as in [`is_validation_name`].
pub fn is_test_name(name: &OsStr) -> bool {
    has_word(name, &["test"])
}

/// Whether one of the words of a file name, which are separated by characters that are not letters, is in `words`.
fn has_word(name: &OsStr, words: &[&str]) -> bool {
    let name = name.to_string_lossy().to_ascii_lowercase();
    name.split(|c: char| !c.is_alphabetic()).any(|word| words.contains(&word))
}

/// Whether a file has an extension, in upper or lower case.
pub(super) fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension().is_some_and(|found| found.eq_ignore_ascii_case(extension))
}

/// Whether a file name is that of a token shard.
pub(super) fn is_shard(path: &Path) -> bool {
    has_extension(path, "bin")
}

/// Why a folder has no training file.
pub(super) fn none_for_training(files: &[(PathBuf, Use)]) -> String {
    let validation = files.iter().filter(|(_, usage)| *usage == Use::Validation).count();
    match (validation, files.len() - validation) {
        (0, 0) => "the folder has no text, .jsonl or .bin files".to_string(),
        (n, 0) => format!("all {n} file(s) in the folder are validation files by their names; none is for training"),
        (n, unused) => format!("the folder has no training file: {n} for validation by their names, {unused} unused"),
    }
}

/// Lists the files of a folder in the order of their names.
pub(super) fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io("list", folder, e))? {
        let path = entry.map_err(|e| Error::io("list", folder, e))?.path();
        let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden && path.is_file() {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// How each file of a folder is used.
///
/// A text that is already tokenized in the same folder is not used: its end is in the validation shard `X_val.bin`, and
/// reading it would train on that.
pub(super) fn uses(files: Vec<PathBuf>) -> Vec<(PathBuf, Use)> {
    let shards: BTreeSet<String> =
        files.iter().filter(|path| is_shard(path)).filter_map(|path| shard_source(path)).collect();
    let usage = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        let stem = path.file_stem().unwrap_or_default().to_string_lossy();
        if is_test_name(name) {
            Use::Unused("its name marks test data".into())
        } else if !is_shard(path) && shards.contains(&*stem) {
            Use::Unused(format!("the folder has its tokens: {stem}_train*.bin, {stem}_val*.bin"))
        } else if is_validation_name(name) {
            Use::Validation
        } else {
            Use::Train
        }
    };
    files.into_iter().map(|path| (path.clone(), usage(&path))).collect()
}

/// The stem of the text that a shard was made from, if its name says so: `X` for `X_train.bin` and `X_val_000001.bin`.
fn shard_source(path: &Path) -> Option<String> {
    let stem = path.file_stem()?.to_str()?;
    let stem = match stem.rsplit_once('_') {
        Some((rest, number)) if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) => rest,
        _ => stem,
    };
    let source = stem.strip_suffix("_train").or_else(|| stem.strip_suffix("_val"))?;
    Some(source.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn used(names: &[&str]) -> Vec<String> {
        let uses = uses(names.iter().map(PathBuf::from).collect());
        uses.into_iter().map(|(_, usage)| usage.to_string()).collect()
    }

    #[test]
    fn files_are_used_as_their_names_say() {
        let names = [
            "wiki.test.txt",
            "wiki.train.txt",
            "wiki.valid.txt",
            "latest.txt",
            "test_000000.bin",
            "TEST.jsonl",
            "val_test",
        ];
        let expected = ["unused", "train", "validation", "train", "unused", "unused", "unused"];
        assert_eq!(used(&names), expected);
    }

    #[test]
    fn a_text_next_to_its_shards_is_not_read_again() {
        let names = ["X.txt", "X_train.bin", "X_val.bin", "Y.txt", "Z.jsonl", "Z_val_000000.bin", "X_train.txt"];
        let expected = ["unused", "train", "validation", "train", "unused", "validation", "train"];
        assert_eq!(used(&names), expected);
        // Without shards, and with shards of another text, it is read.
        assert_eq!(used(&["X.txt", "X.bin", "XY_train.bin", "X_b_train.bin"]), ["train"; 4]);
    }

    #[test]
    fn validation_names_are_recognised() {
        for name in ["val.bin", "fineweb_val_000000.bin", "wikitext2-valid.txt", "a.Validation.jsonl", "val2.txt"] {
            assert!(is_validation_name(OsStr::new(name)), "{name}");
        }
        for name in ["train.bin", "values.rs", "interval.txt", "evaluation.md", "medieval_train_000000.bin"] {
            assert!(!is_validation_name(OsStr::new(name)), "{name}");
        }
    }
}
