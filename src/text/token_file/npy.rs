//! The header of NumPy's `.npy`: a magic number, a version, and a Python dict with the type, order and shape of an array.
//!
//! Source: `numpy/lib/format.py` and NEP 1. The parser is our own, because the crate `npyz` brings a parser generator
//! (`pest`) and arbitrarily large integers for this one line of text.

use std::path::Path;

use super::element::Element;
use super::{Form, Layout};
use crate::error::{Error, Result};
use crate::message::escaped;

/// The first bytes of every file.
pub(super) const MAGIC: &[u8] = b"\x93NUMPY";

/// Largest header, far above that of an array of integers, which has 118 bytes.
const MAX_HEADER: usize = 1 << 16;

/// Types of tokens, as NumPy spells them.
const TYPES: &[(&str, Element)] = &[
    ("|u1", Element::U8),
    ("<u2", Element::U16),
    ("<u4", Element::U32),
    ("<u8", Element::U64),
    ("|i1", Element::I8),
    ("<i2", Element::I16),
    ("<i4", Element::I32),
    ("<i8", Element::I64),
];

/// Finds the tokens of a `.npy` file, of any shape in C order, which are read row by row.
pub(super) fn layout(path: &Path, bytes: &[u8]) -> Result<Layout> {
    let fail = |offset: usize, message: String| Err(Error::format_at(path, offset as u64, message));
    let (start, end) = match header_range(bytes) {
        Ok(range) => range,
        Err((offset, message)) => return fail(offset, message),
    };
    let mut parser = Parser { text: &bytes[..end], at: start };
    let (element, len) = match parser.header() {
        Ok(array) => array,
        Err((offset, message)) => return fail(offset, message),
    };
    if len == 0 {
        return fail(start, "the array has no elements".into());
    }
    let (expected, found) = (len as u128 * element.bytes() as u128, (bytes.len() - end) as u128);
    if expected != found {
        let what = if found < expected { "truncated" } else { "trailing bytes" };
        let at = end + expected.min(found) as usize;
        let message =
            format!("{what}: {len} elements need {expected} bytes after the header, but the file has {found}");
        return fail(at, message);
    }
    Ok(Layout { form: Form::Npy(element), start: end, len, vocab: None, element })
}

/// An offset, and what is wrong there.
type Fault = (usize, String);

/// Where the text of the header begins and ends.
fn header_range(bytes: &[u8]) -> Result<(usize, usize), Fault> {
    let truncated = || (bytes.len(), format!("truncated: the header of a .npy file ends at byte {}", bytes.len()));
    let version = bytes.get(6..8).ok_or_else(truncated)?;
    let (start, length) = match version {
        [1, 0] => (10, bytes.get(8..10).map(|b| usize::from(u16::from_le_bytes([b[0], b[1]])))),
        [2 | 3, 0] => (12, bytes.get(8..12).map(|b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]) as usize)),
        other => return Err((6, format!("version {}.{} of .npy is not supported", other[0], other[1]))),
    };
    let length = length.ok_or_else(truncated)?;
    if length > MAX_HEADER {
        return Err((8, format!("the header has {length} bytes, more than the limit of {MAX_HEADER}")));
    }
    if start + length > bytes.len() {
        return Err(truncated());
    }
    Ok((start, start + length))
}

/// Reads the literal of a Python dict such as `{'descr': '<u2', 'fortran_order': False, 'shape': (3, 4), }`.
struct Parser<'a> {
    /// The file up to the end of its header.
    text: &'a [u8],
    at: usize,
}

impl<'a> Parser<'a> {
    /// The type and the number of the array's elements.
    fn header(&mut self) -> Result<(Element, usize), Fault> {
        let (mut element, mut fortran, mut shape) = (None, None, None);
        self.expect(b'{')?;
        while !self.takes(b'}') {
            let key_at = self.at;
            let key = self.string()?;
            self.expect(b':')?;
            self.peek();
            let again = match key {
                "descr" => element.replace(self.element()?).is_some(),
                "fortran_order" => fortran.replace(self.boolean()?).is_some(),
                "shape" => shape.replace((self.at, self.shape()?)).is_some(),
                _ => return Err((key_at, format!("unknown key '{}' in the header", escaped(key)))),
            };
            if again {
                return Err((key_at, format!("the key '{key}' is in the header twice")));
            }
            if !self.takes(b',') && self.peek() != Some(b'}') {
                return Err(self.fault("',' or '}'"));
            }
        }
        if self.peek().is_some() {
            return Err(self.fault("the end of the header"));
        }
        let missing = |key: &str| (self.at, format!("the header has no key '{key}'"));
        let (at, shape) = shape.ok_or_else(|| missing("shape"))?;
        // The elements of a vector are in the same order either way.
        if fortran.ok_or_else(|| missing("fortran_order"))? && shape.len() > 1 {
            let message = "an array in Fortran order, whose rows are not contiguous; save it in C order";
            return Err((at, message.into()));
        }
        let len = shape.iter().try_fold(1_usize, |len, &size| len.checked_mul(size));
        let len = len.filter(|&len| isize::try_from(len).is_ok());
        let len = len.ok_or_else(|| (at, "the shape has too many elements".to_string()))?;
        Ok((element.ok_or_else(|| missing("descr"))?, len))
    }

    /// The next character that is not white space.
    fn peek(&mut self) -> Option<u8> {
        let rest = &self.text[self.at..];
        self.at += rest.iter().position(|byte| !byte.is_ascii_whitespace()).unwrap_or(rest.len());
        self.text.get(self.at).copied()
    }

    fn takes(&mut self, byte: u8) -> bool {
        let found = self.peek() == Some(byte);
        self.at += usize::from(found);
        found
    }

    fn expect(&mut self, byte: u8) -> Result<(), Fault> {
        if self.takes(byte) { Ok(()) } else { Err(self.fault(&format!("'{}'", char::from(byte)))) }
    }

    fn fault(&self, expected: &str) -> Fault {
        (self.at, format!("not the header of a .npy file: expected {expected}"))
    }

    /// The bytes up to the first for which `inside` fails.
    fn take_while(&mut self, inside: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = &self.text[self.at..];
        let len = rest.iter().position(|&byte| !inside(byte)).unwrap_or(rest.len());
        self.at += len;
        &rest[..len]
    }

    /// A string in single or double quotes, without escapes.
    fn string(&mut self) -> Result<&'a str, Fault> {
        let Some(quote @ (b'\'' | b'"')) = self.peek() else { return Err(self.fault("a string")) };
        self.at += 1;
        let text = std::str::from_utf8(self.take_while(|byte| byte != quote && byte != b'\\'));
        match text {
            Ok(text) if self.text.get(self.at) == Some(&quote) => {
                self.at += 1;
                Ok(text)
            }
            _ => Err(self.fault("the end of a string")),
        }
    }

    fn element(&mut self) -> Result<Element, Fault> {
        if self.peek() == Some(b'[') {
            return Err((self.at, "the array has a structured dtype; tokens are integers".into()));
        }
        let at = self.at;
        let name = self.string()?;
        if let Some((_, element)) = TYPES.iter().find(|(known, _)| *known == name) {
            return Ok(*element);
        }
        let shown = escaped(name);
        let message = match name.as_bytes() {
            [b'>', b'u' | b'i', ..] => {
                format!("big-endian integers (dtype '{shown}'); save them as '<{}'", &shown[1..])
            }
            [_, b'f' | b'c', ..] => format!("floating-point numbers (dtype '{shown}'); tokens are integers"),
            _ => format!("the dtype '{shown}' is not one of integers"),
        };
        Err((at, message))
    }

    fn boolean(&mut self) -> Result<bool, Fault> {
        let Some(_) = self.peek() else { return Err(self.fault("True or False")) };
        let at = self.at;
        match self.take_while(|byte| byte.is_ascii_alphabetic()) {
            b"True" => Ok(true),
            b"False" => Ok(false),
            _ => {
                self.at = at;
                Err(self.fault("True or False"))
            }
        }
    }

    /// A tuple of sizes.
    fn shape(&mut self) -> Result<Vec<usize>, Fault> {
        self.expect(b'(')?;
        let mut sizes = Vec::new();
        while !self.takes(b')') {
            let digits = self.take_while(|byte| byte.is_ascii_digit());
            let size = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
            sizes.push(size.ok_or_else(|| self.fault("a size"))?);
            if !self.takes(b',') && self.peek() != Some(b')') {
                return Err(self.fault("',' or ')'"));
            }
        }
        Ok(sizes)
    }
}
