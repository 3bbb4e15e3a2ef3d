//! Text → tokens, one at a time, each a slice of the text.

use super::{Result, SyntaxError};
use crate::ast::Position;
use std::fmt;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// A name: `add`, `%r1`, `$L__BB0_1`, `_`.
    Word,
    /// `.global`, `.shared::cta`, `.2d`; the token's text leaves the dot out.
    Dotted,
    /// Anything that begins with a digit; [`super::constant`] reads it.
    Number,
    /// A string; the token's text leaves the quotes out and keeps the escapes.
    Text,
    Punct,
    End,
}

#[derive(Debug, Clone, Copy)]
pub(super) struct Token<'a> {
    pub kind: Kind,
    pub text: &'a str,
    pub position: Position,
}

impl Token<'_> {
    pub fn is(&self, kind: Kind, text: &str) -> bool {
        self.kind == kind && self.text == text
    }
}

/// The token as an error message quotes it; a long one is cut.
impl fmt::Display for Token<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const LONGEST: usize = 60;
        let cut = &self.text[..self.text.len().min(LONGEST)];
        let rest = if cut.len() < self.text.len() { "…" } else { "" };
        match self.kind {
            Kind::End => write!(f, "the end of the text"),
            Kind::Dotted => write!(f, "`.{cut}{rest}`"),
            Kind::Text => write!(f, "`\"{cut}{rest}\"`"),
            Kind::Word | Kind::Number | Kind::Punct => write!(f, "`{cut}{rest}`"),
        }
    }
}

pub(super) struct Lexer<'a> {
    text: &'a str,
    offset: usize,
    line: u32,
    line_start: usize,
}

impl<'a> Lexer<'a> {
    /// Refuses text that is not plain ASCII, as ptxas does; from here on every byte is a character.
    pub fn new(text: &'a str) -> Result<Self> {
        let lexer = Self { text, offset: 0, line: 1, line_start: 0 };
        let Some(offset) = text.bytes().position(|byte| byte == 0 || byte >= 0x80) else { return Ok(lexer) };
        let before = &text.as_bytes()[..offset];
        let line = 1 + before.iter().filter(|&&byte| byte == b'\n').count();
        let line_start = before.iter().rposition(|&byte| byte == b'\n').map_or(0, |newline| newline + 1);
        let message = match text[offset..].chars().next() {
            Some('\0') | None => "a NUL byte".to_owned(),
            Some(character) => format!("a character outside of ASCII: `{}`", character.escape_debug()),
        };
        Err(SyntaxError::new(position(line as u64, line_start, offset), message))
    }

    pub fn next(&mut self) -> Result<Token<'a>> {
        self.skip_blanks()?;
        let start = self.offset;
        let position = self.position();
        let Some(first) = self.byte(0) else { return Ok(Token { kind: Kind::End, text: "", position }) };
        let kind = match first {
            b'"' => return self.string(position),
            b'.' if self.byte(1).is_some_and(follows) => return Ok(self.dotted(position)),
            b'0'..=b'9' => self.number(),
            b'%' if !self.byte(1).is_some_and(follows) => self.punct(1),
            b'%' | b'_' | b'$' | b'a'..=b'z' | b'A'..=b'Z' => {
                self.offset += 1;
                self.skip_word();
                Kind::Word
            }
            b'<' | b'>' if self.byte(1) == Some(first) => self.punct(2),
            b'!'..=b'~' => self.punct(1),
            _ => return Err(SyntaxError::new(position, format!("a stray control character: 0x{first:02x}"))),
        };
        Ok(Token { kind, text: &self.text[start..self.offset], position })
    }

    fn position(&self) -> Position {
        position(u64::from(self.line), self.line_start, self.offset)
    }

    /// The byte `ahead` of the current one.
    fn byte(&self, ahead: usize) -> Option<u8> {
        self.text.as_bytes().get(self.offset + ahead).copied()
    }

    fn skip_blanks(&mut self) -> Result<()> {
        while let Some(byte) = self.byte(0) {
            match byte {
                b'\n' => self.newline(),
                b' ' | b'\t' | b'\r' | b'\x0c' => self.offset += 1,
                b'/' if self.byte(1) == Some(b'/') => {
                    let rest = &self.text[self.offset..];
                    self.offset += rest.find('\n').unwrap_or(rest.len());
                }
                b'/' if self.byte(1) == Some(b'*') => self.skip_block_comment()?,
                _ => break,
            }
        }
        Ok(())
    }

    fn newline(&mut self) {
        self.offset += 1;
        self.line = self.line.saturating_add(1);
        self.line_start = self.offset;
    }

    fn skip_block_comment(&mut self) -> Result<()> {
        let start = self.position();
        self.offset += 2;
        loop {
            match self.byte(0) {
                Some(b'*') if self.byte(1) == Some(b'/') => break,
                Some(b'\n') => self.newline(),
                Some(_) => self.offset += 1,
                None => return Err(SyntaxError::new(start, "a comment without its `*/`")),
            }
        }
        self.offset += 2;
        Ok(())
    }

    fn skip_word(&mut self) {
        while self.byte(0).is_some_and(follows) {
            self.offset += 1;
        }
    }

    fn skip_digits(&mut self) {
        while self.byte(0).is_some_and(|byte| byte.is_ascii_digit()) {
            self.offset += 1;
        }
    }

    fn punct(&mut self, len: usize) -> Kind {
        self.offset += len;
        Kind::Punct
    }

    fn dotted(&mut self, position: Position) -> Token<'a> {
        self.offset += 1;
        let start = self.offset;
        self.skip_word();
        while self.byte(0) == Some(b':') && self.byte(1) == Some(b':') && self.byte(2).is_some_and(follows) {
            self.offset += 2;
            self.skip_word();
        }
        Token { kind: Kind::Dotted, text: &self.text[start..self.offset], position }
    }

    /// `12`, `0x1F`, `0f3F800000`, `9.0`, `1.5e-3`. Its digits are checked by [`super::constant`].
    fn number(&mut self) -> Kind {
        let start = self.offset;
        self.skip_digits();
        let whole = !self.byte(0).is_some_and(follows);
        // `4.b8` is a number and a type: the dot is a decimal point unless a letter, `_` or `$` follows it.
        let decimal_point =
            self.byte(0) == Some(b'.') && !self.byte(1).is_some_and(|b| follows(b) && !b.is_ascii_digit());
        if whole && decimal_point {
            self.offset += 1;
            self.skip_digits();
        }
        let mantissa = self.offset;
        self.skip_word();
        let exponent = &self.text[mantissa..self.offset];
        let signed =
            matches!(self.byte(0), Some(b'+' | b'-')) && self.byte(1).is_some_and(|byte| byte.is_ascii_digit());
        if matches!(exponent, "e" | "E") && signed && mantissa > start {
            self.offset += 1;
            self.skip_word();
        }
        Kind::Number
    }

    fn string(&mut self, position: Position) -> Result<Token<'a>> {
        self.offset += 1;
        let start = self.offset;
        loop {
            match self.byte(0) {
                Some(b'"') => break,
                None | Some(b'\n') => return Err(SyntaxError::new(position, "a string without its closing quote")),
                // An escaped quote does not close the string; the next iteration refuses an escaped newline.
                Some(b'\\') if self.byte(1).is_some_and(|byte| byte != b'\n') => self.offset += 2,
                Some(_) => self.offset += 1,
            }
        }
        let text = &self.text[start..self.offset];
        self.offset += 1;
        Ok(Token { kind: Kind::Text, text, position })
    }
}

/// Whether `byte` may be part of a name, after its first character.
fn follows(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'$'
}

fn position(line: u64, line_start: usize, offset: usize) -> Position {
    let column = offset - line_start + 1;
    Position { line: u32::try_from(line).unwrap_or(u32::MAX), column: u32::try_from(column).unwrap_or(u32::MAX) }
}

/// The string that a token of [`Kind::Text`] denotes. nvcc writes the non-ASCII bytes of a path as octal escapes of its
/// UTF-8.
pub(super) fn unescape(token: Token<'_>) -> Result<String> {
    let raw = token.text.as_bytes();
    let mut bytes = Vec::with_capacity(raw.len());
    let mut at = 0;
    while at < raw.len() {
        if raw[at] != b'\\' {
            bytes.push(raw[at]);
            at += 1;
            continue;
        }
        let (byte, len) = escape(&raw[at + 1..]).ok_or_else(|| {
            let column = token.position.column.saturating_add(u32::try_from(at + 1).unwrap_or(u32::MAX));
            SyntaxError::new(Position { column, ..token.position }, "an unknown escape in a string")
        })?;
        bytes.push(byte);
        at += 1 + len;
    }
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The byte that the escape after a backslash denotes, and its length in characters.
fn escape(after: &[u8]) -> Option<(u8, usize)> {
    let plain = match after.first()? {
        b'n' => b'\n',
        b't' => b'\t',
        b'r' => b'\r',
        &quoted @ (b'"' | b'\\' | b'\'') => quoted,
        b'x' => return numeric(after, 1, 2, 16),
        b'0'..=b'7' => return numeric(after, 0, 3, 8),
        _ => return None,
    };
    Some((plain, 1))
}

/// Up to `most` digits from `start`.
fn numeric(after: &[u8], start: usize, most: usize, radix: u32) -> Option<(u8, usize)> {
    let digits = after[start..].iter().take(most).map_while(|&byte| char::from(byte).to_digit(radix));
    let (value, count) = digits.fold((0, 0), |(value, count), digit| (value * radix + digit, count + 1));
    let value = u8::try_from(value).ok().filter(|_| count > 0)?;
    Some((value, start + count))
}
