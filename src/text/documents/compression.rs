//! Opening files that may be compressed, and naming those that are something else than a text.

use std::fmt;
use std::io::{self, BufRead, BufReader, Read, Seek};
use std::path::{Path, PathBuf};

use flate2::read::MultiGzDecoder;

use crate::error::{Error, Result};
use crate::files::open_regular;
use crate::text::{shard, signature};

/// Size of the buffer for reading, large enough for every signature of [`foreign`].
const BUFFER: usize = 1 << 16;

/// Compression of a whole file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Gzip,
    Zstd,
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Compression::Gzip => "gzip",
            Compression::Zstd => "Zstandard",
        })
    }
}

impl Compression {
    /// The compression that the name of a file states.
    fn of(path: &Path) -> Option<Self> {
        match path.extension()?.to_str()?.to_ascii_lowercase().as_str() {
            "gz" | "gzip" => Some(Compression::Gzip),
            "zst" | "zstd" => Some(Compression::Zstd),
            _ => None,
        }
    }

    fn magic(self) -> &'static [u8] {
        match self {
            Compression::Gzip => b"\x1f\x8b\x08",
            Compression::Zstd => b"\x28\xb5\x2f\xfd",
        }
    }

    fn suffix(self) -> &'static str {
        match self {
            Compression::Gzip => ".gz",
            Compression::Zstd => ".zst",
        }
    }
}

/// The path without the suffix of a compression: `a.jsonl` for `a.jsonl.gz`.
pub(in crate::text) fn without_suffix(path: &Path) -> PathBuf {
    match Compression::of(path) {
        Some(_) => path.with_extension(""),
        None => path.to_path_buf(),
    }
}

/// An open file, whose text is read decompressed.
pub(in crate::text) struct Opened<'a> {
    path: &'a Path,
    compression: Option<Compression>,
    /// Size of the file.
    size: u64,
    reader: BufReader<Box<dyn Read>>,
}

impl<'a> Opened<'a> {
    /// Opens a file.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] if its content is not compressed as its name states, or is recognised as something
    /// that is not a text.
    pub fn open(path: &'a Path) -> Result<Self> {
        let failed = |e| Error::io("read", path, e);
        let file = open_regular(path)?;
        let size = file.metadata().map_err(failed)?.len();
        Self::new(path, file, size)
    }

    /// As [`Opened::open`], for a file of `size` bytes that is open already.
    pub fn new(path: &'a Path, mut file: impl Read + Seek + 'static, size: u64) -> Result<Self> {
        let failed = |e| Error::io("read", path, e);
        let mut head = Vec::new();
        (&mut file).take(512).read_to_end(&mut head).map_err(failed)?;
        file.rewind().map_err(failed)?;
        let compression = Compression::of(path);
        if let Some(expected) = compression
            && !head.starts_with(expected.magic())
        {
            let found = foreign(&head).map_or(String::new(), |found| format!("; it is {found}"));
            let message = format!("the file is not compressed by {expected}, as its name states{found}");
            return Err(Error::format(path, message));
        }
        let decoded: Box<dyn Read> = match compression {
            None => Box::new(file),
            Some(Compression::Gzip) => Box::new(MultiGzDecoder::new(BufReader::with_capacity(BUFFER, file))),
            Some(Compression::Zstd) => {
                let mut decoder = zstd::Decoder::new(file).map_err(failed)?;
                // As `zstd --long=31` writes; the default refuses more than 27.
                decoder.window_log_max(31).map_err(failed)?;
                Box::new(decoder)
            }
        };
        let mut opened = Opened { path, compression, size, reader: BufReader::with_capacity(BUFFER, decoded) };
        let head = opened.reader.fill_buf();
        let head = head.map_err(|e| read_error(path, compression, e))?;
        if let Some(found) = foreign(head) {
            return Err(Error::format(path, format!("the file is {found}")));
        }
        if head.is_empty() {
            return Err(Error::format(path, "the file is empty"));
        }
        Ok(opened)
    }

    /// The file.
    pub fn path(&self) -> &'a Path {
        self.path
    }

    /// The compression of the file.
    pub(super) fn compression(&self) -> Option<Compression> {
        self.compression
    }

    /// Size of the text if it is known before it is read, that is, if the file is not compressed.
    pub fn text_size(&self) -> Option<u64> {
        self.compression.is_none().then_some(self.size)
    }

    /// Appends the next bytes of the text to `buffer`, up to `limit` bytes; returns how many, fewer only at the end.
    pub fn read_block(&mut self, buffer: &mut Vec<u8>, limit: u64) -> Result<usize> {
        let read = (&mut self.reader).take(limit).read_to_end(buffer);
        read.map_err(|e| read_error(self.path, self.compression, e))
    }
}

/// Checks that a file may be a Parquet table, as its name states.
pub(super) fn check_table(path: &Path) -> Result<()> {
    let mut head = Vec::new();
    open_regular(path)?.take(512).read_to_end(&mut head).map_err(|e| Error::io("read", path, e))?;
    match foreign(&head) {
        _ if head.is_empty() => Err(Error::format(path, "the file is empty")),
        Some(found) if !head.starts_with(b"PAR1") => Err(Error::format(path, format!("the file is {found}"))),
        _ => Ok(()),
    }
}

/// An error of reading: a decoder reports damaged data by these kinds.
fn read_error(path: &Path, compression: Option<Compression>, error: io::Error) -> Error {
    use io::ErrorKind::{InvalidData, InvalidInput, Other, UnexpectedEof};
    match compression {
        Some(compression) if matches!(error.kind(), InvalidData | InvalidInput | Other | UnexpectedEof) => {
            Error::format(path, format!("the {compression} data is damaged or truncated: {error}"))
        }
        _ => Error::io("read", path, error),
    }
}

/// What a file is, if its first bytes show that it is not a text.
fn foreign(head: &[u8]) -> Option<String> {
    if head.starts_with(b"\xff\xfe") || head.starts_with(b"\xfe\xff") {
        return Some("UTF-16; `iconv -f UTF-16 -t UTF-8` converts it to UTF-8, which is required".into());
    }
    match [Compression::Gzip, Compression::Zstd].into_iter().find(|c| head.starts_with(c.magic())) {
        Some(found) => {
            Some(format!("compressed by {found}; a name that ends in {} has it decompressed", found.suffix()))
        }
        None if [shard::MAGIC, shard::WIDE_MAGIC].iter().any(|magic| head.starts_with(&magic.to_le_bytes())) => {
            Some("a token shard; its name must end in .bin".into())
        }
        None => signature::of(head).map(Into::into),
    }
}
