//! Text from files in messages: escaped, so that it cannot control a terminal, and cut, so that it stays readable.
//!
//! Names, keys and values of files reach the terminal in errors and listings, and so do the names of the files. Each goes
//! through a function of this module when the message is formatted: [`escaped`] for a name or a value, [`escaped_path`]
//! for a path, [`parser_message`] for what a parser says. [`printable`] is for whole messages, which may have several lines.
//!
//! ```
//! use ironwarp::message::{escaped, escaped_path, printable};
//!
//! assert_eq!(escaped("wte\u{1b}[2J\n"), r"wte\u{1b}[2J\n");
//! assert_eq!(escaped(&"x".repeat(500)).chars().count(), 121);
//! assert_eq!(escaped_path("a\rb.txt".as_ref()), r"a\rb.txt");
//! assert_eq!(printable("two\nlines\u{1b}"), "two\nlines\\u{1b}");
//! ```

use std::borrow::Cow;
use std::fmt;
use std::path::Path;

/// Characters of a name or a value that a message shows.
const MAX_NAME: usize = 120;

/// Lines of a list that a message shows.
const MAX_LINES: usize = 12;

/// Characters of a parser's message that are shown: its beginning and its end, which names the position.
const MAX_HEAD: usize = 200;
const MAX_TAIL: usize = 100;

/// A name, key or value of a file for a message: on one line, with the characters escaped that control a terminal or are
/// not visible, and truncated to 120 characters.
pub fn escaped(name: &str) -> String {
    let mut text = String::new();
    let mut rest = name.chars();
    rest.by_ref().take(MAX_NAME).for_each(|c| push(&mut text, c));
    if rest.next().is_some() {
        text.push('…');
    }
    text
}

/// A path for a message: on one line, escaped as by [`escaped`]. It is not truncated: the operating system limits its
/// length, and a truncated one would not say which file it is.
pub fn escaped_path(path: &Path) -> String {
    let mut text = String::new();
    path.to_string_lossy().chars().for_each(|c| push(&mut text, c));
    text
}

/// A message of several lines, with the characters escaped that control a terminal, except newlines and tabs.
pub fn printable(text: &str) -> Cow<'_, str> {
    let may_stay = |c: char| matches!(c, '\n' | '\t') || is_shown(c);
    if text.chars().all(may_stay) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len());
    text.chars().for_each(|c| if may_stay(c) { out.push(c) } else { push(&mut out, c) });
    out.into()
}

/// The message of a parser, which may quote any part of a file: escaped as by [`escaped`], and without its middle if it is
/// long.
pub fn parser_message(error: impl fmt::Display) -> String {
    let text = error.to_string();
    let length = text.chars().count();
    let mut out = String::new();
    if length <= MAX_HEAD + MAX_TAIL {
        text.chars().for_each(|c| push(&mut out, c));
        return out;
    }
    text.chars().take(MAX_HEAD).for_each(|c| push(&mut out, c));
    out.push('…');
    text.chars().skip(length - MAX_TAIL).for_each(|c| push(&mut out, c));
    out
}

/// The entries of a list between separators; of a long list only the first, and the number of the others.
pub(crate) fn joined<T: fmt::Display>(entries: &[T], separator: &str) -> String {
    let mut shown: Vec<String> = entries.iter().take(MAX_LINES).map(ToString::to_string).collect();
    if entries.len() > MAX_LINES {
        shown.push(format!("… and {} more", entries.len() - MAX_LINES));
    }
    shown.join(separator)
}

fn push(text: &mut String, c: char) {
    if is_shown(c) { text.push(c) } else { text.extend(c.escape_default()) }
}

/// Whether a character is printed as it is. The others are control characters, which may begin a terminal's escape
/// sequences, and Unicode's format characters, which hide text or change its direction.
fn is_shown(c: char) -> bool {
    !c.is_control()
        && !matches!(
            c,
            '\u{ad}' | '\u{61c}' | '\u{180e}' | '\u{feff}'
                | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}'
                | '\u{fff9}'..='\u{fffb}' | '\u{e0000}'..='\u{e0fff}'
        )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_controls_a_terminal_is_left() {
        // C0, DEL, C1 with the one-byte CSI and OSC, line separators, bidirectional overrides, invisible characters.
        let hostile: String = (0..0xa0)
            .filter_map(char::from_u32)
            .chain("\u{2028}\u{202e}\u{2066}\u{200b}\u{feff}\u{e0041}".chars())
            .collect();
        let is_control = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{202e}' | '\u{2066}' | '\u{200b}');
        assert!(!escaped(&hostile).contains(is_control));
        assert!(!escaped_path(Path::new(&hostile)).contains(is_control));
        assert!(!parser_message(&hostile).contains(is_control));
        assert!(!printable(&hostile).replace(['\n', '\t'], "").contains(is_control));
        // What people write stays: quotes, backslashes, accents in both normal forms, other scripts, symbols.
        for plain in ["it's \"C:\\x\"", "é e\u{301}", "日本 Ωж ب", "🙂→…"] {
            assert_eq!((&*escaped(plain), &*escaped_path(plain.as_ref()), &*printable(plain)), (plain, plain, plain));
        }
    }

    #[test]
    fn long_texts_and_lists_are_cut() {
        assert_eq!(escaped(&"x".repeat(120)), "x".repeat(120));
        assert_eq!(escaped(&format!("{}\n", "x".repeat(200))), format!("{}…", "x".repeat(120)));
        let long = format!("unknown field `{}` at line 1 column 7", "k".repeat(10_000_000));
        let cut = parser_message(long);
        assert!(cut.starts_with("unknown field `kkk") && cut.ends_with("kkk` at line 1 column 7"), "{cut}");
        assert_eq!(cut.chars().count(), 301);
        assert_eq!(joined(&["a", "b"], ", "), "a, b");
        let many: Vec<u32> = (0..999).collect();
        assert_eq!(joined(&many, "; "), "0; 1; 2; 3; 4; 5; 6; 7; 8; 9; 10; 11; … and 987 more");
    }
}
