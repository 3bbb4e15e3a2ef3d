//! GPT-2's pre-tokenization: splits text into pieces. Byte-pair merges never cross the boundary of a piece.
//!
//! The pieces are defined by a regular expression (Radford et al. 2019, `encoder.py`), here in tiktoken's equivalent form:
//!
//! ```text
//! '(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s
//! ```
//!
//! This is a hand-written scanner instead of tiktoken-rs's regular expression, whose engine backtracks: a run of millions
//! of spaces before a word exhausts its stack, so that `encode_ordinary` panics, and it is several times slower. The
//! character classes are taken from the tables of regex-syntax, which that engine uses too. `char::is_alphabetic` and
//! `char::is_numeric` are different sets: the first includes some combining marks and circled letters.

use regex_syntax::hir::{Class, HirKind};

/// The character classes of the regular expression.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum CharClass {
    /// `[^\s\p{L}\p{N}]`
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
}

/// The scanner. It holds the class of every code point.
pub(super) struct Pretokenizer {
    classes: Vec<CharClass>,
}

impl Pretokenizer {
    /// Builds the table of classes.
    pub fn new() -> Result<Self, String> {
        let mut classes = vec![CharClass::Other; char::MAX as usize + 1];
        let patterns = [(r"\p{L}", CharClass::Letter), (r"\p{N}", CharClass::Number), (r"\s", CharClass::Space)];
        for (pattern, class) in patterns {
            let set = regex_syntax::parse(pattern).map_err(|e| format!("character class {pattern}: {e}"))?;
            let HirKind::Class(Class::Unicode(set)) = set.kind() else {
                return Err(format!("character class {pattern} is not a set of characters"));
            };
            for range in set.iter() {
                classes[range.start() as usize..=range.end() as usize].fill(class);
            }
        }
        Ok(Pretokenizer { classes })
    }

    /// The end of the piece that starts at byte `start`, which must be a character boundary inside `text`.
    pub fn piece_end(&self, text: &str, start: usize) -> usize {
        let bytes = text.as_bytes();
        let first = bytes[start];
        if first == b'\''
            && let Some(length) = contraction(&bytes[start..])
        {
            return start + length;
        }
        // Every alternative for words starts with an optional plain space.
        let word = start + usize::from(first == b' ');
        match self.class_at(text, word) {
            Some((class, width)) if class != CharClass::Space => self.run_end(text, word + width, class).0,
            _ => self.space_end(text, start),
        }
    }

    /// The end of a piece of white space. At the end of the text, the piece is the whole run. Otherwise it excludes the
    /// last character of the run, which may belong to the following word, unless the run has only one character.
    fn space_end(&self, text: &str, start: usize) -> usize {
        let (end, last) = self.run_end(text, start, CharClass::Space);
        if end == text.len() || last == start { end } else { last }
    }

    /// The end of the run of one class that starts at byte `at`, and the offset of its last character.
    fn run_end(&self, text: &str, mut at: usize, run: CharClass) -> (usize, usize) {
        let mut last = at;
        while let Some((class, width)) = self.class_at(text, at)
            && class == run
        {
            last = at;
            at += width;
        }
        (at, last)
    }

    /// Class and width in bytes of the character at byte `at`; `None` at the end of the text.
    fn class_at(&self, text: &str, at: usize) -> Option<(CharClass, usize)> {
        let first = *text.as_bytes().get(at)?;
        if first.is_ascii() {
            return Some((self.classes[usize::from(first)], 1));
        }
        let character = text.get(at..)?.chars().next()?;
        Some((self.classes[character as usize], character.len_utf8()))
    }
}

/// Length of the English contraction that `bytes` starts with.
fn contraction(bytes: &[u8]) -> Option<usize> {
    match bytes {
        [b'\'', b's' | b'd' | b'm' | b't', ..] => Some(2),
        [b'\'', b'l', b'l', ..] | [b'\'', b'v' | b'r', b'e', ..] => Some(3),
        _ => None,
    }
}

/// Splits `text` into chunks of about `size` bytes, such that the concatenated pieces of the chunks are the pieces of the
/// whole text.
///
/// Chunks end between a character that is not white space and one that is. A piece always ends there, because only a plain
/// space can be in a piece with other characters, and only as its first character. Such a split does not affect other
/// pieces: no alternative looks back, and the only lookahead is within white space, in which a chunk never ends.
pub(super) fn chunks(text: &str, size: usize) -> Vec<&str> {
    let mut chunks = Vec::with_capacity(text.len() / size.max(1) + 1);
    let mut rest = text;
    while rest.len() > size {
        // The search ends at the latest at the end of the text, which is a character boundary.
        let Some(from) = (size.max(1)..).find(|&at| rest.is_char_boundary(at)) else { break };
        let mut after_word = false;
        let cut = rest[from..].char_indices().find(|(_, c)| {
            let found = after_word && c.is_whitespace();
            after_word = !c.is_whitespace();
            found
        });
        let Some((cut, _)) = cut else { break };
        let (chunk, tail) = rest.split_at(from + cut);
        chunks.push(chunk);
        rest = tail;
    }
    chunks.push(rest);
    chunks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(text: &str) -> Vec<&str> {
        let scanner = Pretokenizer::new().unwrap();
        let mut out = Vec::new();
        let mut start = 0;
        while start < text.len() {
            let end = scanner.piece_end(text, start);
            out.push(&text[start..end]);
            start = end;
        }
        out
    }

    #[test]
    fn pieces_are_those_of_the_regular_expression() {
        for (text, expected, why) in [
            ("Hello world", &["Hello", " world"][..], "a word includes the space before it"),
            ("a  b", &["a", " ", " b"], "the last space of a run belongs to the word"),
            ("a\n\nb", &["a", "\n", "\n", "b"], "a word includes only a plain space"),
            ("a \n", &["a", " \n"], "white space at the end is one piece"),
            ("we'll've", &["we", "'ll", "'ve"], "contractions"),
            (" 's 'S", &[" '", "s", " '", "S"], "a contraction has no space and no capital"),
            ("abc123!?", &["abc", "123", "!?"], "letters, numbers and other characters are separate pieces"),
            ("e\u{301}", &["e", "\u{301}"], "a combining mark is not a letter"),
            ("x²Ⅷ", &["x", "²Ⅷ"], "superscripts and Roman numerals are numbers"),
            ("a\u{a0}b\u{3000} c", &["a", "\u{a0}", "b", "\u{3000}", " c"], "white space beyond ASCII"),
        ] {
            assert_eq!(pieces(text), expected, "{why}");
        }
    }

    #[test]
    fn white_space_equals_that_of_the_standard_library() {
        // `chunks` uses char::is_whitespace and the scanner uses its table. The split is correct only if they agree.
        let scanner = Pretokenizer::new().unwrap();
        for c in (0..=char::MAX as u32).filter_map(char::from_u32) {
            assert_eq!(scanner.classes[c as usize] == CharClass::Space, c.is_whitespace(), "{c:?}");
        }
    }

    #[test]
    fn chunks_end_between_a_word_and_white_space() {
        // Runs of three white-space characters reveal a split inside white space, which would change the pieces.
        let text = "one two   three\n\n\nfour \u{3000} five-six   ";
        for size in 0..=text.len() + 1 {
            let chunks = chunks(text, size);
            assert_eq!(chunks.concat(), text);
            let of_chunks: Vec<&str> = chunks.iter().flat_map(|chunk| pieces(chunk)).collect();
            assert_eq!(of_chunks, pieces(text), "chunks of {size}");
        }
        assert_eq!(chunks("", 0), [""]);
        assert_eq!(chunks("unbroken", 2), ["unbroken"]);
    }
}
