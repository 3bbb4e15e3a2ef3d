//! Safetensors files: a strict reader over a memory map, and a streaming writer.
//!
//! The reader accepts the format of the safetensors library, but is stricter where that is ambiguous: a tensor name must
//! not be repeated. The whole header is validated before anything is allocated based on it.

use std::path::{Path, PathBuf};

use half::{bf16, f16};
use memmap2::Mmap;
use rayon::prelude::*;

use crate::error::{Error, Result};
use crate::files::map_regular;
use crate::message::escaped;
use crate::tensor::host_zeros;

mod dtype;
mod header;
#[cfg(test)]
mod tests;
mod writer;

pub use dtype::Dtype;
pub(crate) use header::shape_text;
pub use header::{Header, MAX_HEADER, TensorInfo};
pub use writer::{FileChecksums, Plan};

/// Elements per parallel task of a conversion or check.
const CHUNK: usize = 1 << 18;

/// A safetensors file with a validated header. The data of a tensor are read on demand.
#[derive(Debug)]
pub struct TensorFile<D = Mmap> {
    path: PathBuf,
    data: D,
    header: Header,
}

impl TensorFile {
    /// Memory-maps a file and validates its header.
    ///
    /// # Errors
    /// [`Error::Io`]; [`Error::Format`] naming the field or tensor at fault.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Self::from_bytes(path.as_ref(), map_regular(path.as_ref())?)
    }
}

impl<D: AsRef<[u8]>> TensorFile<D> {
    /// Validates the header of a file's content; `path` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Format`] naming the field or tensor at fault.
    pub fn from_bytes(path: impl AsRef<Path>, data: D) -> Result<Self> {
        let header = Header::parse(path.as_ref(), data.as_ref())?;
        Ok(TensorFile { path: path.as_ref().to_path_buf(), data, header })
    }

    /// Path of the file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The header of the file.
    pub fn header(&self) -> &Header {
        &self.header
    }

    /// A tensor's description and its bytes, which may have any alignment.
    ///
    /// # Errors
    /// [`Error::Format`] if the file has no such tensor.
    pub fn tensor(&self, name: &str) -> Result<(&TensorInfo, &[u8])> {
        match self.header.tensors.get(name) {
            Some(info) => Ok((info, &self.data.as_ref()[info.range.clone()])),
            None => Err(Error::format(&self.path, format!("tensor '{}' is missing", escaped(name)))),
        }
    }

    /// Reads a tensor of type F32, F16, BF16 or F64 into `out`, which must have the same length.
    ///
    /// # Errors
    /// [`Error::Format`] if the tensor is missing or has another type or length.
    pub fn read_f32(&self, name: &str, out: &mut [f32]) -> Result<()> {
        let (info, bytes) = self.tensor(name)?;
        let rejected =
            |message: String| Err(Error::format(&self.path, format!("tensor '{}' {message}", escaped(name))));
        let elements: usize = info.shape.iter().product();
        if elements != out.len() {
            return rejected(format!("has {elements} elements {}, expected {}", shape_text(&info.shape), out.len()));
        }
        match info.dtype {
            Dtype::F32 => convert(bytes, out, f32::from_le_bytes),
            Dtype::F16 => convert(bytes, out, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::Bf16 => convert(bytes, out, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::F64 => convert(bytes, out, |b| f64::from_le_bytes(b) as f32),
            other => return rejected(format!("is {other}; supported types: F32, F16, BF16, F64")),
        }
        Ok(())
    }

    /// As [`read_f32`](Self::read_f32), into a new buffer.
    ///
    /// # Errors
    /// As [`read_f32`](Self::read_f32).
    pub fn to_f32(&self, name: &str) -> Result<Vec<f32>> {
        // The header has been validated against the file, so the allocation is at most eight times the file's length.
        let mut values = host_zeros(self.tensor(name)?.0.shape.iter().product())?;
        self.read_f32(name, &mut values)?;
        Ok(values)
    }
}

/// Converts `N`-byte elements of any alignment. For F32 this compiles to a plain copy.
fn convert<const N: usize>(bytes: &[u8], out: &mut [f32], element: impl Fn([u8; N]) -> f32 + Sync) {
    let (elements, _) = bytes.as_chunks::<N>();
    out.par_chunks_mut(CHUNK).zip(elements.par_chunks(CHUNK)).for_each(|(out, elements)| {
        for (o, &e) in out.iter_mut().zip(elements) {
            *o = element(e);
        }
    });
}

/// Checks that all values are finite.
///
/// # Errors
/// [`Error::Format`] naming the tensor, the first non-finite element and its value.
pub fn check_finite(path: impl AsRef<Path>, name: &str, values: &[f32]) -> Result<()> {
    let bad = |chunk: &[f32]| chunk.iter().fold(false, |bad, v| bad | !v.is_finite());
    // Whole chunks are tested first, without branches; the element is searched only in a bad chunk.
    let Some(chunk) = values.par_chunks(CHUNK).position_first(bad) else { return Ok(()) };
    match values.iter().enumerate().skip(chunk * CHUNK).find(|(_, v)| !v.is_finite()) {
        Some((index, value)) => {
            Err(Error::format(path, format!("tensor '{}' holds {value} at element {index}", escaped(name))))
        }
        None => Ok(()),
    }
}

/// CRC-32 of `bytes`, computed in parallel.
#[cfg(feature = "train")]
pub(crate) fn crc32(bytes: &[u8]) -> u32 {
    let hash = |chunk: &[u8]| {
        let mut hasher = crc32fast::Hasher::new();
        hasher.update(chunk);
        hasher
    };
    let combine = |mut left: crc32fast::Hasher, right: crc32fast::Hasher| {
        left.combine(&right);
        left
    };
    bytes.par_chunks(4 * CHUNK).map(hash).reduce(crc32fast::Hasher::new, combine).finalize()
}
