//! Training of tokenizers: byte-level byte-pair encoding as GPT-2's, on one's own texts.
//!
//! The crate `tokenizers` trains; see [`train`]. [`save`] writes the files that [`Tokenizer::from_folder`],
//! `transformers` and `tokenizers` read.
//!
//! ```
//! use ironwarp::text::tokenizer_training::train;
//!
//! let tokenizer = train(&["to be or not to be"], 300)?;
//! // The end-of-text token, 256 bytes, and what occurs twice: "be", "to" and " be".
//! assert_eq!(tokenizer.vocab(), 260);
//! assert_eq!(tokenizer.encode("to be")?.len(), 2);
//! # Ok::<(), ironwarp::Error>(())
//! ```

use std::path::Path;

use serde_json::json;
use tokenizers::models::bpe::{BPE, BpeTrainerBuilder};
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::{AddedToken, NormalizerWrapper, PostProcessorWrapper, TokenizerImpl};

use super::documents::{self, DocumentOptions};
use super::hugging_face::TOKENIZER;
use super::pretokenize;
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};
use crate::files::{self, Disk, TEMPORARY};
use crate::message::escaped_path;
use crate::model::config::{BYTES_VOCAB, MAX_VOCAB};

/// The end-of-text token, which gets id 0. Ids 1 to 256 are the bytes, and those after them the merges in their order.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Pairs that occur less often are not merged.
const MIN_FREQUENCY: u64 = 2;

/// Most bytes of all texts. The crate counts pairs in 32 bits.
pub const MAX_BYTES: usize = i32::MAX as usize;

/// The texts are divided into chunks of about this many bytes, whose pieces are counted in parallel.
const CHUNK: usize = 1 << 16;

/// The documents that a tokenizer is trained on.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Texts {
    /// The documents.
    pub documents: Vec<String>,
    /// Number of bad documents that were left out.
    pub skipped: u64,
}

/// Trains a tokenizer of at most `vocab` tokens: `<|endoftext|>`, the 256 bytes, and merges.
///
/// The text is split into pieces as GPT-2's, and the most frequent pair of adjacent tokens in the pieces is merged until the
/// vocabulary is complete (Sennrich et al. 2016). Fewer than `vocab` tokens are the result if all pairs that occur at least
/// twice are merged before. The same texts give the same tokenizer.
///
/// # Errors
/// [`Error::Invalid`] unless 257 <= `vocab` <= 2^24, if all texts are empty, or if they have more than [`MAX_BYTES`] bytes.
pub fn train(texts: &[impl AsRef<str>], vocab: usize) -> Result<Tokenizer> {
    check_vocab(vocab)?;
    let bytes: usize = texts.iter().map(|text| text.as_ref().len()).sum();
    if bytes == 0 {
        return Err(Error::invalid("a tokenizer cannot be trained on texts that are empty"));
    }
    check_bytes(bytes)?;
    let failed = |e: tokenizers::Error| Error::invalid(format!("the tokenizer cannot be trained: {e}"));
    let mut trainer = BpeTrainerBuilder::new()
        .vocab_size(vocab)
        .min_frequency(MIN_FREQUENCY)
        .initial_alphabet(ByteLevel::alphabet().into_iter().collect())
        .special_tokens(vec![AddedToken::from(END_OF_TEXT, true)])
        .show_progress(false)
        .build();
    let mut bpe =
        TokenizerImpl::<BPE, NormalizerWrapper, ByteLevel, PostProcessorWrapper, ByteLevel>::new(BPE::default());
    let bytes = ByteLevel::new(false, true, true);
    bpe.with_pre_tokenizer(Some(bytes)).with_decoder(Some(bytes));
    // The chunks of a text have its pieces.
    let chunks: Vec<&str> = texts.iter().flat_map(|text| pretokenize::chunks(text.as_ref(), CHUNK)).collect();
    bpe.train(&mut trainer, chunks.into_iter()).map_err(failed)?;
    let json = bpe.to_string(false).map_err(failed)?;
    let config = json!({ "eos_token": END_OF_TEXT }).to_string();
    Tokenizer::from_bytes(Path::new(TOKENIZER), json.as_bytes(), config.as_bytes())
}

/// The documents of files, for [`train`].
///
/// # Errors
/// [`Error::Io`] and [`Error::Format`] as for a corpus; [`Error::Invalid`] if the texts have more than [`MAX_BYTES`] bytes.
pub fn read(paths: &[impl AsRef<Path>], options: &DocumentOptions) -> Result<Texts> {
    let mut texts = Texts::default();
    let mut bytes = 0;
    for path in paths {
        let documents = documents::read(path.as_ref(), options, &mut |batch, _| {
            bytes += batch.iter().map(String::len).sum::<usize>();
            check_bytes(bytes)?;
            texts.documents.extend_from_slice(batch);
            Ok(())
        })?;
        texts.skipped += documents.skipped;
    }
    Ok(texts)
}

/// Checks the size of all texts.
fn check_bytes(bytes: usize) -> Result<()> {
    if bytes > MAX_BYTES {
        return Err(Error::invalid(format!(
            "a tokenizer can be trained on at most {MAX_BYTES} bytes, but the texts have more; a part of them suffices"
        )));
    }
    Ok(())
}

/// Checks the size of a vocabulary, before texts are read.
///
/// # Errors
/// [`Error::Invalid`] unless 257 <= `vocab` <= 2^24.
pub fn check_vocab(vocab: usize) -> Result<()> {
    if !(BYTES_VOCAB..=MAX_VOCAB).contains(&vocab) {
        let message = format!("a trained tokenizer's {BYTES_VOCAB} <= V <= {MAX_VOCAB} failed (V = {vocab})");
        return Err(Error::invalid(format!("{message}; 256 bytes and {END_OF_TEXT} are always tokens")));
    }
    Ok(())
}

/// Checks that [`save`] may write to a folder: it does not exist, or is empty.
///
/// # Errors
/// [`Error::Invalid`] otherwise.
pub fn check_folder(dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    let is_free = match std::fs::read_dir(dir) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => !dir.exists(),
    };
    if is_free {
        Ok(())
    } else {
        Err(Error::invalid(format!("{}: exists and is not an empty folder", escaped_path(dir))))
    }
}

/// Writes the files of a tokenizer to a new folder, atomically.
///
/// # Errors
/// [`Error::Invalid`] if `dir` exists and is not an empty folder, or if the tokenizer has no files, as `gpt2` and `bytes`;
/// [`Error::Io`], in which case the folder is not created.
pub fn save(tokenizer: &Tokenizer, dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    check_folder(dir)?;
    let content = tokenizer.files();
    if content.is_empty() {
        return Err(Error::invalid(format!("the tokenizer '{}' has no files; its name suffices", tokenizer.name())));
    }
    let name = dir.file_name().ok_or_else(|| Error::invalid(format!("{}: not a folder name", escaped_path(dir))))?;
    let temporary = dir.with_file_name(format!("{TEMPORARY}{}-{}", name.to_string_lossy(), std::process::id()));
    if let Some(above) = dir.parent().filter(|path| !path.as_os_str().is_empty()) {
        files::create_dirs(&Disk, above)?;
    }
    files::write_dir(&Disk, &temporary, dir, |folder| {
        content.iter().try_for_each(|(name, content)| files::write_bytes(&Disk, &folder.join(name), content))
    })
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::text::embedded;

    #[test]
    fn frequent_pairs_become_tokens_in_the_order_of_their_frequency() {
        // 'a' 'b' occurs six times, then "ab" 'c' three times; " x" only once.
        let tokenizer = train(&["ababab abcabcabc", " x"], 1000).unwrap();
        let token = |text: &str| match tokenizer.encode(text).unwrap()[..] {
            [id] => Some(id),
            _ => None,
        };
        assert_eq!((token("ab"), token("abc"), token(" x")), (Some(257), Some(258), None));
        assert_eq!((tokenizer.end_of_text(), tokenizer.decode(&[0, 257])), (0, "<|endoftext|>ab".to_string()));
        assert!(token("!").is_some() && token("\n").is_some(), "every byte is a token");
    }

    #[test]
    fn the_same_texts_give_the_same_file_and_every_text_round_trips() {
        let text = embedded::sources();
        let tokenizer = train(&[&text[..]], 1000).unwrap();
        assert_eq!(tokenizer.vocab(), 1000);
        for _ in 0..3 {
            assert!(train(&[&text[..]], 1000).unwrap().files() == tokenizer.files());
        }
        for text in [&text[..200_000], "naïve 🙂\u{3000}\0 <|endoftext|>\n\n\n  x", ""] {
            assert!(tokenizer.decode(&tokenizer.encode(text).unwrap()) == text);
        }
        let tokens = tokenizer.encode(&text).unwrap();
        assert!(2 * tokens.len() < text.len(), "{} tokens for {} bytes", tokens.len(), text.len());
        // A smaller vocabulary has the first merges of a larger one.
        let small = train(&[&text[..]], 400).unwrap();
        assert_eq!(small.vocab(), 400);
        assert!((0..400).all(|id| small.decode_bytes(&[id]) == tokenizer.decode_bytes(&[id])));
    }

    #[test]
    fn the_division_of_long_texts_changes_nothing() {
        let text = "to be, or not to be: that is the question. ".repeat(CHUNK / 10);
        assert!(text.len() > 3 * CHUNK);
        let whole = train(&[&text[..]], 300).unwrap();
        // The pieces of these parts are those of the whole.
        let parts: Vec<&str> = text.split_inclusive(':').collect();
        assert!(whole.files() == train(&parts, 300).unwrap().files());
    }

    #[test]
    fn texts_and_sizes_that_cannot_be_used_are_rejected() {
        for (texts, vocab, expected) in [
            (&["a"][..], 256, "257 <= V <= 16777216 failed (V = 256); 256 bytes and <|endoftext|> are always tokens"),
            (
                &["a"],
                MAX_VOCAB + 1,
                "257 <= V <= 16777216 failed (V = 16777217); 256 bytes and <|endoftext|> are always",
            ),
            (&[], 300, "a tokenizer cannot be trained on texts that are empty"),
            (&["", ""], 300, "a tokenizer cannot be trained on texts that are empty"),
        ] {
            let error = train(texts, vocab).unwrap_err().to_string();
            assert!(error.contains(expected), "{error}");
        }
        assert!(check_bytes(MAX_BYTES).is_ok());
        let error = check_bytes(MAX_BYTES + 1).unwrap_err().to_string();
        assert!(error.starts_with("a tokenizer can be trained on at most 2147483647 bytes"), "{error}");
        // A text without pairs that occur twice has only the bytes.
        assert_eq!(train(&["ab"], 300).unwrap().vocab(), 257);
    }

    #[test]
    fn a_saved_tokenizer_is_the_same_and_replaces_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let dir = folder.path().join("above").join("mine");
        let tokenizer = train(&["to be or not to be"], 300).unwrap();
        save(&tokenizer, &dir).unwrap();
        assert!(Tokenizer::from_folder(&dir).unwrap() == tokenizer);
        assert_eq!(fs::read_dir(dir.parent().unwrap()).unwrap().count(), 1, "no temporary folder is left");
        let error = save(&tokenizer, &dir).unwrap_err().to_string();
        assert!(error.ends_with("mine: exists and is not an empty folder"), "{error}");
        assert!(check_folder(dir.join("tokenizer.json")).is_err());
        fs::create_dir(folder.path().join("empty")).unwrap();
        save(&tokenizer, folder.path().join("empty")).unwrap();
        let error = save(&Tokenizer::bytes(), folder.path().join("bytes")).unwrap_err().to_string();
        assert!(error.contains("'bytes' has no files"), "{error}");
    }
}
