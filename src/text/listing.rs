//! What a corpus was read from: its files, and how each of them is used.

use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::documents::compression::without_suffix;
use super::documents::has_documents;
use crate::error::{Error, Result};
use crate::message::escaped_path;

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
    /// What it holds, such as `JSONL, gzip`; empty for a file that is not read.
    pub form: String,
    /// Number of documents; `None` for a token file, whose tokens are not searched for the ends of documents.
    pub documents: Option<u64>,
    /// Number of bad documents that were left out.
    pub skipped: u64,
    /// Number of tokens, with the end-of-text tokens that precede documents; 0 for a file that is not read.
    pub tokens: u64,
}

impl DataFile {
    /// A file that has not been read.
    pub(super) fn unread(path: PathBuf, usage: Use) -> Self {
        DataFile { path, usage, form: String::new(), documents: None, skipped: 0, tokens: 0 }
    }
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

/// Whether a file name is that of a token file.
pub(super) fn is_token_file(path: &Path) -> bool {
    has_extension(path, "bin") || has_extension(path, "npy")
}

/// The files of a corpus.
pub(super) struct Files {
    /// The files, and how each is used.
    pub uses: Vec<(PathBuf, Use)>,
    /// Whether the corpus is a single file and no folder.
    pub single: bool,
}

/// The files at these paths: of a folder in the order of their names.
///
/// A file that is the only one is for training, whatever its name is.
pub(super) fn files(paths: &[&Path]) -> Result<Files> {
    let (mut uses, mut seen, mut single) = (Vec::new(), BTreeSet::new(), paths.len() == 1);
    for &path in paths {
        if path.is_dir() {
            single = false;
            uses.extend(folder_uses(list(path)?));
        } else {
            let is_validation = !single && path.file_name().is_some_and(is_validation_name);
            uses.push((path.to_path_buf(), if is_validation { Use::Validation } else { Use::Train }));
        }
    }
    // A file may be given by two names, and in a folder that is given too.
    for (path, _) in uses.iter().filter(|(_, usage)| !matches!(usage, Use::Unused(_))) {
        if !seen.insert(path.canonicalize().map_err(|e| Error::io("read", path, e))?) {
            return Err(Error::invalid(format!("{}: the data contains this file twice", escaped_path(path))));
        }
    }
    match paths {
        [] => Err(Error::invalid("no data: at least one file or folder is needed")),
        [first, ..] if !uses.iter().any(|(_, usage)| *usage == Use::Train) => {
            let rest = if paths.len() > 1 { format!(" and {} more paths", paths.len() - 1) } else { String::new() };
            Err(Error::format(*first, format!("no training data here{rest}: {}", none_for_training(&uses))))
        }
        _ => Ok(Files { uses, single }),
    }
}

/// Why there is no training file.
fn none_for_training(files: &[(PathBuf, Use)]) -> String {
    let validation = files.iter().filter(|(_, usage)| *usage == Use::Validation).count();
    let unused = files.iter().filter_map(|(path, usage)| match usage {
        Use::Unused(reason) => Some((path, reason)),
        Use::Train | Use::Validation => None,
    });
    let first = unused.clone().next().map_or(String::new(), |(path, reason)| {
        format!(" (the first, {}: {reason})", escaped_path(Path::new(path.file_name().unwrap_or_default())))
    });
    match (validation, unused.count()) {
        (0, 0) => "no files".to_string(),
        (validation, unused) => format!("{validation} file(s) for validation by their names, {unused} unused{first}"),
    }
}

/// Lists what a folder holds in the order of the names, except for hidden files.
fn list(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).map_err(|e| Error::io("list", folder, e))? {
        let path = entry.map_err(|e| Error::io("list", folder, e))?.path();
        if path.file_name().is_some_and(|name| !name.as_encoded_bytes().starts_with(b".")) {
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
fn folder_uses(files: Vec<PathBuf>) -> Vec<(PathBuf, Use)> {
    let token_files = || files.iter().filter(|path| is_token_file(path));
    let sources: BTreeSet<String> = token_files().filter_map(|path| shard_source(path)).collect();
    // nanoGPT's layout: a script, the text that it downloads, and the tokens of both splits.
    let is_split = |path: &PathBuf| path.file_stem().is_some_and(|stem| stem == "train" || stem == "val");
    let has_splits = token_files().any(is_split);
    let has_tables = files.iter().any(|path| is_token_file(path) || has_documents(path));
    let usage = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        let text = without_suffix(path);
        let stem = text.file_stem().unwrap_or_default().to_string_lossy();
        if path.is_dir() {
            Use::Unused("a folder in the folder".into())
        } else if is_test_name(name) {
            Use::Unused("its name marks test data".into())
        } else if !is_token_file(path) && has_splits {
            Use::Unused("the folder has its data as tokens: train.bin, val.bin".into())
        } else if !is_token_file(path) && sources.contains(&*stem) {
            Use::Unused(format!("the folder has its tokens: {stem}_train*.bin, {stem}_val*.bin"))
        } else if has_tables && is_description(name) {
            Use::Unused("its name marks a description of the data".into())
        } else if is_validation_name(name) {
            Use::Validation
        } else {
            Use::Train
        }
    };
    files.iter().map(|path| (path.clone(), usage(path))).collect()
}

/// Whether a file name is that of a description next to the data, as in the repositories of Hugging Face's datasets.
fn is_description(name: &OsStr) -> bool {
    let name = name.to_string_lossy().to_ascii_lowercase();
    name.starts_with("readme") || name.starts_with("license") || name.starts_with("dataset_info")
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
        let uses = folder_uses(names.iter().map(PathBuf::from).collect());
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
