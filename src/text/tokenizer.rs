//! Tokenizers: conversion of text to token ids and back.

use std::fmt;
use std::path::Path;
use std::sync::{Arc, LazyLock};

use rayon::prelude::*;

use super::bpe::Bpe;
use super::hugging_face::{FileTokenizer, Source, TOKENIZER};
use super::pretokenize;
use super::shard::MAX_VOCAB_16_BITS;
use super::tokens::TokenIds;
use crate::error::{Error, Result};
use crate::message::escaped;
use crate::model::config::{BYTES_VOCAB, GPT2_VOCAB, TOKENIZERS};

/// Text of the end-of-text token when decoded, as GPT-2 spells it.
const END_OF_TEXT: &str = "<|endoftext|>";

/// Longer texts are encoded in parallel, in chunks of about this many bytes.
const CHUNK: usize = 1 << 20;

/// GPT-2's encoder. It is built once, because that takes milliseconds and megabytes.
static GPT2: LazyLock<Result<Bpe, String>> = LazyLock::new(Bpe::gpt2);

/// A tokenizer. Copies are cheap and share their tables.
#[derive(Clone)]
pub struct Tokenizer {
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Bytes,
    Gpt2(&'static Bpe),
    File(Arc<FileTokenizer>),
}

/// Equal tokenizers give every text the same tokens.
impl PartialEq for Tokenizer {
    fn eq(&self, other: &Self) -> bool {
        match (&self.kind, &other.kind) {
            (Kind::File(ours), Kind::File(theirs)) => ours == theirs,
            _ => self.name() == other.name(),
        }
    }
}

impl fmt::Debug for Tokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Tokenizer").field(&self.name()).finish()
    }
}

impl Tokenizer {
    /// The names that [`Tokenizer::by_name`] accepts.
    pub const NAMES: [&'static str; 2] = TOKENIZERS;

    /// A tokenizer by name.
    ///
    /// - `gpt2`: GPT-2's byte-pair encoding (Radford et al. 2019), identical to tiktoken's `r50k_base`; V = 50257.
    /// - `bytes`: ids 0..=255 are the bytes of the text and 256 is end-of-text; V = 257.
    ///
    /// # Errors
    /// [`Error::Invalid`] if the name is unknown; the message lists all names.
    pub fn by_name(name: &str) -> Result<Self> {
        match name {
            "gpt2" => match &*GPT2 {
                Ok(bpe) => Ok(Tokenizer { kind: Kind::Gpt2(bpe) }),
                Err(message) => Err(Error::Unavailable(format!("tokenizer gpt2: {message}"))),
            },
            "bytes" => Ok(Self::bytes()),
            _ => Err(Error::invalid(format!(
                "unknown tokenizer '{}'; available: {}",
                escaped(name),
                Self::NAMES.join(", ")
            ))),
        }
    }

    /// The `bytes` tokenizer.
    pub fn bytes() -> Self {
        Tokenizer { kind: Kind::Bytes }
    }

    /// The tokenizer of a folder: its `tokenizer.json`, or its `vocab.json` and `merges.txt`, as `transformers` reads them.
    ///
    /// The end-of-text token is the `eos_token` of `tokenizer_config.json` or `special_tokens_map.json`; without one, a
    /// token with a usual name such as `<|endoftext|>` or `</s>`; without one, `eos_token_id` of `config.json`. GPT-2's own
    /// tokenizer is recognised by its tokens, merges and settings, and is then the faster `gpt2`.
    ///
    /// # Errors
    /// [`Error::Format`] if the folder has no such files, if they are invalid, if the vocabulary has more than 2^24 tokens,
    /// or if the end-of-text token is unknown; [`Error::Io`].
    pub fn from_folder(dir: impl AsRef<Path>) -> Result<Self> {
        Self::from_source(dir.as_ref(), Source::from_folder(dir.as_ref())?)
    }

    /// A tokenizer by name, as [`Tokenizer::by_name`]; or of a folder, as [`Tokenizer::from_folder`]; or of a
    /// `tokenizer.json` under any name.
    ///
    /// # Errors
    /// Those of the two functions; [`Error::Invalid`] if `text` is neither a name nor a path that exists.
    pub fn open(text: &str) -> Result<Self> {
        let path = Path::new(text);
        match Self::by_name(text) {
            Err(Error::Invalid(_)) if path.is_dir() => Self::from_folder(path),
            Err(Error::Invalid(_)) if path.exists() => Self::from_source(path, Source::from_file(path)?),
            Err(Error::Invalid(message)) => {
                Err(Error::Invalid(format!("{message}, a {TOKENIZER} or a folder with a tokenizer")))
            }
            named => named,
        }
    }

    /// The tokenizer whose [`Tokenizer::files`] are `json` and `config`; `path` is the name of the former in errors.
    pub(crate) fn from_bytes(path: &Path, json: &[u8], config: &[u8]) -> Result<Self> {
        Self::from_source(path, Source::from_bytes(path, json, config)?)
    }

    fn from_source(path: &Path, source: Source) -> Result<Self> {
        if let Ok(gpt2) = &*GPT2
            && source.is_gpt2(gpt2)
        {
            return Self::by_name("gpt2");
        }
        Ok(Tokenizer { kind: Kind::File(Arc::new(FileTokenizer::new(path, source)?)) })
    }

    /// The files that hold the tokenizer, as [`Tokenizer::from_folder`] reads them: names and contents. None for `gpt2` and
    /// `bytes`, which their names describe.
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        match &self.kind {
            Kind::File(tokenizer) => tokenizer.files(),
            Kind::Bytes | Kind::Gpt2(_) => Vec::new(),
        }
    }

    /// The name of the tokenizer: `gpt2`, `bytes`, or `tokenizer.json` for a tokenizer from files.
    pub fn name(&self) -> &'static str {
        match self.kind {
            Kind::Bytes => "bytes",
            Kind::Gpt2(_) => "gpt2",
            Kind::File(_) => TOKENIZER,
        }
    }

    /// `V`: vocabulary size, at most 2^24. Token ids are below it.
    pub fn vocab(&self) -> usize {
        match &self.kind {
            Kind::Bytes => BYTES_VOCAB,
            Kind::Gpt2(_) => GPT2_VOCAB,
            Kind::File(tokenizer) => tokenizer.vocab(),
        }
    }

    /// The end-of-text token, which separates documents: the last token of `gpt2` and `bytes`.
    pub fn end_of_text(&self) -> u32 {
        match &self.kind {
            Kind::Bytes | Kind::Gpt2(_) => self.vocab() as u32 - 1,
            Kind::File(tokenizer) => tokenizer.end_of_text(),
        }
    }

    /// Encodes a text.
    ///
    /// `<|endoftext|>` in the text, and any other special token, is encoded as ordinary text. Long texts are encoded in
    /// parallel, with the same result.
    ///
    /// # Errors
    /// [`Error::Invalid`] if a tokenizer from a file has no token for a part of the text.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        self.encode_as(text, |id| id)
    }

    /// Encodes a text to tokens as corpora store them: with 16 bits each if V <= 65536, otherwise with 32.
    ///
    /// # Errors
    /// As [`Tokenizer::encode`].
    pub fn encode_ids(&self, text: &str) -> Result<TokenIds> {
        if self.vocab() > MAX_VOCAB_16_BITS {
            return Ok(TokenIds::U32(self.encode(text)?));
        }
        Ok(TokenIds::U16(self.encode_as(text, |id| id as u16)?))
    }

    fn encode_as<T: Send>(&self, text: &str, convert: impl Fn(u32) -> T + Sync) -> Result<Vec<T>> {
        let bpe = match &self.kind {
            Kind::Bytes => return Ok(text.bytes().map(|byte| convert(byte.into())).collect()),
            Kind::File(tokenizer) => return Ok(tokenizer.encode(text)?.into_iter().map(convert).collect()),
            Kind::Gpt2(bpe) => bpe,
        };
        let encode_chunk = |chunk: &str| -> Vec<T> {
            // English text has about four bytes per token.
            let mut ids = Vec::with_capacity(chunk.len() / 3);
            bpe.encode_into(chunk, &mut ids);
            ids.into_iter().map(&convert).collect()
        };
        Ok(match pretokenize::chunks(text, CHUNK)[..] {
            [chunk] => encode_chunk(chunk),
            ref chunks => {
                chunks.par_iter().map(|chunk| encode_chunk(chunk)).collect::<Vec<_>>().into_iter().flatten().collect()
            }
        })
    }

    /// Decodes tokens to bytes.
    ///
    /// End-of-text is decoded as `<|endoftext|>`. An id outside the vocabulary, which a model with a padded vocabulary may
    /// generate, is decoded as U+FFFD.
    pub fn decode_bytes(&self, tokens: &[u32]) -> Vec<u8> {
        if let Some(tokenizer) = self.decodes_whole() {
            return tokenizer.decode(tokens).into_bytes();
        }
        let mut bytes = Vec::with_capacity(4 * tokens.len());
        for &token in tokens {
            self.decode_token(token, &mut bytes);
        }
        bytes
    }

    /// Decodes tokens to text, with U+FFFD where the bytes are not UTF-8.
    pub fn decode(&self, tokens: &[u32]) -> String {
        String::from_utf8_lossy(&self.decode_bytes(tokens)).into_owned()
    }

    /// A streaming decoder.
    pub fn decoder(&self) -> Decoder {
        Decoder { tokenizer: self.clone(), pending: Vec::new(), before: Vec::new(), tokens: Vec::new() }
    }

    /// The tokenizer from a file with which the text of a token depends on its neighbours, if it is this one.
    fn decodes_whole(&self) -> Option<&FileTokenizer> {
        match &self.kind {
            Kind::File(tokenizer) if tokenizer.token(0).is_none() => Some(tokenizer),
            _ => None,
        }
    }

    fn decode_token(&self, token: u32, out: &mut Vec<u8>) {
        let byte = [token as u8];
        let bytes = match &self.kind {
            Kind::File(tokenizer) => tokenizer.token(token),
            _ if token == self.end_of_text() => Some(END_OF_TEXT.as_bytes()),
            Kind::Bytes => (token < 256).then_some(&byte[..]),
            Kind::Gpt2(bpe) => bpe.token(token),
        };
        out.extend_from_slice(bytes.unwrap_or("\u{fffd}".as_bytes()));
    }
}

/// A streaming decoder, which returns only complete characters.
///
/// The bytes of a character may be spread over several tokens; they are buffered until the character is complete. The
/// concatenation of all returned pieces equals [`Tokenizer::decode`] of all tokens.
#[derive(Debug, Clone)]
pub struct Decoder {
    tokenizer: Tokenizer,
    /// The bytes of an incomplete character, at most three between calls.
    pending: Vec<u8>,
    /// If the text of a token depends on its neighbours: the tokens whose text was returned last, and those after them.
    before: Vec<u32>,
    tokens: Vec<u32>,
}

/// Tokens that may be needed to complete a character: bytes of UTF-8, one per token.
const MAX_TOKENS_PER_CHARACTER: usize = 4;

impl Decoder {
    /// Adds a token and returns the characters that are now complete. The result is often empty within an emoji.
    pub fn push(&mut self, token: u32) -> String {
        if self.tokenizer.decodes_whole().is_some() {
            self.tokens.push(token);
            return self.take_text(false);
        }
        self.tokenizer.decode_token(token, &mut self.pending);
        let kept = match self.pending.utf8_chunks().last() {
            // No error length means that the text ends within a character, which more bytes may complete.
            Some(chunk) if std::str::from_utf8(chunk.invalid()).is_err_and(|e| e.error_len().is_none()) => {
                chunk.invalid().len()
            }
            _ => 0,
        };
        let kept = self.pending.split_off(self.pending.len() - kept);
        let complete = std::mem::replace(&mut self.pending, kept);
        String::from_utf8_lossy(&complete).into_owned()
    }

    /// The text that the new tokens add to that of the tokens before them; empty while a character is incomplete.
    fn take_text(&mut self, at_end: bool) -> String {
        let before = self.tokenizer.decode(&self.before);
        let all = self.tokenizer.decode(&[&self.before[..], &self.tokens].concat());
        if !at_end && all.ends_with(char::REPLACEMENT_CHARACTER) && self.tokens.len() < MAX_TOKENS_PER_CHARACTER {
            return String::new();
        }
        self.before = std::mem::take(&mut self.tokens);
        // Some tokenizers change the end of a text when another token follows.
        let common = before.chars().zip(all.chars()).take_while(|(left, right)| left == right);
        all[common.map(|(c, _)| c.len_utf8()).sum()..].to_string()
    }

    /// Ends the stream; returns U+FFFD if the last character is incomplete.
    pub fn finish(mut self) -> String {
        if !self.tokens.is_empty() {
            return self.take_text(true);
        }
        String::from_utf8_lossy(&self.pending).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use tiktoken_rs::{CoreBPE, r50k_base_singleton};

    use super::*;

    fn gpt2() -> Tokenizer {
        Tokenizer::by_name("gpt2").unwrap()
    }

    /// The reference implementation.
    fn tiktoken() -> &'static CoreBPE {
        r50k_base_singleton()
    }

    /// Text that covers every alternative of the pre-tokenization regex: all Unicode classes, contractions, white space.
    fn any_text() -> impl Strategy<Value = String> {
        let fragment = prop_oneof![
            4 => "[a-zA-Z]{1,12}",
            2 => "[ \t\n\r]{1,6}",
            2 => Just(" ".to_string()),
            1 => "'(s|d|m|t|ll|ve|re|l|v|r|S|LL|x)",
            1 => "[0-9]{1,8}",
            1 => r"\p{L}{1,6}",
            1 => r"\p{N}{1,4}",
            1 => r"\p{M}{1,3}",
            1 => r"\p{P}{1,4}",
            1 => r"\p{S}{1,4}",
            1 => r"\p{Z}{1,3}",
            1 => r"\p{Cn}{1,3}",
            1 => "[\u{1f600}-\u{1f64f}]\u{fe0f}?\u{200d}?",
            1 => any::<char>().prop_map(String::from),
            1 => ".{0,8}",
            1 => Just("<|endoftext|>".to_string()),
        ];
        prop::collection::vec(fragment, 0..24).prop_map(|fragments| fragments.concat())
    }

    #[test]
    fn names_sizes_and_end_of_text() {
        let (gpt2, bytes) = (gpt2(), Tokenizer::by_name("bytes").unwrap());
        assert_eq!((gpt2.name(), gpt2.vocab(), gpt2.end_of_text()), ("gpt2", 50257, 50256));
        assert_eq!((bytes.name(), bytes.vocab(), bytes.end_of_text()), ("bytes", 257, 256));
        let message = Tokenizer::by_name("bert").unwrap_err().to_string();
        assert_eq!(message, "unknown tokenizer 'bert'; available: gpt2, bytes");
        assert_eq!(gpt2.decode(&[50256]), "<|endoftext|>");
        assert_eq!(bytes.decode(&[104, 105, 256]), "hi<|endoftext|>");
        assert_eq!((gpt2.decode(&[50257]), bytes.decode(&[u32::MAX])), ("\u{fffd}".into(), "\u{fffd}".into()));
    }

    #[test]
    fn known_encodings() {
        // From OpenAI's and llm.c's examples.
        assert_eq!(gpt2().encode("hello world").unwrap(), [31373, 995]);
        assert_eq!(gpt2().encode("Hello, I'm a language model,").unwrap(), [15496, 11, 314, 1101, 257, 3303, 2746, 11]);
        assert!(gpt2().encode("").unwrap().is_empty());
        assert_ne!(gpt2().encode("<|endoftext|>").unwrap(), [50256], "special text is ordinary text");
        assert_eq!(Tokenizer::bytes().encode("é").unwrap(), [0xc3, 0xa9]);
    }

    #[test]
    fn every_code_point_encodes_as_tiktoken_does() {
        // The neighbours reveal the class of a code point: it merges with the letter, the digit, the mark or the space.
        let (ours, oracle) = (gpt2(), tiktoken());
        let all: Vec<char> = (0..=char::MAX as u32).filter_map(char::from_u32).collect();
        for block in all.chunks(1 << 12) {
            let text: String =
                block.iter().flat_map(|&c| [c, 'a', c, '1', c, '!', c, c, ' ', c, 'b', ' ', ' ']).collect();
            assert!(ours.encode(&text).unwrap() == oracle.encode_ordinary(&text), "block from {:?}", block[0]);
        }
    }

    #[test]
    fn long_pieces_encode_as_tiktoken_does() {
        for text in
            ["a".repeat(5000), " ".repeat(4099) + "x", "=-".repeat(3000), "0123456789".repeat(700), "\n".repeat(3000)]
        {
            assert!(gpt2().encode(&text).unwrap() == tiktoken().encode_ordinary(&text), "{:?}…", &text[..8]);
        }
    }

    #[test]
    fn a_run_of_spaces_that_tiktoken_panics_on_encodes() {
        let text = " ".repeat(2_000_000) + "x";
        let tokens = gpt2().encode(&text).unwrap();
        assert!(gpt2().decode(&tokens) == text);
        assert_eq!(tokens.last(), Some(&2124), "the word keeps its space");
    }

    #[test]
    fn a_tokenizer_from_a_file_streams_what_it_decodes() {
        // Tokens with a byte fallback and with a marker for spaces, as SentencePiece's, and byte-level tokens.
        let sentence_piece = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "pre_tokenizer": null,
            "post_processor": null, "truncation": null, "padding": null,
            "decoder": {"type": "Sequence", "decoders": [
                {"type": "Replace", "pattern": {"String": "▁"}, "content": " "}, {"type": "ByteFallback"},
                {"type": "Fuse"}, {"type": "Strip", "content": " ", "start": 1, "stop": 0}]},
            "model": {"type": "BPE", "merges": [], "vocab": {"</s>": 0, "▁": 1, "a": 2, "<0xC3>": 3, "<0xA9>": 4}}}"#;
        let byte_level = r#"{"version": "1.0", "added_tokens": [], "normalizer": null, "post_processor": null,
            "truncation": null, "padding": null,
            "decoder": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true},
            "model": {"type": "BPE", "merges": [], "vocab": {"</s>": 0, "Ġ": 1, "a": 2, "Ã": 3, "©": 4}}}"#;
        for (json, wanted) in [(sentence_piece, "a é a</s>\u{fffd}a"), (byte_level, " a é a</s>\u{fffd}a")] {
            let tokenizer = Tokenizer::from_bytes(Path::new("t.json"), json.as_bytes(), b"{}").unwrap();
            let tokens = [1, 2, 1, 3, 4, 1, 2, 0, 9, 2];
            assert_eq!(tokenizer.decode(&tokens), wanted);
            let mut decoder = tokenizer.decoder();
            let pieces = tokens.map(|token| decoder.push(token)).concat();
            assert_eq!(pieces + &decoder.finish(), wanted);
            assert_eq!((tokenizer.name(), tokenizer.end_of_text(), tokenizer.vocab()), ("tokenizer.json", 0, 5));
        }
    }

    #[test]
    fn several_threads_encode_as_one() {
        let words = ["the", " cat", "\n\n", "  sat's", " 1234", "\u{3000}", "é", "🙂", ".", "     "];
        let mut seed = 1_u64;
        let mut text = String::new();
        while text.len() < 3 * CHUNK {
            seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
            text.push_str(words[(seed >> 33) as usize % words.len()]);
        }
        let Kind::Gpt2(bpe) = gpt2().kind else { unreachable!() };
        let mut serial = Vec::new();
        bpe.encode_into(&text, &mut serial);
        assert!(pretokenize::chunks(&text, CHUNK).len() > 2);
        assert!(gpt2().encode(&text).unwrap() == serial);
        assert!(gpt2().encode_ids(&text).unwrap() == TokenIds::U16(serial.into_iter().map(|id| id as u16).collect()));
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]

        #[test]
        fn gpt2_is_tiktoken_and_round_trips(text in any_text()) {
            let tokens = gpt2().encode(&text).unwrap();
            prop_assert_eq!(&tokens, &tiktoken().encode_ordinary(&text));
            prop_assert_eq!(gpt2().decode(&tokens), text);
        }

        #[test]
        fn bytes_round_trip(text in any_text()) {
            let tokens = Tokenizer::bytes().encode(&text).unwrap();
            prop_assert_eq!(tokens.len(), text.len());
            prop_assert_eq!(Tokenizer::bytes().decode(&tokens), text);
        }

        #[test]
        fn streaming_gives_the_same_text_in_whole_characters(
            tokens in prop::collection::vec(prop_oneof![0_u32..50300, 0_u32..300], 0..40), as_bytes: bool,
        ) {
            let tokenizer = if as_bytes { Tokenizer::bytes() } else { gpt2() };
            let mut decoder = tokenizer.decoder();
            let mut text = String::new();
            for &token in &tokens {
                text += &decoder.push(token);
                prop_assert!(decoder.pending.len() <= 3);
            }
            text += &decoder.finish();
            prop_assert_eq!(text, tokenizer.decode(&tokens));
        }

        #[test]
        fn streamed_text_is_never_torn(text in any_text()) {
            let mut decoder = Tokenizer::bytes().decoder();
            let pieces: Vec<String> = text.bytes().map(|b| decoder.push(b.into())).filter(|p| !p.is_empty()).collect();
            prop_assert!(pieces.iter().all(|piece| piece.chars().count() == 1));
            prop_assert_eq!(pieces.concat(), text);
        }
    }
}
