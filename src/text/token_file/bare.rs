//! Bare tokens: `uint16` without a header, as nanoGPT's `prepare.py` writes `train.bin` and `val.bin`.
//!
//! Nothing in such a file says what it is, so everything that it might be instead is refused by name.

use std::path::Path;

use super::element::Element;
use super::{Form, Layout};
use crate::error::{Error, Result};
use crate::text::shard::{HEADER_BYTES, MAX_VOCAB_16_BITS};
use crate::text::signature;

/// Magic numbers of llm.c's other files.
const LLM_C: &[(i32, &str)] = &[
    (20240326, "a model of llm.c"),
    (20240327, "a debug state of llm.c"),
    (20240328, "a tokenizer of llm.c"),
    (20240522, "an evaluation set of llm.c"),
    (20240527, "an optimizer state of llm.c"),
];

/// Bytes that are searched for text.
const HEAD: usize = 1024;

/// Fewer bytes than this may be tokens that look like text by chance.
const MIN_TEXT: usize = 64;

/// Fewer tokens than this may have zeros at every second place by chance.
const MIN_TOKENS: usize = 16;

/// What a file is that has no tokens, if its first bytes tell.
pub(super) fn foreign(bytes: &[u8]) -> Option<&'static str> {
    if let Some(name) = signature::of(bytes) {
        return Some(name);
    }
    let number = bytes.first_chunk().map(|bytes| i32::from_le_bytes(*bytes));
    if let Some((_, name)) = LLM_C.iter().find(|&&(magic, _)| number == Some(magic)) {
        return Some(name);
    }
    let json_bytes = bytes.first_chunk().map(|bytes| u64::from_le_bytes(*bytes));
    if bytes.get(8) == Some(&b'{') && json_bytes.is_some_and(|n| n < bytes.len() as u64) {
        return Some("a safetensors model");
    }
    let head = &bytes[..bytes.len().min(HEAD)];
    let is_text = |byte: &u8| matches!(byte, b' '..=b'~' | b'\t' | b'\r' | b'\n');
    (head.len() >= MIN_TEXT && head.iter().all(is_text)).then_some("text; .txt or .jsonl would be its ending")
}

/// Checks that the bytes may be bare tokens.
pub(super) fn layout(path: &Path, bytes: &[u8], vocab: usize) -> Result<Layout> {
    let fail = |offset: usize, message: String| Err(Error::format_at(path, offset as u64, message));
    let magic = bytes.first_chunk().map_or(0, |bytes| i32::from_le_bytes(*bytes));
    // Beyond its first four numbers, the header of a shard is zero.
    if bytes.len() >= HEADER_BYTES && bytes[16..HEADER_BYTES].iter().all(|&byte| byte == 0) {
        return fail(0, format!("a damaged token shard: the magic number is {magic}, not 20240520 or 20240801"));
    }
    if !bytes.len().is_multiple_of(2) {
        let message = "neither a token shard nor bare uint16 tokens, which an odd number of bytes cannot be";
        return fail(bytes.len(), format!("{message}: {} bytes, magic number {magic}", bytes.len()));
    }
    if vocab > MAX_VOCAB_16_BITS {
        let message = format!("a file without a header has 16-bit tokens, but V = {vocab} needs 32 bits");
        return fail(0, format!("{message}; save it as .npy or as a uint32 shard"));
    }
    let mut pairs = bytes.chunks_exact(4);
    if bytes.len() >= 2 * MIN_TOKENS && pairs.all(|pair| pair[2..] == [0, 0]) {
        let message = "every second 16-bit number is zero, as in 32-bit tokens, which need a header";
        return fail(2, format!("{message}; save it as .npy or as a uint32 shard"));
    }
    Ok(Layout { form: Form::Bare, start: 0, len: bytes.len() / 2, vocab: None, element: Element::U16 })
}
