//! JSONL: a JSON object per line, parsed in parallel, block by block.

use std::path::Path;

use rayon::prelude::*;
use serde::de::DeserializeOwned;

use super::compression::Opened;
use super::field::{self, Fault};
use super::text::{BOM, not_utf8};
use super::{BATCH, Batches};
use crate::error::{Error, Result};

/// Longest line, in bytes.
const MAX_LINE: usize = 1 << 30;

/// A line that is not blank.
struct RawLine<'a> {
    bytes: &'a [u8],
    at: Position,
}

/// The position of a line.
#[derive(Debug, Clone, Copy)]
struct Position {
    /// Line number, from 1.
    number: usize,
    /// Offset of the line's first byte.
    offset: u64,
}

impl Position {
    fn error(self, path: &Path, fault: Fault) -> Error {
        let Position { number, offset } = self;
        Error::format_at(path, offset + fault.at as u64, format!("line {number}: {}", fault.message))
    }
}

impl<'a> RawLine<'a> {
    fn text(&self, path: &Path) -> Result<&'a str> {
        let Position { number, offset } = self.at;
        str::from_utf8(self.bytes).map_err(|e| not_utf8(path, self.bytes, e.valid_up_to(), (number, offset)))
    }
}

/// Reads the documents of a file; see [`super::DocumentOptions`].
pub(super) fn read_documents(file: Opened<'_>, batches: &mut Batches<'_, '_>) -> Result<()> {
    let (path, name) = (batches.path, &batches.options.text_field);
    let parse = |line: &RawLine| {
        let text = line.text(path)?;
        field::text(text, name).map_err(|fault| line.at.error(path, fault))
    };
    for_each_block(file, &mut |lines| {
        if let Some(line) = lines.first().filter(|line| line.at.number == 1 && line.bytes.starts_with(b"[")) {
            let message = "an array; JSONL has an object per line, and a name that ends in .json has an array read";
            return Err(line.at.error(path, Fault { at: 0, message: message.into() }));
        }
        batches.push(lines.par_iter().map(parse).collect(), |error| error)
    })
}

/// A value that was parsed from a line, with the position of the line.
pub(in crate::text) struct Line<T> {
    /// The value.
    pub value: T,
    at: Position,
}

impl<T> Line<T> {
    /// An error about this line's content.
    pub fn error(&self, path: &Path, message: impl Into<String>) -> Error {
        self.at.error(path, Fault { at: 0, message: message.into() })
    }
}

/// Reads a file with a value of type `T` per line; blank lines and a byte order mark are skipped.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] with line and offset of the first invalid line, or if the file has no values.
pub(in crate::text) fn read_values<T: DeserializeOwned + Send>(file: Opened<'_>) -> Result<Vec<Line<T>>> {
    let path = file.path();
    let mut values = Vec::new();
    for_each_block(file, &mut |lines| {
        let parse = |line: &RawLine| {
            let value = field::parse(line.text(path)?).map_err(|fault| line.at.error(path, fault))?;
            Ok(Line { value, at: line.at })
        };
        // Not collected into a `Result` in parallel, which would be any of the errors and not the first.
        let parsed: Vec<Result<Line<T>>> = lines.par_iter().map(parse).collect();
        parsed.into_iter().try_for_each(|value| {
            values.push(value?);
            Ok(())
        })
    })?;
    if values.is_empty() {
        return Err(Error::format(path, "the file has no lines of JSON"));
    }
    Ok(values)
}

/// Calls `receiver` with blocks of complete lines.
fn for_each_block(mut file: Opened<'_>, receiver: &mut dyn FnMut(&[RawLine]) -> Result<()>) -> Result<()> {
    let path = file.path();
    let mut buffer = Vec::new();
    let mut at = Position { number: 1, offset: 0 };
    loop {
        let read = file.read_block(&mut buffer, BATCH as u64)?;
        if at.offset == 0 && buffer.starts_with(BOM.as_bytes()) {
            buffer.drain(..BOM.len());
            at.offset = BOM.len() as u64;
        }
        let is_end = read < BATCH;
        let complete = match buffer.iter().rposition(|&byte| byte == b'\n') {
            _ if is_end => buffer.len(),
            Some(last) => last + 1,
            None if buffer.len() > MAX_LINE => {
                let message = format!("the line is longer than {MAX_LINE} bytes");
                return Err(at.error(path, Fault { at: 0, message }));
            }
            None => continue,
        };
        let mut lines = Vec::new();
        for bytes in buffer[..complete].split_inclusive(|&byte| byte == b'\n') {
            if !bytes.trim_ascii().is_empty() {
                lines.push(RawLine { bytes, at });
            }
            at.number += 1;
            at.offset += bytes.len() as u64;
        }
        receiver(&lines)?;
        drop(lines);
        buffer.drain(..complete);
        if is_end {
            return Ok(());
        }
    }
}
