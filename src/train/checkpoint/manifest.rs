//! The manifest: lengths and checksums that cover every byte of a checkpoint, and their verification.

use std::collections::BTreeMap;
use std::path::Path;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::layout::{FORMAT, MANIFEST, json_text};
use crate::error::{Error, Result};
use crate::files::{self, map_regular};
use crate::model::config::Config;
use crate::model::json;
use crate::model::safetensors::{FileChecksums, TensorFile, crc32};

/// Why a checkpoint cannot be loaded.
#[derive(Debug)]
pub(super) enum LoadError {
    /// The checkpoint is corrupt. An older one may still be intact.
    Damaged(Error),
    /// The checkpoint is intact, but belongs to another model or another version. Older ones would not load either.
    Incompatible(Error),
}

impl From<Error> for LoadError {
    fn from(error: Error) -> Self {
        LoadError::Damaged(error)
    }
}

impl LoadError {
    pub(super) fn into_error(self) -> Error {
        match self {
            LoadError::Damaged(error) | LoadError::Incompatible(error) => error,
        }
    }
}

/// The metadata of a checkpoint: its `config.json`.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Metadata {
    pub format: u32,
    pub model: Config,
    pub tokenizer: Option<String>,
}

impl Metadata {
    pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Self, LoadError> {
        // The version is checked first, because other versions may have other fields.
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let Versioned { format } = json::parse(path, text)?;
        if format != FORMAT {
            let message = format!("the checkpoint has format version {format}, but this build reads version {FORMAT}");
            return Err(LoadError::Incompatible(Error::format(path, message)));
        }
        json::parse(path, text).map_err(LoadError::Incompatible)
    }
}

/// Lengths and checksums of the files of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub step: u64,
    pub files: BTreeMap<String, FileChecksums>,
}

/// The last line of a manifest: the checksum of the lines before it.
fn checksum_line(body: &[u8]) -> String {
    format!("crc32 {:08x}\n", crc32fast::hash(body))
}

impl Manifest {
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = json_text(self)?;
        let line = checksum_line(&bytes);
        bytes.extend(line.as_bytes());
        Ok(bytes)
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, LoadError> {
        let body = bytes.len().checked_sub(checksum_line(&[]).len()).map(|at| bytes.split_at(at));
        match body {
            // Compared as text, so that a bit flip between lower and upper case is detected too. A manifest with a correct
            // checksum that cannot be parsed was written by another version.
            Some((body, last)) if last == checksum_line(body).as_bytes() => {
                json::parse(path, body).map_err(LoadError::Incompatible)
            }
            Some(_) => Err(Error::format(path, "checksum mismatch").into()),
            None => Err(Error::format(path, format!("too short ({} bytes)", bytes.len())).into()),
        }
    }

    fn checksums(&self, path: &Path) -> Result<&FileChecksums> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        self.files.get(name).ok_or_else(|| Error::format(path, format!("not listed in {MANIFEST}")))
    }

    /// Reads and verifies a JSON file of at most `max_bytes` bytes.
    pub(super) fn read_text(&self, path: &Path, max_bytes: u64) -> Result<Vec<u8>> {
        let expected = self.checksums(path)?;
        let text = files::read_regular(path, max_bytes)?;
        check_length(path, text.len(), expected)?;
        check_crc32(path, "the content", &text, expected.head_crc32)?;
        Ok(text)
    }

    /// Opens a tensor file and verifies everything except the tensors' data.
    pub(super) fn open_tensors(&self, path: &Path) -> Result<TensorFile> {
        let expected = self.checksums(path)?;
        let map: Mmap = map_regular(path)?;
        let Some(head) = map.get(..usize::try_from(expected.head_bytes).unwrap_or(usize::MAX)) else {
            let message = format!("truncated to {} bytes; the header alone has {}", map.len(), expected.head_bytes);
            return Err(Error::format(path, message));
        };
        check_crc32(path, "the header", head, expected.head_crc32)?;
        let length = map.len();
        // Parsed before the length check, because this error names the tensor in which a file was truncated.
        let file = TensorFile::from_bytes(path, map)?;
        check_length(path, length, expected)?;
        Ok(file)
    }

    /// Verifies and reads a tensor of a file from [`Manifest::open_tensors`].
    pub(super) fn read_tensor(&self, file: &TensorFile, name: &str, out: &mut [f32]) -> Result<()> {
        let what = format!("tensor '{name}'");
        let expected = self.checksums(file.path())?.tensors.get(name);
        let expected =
            expected.ok_or_else(|| Error::format(file.path(), format!("{what} is not listed in {MANIFEST}")))?;
        check_crc32(file.path(), &what, file.tensor(name)?.1, *expected)?;
        file.read_f32(name, out)
    }
}

/// Checksums of a file without tensors.
pub(super) fn text_checksums(text: &[u8]) -> FileChecksums {
    let bytes = text.len() as u64;
    FileChecksums { bytes, head_bytes: bytes, head_crc32: crc32fast::hash(text), tensors: BTreeMap::new() }
}

fn check_length(path: &Path, found: usize, expected: &FileChecksums) -> Result<()> {
    match found as u64 == expected.bytes {
        true => Ok(()),
        false => Err(Error::format(path, format!("{found} bytes long, but {} were written", expected.bytes))),
    }
}

fn check_crc32(path: &Path, what: &str, bytes: &[u8], expected: u32) -> Result<()> {
    let found = crc32(bytes);
    match found == expected {
        true => Ok(()),
        false => {
            Err(Error::format(path, format!("{what} is damaged (CRC-32 is {found:08x}, expected {expected:08x})")))
        }
    }
}
