//! The text of one instruction, split so that its parts can be replaced.

/// An instruction's text, from its guard or opcode to its semicolon.
pub struct InstructionText<'a> {
    pub text: &'a str,
    /// `@%p1 `, or empty.
    guard: &'a str,
    operands: Vec<&'a str>,
}

impl<'a> InstructionText<'a> {
    /// The instruction at the beginning of `rest`; `None` if it has no semicolon.
    pub fn new(rest: &'a str) -> Option<Self> {
        let text = &rest[..=semicolon(rest)?];
        let after_guard = guard_end(text);
        let opcode_end = opcode_end(text, after_guard);
        let list = text[opcode_end..text.len() - 1].trim();
        Some(Self { text, guard: &text[..after_guard], operands: split(list) })
    }

    /// The instruction with another opcode.
    pub fn with_opcode<S: AsRef<str>>(&self, parts: &[S]) -> String {
        self.build(self.guard, parts, &self.operands)
    }

    /// The instruction with other operands.
    pub fn with_operands<S: AsRef<str>>(&self, parts: &[S], operands: &[&str]) -> String {
        self.build(self.guard, parts, operands)
    }

    /// The instruction without its guard.
    pub fn without_guard(&self) -> String {
        self.text[self.guard.len()..].to_owned()
    }

    pub fn operands(&self) -> &[&'a str] {
        &self.operands
    }

    fn build<S: AsRef<str>>(&self, guard: &str, parts: &[S], operands: &[&str]) -> String {
        let opcode = parts.iter().map(AsRef::as_ref).collect::<Vec<_>>().join(".");
        let space = if operands.is_empty() { "" } else { " " };
        format!("{guard}{opcode}{space}{};", operands.join(", "))
    }
}

/// Offset of the first semicolon outside of comments.
fn semicolon(text: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match &bytes[at..] {
            [b';', ..] => return Some(at),
            [b'/', b'/', ..] => at += text[at..].find('\n')?,
            [b'/', b'*', ..] => at += 4 + text[at + 2..].find("*/")?,
            _ => at += 1,
        }
    }
    None
}

fn is_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'$' | b'%')
}

fn skip(text: &str, from: usize, wanted: impl Fn(u8) -> bool) -> usize {
    text.bytes().skip(from).position(|byte| !wanted(byte)).map_or(text.len(), |more| from + more)
}

fn blank(byte: u8) -> bool {
    byte.is_ascii_whitespace()
}

/// Offset of the opcode.
fn guard_end(text: &str) -> usize {
    if !text.starts_with('@') {
        return 0;
    }
    let name = skip(text, 1, |byte| blank(byte) || byte == b'!');
    skip(text, skip(text, name, is_name), blank)
}

/// Offset of the end of the opcode, whose parts may be separated by white space.
fn opcode_end(text: &str, start: usize) -> usize {
    let mut end = skip(text, start, is_name);
    loop {
        let dot = skip(text, end, blank);
        if text.as_bytes().get(dot) != Some(&b'.') {
            return end;
        }
        end = skip(text, dot + 1, |byte| is_name(byte) || byte == b':');
    }
}

/// Splits operands at the commas outside of brackets.
fn split(list: &str) -> Vec<&str> {
    let (mut parts, mut start, mut depth) = (Vec::new(), 0, 0);
    for (at, byte) in list.bytes().enumerate() {
        match byte {
            b'[' | b'{' | b'(' => depth += 1,
            b']' | b'}' | b')' => depth -= 1,
            b',' if depth == 0 => {
                parts.push(list[start..at].trim());
                start = at + 1;
            }
            _ => {}
        }
    }
    if !list.is_empty() {
        parts.push(list[start..].trim());
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instructions_are_split() {
        let text = InstructionText::new("@!%p1 ld .global.L2::128B.v2.b32 {%r1, %r2}, [%rd1+4];\n\tret;").unwrap();
        assert_eq!(text.operands(), ["{%r1, %r2}", "[%rd1+4]"]);
        assert_eq!(text.with_opcode(&["ld", "v2", "b32"]), "@!%p1 ld.v2.b32 {%r1, %r2}, [%rd1+4];");
        assert_eq!(text.without_guard(), "ld .global.L2::128B.v2.b32 {%r1, %r2}, [%rd1+4];");
        let text = InstructionText::new("cp.async.wait_all/* ; */;").unwrap();
        assert_eq!(text.text, "cp.async.wait_all/* ; */;");
        assert!(InstructionText::new("bar.sync 0 // ;").is_none());
        assert!(InstructionText::new("ret;").unwrap().operands().is_empty());
    }
}
