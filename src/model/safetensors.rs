//! Safetensors files: a strict reader over a memory map, and a streaming writer.
//!
//! The reader takes the format of the safetensors library and is stricter where it leaves doubt: a tensor's name may
//! appear once only. All of a header is checked before a byte is allocated on its word.

use std::fs::File;
use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;
use safetensors::Dtype;

use crate::error::{Error, Result};
use crate::model::json::shown;

mod header;
#[cfg(test)]
mod tests;
mod writer;

pub use header::{Header, MAX_HEADER, TensorInfo};
pub use writer::{FileSums, Plan};

/// Elements a thread converts or checks at a time.
const CHUNK: usize = 1 << 18;

/// A safetensors file whose header holds; its data stay where they are until read.
#[derive(Debug)]
pub struct TensorFile<D = Mmap> {
    path: PathBuf,
    data: D,
    header: Header,
}

/// Maps a regular file into memory.
pub(crate) fn map_file(path: &Path) -> Result<Mmap> {
    let failed = |e| Error::io("read", path, e);
    // Asked before opening: opening a named pipe would wait for its writer.
    if !std::fs::metadata(path).map_err(failed)?.is_file() {
        return Err(Error::format(path, "not a regular file"));
    }
    let file = File::open(path).map_err(failed)?;
    // SAFETY: the map is only ever read, and as bytes, of which every value is valid. Model files are replaced by
    // renaming, never changed in place, by us and by Hugging Face's tools; a file cut short by a third party while it
    // is mapped ends the process with SIGBUS, as it does in every reader of this format.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) };
    map.map_err(failed)
}

impl TensorFile {
    /// Maps a file and checks its header.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] naming the field or tensor at fault.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_bytes(path.as_ref(), map_file(path.as_ref())?)
    }
}

impl<D: AsRef<[u8]>> TensorFile<D> {
    /// Checks the header of a file's content; `path` names it in errors.
    ///
    /// # Errors
    /// [`Error::Format`] naming the field or tensor at fault.
    pub fn from_bytes(path: impl AsRef<Path>, data: D) -> Result<Self> {
        let header = Header::parse(path.as_ref(), data.as_ref())?;
        Ok(TensorFile { path: path.as_ref().to_path_buf(), data, header })
    }

    /// The file's name in errors.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What the file says of itself.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// A tensor's description and bytes, which may lie at any address.
    ///
    /// # Errors
    /// [`Error::Format`] if there is no tensor of that name.
    pub fn tensor(&self, name: &str) -> Result<(&TensorInfo, &[u8])> {
        match self.header.tensors.get(name) {
            Some(info) => Ok((info, &self.data.as_ref()[info.range.clone()])),
            None => Err(Error::format(&self.path, format!("there is no tensor '{}'", shown(name)))),
        }
    }

    /// Reads a tensor of F32, F16, BF16 or F64 into `out`, whose length must be the tensor's.
    ///
    /// # Errors
    /// [`Error::Format`] naming the tensor that is missing, of another type or of another length.
    pub fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let (info, bytes) = self.tensor(name)?;
        let refused = |message: String| Err(Error::format(&self.path, format!("tensor '{}' {message}", shown(name))));
        let elements: usize = info.shape.iter().product();
        if elements != out.len() {
            return refused(format!("has {elements} elements {}, {} are wanted", shape_text(&info.shape), out.len()));
        }
        match info.dtype {
            Dtype::F32 => convert(bytes, out, f32::from_le_bytes),
            Dtype::F16 => convert(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => convert(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => convert(bytes, out, |b| f64::from_le_bytes(b) as f32),
            other => return refused(format!("is {other}; F32, F16, BF16 and F64 can be read")),
        }
        Ok(())
    }

    /// As [`read_f32`](Self::read_f32), into a new buffer.
    ///
    /// # Errors
    /// As [`read_f32`](Self::read_f32).
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>> {
        // The header was held against the file, so this is no more than eight times the file's own length.
        let mut values = vec![0.0; self.tensor(name)?.0.shape.iter().product()];
        self.read_f32(name, &mut values)?;
        Ok(values)
    }
}

/// Converts `N`-byte elements at any address; compiles to a plain copy for F32.
fn convert<const N: usize>(bytes: &[u8], out: &mut [f32], element: impl Fn([u8; N]) -> f32 + Sync) {
    let (elements, _) = bytes.as_chunks::<N>();
    out.par_chunks_mut(CHUNK).zip(elements.par_chunks(CHUNK)).for_each(|(out, elements)| {
        for (o, &e) in out.iter_mut().zip(elements) {
            *o = element(e);
        }
    });
}

/// Checks that every value is finite.
///
/// # Errors
/// [`Error::Format`] naming the tensor, the first element at fault and its value.
pub fn check_finite(path: impl AsRef<Path>, name: &str, values: &[f32]) -> Result<()> {
    let bad = |chunk: &[f32]| chunk.iter().fold(false, |bad, v| bad | !v.is_finite());
    // Whole chunks first, without branches; the element is looked for only where there is one.
    let Some(chunk) = values.par_chunks(CHUNK).position_first(bad) else { return Ok(()) };
    match values.iter().enumerate().skip(chunk * CHUNK).find(|(_, v)| !v.is_finite()) {
        Some((index, value)) => {
            Err(Error::format(path, format!("tensor '{}' holds {value} at element {index}", shown(name))))
        }
        None => Ok(()),
    }
}

/// CRC-32 of `bytes`, by all threads.
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let part = |chunk: &[u8]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(chunk);
        hasher
    };
    let join = |mut left: crc32fast::Hasher, right: crc32fast::Hasher| {
        left.combine(&right);
        left
    };
    bytes.par_chunks(4 * CHUNK).map(part).reduce(crc32fast::Hasher::new, join).finalize()
}

/// A shape as messages show it: `(768, 2304)`; a file may claim any number of axes, eight are shown.
pub(crate) fn shape_text(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().take(8).map(usize::to_string).collect();
    let rest = if shape.len() > 8 { format!(", … {} axes", shape.len()) } else { String::new() };
    format!("({}{rest})", sizes.join(", "))
}
