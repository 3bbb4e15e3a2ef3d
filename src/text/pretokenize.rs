//! GPT-2's pre-tokenisation: text into the pieces that byte-pair merges never cross.
//!
//! The rule is a regular expression (Radford et al. 2019, `encoder.py`), here in tiktoken's equivalent form:
//!
//! ```text
//! '(?:[sdmt]|ll|ve|re)| ?\p{L}++| ?\p{N}++| ?[^\s\p{L}\p{N}]++|\s++$|\s+(?!\S)|\s
//! ```
//!
//! Why a scanner written by hand and not tiktoken-rs's regular expression: its engine backtracks, so a run of some
//! million spaces before a word exhausts its stack and `encode_ordinary` panics, and it is several times slower. The
//! character classes come from the tables of regex-syntax, which are that engine's too: `char::is_alphabetic` and
//! `char::is_numeric` are other sets (the first counts some combining marks and circled letters).

use regex_syntax::hir::{Class, HirKind};

/// What the rule tells characters apart by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// `[^\s\p{L}\p{N}]`
    Other,
    /// `\p{L}`
    Letter,
    /// `\p{N}`
    Number,
    /// `\s`
    Space,
}

/// The scanner: the kind of every code point.
pub(super) struct Pretokenizer {
    kinds: Vec<Kind>,
}

impl Pretokenizer {
    /// Fills the table of kinds.
    pub fn new() -> Result<Self, String> {
        let mut kinds = vec![Kind::Other; char::MAX as usize + 1];
        for (pattern, kind) in [(r"\p{L}", Kind::Letter), (r"\p{N}", Kind::Number), (r"\s", Kind::Space)] {
            let class = regex_syntax::parse(pattern).map_err(|e| format!("character class {pattern}: {e}"))?;
            let HirKind::Class(Class::Unicode(class)) = class.kind() else {
                return Err(format!("character class {pattern} is not a set of characters"));
            };
            for range in class.iter() {
                kinds[range.start() as usize..=range.end() as usize].fill(kind);
            }
        }
        Ok(Pretokenizer { kinds })
    }

    /// The end of the piece that starts at byte `start`, which lies on a character inside `text`.
    pub fn piece_end(&self, text: &str, start: usize) -> usize {
        let bytes = text.as_bytes();
        let first = bytes[start];
        if first == b'\''
            && let Some(length) = contraction(&bytes[start..])
        {
            return start + length;
        }
        // Every alternative for words takes one plain space along.
        let word = start + usize::from(first == b' ');
        match self.kind_at(text, word) {
            Some((kind, width)) if kind != Kind::Space => self.run_end(text, word + width, kind).0,
            _ => self.space_end(text, start),
        }
    }

    /// The end of a piece of white space: all of the run at the end of the text, else all but its last character,
    /// which may belong to the word behind it, unless that is all there is.
    fn space_end(&self, text: &str, start: usize) -> usize {
        let (end, last) = self.run_end(text, start, Kind::Space);
        if end == text.len() || last == start { end } else { last }
    }

    /// End of the run of one kind from byte `at`, and where its last character starts.
    fn run_end(&self, text: &str, mut at: usize, run: Kind) -> (usize, usize) {
        let mut last = at;
        while let Some((kind, width)) = self.kind_at(text, at)
            && kind == run
        {
            last = at;
            at += width;
        }
        (at, last)
    }

    /// Kind and width in bytes of the character at byte `at`, if the text goes on there.
    fn kind_at(&self, text: &str, at: usize) -> Option<(Kind, usize)> {
        let first = *text.as_bytes().get(at)?;
        if first.is_ascii() {
            return Some((self.kinds[usize::from(first)], 1));
        }
        let character = text.get(at..)?.chars().next()?;
        Some((self.kinds[character as usize], character.len_utf8()))
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

/// Cuts `text` into chunks of about `size` bytes whose pieces, one chunk after another, are the pieces of the whole.
///
/// Between a character that is no white space and one that is, a piece always ends: only a plain space may share a
/// piece with other characters, and it stands first. No alternative looks back, and what looks ahead is white space,
/// which such a chunk never ends in, so a cut there changes nothing.
pub(super) fn chunks(text: &str, size: usize) -> Vec<&str> {
    let mut chunks = Vec::with_capacity(text.len() / size.max(1) + 1);
    let mut rest = text;
    while rest.len() > size {
        // The end of the text is a boundary, so the search stops there.
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
            ("Hello world", &["Hello", " world"][..], "a word takes the space before it"),
            ("a  b", &["a", " ", " b"], "a run leaves its last space to the word"),
            ("a\n\nb", &["a", "\n", "\n", "b"], "but the word takes only a plain space"),
            ("a \n", &["a", " \n"], "white space at the end is one piece"),
            ("we'll've", &["we", "'ll", "'ve"], "contractions"),
            (" 's 'S", &[" '", "s", " '", "S"], "a contraction has no space and no capital"),
            ("abc123!?", &["abc", "123", "!?"], "letters, numbers and the rest part"),
            ("e\u{301}", &["e", "\u{301}"], "a combining mark is no letter"),
            ("x²Ⅷ", &["x", "²Ⅷ"], "superscripts and Roman numerals are numbers"),
            ("a\u{a0}b\u{3000} c", &["a", "\u{a0}", "b", "\u{3000}", " c"], "white space beyond ASCII"),
        ] {
            assert_eq!(pieces(text), expected, "{why}");
        }
    }

    #[test]
    fn white_space_is_what_the_standard_library_says() {
        // `chunks` asks char::is_whitespace, the scanner asks the table: the cut is safe only if they agree.
        let scanner = Pretokenizer::new().unwrap();
        for c in (0..=char::MAX as u32).filter_map(char::from_u32) {
            assert_eq!(scanner.kinds[c as usize] == Kind::Space, c.is_whitespace(), "{c:?}");
        }
    }

    #[test]
    fn chunks_end_between_a_word_and_white_space() {
        // Runs of three tell a cut inside white space: its pieces would be others.
        let text = "one two   three\n\n\nfour \u{3000} five-six   ";
        for size in 0..=text.len() + 1 {
            let chunks = chunks(text, size);
            assert_eq!(chunks.concat(), text);
            let parts: Vec<&str> = chunks.iter().flat_map(|chunk| pieces(chunk)).collect();
            assert_eq!(parts, pieces(text), "chunks of {size}");
        }
        assert_eq!(chunks("", 0), [""]);
        assert_eq!(chunks("unbroken", 2), ["unbroken"]);
    }
}
