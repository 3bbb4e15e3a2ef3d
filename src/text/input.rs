//! Reading text and JSONL files, with errors that name the offset and the line.

use std::fs;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};

/// The byte order mark, which editors on Windows write before UTF-8 text.
const BOM: &str = "\u{feff}";

/// A text without the byte order mark at its head.
pub(super) fn without_bom(text: &str) -> &str {
    text.strip_prefix(BOM).unwrap_or(text)
}

/// Reads a whole file as text, which may begin with a byte order mark: see [`without_bom`].
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] if the file is empty, or, with the offset of the first invalid byte, if it is not UTF-8.
pub(super) fn read_text(path: &Path) -> Result<String> {
    into_text(path, fs::read(path).map_err(|e| Error::io("read", path, e))?)
}

/// Converts the content of a file to text; see [`read_text`].
fn into_text(path: &Path, bytes: Vec<u8>) -> Result<String> {
    if bytes.is_empty() || bytes == BOM.as_bytes() {
        return Err(Error::format(path, "the file is empty"));
    }
    if bytes.starts_with(&[0xff, 0xfe]) || bytes.starts_with(&[0xfe, 0xff]) {
        let message = "the file is UTF-16; `iconv -f UTF-16 -t UTF-8` converts it to UTF-8, which is required";
        return Err(Error::format(path, message));
    }
    String::from_utf8(bytes).map_err(|e| {
        let at = e.utf8_error().valid_up_to();
        let (valid, rest) = e.as_bytes().split_at(at);
        let line = 1 + valid.iter().filter(|&&byte| byte == b'\n').count();
        let byte = rest.first().copied().unwrap_or_default();
        Error::format_at(path, at as u64, format!("line {line}: not UTF-8 text (byte 0x{byte:02x})"))
    })
}

/// A value that was parsed from a line of JSONL, with the position of the line.
pub(super) struct Line<T> {
    /// The value.
    pub value: T,
    /// Line number, from 1.
    number: usize,
    /// Offset of the line's first byte.
    offset: usize,
}

impl<T> Line<T> {
    /// An error about this line's content.
    pub fn error(&self, path: &Path, message: impl std::fmt::Display) -> Error {
        Error::format_at(path, self.offset as u64, format!("line {}: {message}", self.number))
    }
}

/// Parses a JSONL text, which has one object per line; blank lines and a byte order mark are skipped.
///
/// # Errors
/// [`Error::Format`] with line and offset of the first invalid line, or if the text has no values.
pub(super) fn parse_jsonl<'a, T: Deserialize<'a>>(path: &Path, text: &'a str) -> Result<Vec<Line<T>>> {
    let mut lines = Vec::new();
    let body = without_bom(text);
    let mut offset = text.len() - body.len();
    for (number, line) in (1..).zip(body.split_inclusive('\n')) {
        if line.trim_start().starts_with('[') {
            // Serde would take an array for an object whose fields are in order.
            let at = offset + line.len() - line.trim_start().len();
            let message =
                "a JSON array; JSONL has one object per line, which `jq -c .[]` writes for a file that is an array";
            return Err(Error::format_at(path, at as u64, format!("line {number}: {message}")));
        }
        if !line.trim().is_empty() {
            let value = serde_json::from_str(line).map_err(|e| {
                // The parser sees only this line and reports it as line 1, so its position is removed.
                let message = e.to_string();
                let message = message.split(" at line ").next().unwrap_or_default();
                let at = offset + e.column().saturating_sub(1).min(line.len());
                Error::format_at(path, at as u64, format!("line {number}: {message}"))
            })?;
            lines.push(Line { value, number, offset });
        }
        offset += line.len();
    }
    if lines.is_empty() {
        return Err(Error::format(path, "the file has no lines of JSON"));
    }
    Ok(lines)
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    #[derive(Deserialize, Debug)]
    struct Value<'a> {
        #[serde(borrow)]
        text: Cow<'a, str>,
    }

    fn parse(bytes: &[u8]) -> Result<Vec<String>> {
        let path = Path::new("a.jsonl");
        let text = into_text(path, bytes.to_vec())?;
        let lines = parse_jsonl::<Value>(path, &text)?;
        Ok(lines.into_iter().map(|line| line.value.text.into_owned()).collect())
    }

    #[test]
    fn values_are_parsed_and_errors_located() {
        let good = "{\"text\": \"a\\n\\u00e9\", \"id\": [1, {}]}\n\n  \r\n{\"text\":\"\"}\r\n{\"text\":\"last\"}";
        assert_eq!(parse(good.as_bytes()).unwrap(), ["a\né", "", "last"]);
        assert_eq!(parse(format!("\u{feff}{good}").as_bytes()).unwrap(), ["a\né", "", "last"]);
        let utf_16 = "a.jsonl: the file is UTF-16; `iconv -f UTF-16 -t UTF-8` converts it to UTF-8, which is required";
        let array = "a JSON array; JSONL has one object per line, which `jq -c .[]` writes for a file that is an array";
        for (bytes, expected) in [
            (&b""[..], "a.jsonl: the file is empty"),
            (b"\n \n", "a.jsonl: the file has no lines of JSON"),
            (b"{\"text\":\"a\"}\n{\"text\":\"\xff\"}", "a.jsonl at byte 22: line 2: not UTF-8 text (byte 0xff)"),
            (b"{\"text\":\"a\"}\n{\"body\":1}\n", "a.jsonl at byte 22: line 2: missing field `text`"),
            (b"\n{\"text\":7}", "a.jsonl at byte 9: line 2: invalid type: integer `7`, expected a string"),
            (b"{\"text\":\"a\"", "a.jsonl at byte 10: line 1: EOF while parsing an object"),
            (b"{\"text\":\"a\"} x", "a.jsonl at byte 13: line 1: trailing characters"),
            (b"\xef\xbb\xbf", "a.jsonl: the file is empty"),
            (b"\xef\xbb\xbf{\"text\":7}", "a.jsonl at byte 11: line 1: invalid type: integer `7`, expected a string"),
            (b"\xff\xfe{\0", utf_16),
            (b"\xfe\xff\0{", utf_16),
            (b"{\"text\":\"a\"}\n [\"b\"]", &*format!("a.jsonl at byte 14: line 2: {array}")),
            (b"[{\"text\": \"a\"},\n", &*format!("a.jsonl at byte 0: line 1: {array}")),
        ] {
            assert_eq!(parse(bytes).unwrap_err().to_string(), expected);
        }
    }

    #[test]
    fn mutated_bytes_never_panic() {
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let good = "{\"text\":\"a b\", \"x\":[1,-2.5e3,null]}\n{\"text\":\"\\ud83d\\ude42 \u{e9}\"}\n";
        let alphabet = b"{}[]\":,\\u0d8text \n\r\x00\xff\xc3\xa9";
        let (mut accepted, mut rejected) = (0, 0);
        for _ in 0..100_000 {
            let mut bytes = good.as_bytes().to_vec();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                let symbol = alphabet[rng.next_u32() as usize % alphabet.len()];
                match rng.random_range(0..4) {
                    0 => bytes[at] = symbol,
                    1 => bytes.insert(at, symbol),
                    2 if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at + 1),
                }
            }
            match parse(&bytes) {
                Ok(_) => accepted += 1,
                Err(_) => rejected += 1,
            }
        }
        assert!(accepted > 1000 && rejected > 1000, "{accepted} accepted, {rejected} rejected");
    }
}
