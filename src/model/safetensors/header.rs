//! The header of a safetensors file. It is validated in full before anything is allocated or read based on it.

use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, Visitor};

use super::dtype::Dtype;
use crate::error::{Error, Result};
use crate::message::{escaped, parser_message};
use crate::model::json::UniqueMap;

/// Maximum length of the JSON header, the same as in the safetensors library.
pub const MAX_HEADER: u64 = 100_000_000;

/// The description of one tensor, validated against the file's length and the other tensors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// Element type.
    pub dtype: Dtype,
    /// Row-major shape.
    pub shape: Vec<usize>,
    /// Byte range of its data in the file.
    pub range: Range<usize>,
}

/// A validated header: the tensors cover the data without gaps or overlaps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// Offset of the data: the size of the length field and the JSON.
    pub len: usize,
    /// The file's metadata.
    pub metadata: BTreeMap<String, String>,
    /// The tensors by name.
    pub tensors: BTreeMap<String, TensorInfo>,
}

impl Header {
    /// Parses and validates the header of a file, given its whole content.
    ///
    /// # Errors
    /// [`Error::Format`] naming the field or tensor at fault.
    pub fn parse(path: &Path, file: &[u8]) -> Result<Self> {
        let Some((length, rest)) = file.split_first_chunk::<8>() else {
            return Err(Error::format(
                path,
                format!("{} bytes are too few for a safetensors header length", file.len()),
            ));
        };
        let length = u64::from_le_bytes(*length);
        if length > MAX_HEADER || length > rest.len() as u64 {
            let message = format!(
                "header length {length} is beyond the {} bytes that follow it or the limit of {MAX_HEADER}",
                rest.len()
            );
            return Err(Error::format_at(path, 0, message));
        }
        let (json, data) = rest.split_at(length as usize);
        if json.first() != Some(&b'{') {
            return Err(Error::format_at(path, 8, "the header does not begin with '{'"));
        }
        let raw: Raw = serde_json::from_slice(json)
            .map_err(|e| Error::format_at(path, 8, format!("bad header: {}", parser_message(e))))?;
        check_tiling(&raw.tensors, data.len()).map_err(|message| Error::format(path, message))?;
        let len = 8 + json.len();
        let info = |(name, t): (String, RawTensor)| {
            let (begin, end) = t.data_offsets;
            (name, TensorInfo { dtype: t.dtype, shape: t.shape, range: len + begin..len + end })
        };
        Ok(Header { len, metadata: raw.metadata, tensors: raw.tensors.into_iter().map(info).collect() })
    }
}

/// Checks that the tensors cover the `payload` bytes of data without gaps or overlaps, and that their sizes fit their shapes.
fn check_tiling(tensors: &BTreeMap<String, RawTensor>, payload: usize) -> Result<(), String> {
    let mut by_offset: Vec<_> = tensors.iter().collect();
    by_offset.sort_by_key(|(_, t)| t.data_offsets);
    let mut covered = 0;
    let mut previous = String::new();
    for (name, tensor) in by_offset {
        let (begin, end) = tensor.data_offsets;
        let name = escaped(name);
        let offsets = || format!("tensor '{name}': data_offsets [{begin}, {end}]");
        if begin > end {
            return Err(format!("{} are reversed", offsets()));
        }
        if begin > covered {
            return Err(format!("{} leave a gap of {} bytes before it", offsets(), begin - covered));
        }
        if begin < covered {
            return Err(format!("{} overlap tensor '{previous}', which ends at {covered}", offsets()));
        }
        if end > payload {
            return Err(format!("{} end beyond the {payload} bytes of data", offsets()));
        }
        let (dtype, shape) = (tensor.dtype, shape_text(&tensor.shape));
        match size_in_bytes(dtype, &tensor.shape) {
            None => {
                return Err(format!(
                    "tensor '{name}': the size of shape {shape} in {dtype} is not a whole number of bytes that fits 64 bits"
                ));
            }
            Some(size) if size != end - begin => {
                return Err(format!(
                    "{} hold {} bytes, but shape {shape} in {dtype} needs {size}",
                    offsets(),
                    end - begin
                ));
            }
            Some(_) => {}
        }
        covered = end;
        previous = name;
    }
    if covered != payload {
        return Err(format!("{} bytes of data after the last tensor '{previous}'", payload - covered));
    }
    Ok(())
}

/// Size of a tensor in bytes; `None` if it overflows or is not a whole number of bytes.
pub(super) fn size_in_bytes(dtype: Dtype, shape: &[usize]) -> Option<usize> {
    let elements = shape.iter().try_fold(1_usize, |n, &d| n.checked_mul(d))?;
    let bits = elements.checked_mul(dtype.bits())?;
    bits.is_multiple_of(8).then_some(bits / 8)
}

/// Formats a shape for messages, e.g. `(768, 2304)`. A file may claim any number of axes; at most eight are shown.
pub(crate) fn shape_text(shape: &[usize]) -> String {
    let sizes: Vec<String> = shape.iter().take(8).map(usize::to_string).collect();
    let rest = if shape.len() > 8 { format!(", … {} axes", shape.len()) } else { String::new() };
    format!("({}{rest})", sizes.join(", "))
}

struct Raw {
    metadata: BTreeMap<String, String>,
    tensors: BTreeMap<String, RawTensor>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct RawTensor {
    dtype: Dtype,
    shape: Vec<usize>,
    data_offsets: (usize, usize),
}

impl<'de> Deserialize<'de> for Raw {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(RawVisitor)
    }
}

struct RawVisitor;

impl<'de> Visitor<'de> for RawVisitor {
    type Value = Raw;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensors")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Raw, A::Error> {
        let mut metadata = None;
        let mut tensors = BTreeMap::new();
        while let Some(name) = map.next_key::<String>()? {
            let at = |e| A::Error::custom(format!("'{}': {e}", escaped(&name)));
            let repeated = if name == "__metadata__" {
                metadata.replace(map.next_value::<UniqueMap<String>>().map_err(at)?.0).is_some()
            } else {
                let tensor: RawTensor = map.next_value().map_err(at)?;
                tensors.insert(name.clone(), tensor).is_some()
            };
            // The safetensors library keeps the last of two equal names. Which one was meant is unknown, so we reject both.
            if repeated {
                return Err(A::Error::custom(format!("'{}' appears twice", escaped(&name))));
            }
        }
        Ok(Raw { metadata: metadata.unwrap_or_default(), tensors })
    }
}
