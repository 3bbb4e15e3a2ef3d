//! Reading whole texts, with errors that name the offset and the line.

use std::io::ErrorKind;
use std::path::Path;

use super::compression::Opened;
use crate::error::{Error, Result};

/// The byte order mark, which editors on Windows write before UTF-8 text.
pub(super) const BOM: &str = "\u{feff}";

/// Largest text that is decompressed as one document: a compressed file does not state how large it will be.
const MAX_DECOMPRESSED: u64 = 1 << 32;

/// The text of a file.
pub(super) struct Text {
    /// Without the byte order mark at its head.
    pub text: String,
    /// Offset in the file, 0 or behind the byte order mark.
    pub offset: usize,
}

/// Reads the whole text of a file.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] if the text is empty, or, with the offset of the first invalid byte, if it is not
/// UTF-8.
pub(super) fn read(mut file: Opened<'_>) -> Result<Text> {
    let path = file.path();
    let mut bytes = Vec::new();
    let limit = match file.text_size() {
        Some(size) => {
            let size = usize::try_from(size).unwrap_or(usize::MAX);
            bytes.try_reserve_exact(size).map_err(|_| Error::io("read", path, ErrorKind::OutOfMemory.into()))?;
            u64::MAX
        }
        None => MAX_DECOMPRESSED,
    };
    file.read_block(&mut bytes, limit)?;
    if bytes.len() as u64 == limit {
        let message = format!("the decompressed text has {limit} bytes or more; split it, or make it JSONL");
        return Err(Error::format(path, message));
    }
    let mut text =
        String::from_utf8(bytes).map_err(|e| not_utf8(path, e.as_bytes(), e.utf8_error().valid_up_to(), (1, 0)))?;
    let offset = if text.starts_with(BOM) { BOM.len() } else { 0 };
    text.drain(..offset);
    match text.is_empty() {
        true => Err(Error::format(path, "the file is empty")),
        false => Ok(Text { text, offset }),
    }
}

/// An error about the first invalid byte, at `at` in `bytes`, which begin at this line and offset of the file.
pub(super) fn not_utf8(path: &Path, bytes: &[u8], at: usize, (line, offset): (usize, u64)) -> Error {
    let (valid, rest) = bytes.split_at(at);
    let line = line + valid.iter().filter(|&&byte| byte == b'\n').count();
    let byte = rest.first().copied().unwrap_or_default();
    Error::format_at(path, offset + at as u64, format!("line {line}: not UTF-8 text (byte 0x{byte:02x})"))
}
