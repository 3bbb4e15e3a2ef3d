//! The manifest: what every byte of a checkpoint must be, and the checks against it.

use std::collections::BTreeMap;
use std::path::Path;

use memmap2::Mmap;
use serde::{Deserialize, Serialize};

use super::FORMAT;
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::json;
use crate::model::safetensors::{FileSums, TensorFile, crc32, map_file};

pub(super) const MANIFEST: &str = "MANIFEST";
/// Longest JSON file read; a trainer's state may carry a window of losses, not more.
const MAX_TEXT: u64 = 1 << 26;

/// Why a checkpoint is not loaded.
#[derive(Debug)]
pub(super) enum Refusal {
    /// It is not what was saved: an older one may still be.
    Damaged(Error),
    /// It is what was saved, but not for this run or this build: older ones are no better.
    Foreign(Error),
}

impl From<Error> for Refusal {
    fn from(error: Error) -> Self {
        Refusal::Damaged(error)
    }
}

impl Refusal {
    pub(super) fn into_error(self) -> Error {
        match self {
            Refusal::Damaged(error) | Refusal::Foreign(error) => error,
        }
    }
}

/// `config.json` of a checkpoint.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct About {
    pub format: u32,
    pub model: Config,
    pub tokenizer: Option<String>,
}

impl About {
    pub(super) fn parse(path: &Path, text: &[u8]) -> Result<Self, Refusal> {
        // The version first: all else may have another form in another version.
        #[derive(Deserialize)]
        struct Versioned {
            format: u32,
        }
        let Versioned { format } = json::parse(path, text)?;
        if format != FORMAT {
            let message = format!("the checkpoint has format version {format}, this build reads version {FORMAT}");
            return Err(Refusal::Foreign(Error::format(path, message)));
        }
        json::parse(path, text).map_err(Refusal::Foreign)
    }
}

/// Lengths and checksums of a checkpoint's files.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Manifest {
    pub step: u64,
    pub files: BTreeMap<String, FileSums>,
}

/// The last line: the checksum of all before it.
fn seal(body: &[u8]) -> String {
    format!("crc32 {:08x}\n", crc32fast::hash(body))
}

impl Manifest {
    pub(super) fn to_bytes(&self) -> Result<Vec<u8>> {
        let mut bytes = super::json_text(self)?;
        let seal = seal(&bytes);
        bytes.extend(seal.as_bytes());
        Ok(bytes)
    }

    pub(super) fn parse(path: &Path, bytes: &[u8]) -> Result<Self, Refusal> {
        let body = bytes.len().checked_sub(seal(&[]).len()).map(|at| bytes.split_at(at));
        match body {
            // Compared as text: a flip from lower to upper case is a flip too.
            // What cannot be parsed though its checksum holds was written by another version.
            Some((body, last)) if last == seal(body).as_bytes() => json::parse(path, body).map_err(Refusal::Foreign),
            Some(_) => Err(Error::format(path, "its checksum does not hold").into()),
            None => Err(Error::format(path, format!("{} bytes are too few", bytes.len())).into()),
        }
    }

    fn sums(&self, path: &Path) -> Result<&FileSums> {
        let name = path.file_name().and_then(|n| n.to_str()).unwrap_or_default();
        self.files.get(name).ok_or_else(|| Error::format(path, format!("{MANIFEST} does not list it")))
    }

    /// The content of a JSON file, checked.
    pub(super) fn read_text(&self, path: &Path) -> Result<Vec<u8>> {
        let sums = self.sums(path)?;
        let text = json::read_capped(path, MAX_TEXT)?;
        check_length(path, text.len(), sums)?;
        check_sum(path, "its content", &text, sums.head_crc32)?;
        Ok(text)
    }

    /// A tensor file, checked but for the tensors' data.
    pub(super) fn open_tensors(&self, path: &Path) -> Result<TensorFile> {
        let sums = self.sums(path)?;
        let map: Mmap = map_file(path)?;
        let Some(head) = map.get(..usize::try_from(sums.head_bytes).unwrap_or(usize::MAX)) else {
            let message = format!("cut short to {} bytes, its header alone has {}", map.len(), sums.head_bytes);
            return Err(Error::format(path, message));
        };
        check_sum(path, "its header", head, sums.head_crc32)?;
        let length = map.len();
        // Before the length, as it names the tensor in which a file was cut.
        let file = TensorFile::from_bytes(path, map)?;
        check_length(path, length, sums)?;
        Ok(file)
    }

    /// Reads a tensor of a file opened before, once its data are found to be what was written.
    pub(super) fn read_tensor(&self, file: &TensorFile, name: &str, out: &mut [f32]) -> Result<()> {
        let what = format!("tensor '{name}'");
        let wanted = self.sums(file.path())?.tensors.get(name);
        let wanted = wanted.ok_or_else(|| Error::format(file.path(), format!("{MANIFEST} does not list {what}")))?;
        check_sum(file.path(), &what, file.tensor(name)?.1, *wanted)?;
        file.read_f32(name, out)
    }
}

/// Sums of a file without tensors.
pub(super) fn sums_of_text(text: &[u8]) -> FileSums {
    let bytes = text.len() as u64;
    FileSums { bytes, head_bytes: bytes, head_crc32: crc32fast::hash(text), tensors: BTreeMap::new() }
}

fn check_length(path: &Path, found: usize, sums: &FileSums) -> Result<()> {
    match found as u64 == sums.bytes {
        true => Ok(()),
        false => Err(Error::format(path, format!("{found} bytes long, {} were written", sums.bytes))),
    }
}

fn check_sum(path: &Path, what: &str, bytes: &[u8], wanted: u32) -> Result<()> {
    let found = crc32(bytes);
    match found == wanted {
        true => Ok(()),
        false => Err(Error::format(path, format!("{what} is damaged (CRC-32 {found:08x}, {wanted:08x} was written)"))),
    }
}
