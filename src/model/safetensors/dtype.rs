//! The element types of safetensors files.

use std::fmt;

use serde::{Deserialize, Serialize};

/// An element type, under its name in the header of a file. [`TensorFile`](super::TensorFile) describes tensors of every
/// type and reads those that a model may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
#[non_exhaustive]
#[allow(missing_docs)] // The names say it: kind, bits, and layout of exponent and mantissa (OCP Microscaling Formats 1.0).
pub enum Dtype {
    Bool,
    F4,
    #[serde(rename = "F6_E2M3")]
    F6E2m3,
    #[serde(rename = "F6_E3M2")]
    F6E3m2,
    U8,
    I8,
    #[serde(rename = "F8_E5M2")]
    F8E5m2,
    #[serde(rename = "F8_E4M3")]
    F8E4m3,
    #[serde(rename = "F8_E8M0")]
    F8E8m0,
    #[serde(rename = "F8_E4M3FNUZ")]
    F8E4m3fnuz,
    #[serde(rename = "F8_E5M2FNUZ")]
    F8E5m2fnuz,
    I16,
    U16,
    F16,
    Bf16,
    I32,
    U32,
    F32,
    /// Complex, two F32.
    C64,
    F64,
    I64,
    U64,
}

impl Dtype {
    /// Size of an element in bits.
    pub fn bits(self) -> usize {
        match self {
            Dtype::F4 => 4,
            Dtype::F6E2m3 | Dtype::F6E3m2 => 6,
            Dtype::Bool | Dtype::U8 | Dtype::I8 => 8,
            Dtype::F8E5m2 | Dtype::F8E4m3 | Dtype::F8E8m0 | Dtype::F8E4m3fnuz | Dtype::F8E5m2fnuz => 8,
            Dtype::I16 | Dtype::U16 | Dtype::F16 | Dtype::Bf16 => 16,
            Dtype::I32 | Dtype::U32 | Dtype::F32 => 32,
            Dtype::C64 | Dtype::F64 | Dtype::I64 | Dtype::U64 => 64,
        }
    }
}

/// The name in the header of a file, such as `BF16`.
impl fmt::Display for Dtype {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Names and sizes are those of the safetensors library.
    #[test]
    fn every_type_of_the_library_is_known() {
        use safetensors::Dtype as Theirs;
        for theirs in [
            Theirs::BOOL,
            Theirs::F4,
            Theirs::F6_E2M3,
            Theirs::F6_E3M2,
            Theirs::U8,
            Theirs::I8,
            Theirs::F8_E5M2,
            Theirs::F8_E4M3,
            Theirs::F8_E8M0,
            Theirs::F8_E4M3FNUZ,
            Theirs::F8_E5M2FNUZ,
            Theirs::I16,
            Theirs::U16,
            Theirs::F16,
            Theirs::BF16,
            Theirs::I32,
            Theirs::U32,
            Theirs::F32,
            Theirs::C64,
            Theirs::F64,
            Theirs::I64,
            Theirs::U64,
        ] {
            let json = serde_json::to_value(theirs).unwrap();
            let ours: Dtype = serde_json::from_value(json).unwrap();
            assert_eq!((ours.to_string(), ours.bits()), (theirs.to_string(), theirs.bitsize()));
        }
    }
}
