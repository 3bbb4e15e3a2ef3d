//! Writing safetensors files. Tensors are streamed, so that no second copy of a model is needed in memory.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::dtype::Dtype;
use super::header::size_in_bytes;
use crate::error::{Error, Result};

/// Elements that are converted, checksummed and written at a time: 1 MiB, which fits the second-level cache.
const CHUNK: usize = 1 << 18;

/// Checksums of a written file, which together cover every byte of it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileChecksums {
    /// Length of the file.
    pub bytes: u64,
    /// Length of its head: everything except the tensors' data.
    pub head_bytes: u64,
    /// CRC-32 of the head.
    pub head_crc32: u32,
    /// CRC-32 of each tensor's data.
    pub tensors: BTreeMap<String, u32>,
}

/// A tensor in the header of a file.
#[derive(Serialize)]
struct Entry<'a> {
    dtype: Dtype,
    shape: &'a [usize],
    data_offsets: [usize; 2],
}

/// A member of a JSON object. The header is joined from these, because the order of the members of serde_json's objects
/// depends on the features that the whole program enables.
fn member(name: &str, value: &impl Serialize) -> String {
    let value = serde_json::to_string(value).expect("text and integers are serialisable");
    format!("{}:{value}", serde_json::Value::from(name))
}

/// A safetensors file of f32 tensors that is about to be written.
#[derive(Debug)]
pub struct Plan {
    head: Vec<u8>,
    tensors: Vec<(String, usize)>,
    bytes: u64,
}

impl Plan {
    /// Plans a file that holds `tensors` in this order.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a name is repeated or a size does not fit 64 bits.
    pub fn new<'a>(
        metadata: &[(&str, &str)],
        tensors: impl IntoIterator<Item = (String, &'a [usize])>,
    ) -> Result<Self> {
        let mut names = BTreeSet::from(["__metadata__".to_string()]);
        let mut planned = Vec::new();
        let mut header = Vec::new();
        if !metadata.is_empty() {
            let pairs: Vec<String> = metadata.iter().map(|&(key, value)| member(key, &value)).collect();
            header.push(format!("\"__metadata__\":{{{}}}", pairs.join(",")));
        }
        let mut end = 0_usize;
        for (name, shape) in tensors {
            if !names.insert(name.clone()) {
                return Err(Error::invalid(format!("tensor '{name}' is repeated")));
            }
            let begin = end;
            let size = size_in_bytes(Dtype::F32, shape);
            end = size.and_then(|s| begin.checked_add(s)).ok_or_else(|| {
                Error::invalid(format!("tensor '{name}' of shape {shape:?} does not fit 64 bits of size"))
            })?;
            header.push(member(&name, &Entry { dtype: Dtype::F32, shape, data_offsets: [begin, end] }));
            planned.push((name, (end - begin) / size_of::<f32>()));
        }
        let mut json = format!("{{{}}}", header.join(",")).into_bytes();
        // Padded with spaces to a multiple of 8 bytes, so that readers can map the data in place.
        json.resize(json.len().next_multiple_of(8), b' ');
        let head = [&(json.len() as u64).to_le_bytes(), &json[..]].concat();
        let bytes = (head.len() + end) as u64;
        Ok(Plan { head, tensors: planned, bytes })
    }

    /// Length of the file.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Writes the file to `out`. Calls `tensor` with the name of one tensor at a time to get its values.
    ///
    /// # Errors
    /// [`Error::Io`] with `path` and the size of the file; [`Error::Invalid`] if a tensor's length differs from the plan;
    /// the errors of `tensor`.
    pub fn write<'a>(
        &self,
        path: &Path,
        out: &mut dyn Write,
        mut tensor: impl FnMut(&str) -> Result<Cow<'a, [f32]>>,
    ) -> Result<FileChecksums> {
        let failed = |e| Error::io(format!("write {} bytes to", self.bytes), path, e);
        out.write_all(&self.head).map_err(failed)?;
        let mut checksums = FileChecksums {
            bytes: self.bytes,
            head_bytes: self.head.len() as u64,
            head_crc32: crc32fast::hash(&self.head),
            tensors: BTreeMap::new(),
        };
        let mut buffer = Vec::new();
        for (name, len) in &self.tensors {
            let values = tensor(name)?;
            if values.len() != *len {
                return Err(Error::invalid(format!(
                    "tensor '{name}' has {} elements, but its shape has {len}",
                    values.len()
                )));
            }
            let mut crc = crc32fast::Hasher::new();
            for chunk in values.chunks(CHUNK) {
                buffer.clear();
                buffer.extend(chunk.iter().flat_map(|v| v.to_le_bytes()));
                crc.update(&buffer);
                out.write_all(&buffer).map_err(failed)?;
            }
            checksums.tensors.insert(name.clone(), crc.finalize());
        }
        out.flush().map_err(failed)?;
        Ok(checksums)
    }
}
