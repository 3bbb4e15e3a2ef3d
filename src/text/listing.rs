//! What a corpus was read from: its files, and how each of them is used.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use serde::{Serialize, Serializer};

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
    #[serde(serialize_with = "lossy")]
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
    /// Number of the tokens of a file for training that are held out for validation.
    pub held_out: u64,
}

/// A path as text; JSON has no others.
fn lossy<S: Serializer>(path: &Path, serializer: S) -> std::result::Result<S::Ok, S::Error> {
    serializer.serialize_str(&path.to_string_lossy())
}

impl DataFile {
    /// A file that has not been read.
    pub(super) fn unread(path: PathBuf, usage: Use) -> Self {
        DataFile { path, usage, form: String::new(), documents: None, skipped: 0, tokens: 0, held_out: 0 }
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
/// A file that is the only one is for training, whatever its name is. Of several folders, one whose own name marks
/// validation or test data is that as a whole.
pub(super) fn files(paths: &[&Path]) -> Result<Files> {
    let single = matches!(paths, [path] if !path.is_dir());
    let mut uses = Vec::new();
    for &path in paths {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            let mut files = folder_uses(list(path)?);
            let is_several = paths.len() > 1;
            for (_, usage) in files.iter_mut().filter(|(_, usage)| is_several && *usage == Use::Train) {
                if is_test_name(name) {
                    *usage = Use::Unused("the name of its folder marks test data".into());
                } else if is_validation_name(name) {
                    *usage = Use::Validation;
                }
            }
            uses.extend(files);
        } else {
            let is_validation = !single && is_validation_name(name);
            uses.push((path.to_path_buf(), if is_validation { Use::Validation } else { Use::Train }));
        }
    }
    leave_out_copies(&mut uses);
    // A file may be given by two names, and in a folder that is given too.
    let mut seen = BTreeSet::new();
    for (path, _) in uses.iter().filter(|(_, usage)| is_read(usage)) {
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

/// Whether a file with this use is read.
pub(super) fn is_read(usage: &Use) -> bool {
    !matches!(usage, Use::Unused(_))
}

/// Leaves out texts whose tokens are among the data, and compressed files whose content is: part of what they hold may be
/// validation data, and reading it would train on that.
fn leave_out_copies(uses: &mut [(PathBuf, Use)]) {
    let read = || uses.iter().filter(|(_, usage)| is_read(usage)).map(|(path, _)| path);
    let name = |path: &Path| escaped_path(Path::new(path.file_name().unwrap_or_default()));
    let mut tokens = BTreeMap::new();
    for path in read().filter(|path| is_token_file(path)) {
        let stem = path.file_stem().map(|stem| stem.to_string_lossy().into_owned());
        for stem in shard_source(path).into_iter().chain(stem) {
            tokens.entry(stem).or_insert_with(|| name(path));
        }
    }
    let plain: BTreeSet<PathBuf> = read().cloned().collect();
    for (path, usage) in uses.iter_mut().filter(|(path, usage)| is_read(usage) && !is_token_file(path)) {
        let text = without_suffix(path);
        let stem = text.file_stem().unwrap_or_default().to_string_lossy();
        if let Some(tokens) = tokens.get(&*stem) {
            *usage = Use::Unused(format!("its tokens are among the data: {tokens}"));
        } else if text != *path && plain.contains(&text) {
            *usage = Use::Unused(format!("its content is among the data: {}", name(&text)));
        }
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

/// How each file of a folder is used, as far as its name says.
fn folder_uses(files: Vec<PathBuf>) -> Vec<(PathBuf, Use)> {
    // nanoGPT's layout: a script, the text that it downloads, and the tokens of both splits.
    let split = |wanted: &str| {
        let mut tokens = files.iter().filter(|path| is_token_file(path));
        tokens.find(|path| path.file_stem().is_some_and(|stem| stem == wanted))
    };
    let has_splits = split("train").is_some() && split("val").is_some();
    let has_tables = files.iter().any(|path| is_token_file(path) || has_documents(path));
    let usage = |path: &Path| {
        let name = path.file_name().unwrap_or_default();
        if path.is_dir() {
            Use::Unused("a folder in the folder".into())
        } else if is_test_name(name) {
            Use::Unused("its name marks test data".into())
        } else if !is_token_file(path) && has_splits {
            Use::Unused("the folder has its data as tokens, for training and for validation".into())
        } else if has_tables && is_description(path) {
            Use::Unused("its name marks a description of the data".into())
        } else if is_validation_name(name) {
            Use::Validation
        } else {
            Use::Train
        }
    };
    files.iter().map(|path| (path.clone(), usage(path))).collect()
}

/// Whether a file is a description next to the data, as in the repositories of Hugging Face's datasets.
fn is_description(path: &Path) -> bool {
    let name = path.file_name().unwrap_or_default().to_string_lossy().to_ascii_lowercase();
    let is_text = !is_token_file(path) && !has_documents(path);
    is_text && (name.starts_with("readme") || name.starts_with("license")) || name.starts_with("dataset_info")
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
        let mut uses = folder_uses(names.iter().map(PathBuf::from).collect());
        leave_out_copies(&mut uses);
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
        let names = ["X.txt", "X_train.bin", "X_val.bin", "Y.txt", "Z.jsonl", "Z_val_000000.bin", "A_train.txt"];
        let expected = ["unused", "train", "validation", "train", "unused", "validation", "train"];
        assert_eq!(used(&names), expected);
        // Without shards, and with shards of another text, it is read.
        assert_eq!(used(&["X.txt", "Y.bin", "XY_train.bin", "X_b_train.bin"]), ["train"; 4]);
        // Tokens of the same name, and a compressed copy.
        let names = ["X.txt", "X.bin", "Y_val.txt", "Y_val.npy", "a.jsonl", "a.jsonl.gz", "b.jsonl.zst", "c.txt.gz"];
        let expected = ["unused", "train", "unused", "validation", "train", "unused", "train", "train"];
        assert_eq!(used(&names), expected);
    }

    #[test]
    fn the_folder_of_nanogpt_is_tokens_only() {
        let names = ["input.txt", "meta.pkl", "prepare.py", "train.bin", "val.bin"];
        assert_eq!(used(&names), ["unused", "unused", "unused", "train", "validation"]);
        assert_eq!(used(&["train.bin", "val.txt"]), ["train", "validation"], "only with the tokens of both splits");
        let names = ["README.md", "dataset_infos.json", "licenses.jsonl", "train-00000-of-00001.parquet"];
        assert_eq!(used(&names), ["unused", "unused", "train", "train"]);
        assert_eq!(used(&["README.md", "a.txt"]), ["train"; 2]);
    }

    #[test]
    fn copies_are_left_out_across_folders_and_folders_may_be_splits() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["train/0.parquet", "validation/0.parquet", "test/0.parquet", "shards/X_val.bin", "X.txt", "Y.txt"]
        {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "x").unwrap();
        }
        let uses = |names: &[&str]| {
            let paths: Vec<PathBuf> = names.iter().map(|name| at(name)).collect();
            let files = files(&paths.iter().map(PathBuf::as_path).collect::<Vec<_>>()).unwrap();
            files.uses.into_iter().map(|(_, usage)| usage.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(uses(&["train", "validation", "test"]), ["train", "validation", "unused"]);
        assert_eq!(uses(&["validation"]), ["train"], "a folder that is the only one");
        assert_eq!(uses(&["X.txt", "Y.txt", "shards"]), ["unused", "train", "validation"]);
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
