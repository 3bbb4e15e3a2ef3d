//! Corpora: the data of `--data`, as token streams for training and validation.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rayon::prelude::*;

use super::documents::{self, DocumentOptions, Documents, Format};
use super::listing::{self, DataFile, Use, is_read, is_token_file};
use super::token_file::TokenFile;
use super::tokenizer::Tokenizer;
use super::tokens::{Store, validation_len};
pub use super::tokens::{TokenIds, Tokens};
use crate::error::{Error, Result};
use crate::message::escaped_path;

/// What the tokens of a corpus mean, which also bounds them: they are below V.
#[derive(Debug, Clone, Copy)]
pub enum Vocabulary<'a> {
    /// Texts are tokenized by this tokenizer, and its vocabulary is that of token files.
    Tokenizer(&'a Tokenizer),
    /// Only token files can be read; V is the model's.
    Size(usize),
}

impl<'a> From<&'a Tokenizer> for Vocabulary<'a> {
    fn from(tokenizer: &'a Tokenizer) -> Self {
        Vocabulary::Tokenizer(tokenizer)
    }
}

impl Vocabulary<'_> {
    /// V: the number of tokens.
    pub fn size(&self) -> usize {
        match self {
            Vocabulary::Tokenizer(tokenizer) => tokenizer.vocab(),
            Vocabulary::Size(size) => *size,
        }
    }
}

/// A corpus: training and validation tokens.
#[derive(Debug, Clone)]
pub struct Corpus {
    /// Training tokens; never empty.
    pub train: Tokens,
    /// Validation tokens; may be empty.
    pub validation: Tokens,
    /// The files of the corpus, and those of its folder that are not used; empty for a corpus in memory.
    pub files: Vec<DataFile>,
}

impl Corpus {
    /// Opens files, and all files of folders in the order of their names, except for hidden files and subfolders.
    ///
    /// - `*.bin` and `*.npy` are token files (see [`super::token_file`]), which are memory-mapped.
    /// - Any other file holds documents: text, JSONL, … (see [`super::documents`]).
    ///
    /// Test files of a folder ([`is_test_name`](super::listing::is_test_name)), texts whose tokens are among the data
    /// (`X.txt` with `X.bin`, `X_train.bin` or `X_val.bin`), and compressed files whose content is, are not read.
    /// [`Corpus::files`] lists every file with its use.
    ///
    /// Text is tokenized into memory. Each document is preceded by an end-of-text token, as in llm.c. The exception is a
    /// single plain-text file, which has no such token. Of several files, those with a validation name
    /// ([`is_validation_name`](super::listing::is_validation_name)) are the validation set. If there are none, and for a
    /// single file, the last `validation_fraction` of all tokens is the validation set.
    ///
    /// # Errors
    /// [`Error::Io`] or [`Error::Format`] naming the file, and the offset if it is known, if a file cannot be read, is
    /// empty, or is not what its name says, if a token is not in the vocabulary, or if a text is found where the vocabulary
    /// has no tokenizer; or naming the folder if it has no training file. [`Error::Invalid`] if there are no paths, if one
    /// is given twice, and unless 0 <= validation_fraction < 1.
    pub fn open<'a>(
        paths: &[impl AsRef<Path>],
        vocabulary: impl Into<Vocabulary<'a>>,
        options: &DocumentOptions,
        validation_fraction: f64,
    ) -> Result<Self> {
        validation_len(0, validation_fraction)?;
        let vocabulary = vocabulary.into();
        let paths: Vec<&Path> = paths.iter().map(AsRef::as_ref).collect();
        let files = listing::files(&paths)?;
        let source = paths.iter().map(|path| escaped_path(path)).collect::<Vec<_>>().join(", ");
        let role = if files.single { FileRole::Single } else { FileRole::OneOfSeveral };
        let (mut train, mut validation, mut listed) = (Vec::new(), Vec::new(), Vec::new());
        for (path, usage) in files.uses {
            let mut file = DataFile::unread(path, usage);
            if is_read(&file.usage) {
                let store = open_file(&mut file, vocabulary, options, role)?;
                let split = if file.usage == Use::Train { &mut train } else { &mut validation };
                split.push(store);
            }
            listed.push(file);
        }
        let train = Tokens::concat(source.clone(), train);
        if validation.is_empty() {
            return Self::split(train, validation_fraction, listed);
        }
        Ok(Corpus { train, validation: Tokens::concat(source, validation), files: listed })
    }

    /// A corpus of one document in memory, e.g. the embedded corpus; `source` is its name in errors.
    ///
    /// # Errors
    /// [`Error::Invalid`] unless 0 <= validation_fraction < 1, and if the text is empty.
    pub fn from_text(source: &str, text: &str, tokenizer: &Tokenizer, validation_fraction: f64) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid(format!("{source}: the text is empty")));
        }
        Self::split(Tokens::from_ids(source, tokenizer.encode_ids(text)?), validation_fraction, Vec::new())
    }

    fn split(tokens: Tokens, validation_fraction: f64, mut files: Vec<DataFile>) -> Result<Self> {
        let (train, validation) = tokens.split(validation_fraction)?;
        let mut rest = validation.len() as u64;
        for file in files.iter_mut().rev().filter(|file| is_read(&file.usage)) {
            file.held_out = rest.min(file.tokens);
            rest -= file.held_out;
        }
        Ok(Corpus { train, validation, files })
    }
}

/// The first file of a corpus that holds documents, and therefore needs a tokenizer; none if all its files are token files.
///
/// # Errors
/// Those of [`Corpus::open`] that the names of the files decide.
pub fn first_text(paths: &[impl AsRef<Path>]) -> Result<Option<PathBuf>> {
    let paths: Vec<&Path> = paths.iter().map(AsRef::as_ref).collect();
    let mut files = listing::files(&paths)?.uses.into_iter();
    Ok(files.find(|(path, usage)| is_read(usage) && !is_token_file(path)).map(|(path, _)| path))
}

/// Whether a stream has one file or several, which decides whether a text file starts with an end-of-text token.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum FileRole {
    Single,
    OneOfSeveral,
}

/// Opens a file and describes it in `file`.
fn open_file(
    file: &mut DataFile,
    vocabulary: Vocabulary<'_>,
    options: &DocumentOptions,
    role: FileRole,
) -> Result<Store> {
    if is_token_file(&file.path) {
        let tokens = TokenFile::open(&file.path, vocabulary.size())?;
        if let (Vocabulary::Tokenizer(tokenizer), Some(vocab)) = (vocabulary, tokens.vocab())
            && vocab != tokenizer.vocab()
        {
            let (name, size) = (tokenizer.name(), tokenizer.vocab());
            let message = format!(
                "the shard is of a vocabulary of {vocab} tokens, and the tokenizer '{name}' has {size}; --tokenizer names \
                 the one that made the shard"
            );
            return Err(Error::format(&file.path, message));
        }
        (file.form, file.tokens) = (tokens.form().to_string(), tokens.len() as u64);
        return Ok(Store::File(Arc::new(tokens)));
    }
    let Vocabulary::Tokenizer(tokenizer) = vocabulary else {
        return Err(Error::format(
            &file.path,
            "a text needs a tokenizer, and the model has none; --tokenizer names one",
        ));
    };
    let Tokenized { tokens, documents } = tokenize_file(&file.path, tokenizer, options, role)?;
    (file.form, file.tokens) = (documents.form, tokens.len() as u64);
    (file.documents, file.skipped) = (Some(documents.read), documents.skipped);
    Ok(Store::Memory(Arc::new(tokens)))
}

/// The tokens of a file of documents.
pub(super) struct Tokenized {
    pub tokens: TokenIds,
    pub documents: Documents,
}

/// Tokenizes a file of documents.
pub(super) fn tokenize_file(
    path: &Path,
    tokenizer: &Tokenizer,
    options: &DocumentOptions,
    role: FileRole,
) -> Result<Tokenized> {
    let mut tokens = TokenIds::default();
    let documents = documents::read(path, options, &mut |batch, format| {
        match batch {
            [text] if format == Format::Text && role == FileRole::Single => tokens = tokenizer.encode_ids(text)?,
            batch => encode_documents(batch, tokenizer, &mut tokens)?,
        }
        Ok(())
    })?;
    Ok(Tokenized { tokens, documents })
}

/// Appends the tokens of documents, with an end-of-text token before each.
fn encode_documents(documents: &[String], tokenizer: &Tokenizer, tokens: &mut TokenIds) -> Result<()> {
    let encoded: Vec<Result<TokenIds>> = documents.par_iter().map(|text| tokenizer.encode_ids(text)).collect();
    for document in encoded {
        tokens.push(tokenizer.end_of_text());
        tokens.append(&document?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::text::shard;
    use crate::text::tokens::all;

    fn text(tokens: &Tokens) -> String {
        let ids: Vec<u32> = all(tokens).into_iter().map(|t| t as u32).collect();
        Tokenizer::bytes().decode(&ids).replace("<|endoftext|>", "|")
    }

    fn folder(files: &[(&str, &[u8])]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, content) in files {
            fs::write(folder.path().join(name), content).unwrap();
        }
        folder
    }

    fn open(path: &Path, fraction: f64) -> Result<Corpus> {
        Corpus::open(&[path], &Tokenizer::bytes(), &DocumentOptions::default(), fraction)
    }

    #[test]
    fn one_file_is_split_at_its_end() {
        let folder =
            folder(&[("a.md", b"0123456789"), ("b.JSONL", b"{\"text\":\"ab\"}\n{\"text\":\"\"}\n{\"text\":\"c\"}")]);
        let corpus = open(&folder.path().join("a.md"), 0.2).unwrap();
        assert_eq!((&*text(&corpus.train), &*text(&corpus.validation)), ("01234567", "89"));
        let corpus = open(&folder.path().join("b.JSONL"), 0.0).unwrap();
        assert_eq!((&*text(&corpus.train), corpus.validation.is_empty()), ("|ab||c", true));
        fs::write(folder.path().join("bom.txt"), "\u{feff}abcd").unwrap();
        let corpus = open(&folder.path().join("bom.txt"), 0.0).unwrap();
        assert_eq!(&*text(&corpus.train), "abcd");
        let embedded = Corpus::from_text("embedded", "0123456789", &Tokenizer::bytes(), 0.2).unwrap();
        assert_eq!((&*text(&embedded.train), &*text(&embedded.validation)), ("01234567", "89"));
        assert!(Corpus::from_text("embedded", "", &Tokenizer::bytes(), 0.2).is_err());
    }

    #[test]
    fn a_folder_is_read_in_the_order_of_file_names() {
        let files: &[(&str, &[u8])] =
            &[("b.txt", b"B"), ("a.jsonl", b"{\"text\":\"A\"}"), (".hidden", b"\xff"), ("values.rs", b"V")];
        let folder = folder(files);
        fs::create_dir(folder.path().join("sub")).unwrap();
        shard::write(folder.path().join("c.bin"), &[67_u16, 67, 67], 257).unwrap();
        let corpus = open(folder.path(), 0.5).unwrap();
        assert_eq!((&*text(&corpus.train), &*text(&corpus.validation)), ("|A|BC", "CC|V"));
        assert_eq!(corpus.train.source(), folder.path().display().to_string());
        // If the folder has a validation file, nothing is split off.
        fs::write(folder.path().join("x_val_1.txt"), b"X").unwrap();
        let corpus = open(folder.path(), 0.5).unwrap();
        assert_eq!((&*text(&corpus.train), &*text(&corpus.validation)), ("|A|BCCC|V", "|X"));
    }

    #[test]
    fn test_files_and_texts_next_to_their_shards_are_listed_and_not_read() {
        let files: &[(&str, &[u8])] = &[
            ("X.txt", b"abcdef"),
            ("a.jsonl", b"{\"text\":\"A\"}\n{\"text\":\"B\"}"),
            ("wiki.test.txt", b"\xff is not read"),
        ];
        let folder = folder(files);
        shard::write(folder.path().join("X_train.bin"), b"abcd".map(u16::from).as_slice(), 257).unwrap();
        shard::write(folder.path().join("X_val.bin"), b"ef".map(u16::from).as_slice(), 257).unwrap();
        let corpus = open(folder.path(), 0.5).unwrap();
        assert_eq!((&*text(&corpus.train), &*text(&corpus.validation)), ("abcd|A|B", "ef"));
        let listed: Vec<_> = corpus
            .files
            .iter()
            .map(|file| {
                (file.path.file_name().unwrap().to_str().unwrap(), file.usage.to_string(), file.documents, file.tokens)
            })
            .collect();
        let file = |name, usage: &str, documents, tokens| (name, usage.to_string(), documents, tokens);
        assert_eq!(
            listed,
            [
                file("X.txt", "unused", None, 0),
                file("X_train.bin", "train", None, 4),
                file("X_val.bin", "validation", None, 2),
                file("a.jsonl", "train", Some(2), 4),
                file("wiki.test.txt", "unused", None, 0),
            ]
        );
        for name in ["X_train.bin", "a.jsonl"] {
            fs::remove_file(folder.path().join(name)).unwrap();
        }
        let error = open(folder.path(), 0.5).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "no training data here: 1 file(s) for validation by their names, 2 unused (the first, X.txt: its tokens \
                 are among the data: X_val.bin)"
            ),
            "{error}"
        );
    }

    #[test]
    fn errors_name_the_file_and_the_offset() {
        let files: &[(&str, &[u8])] = &[
            ("empty.txt", b""),
            ("latin.txt", b"caf\xe9 au lait"),
            ("bad.jsonl", b"{\"text\":\"a\"}\n{\"txt\":1}"),
            ("short.bin", b"abc"),
        ];
        let folder = folder(files);
        for (name, expected) in [
            ("empty.txt", "empty.txt: the file is empty"),
            ("latin.txt", "latin.txt at byte 3: line 1: not UTF-8 text (byte 0xe9)"),
            ("bad.jsonl", "bad.jsonl at byte 13: line 2: missing field `text`; --text-field names another one"),
            ("short.bin", "an odd number of bytes cannot be: 3 bytes, magic number 0"),
            ("none.txt", "none.txt: No such file or directory (os error 2)"),
        ] {
            let error = open(&folder.path().join(name), 0.1).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
        let error = open(folder.path(), 0.1).unwrap_err().to_string();
        assert!(error.contains("bad.jsonl at byte"), "in a folder too: {error}");
        for fraction in [-0.1, 1.0, f64::NAN] {
            let error = open(folder.path(), fraction).unwrap_err().to_string();
            assert!(error.starts_with("validation fraction: 0 <= fraction < 1 failed"), "{error}");
        }
    }

    #[test]
    fn folders_without_training_files_are_rejected() {
        let nothing = folder(&[(".gitignore", b"*")]);
        let error = open(nothing.path(), 0.1).unwrap_err().to_string();
        assert!(error.ends_with("no training data here: no files"), "{error}");
        let validation = folder(&[("val.txt", b"a")]);
        let error = open(validation.path(), 0.1).unwrap_err().to_string();
        assert!(error.ends_with("no training data here: 1 file(s) for validation by their names, 0 unused"), "{error}");
    }

    #[test]
    fn a_shard_of_another_tokenizer_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("small.bin");
        shard::write(&path, &[1_u16, 2], 65).unwrap();
        let error = open(&path, 0.1).unwrap_err().to_string();
        let expected = "the shard is of a vocabulary of 65 tokens, and the tokenizer 'bytes' has 257; --tokenizer names the \
                        one that made the shard";
        assert!(error.ends_with(expected), "{error}");
        let corpus = Corpus::open(&[&path], Vocabulary::Size(257), &DocumentOptions::default(), 0.0).unwrap();
        assert_eq!(corpus.train.len(), 2, "a model may have a larger vocabulary");
    }

    #[test]
    fn a_shard_of_another_vocabulary_is_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gpt2.bin");
        shard::write(&path, &[1_u16, 50256], 50257).unwrap();
        let error = open(&path, 0.1).unwrap_err().to_string();
        assert!(
            error.ends_with("gpt2.bin at byte 12: the shard is of a vocabulary of 50257 tokens, more than V = 257"),
            "{error}"
        );
    }
}
