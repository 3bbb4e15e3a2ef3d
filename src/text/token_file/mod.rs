//! Token files: memory-mapped tokens that need no tokenizer.
//!
//! | form | recognised by | tokens |
//! |---|---|---|
//! | shard ([`super::shard`]) | magic 20240520 or 20240801 | `uint16` or `uint32` |
//! | `.npy` | magic `\x93NUMPY` | `uint8` … `uint64`, `int8` … `int64`, little-endian; any shape in C order, read row by row |
//! | bare | none of the above, nor of another format | `uint16`, as nanoGPT's `train.bin` and `val.bin` |
//!
//! The names of token files end in `.bin` or `.npy`; the content decides which of the forms it is. Every token is checked to be in 0..V. A bare file is refused if its bytes
//! tell that it is something else: a damaged shard, 32-bit tokens, a model, an archive, text, a Git LFS pointer.

mod bare;
mod element;
mod npy;
#[cfg(test)]
mod tests;

use std::fmt;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use serde::{Serialize, Serializer};

pub use self::element::Element;
use super::shard;
use crate::error::{Error, Result};
use crate::files::map_regular;
use crate::message::escaped_path;

/// How the tokens of a file are stored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// A token shard.
    Shard(Element),
    /// `uint16` without a header.
    Bare,
    /// A NumPy array.
    Npy(Element),
}

/// Displays `shard (uint16)`, `bare uint16` or `npy int64`.
impl fmt::Display for Form {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Form::Shard(element) => write!(f, "shard ({element})"),
            Form::Bare => f.write_str("bare uint16"),
            Form::Npy(element) => write!(f, "npy {element}"),
        }
    }
}

impl Serialize for Form {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// Where the tokens are in a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Layout {
    form: Form,
    /// Offset of the first token.
    start: usize,
    /// Number of tokens.
    len: usize,
    element: Element,
    /// Size of the vocabulary, if the file says it.
    vocab: Option<usize>,
}

/// A memory-mapped token file. Opening a large file uses only page-cache memory. The file must not be truncated or
/// rewritten while it is in use; our own writer replaces whole files by renaming.
#[derive(Debug)]
pub struct TokenFile {
    path: PathBuf,
    map: Mmap,
    layout: Layout,
}

impl TokenFile {
    /// Opens a file and validates it: header, length, and that every token is in 0..`vocab` (V).
    ///
    /// The validation reads the whole file once, unless its type has no invalid tokens, as `uint16` for V >= 65536.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened or mapped; [`Error::Format`] with the file, the byte offset and the
    /// numbers if it is no token file for this vocabulary: also if the file gives a larger vocabulary than V.
    pub fn open(path: impl AsRef<Path>, vocab: usize) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let map = map_regular(&path)?;
        if map.is_empty() {
            return Err(Error::format(&path, "the file is empty"));
        }
        let layout = check(&path, &map, vocab)?;
        Ok(TokenFile { path, map, layout })
    }

    /// The number of tokens, never zero.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.layout.len
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// How the tokens are stored.
    pub fn form(&self) -> Form {
        self.layout.form
    }

    /// The size of the vocabulary, if the file says it.
    pub fn vocab(&self) -> Option<usize> {
        self.layout.vocab
    }

    /// Reads the tokens `start..start + out.len()`.
    ///
    /// # Errors
    /// [`Error::Invalid`] if they are out of range.
    pub fn read(&self, start: usize, out: &mut [i32]) -> Result<()> {
        let Layout { len, element, start: offset, .. } = self.layout;
        if start.checked_add(out.len()).is_none_or(|end| end > len) {
            let message = format!("{}: cannot read {} tokens at {start} of {len}", escaped_path(&self.path), out.len());
            return Err(Error::invalid(message));
        }
        element.copy(&self.map[offset + start * element.bytes()..], out);
        Ok(())
    }
}

/// Validates the content of a file and finds its tokens.
fn check(path: &Path, bytes: &[u8], vocab: usize) -> Result<Layout> {
    if i32::try_from(vocab).is_err() {
        return Err(Error::invalid(format!(
            "token files hold tokens of 31 bits: V <= {} failed (V = {vocab})",
            i32::MAX
        )));
    }
    let layout = layout(path, bytes, vocab)?;
    if let Some(given) = layout.vocab.filter(|&given| given > vocab) {
        let message = format!("the shard is of a vocabulary of {given} tokens, more than V = {vocab}");
        return Err(Error::format_at(path, shard::VOCAB_OFFSET, message));
    }
    let Layout { start, element, .. } = layout;
    let limit = layout.vocab.unwrap_or(vocab);
    let Some((index, problem)) = element.first_outside(&bytes[start..], limit) else { return Ok(layout) };
    let context = match (layout.form, layout.vocab) {
        (Form::Bare, _) => "; the file has no header, so it was read as uint16",
        (_, Some(_)) => "; V is in the header",
        _ => "",
    };
    Err(Error::format_at(path, (start + index * element.bytes()) as u64, format!("{problem}{context}")))
}

fn layout(path: &Path, bytes: &[u8], vocab: usize) -> Result<Layout> {
    if bytes.starts_with(npy::MAGIC) {
        return npy::layout(path, bytes);
    }
    if let Some(header) = shard::header(path, bytes)? {
        let element = if header.wide { Element::U32 } else { Element::U16 };
        let form = Form::Shard(element);
        return Ok(Layout { form, start: shard::HEADER_BYTES, len: header.len, element, vocab: header.vocab });
    }
    if let Some(name) = bare::foreign(bytes) {
        return Err(Error::format(path, format!("the file has no tokens: it is {name}")));
    }
    if path.extension().is_some_and(|found| found.eq_ignore_ascii_case("npy")) {
        return Err(Error::format_at(path, 0, "not a .npy file, which begins with \\x93NUMPY"));
    }
    bare::layout(path, bytes, vocab)
}
