//! Documents: the texts in files of plain text, JSONL, JSON and Parquet, which may be compressed.
//!
//! The name of a file says what it holds, and its content is compared with that:
//!
//! | name | content |
//! |---|---|
//! | `*.jsonl`, `*.ndjson` | an object per line, whose field [`DocumentOptions::text_field`] is a document |
//! | `*.json` | an array of such objects, or such objects one after another |
//! | `*.parquet` | a table, whose column of that name has a document per row; needs the feature `parquet` |
//! | any other | one document of UTF-8 text |
//! | any of these but Parquet, followed by `.gz` or `.zst` | the same, compressed by gzip or Zstandard |

pub(super) mod compression;
mod field;
mod json;
pub(super) mod jsonl;
#[cfg(feature = "parquet")]
mod parquet;
#[cfg(test)]
mod tests;
mod text;

use std::path::Path;

use serde::{Deserialize, Serialize};

use self::compression::Opened;
use super::listing::{has_extension, is_token_file};
use crate::error::{Error, Result};

/// Approximate size of a batch of documents, in bytes.
const BATCH: usize = 1 << 24;

/// How documents are read from files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "cli", derive(clap::Args))]
#[serde(default)]
pub struct DocumentOptions {
    /// Field of JSON objects, or column of Parquet files, that holds the text of a document.
    #[cfg_attr(feature = "cli", arg(long, default_value = "text", value_name = "NAME", help_heading = "Data"))]
    pub text_field: String,
    /// Leave out documents whose text field is missing, null or not a string, and damaged lines of JSONL, and count them.
    /// Without this flag they are errors.
    #[cfg_attr(feature = "cli", arg(long, help_heading = "Data"))]
    pub skip_bad_documents: bool,
}

impl Default for DocumentOptions {
    fn default() -> Self {
        DocumentOptions { text_field: "text".into(), skip_bad_documents: false }
    }
}

/// What a file of documents is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    /// One document of UTF-8 text.
    Text,
    /// A JSON object per line.
    JsonLines,
    /// An array of JSON objects, or objects one after another.
    Json,
    /// A table with a column of texts.
    Parquet,
}

impl Format {
    /// The format that the name of a file states.
    fn of(path: &Path) -> Self {
        let name = compression::without_suffix(path);
        if has_extension(&name, "jsonl") || has_extension(&name, "ndjson") {
            Format::JsonLines
        } else if has_extension(&name, "json") {
            Format::Json
        } else if has_extension(&name, "parquet") {
            Format::Parquet
        } else {
            Format::Text
        }
    }

    fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::JsonLines => "JSONL",
            Format::Json => "JSON",
            Format::Parquet => "Parquet",
        }
    }
}

/// Whether the name of a file states that it holds documents one after another, and not one text.
pub(super) fn has_documents(path: &Path) -> bool {
    Format::of(path) != Format::Text
}

/// What was read from a file of documents.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Documents {
    /// The format, with the compression.
    pub form: String,
    /// Number of documents.
    pub read: u64,
    /// Number of documents that were left out.
    pub skipped: u64,
}

/// Receives the documents of a file in batches, with the format of the file.
pub(super) type Receiver<'a> = dyn FnMut(&[String], Format) -> Result<()> + 'a;

/// Reads the documents of a file, and passes them to `receiver` in batches of some megabytes.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] with the line and the offset, if they are known, if the file is empty, is not what its
/// name states, or has a bad document and they are not left out; and errors of `receiver`.
pub(super) fn read(path: &Path, options: &DocumentOptions, receiver: &mut Receiver) -> Result<Documents> {
    let format = Format::of(path);
    let content = compression::without_suffix(path);
    let is_compressed = content != path;
    if is_compressed && (format == Format::Parquet || is_token_file(&content)) {
        return Err(Error::format(path, "tables and tokens are not read compressed; decompress the file first"));
    }
    let mut batches = Batches { path, options, format, receiver, read: 0, skipped: 0, first_skipped: None };
    let mut form = format.name().to_string();
    if format == Format::Parquet {
        compression::check_table(path)?;
        read_parquet(path, &mut batches)?;
    } else {
        let opened = Opened::open(path)?;
        if let Some(compression) = opened.compression() {
            form = format!("{form}, {compression}");
        }
        let read = match format {
            Format::JsonLines => jsonl::read_documents(opened, &mut batches),
            Format::Json => text::read(opened).and_then(|text| json::read_documents(&text, &mut batches)),
            Format::Text | Format::Parquet => {
                text::read(opened).and_then(|text| batches.push(vec![Ok(text.text)], |e| e))
            }
        };
        read.map_err(|error| match error {
            Error::Format { path, offset: Some(at), message } if is_compressed => {
                Error::Format { path, offset: Some(at), message: format!("{message} (in the decompressed text)") }
            }
            other => other,
        })?;
    }
    let Batches { read, skipped, first_skipped, .. } = batches;
    match (read, first_skipped) {
        (0, Some(first)) => {
            let message = format!("all {skipped} documents are bad; the first: {first}");
            Err(Error::format(path, message))
        }
        (0, None) => Err(Error::format(path, "the file has no documents")),
        _ => Ok(Documents { form, read, skipped }),
    }
}

#[cfg(feature = "parquet")]
fn read_parquet(path: &Path, batches: &mut Batches<'_, '_>) -> Result<()> {
    parquet::read_documents(path, batches)
}

#[cfg(not(feature = "parquet"))]
fn read_parquet(path: &Path, _: &mut Batches<'_, '_>) -> Result<()> {
    Err(Error::format(path, "this build reads no Parquet files; one with `--features parquet` does"))
}

/// Counts documents on their way to the receiver, and leaves out bad ones if the options say so.
struct Batches<'a, 'r> {
    path: &'a Path,
    options: &'a DocumentOptions,
    format: Format,
    receiver: &'a mut Receiver<'r>,
    read: u64,
    skipped: u64,
    first_skipped: Option<String>,
}

impl Batches<'_, '_> {
    /// Passes a batch on; `locate` makes an error of a bad document's fault.
    fn push<F>(&mut self, batch: Vec<Result<String, F>>, locate: impl Fn(F) -> Error) -> Result<()> {
        let mut documents = Vec::with_capacity(batch.len());
        for document in batch {
            match document {
                Ok(text) => documents.push(text),
                // Only the first is located, which may mean to count all lines before it.
                Err(_) if self.first_skipped.is_some() => self.skipped += 1,
                Err(fault) => self.skip(locate(fault))?,
            }
        }
        self.read += documents.len() as u64;
        (self.receiver)(&documents, self.format)
    }

    /// Counts a bad document; an error unless bad documents are left out.
    fn skip(&mut self, error: Error) -> Result<()> {
        let Error::Format { message, .. } = &error else { return Err(error) };
        if !self.options.skip_bad_documents {
            return Err(error);
        }
        self.first_skipped.get_or_insert_with(|| message.clone());
        self.skipped += 1;
        Ok(())
    }
}
