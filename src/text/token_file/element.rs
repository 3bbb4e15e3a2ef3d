//! The integers that token files consist of.

use std::fmt;

use rayon::prelude::*;

/// Block size for the search for invalid tokens.
pub(super) const SCAN_BYTES: usize = 1 << 20;

/// The type of a file's tokens; all are little-endian.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Element {
    U8,
    U16,
    U32,
    U64,
    I8,
    I16,
    I32,
    I64,
}

/// Displays the name of NumPy: `uint16`.
impl fmt::Display for Element {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Element::U8 => "uint8",
            Element::U16 => "uint16",
            Element::U32 => "uint32",
            Element::U64 => "uint64",
            Element::I8 => "int8",
            Element::I16 => "int16",
            Element::I32 => "int32",
            Element::I64 => "int64",
        })
    }
}

impl Element {
    /// The number of bytes of a token.
    pub fn bytes(self) -> usize {
        match self {
            Element::U8 | Element::I8 => 1,
            Element::U16 | Element::I16 => 2,
            Element::U32 | Element::I32 => 4,
            Element::U64 | Element::I64 => 8,
        }
    }

    /// Finds the first token in `bytes` that is negative or not below `vocab`, which is at most 2^31 - 1: its index, and what
    /// is wrong with it.
    pub(super) fn first_outside(self, bytes: &[u8], vocab: usize) -> Option<(usize, String)> {
        // As an unsigned number of the same width, a negative token is larger than any vocabulary.
        let (index, token) = match self {
            Element::U8 => first_above(bytes, vocab, u8::from_le_bytes),
            Element::I8 => first_above(bytes, vocab.min(1 << 7), u8::from_le_bytes),
            Element::U16 => first_above(bytes, vocab, u16::from_le_bytes),
            Element::I16 => first_above(bytes, vocab.min(1 << 15), u16::from_le_bytes),
            Element::U32 | Element::I32 => first_above(bytes, vocab, u32::from_le_bytes),
            Element::U64 | Element::I64 => first_above(bytes, vocab, u64::from_le_bytes),
        }?;
        let signed = match self {
            Element::I8 => i64::from(token as i8),
            Element::I16 => i64::from(token as i16),
            Element::I32 => i64::from(token as i32),
            Element::I64 => token as i64,
            Element::U8 | Element::U16 | Element::U32 | Element::U64 => 0,
        };
        let problem = if signed < 0 { format!("token {signed} < 0") } else { format!("token {token} >= V = {vocab}") };
        Some((index, format!("{problem} (token number {index})")))
    }

    /// Copies the first tokens of `bytes`, which are valid, to `out`.
    pub(super) fn copy(self, bytes: &[u8], out: &mut [i32]) {
        match self.bytes() {
            1 => copy(bytes, out, |byte: [u8; 1]| byte[0].into()),
            2 => copy(bytes, out, |pair| u16::from_le_bytes(pair).into()),
            4 => copy(bytes, out, i32::from_le_bytes),
            // A valid token is below V, which 31 bits hold.
            _ => copy(bytes, out, |bytes| u64::from_le_bytes(bytes) as i32),
        }
    }
}

fn copy<const N: usize>(bytes: &[u8], out: &mut [i32], token: impl Fn([u8; N]) -> i32) {
    // Read byte by byte, so that alignment and byte order of the machine do not matter.
    for (out, &bytes) in out.iter_mut().zip(bytes.as_chunks::<N>().0) {
        *out = token(bytes);
    }
}

/// Finds the first number that is not below `vocab`: its index and the number.
fn first_above<const N: usize, T>(
    bytes: &[u8],
    vocab: usize,
    number: impl Fn([u8; N]) -> T + Sync,
) -> Option<(usize, u64)>
where
    T: Copy + Ord + Send + Sync + TryFrom<usize> + Into<u64>,
{
    // A vocabulary above the maximum of the type has no invalid tokens. Otherwise, the maximum of a block is computed first,
    // because that is faster than a search for the first large token.
    let limit = T::try_from(vocab).ok()?;
    let numbers = bytes.as_chunks::<N>().0;
    let block_len = SCAN_BYTES / N;
    let blocks = numbers.par_chunks(block_len).enumerate();
    let above = |block: &[[u8; N]]| block.iter().map(|&bytes| number(bytes)).max().is_some_and(|max| max >= limit);
    let (index, block) = blocks.find_first(|(_, block)| above(block))?;
    let (at, found) = block.iter().map(|&bytes| number(bytes)).enumerate().find(|&(_, number)| number >= limit)?;
    Some((index * block_len + at, found.into()))
}
