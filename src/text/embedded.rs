//! The embedded corpus: the source code of this crate.

use include_dir::{Dir, DirEntry, include_dir};

static SOURCES: Dir<'_> = include_dir!("$CARGO_MANIFEST_DIR/src");

/// A prompt that the corpus continues in many ways: the beginning of a function.
pub const PROMPT: &str = "pub fn ";

/// The concatenation of all Rust source files of the crate, in the order of their paths.
///
/// It is training data that is always available, and a reader can judge samples of it at a glance.
pub fn sources() -> String {
    let mut text = String::new();
    append(&SOURCES, &mut text);
    text
}

fn append(dir: &Dir<'_>, text: &mut String) {
    let mut entries: Vec<_> = dir.entries().iter().collect();
    entries.sort_by_key(|entry| entry.path());
    for entry in entries {
        match entry {
            DirEntry::Dir(dir) => append(dir, text),
            DirEntry::File(file) => text.push_str(file.contents_utf8().unwrap_or_default()),
        }
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn contains_the_sources_in_order() {
        let text = super::sources();
        assert_eq!(text, super::sources());
        let (first, last) = (text.find("//! The `ironwarp` command"), text.find("//! Training: data"));
        assert!(first.unwrap() < last.unwrap());
        assert!(text.len() > 100_000, "{} bytes", text.len());
    }
}
