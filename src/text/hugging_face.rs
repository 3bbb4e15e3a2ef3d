//! Tokenizers of other models: files of Hugging Face's `tokenizers` and `transformers`.
//!
//! Every source becomes the JSON of a `tokenizer.json`, which the crate `tokenizers` then executes. A `vocab.json` with a
//! `merges.txt`, the older form of GPT-2's tokenizers, is converted to that JSON first.

use std::collections::HashMap;
use std::fmt;
use std::path::Path;

use rayon::prelude::*;
use serde_json::{Map, Value, json};
use tokenizers::DecoderWrapper;

use super::bpe::Bpe;
use super::pretokenize;
use crate::error::{Error, Result};
use crate::files;
use crate::message::escaped;
use crate::model::config::MAX_VOCAB;
use crate::model::json;

/// The file with a whole tokenizer; also the name of such a tokenizer in settings and checkpoints.
pub(crate) const TOKENIZER: &str = "tokenizer.json";
/// The file that names the end-of-text token of a `tokenizer.json`.
pub(crate) const TOKENIZER_CONFIG: &str = "tokenizer_config.json";
const VOCAB: &str = "vocab.json";
const MERGES: &str = "merges.txt";
const ADDED_TOKENS: &str = "added_tokens.json";
/// Files of tokenizers that are not read, for messages.
const UNSUPPORTED: [&str; 5] = ["tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "vocab.txt", "vocab.bpe"];

/// Maximum size of a file. Published tokenizers of 256,000 tokens have about 35 MB.
pub(crate) const MAX_FILE: u64 = 1 << 26;
/// Longer texts are encoded in chunks of about this many bytes, if chunks do not change the result.
const CHUNK: usize = 1 << 16;

/// Names of end-of-text tokens, for tokenizers whose files do not say which token it is.
const END_OF_TEXT_NAMES: [&str; 5] = ["<|endoftext|>", "</s>", "<|end_of_text|>", "<eos>", "[SEP]"];

/// Whether a folder has files of a tokenizer that can be read.
pub(crate) fn has_files(dir: &Path) -> bool {
    [TOKENIZER, VOCAB, MERGES].iter().any(|name| dir.join(name).exists())
}

/// The content of a tokenizer's files.
pub(crate) struct Source {
    /// `tokenizer.json`, parsed.
    json: Value,
    /// `tokenizer.json`, as it is.
    bytes: Vec<u8>,
    /// Name of the end-of-text token.
    end_of_text: Option<String>,
    /// `eos_token_id` of the model's `config.json`.
    end_of_text_id: Option<u64>,
}

impl Source {
    /// Reads the tokenizer of a folder: `tokenizer.json`, or `vocab.json` and `merges.txt`.
    pub fn from_folder(dir: &Path) -> Result<Self> {
        let at = |name: &str| dir.join(name);
        if at(TOKENIZER).exists() {
            return Self::from_file(&at(TOKENIZER));
        }
        match (at(VOCAB).exists(), at(MERGES).exists()) {
            (true, true) => Self::of(dir, &at(VOCAB), vocab_and_merges(dir)?, None),
            (true, false) => Err(Error::format(dir, format!("the tokenizer has {VOCAB}, but {MERGES} is missing"))),
            (false, true) => Err(Error::format(dir, format!("the tokenizer has {MERGES}, but {VOCAB} is missing"))),
            (false, false) => {
                let found = UNSUPPORTED.iter().find(|name| at(name).exists());
                let found = found.map_or(String::new(), |name| format!("; {name} is not supported"));
                let message =
                    format!("the folder has no tokenizer: neither {TOKENIZER} nor {VOCAB} and {MERGES}{found}");
                Err(Error::format(dir, message))
            }
        }
    }

    /// Reads a `tokenizer.json`, and the end-of-text token from the files next to it.
    pub fn from_file(path: &Path) -> Result<Self> {
        let bytes = files::read_regular(path, MAX_FILE)?;
        let json = json::parse(path, &bytes)?;
        Self::of(path.parent().unwrap_or(Path::new("")), path, json, Some(bytes))
    }

    /// The files of a checkpoint, which are in memory; `path` is the file's name in errors.
    pub fn from_bytes(path: &Path, bytes: &[u8], config: &[u8]) -> Result<Self> {
        let config: Value = json::parse(&path.with_file_name(TOKENIZER_CONFIG), config)?;
        let json = json::parse(path, bytes)?;
        Ok(Source { json, bytes: bytes.to_vec(), end_of_text: end_of_text_name(&config), end_of_text_id: None })
    }

    fn of(dir: &Path, path: &Path, mut json: Value, bytes: Option<Vec<u8>>) -> Result<Self> {
        let side_file = |name: &str| read_optional(&dir.join(name));
        let config = side_file(TOKENIZER_CONFIG)?;
        let end_of_text = match end_of_text_name(&config) {
            Some(name) => Some(name),
            None => end_of_text_name(&side_file("special_tokens_map.json")?),
        };
        let end_of_text_id = side_file("config.json")?["eos_token_id"].as_u64();
        // `transformers` gives this setting precedence over the one in tokenizer.json.
        let mut changed = false;
        if let Some(space) = config["add_prefix_space"].as_bool()
            && json["pre_tokenizer"]["type"] == "ByteLevel"
            && json["pre_tokenizer"]["add_prefix_space"] != space
        {
            json["pre_tokenizer"]["add_prefix_space"] = space.into();
            changed = true;
        }
        let bytes = match bytes {
            Some(bytes) if !changed => bytes,
            _ => serde_json::to_vec(&json).map_err(|e| Error::format(path, e.to_string()))?,
        };
        Ok(Source { json, bytes, end_of_text, end_of_text_id })
    }

    /// Whether this is GPT-2's own tokenizer: the same tokens, ids, merges and pre-tokenization as `gpt2`.
    pub(super) fn is_gpt2(&self, gpt2: &Bpe) -> bool {
        let Value::Object(model) = &self.json["model"] else { return false };
        let (Some(Value::Object(vocab)), Some(Value::Array(merges))) = (model.get("vocab"), model.get("merges")) else {
            return false;
        };
        let plain = |name: &str| match model.get(name) {
            None | Some(Value::Null) => true,
            Some(Value::String(text)) => text.is_empty(),
            Some(other) => other.as_f64() == Some(0.0),
        };
        let split = &self.json["pre_tokenizer"];
        let same_settings = model.get("type").is_none_or(|kind| kind == "BPE")
            && ["dropout", "continuing_subword_prefix", "end_of_word_suffix"].into_iter().all(plain)
            && self.json["normalizer"].is_null()
            && is_gpt2_split(split);
        let added = self.json["added_tokens"].as_array().is_none_or(|tokens| {
            tokens.iter().all(|token| token["content"] == "<|endoftext|>" && token["id"] == gpt2.ordinary())
        });
        same_settings && added && has_vocab(vocab, gpt2) && has_merges(merges, gpt2)
    }
}

/// Whether a pre-tokenizer splits as GPT-2's: [`pretokenize`] knows where such pieces end.
fn is_gpt2_split(split: &Value) -> bool {
    split["type"] == "ByteLevel" && split["add_prefix_space"] == false && split["use_regex"] != false
}

fn has_vocab(vocab: &Map<String, Value>, gpt2: &Bpe) -> bool {
    let alphabet = bytes_of_characters();
    vocab.len() == gpt2.ordinary() as usize + 1
        && vocab.iter().all(|(token, id)| match id.as_u64().and_then(|id| u32::try_from(id).ok()) {
            Some(id) if id == gpt2.ordinary() => token == "<|endoftext|>",
            Some(id) => gpt2.token(id) == Some(&token_bytes(token, &alphabet)[..]),
            None => false,
        })
}

/// The i-th merge of GPT-2 produces token 256 + i.
fn has_merges(merges: &[Value], gpt2: &Bpe) -> bool {
    let alphabet = bytes_of_characters();
    let concatenated = |merge: &Value| match merge {
        Value::String(pair) => pair.split_once(' ').map(|(left, right)| format!("{left}{right}")),
        Value::Array(pair) => match &pair[..] {
            [Value::String(left), Value::String(right)] => Some(format!("{left}{right}")),
            _ => None,
        },
        _ => None,
    };
    merges.len() == gpt2.ordinary() as usize - 256
        && (256..).zip(merges).all(|(id, merge)| {
            concatenated(merge).is_some_and(|token| gpt2.token(id) == Some(&token_bytes(&token, &alphabet)[..]))
        })
}

/// Reads a JSON file; null if it does not exist.
fn read_optional(path: &Path) -> Result<Value> {
    if !path.exists() {
        return Ok(Value::Null);
    }
    json::parse(path, &files::read_regular(path, MAX_FILE)?)
}

/// `eos_token` of a `tokenizer_config.json`: a string, or an object with the string as its `content`.
fn end_of_text_name(config: &Value) -> Option<String> {
    let token = &config["eos_token"];
    token.as_str().or_else(|| token["content"].as_str()).map(str::to_string)
}

/// The JSON of the tokenizer that a `vocab.json` and a `merges.txt` describe: GPT-2's kind of byte-level BPE.
fn vocab_and_merges(dir: &Path) -> Result<Value> {
    let path = dir.join(VOCAB);
    let vocab: Map<String, Value> = json::parse(&path, &files::read_regular(&path, MAX_FILE)?)?;
    let path = dir.join(MERGES);
    let text = String::from_utf8(files::read_regular(&path, MAX_FILE)?)
        .map_err(|e| Error::format_at(&path, e.utf8_error().valid_up_to() as u64, "not UTF-8 text"))?;
    let mut merges = Vec::new();
    for (number, line) in (1..).zip(text.lines()) {
        if line.is_empty() || (number == 1 && line.starts_with("#version")) {
            continue;
        }
        match line.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() && !right.contains(' ') => {
                merges.push(json!([left, right]));
            }
            _ => {
                let message = format!("line {number}: '{}' is not two tokens separated by a space", escaped(line));
                return Err(Error::format(&path, message));
            }
        }
    }
    let added = match read_optional(&dir.join(ADDED_TOKENS))? {
        Value::Object(tokens) => tokens,
        _ => Map::new(),
    };
    let mut special: Vec<(&String, &Value)> = added.iter().collect();
    special.extend(vocab.iter().filter(|(token, _)| END_OF_TEXT_NAMES.contains(&&token[..])));
    special.sort_by_key(|(_, id)| id.as_u64());
    let special: Vec<Value> = special.into_iter().map(|(token, id)| special_token(token, id)).collect();
    let bytes = json!({"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true});
    Ok(json!({
        "version": "1.0",
        "truncation": null,
        "padding": null,
        "added_tokens": special,
        "normalizer": null,
        "pre_tokenizer": bytes,
        "post_processor": null,
        "decoder": bytes,
        "model": {"type": "BPE", "vocab": vocab, "merges": merges},
    }))
}

fn special_token(content: &str, id: &Value) -> Value {
    json!({
        "id": id, "content": content, "special": true,
        "single_word": false, "lstrip": false, "rstrip": false, "normalized": false,
    })
}

/// The byte that each character of a byte-level token stands for, as in GPT-2's `bytes_to_unicode`: printable bytes are
/// themselves, and the others are the characters from U+0100 in order.
fn bytes_of_characters() -> HashMap<char, u8> {
    let printable = |byte: u8| matches!(byte, b'!'..=b'~' | 0xa1..=0xac | 0xae..=0xff);
    let others = (0..=u8::MAX).filter(|&byte| !printable(byte));
    let shifted = ('\u{100}'..).zip(others);
    (0..=u8::MAX).filter(|&byte| printable(byte)).map(|byte| (char::from(byte), byte)).chain(shifted).collect()
}

/// The bytes of a byte-level token. A token with other characters, which was added to the vocabulary, is its own text.
fn token_bytes(token: &str, alphabet: &HashMap<char, u8>) -> Vec<u8> {
    let bytes: Option<Vec<u8>> = token.chars().map(|c| alphabet.get(&c).copied()).collect();
    bytes.unwrap_or_else(|| token.as_bytes().to_vec())
}

/// A tokenizer from a file.
pub(crate) struct FileTokenizer {
    tokenizer: tokenizers::Tokenizer,
    json: Vec<u8>,
    vocab: usize,
    end_of_text: u32,
    /// Bytes of every token, if the bytes of a text are those of its tokens, as with byte-level BPE. A map, because a file
    /// may have few tokens with large ids.
    bytes: Option<HashMap<u32, Box<[u8]>>>,
    /// Whether the pieces of GPT-2's pre-tokenization are encoded separately.
    splits_as_gpt2: bool,
}

impl fmt::Debug for FileTokenizer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FileTokenizer").field("vocab", &self.vocab).field("end_of_text", &self.end_of_text).finish()
    }
}

impl PartialEq for FileTokenizer {
    fn eq(&self, other: &Self) -> bool {
        (&self.json, self.end_of_text) == (&other.json, other.end_of_text)
    }
}

impl FileTokenizer {
    /// Builds a tokenizer; `path` is its file or folder, for errors.
    pub fn new(path: &Path, source: Source) -> Result<Self> {
        let Source { json, bytes, end_of_text, end_of_text_id } = source;
        let fault = |message: String| Error::format(path, message);
        let mut tokenizer = tokenizers::Tokenizer::from_bytes(&bytes)
            .map_err(|e| fault(format!("not a tokenizer: {}", escaped(&e.to_string()))))?;
        // Special tokens in a text are ordinary text, and a text is encoded whole.
        tokenizer.set_encode_special_tokens(true);
        tokenizer.with_padding(None);
        tokenizer.with_truncation(None).map_err(|e| fault(e.to_string()))?;
        let tokens = tokenizer.get_vocab(true);
        let Some(vocab) = tokens.values().max().map(|&id| id as usize + 1) else {
            return Err(fault("the tokenizer has no tokens".into()));
        };
        if vocab > MAX_VOCAB {
            return Err(fault(format!("the tokenizer has {vocab} tokens; at most {MAX_VOCAB} are supported")));
        }
        let added = json["added_tokens"].as_array().map_or(&[][..], |tokens| &tokens[..]);
        for (content, id) in added.iter().filter_map(|token| Some((token["content"].as_str()?, token["id"].as_u64()?)))
        {
            let found = tokenizer.token_to_id(content);
            if found.map(u64::from) != Some(id) {
                let found = found.map_or("none".to_string(), |id| id.to_string());
                return Err(fault(format!("the added token '{}' has id {id}, but gets {found}", escaped(content))));
            }
        }
        let end_of_text = match end_of_text {
            Some(name) => tokens
                .get(&name)
                .copied()
                .ok_or_else(|| fault(format!("the eos_token '{}' is not in the vocabulary", escaped(&name))))?,
            None => {
                let by_name = END_OF_TEXT_NAMES.iter().find_map(|&name| tokens.get(name).copied());
                let by_id = || u32::try_from(end_of_text_id?).ok().filter(|&id| (id as usize) < vocab);
                by_name.or_else(by_id).ok_or_else(|| {
                    fault(format!("no end-of-text token is known; name it as eos_token in {TOKENIZER_CONFIG}"))
                })?
            }
        };
        let byte_level = matches!(tokenizer.get_decoder(), Some(DecoderWrapper::ByteLevel(_)));
        let bytes_of_tokens = byte_level.then(|| {
            let alphabet = bytes_of_characters();
            tokens.iter().map(|(token, &id)| (id, token_bytes(token, &alphabet).into_boxed_slice())).collect()
        });
        let splits_as_gpt2 = is_gpt2_split(&json["pre_tokenizer"])
            && json["normalizer"].is_null()
            && added.iter().all(|token| token["special"] == true);
        Ok(FileTokenizer { tokenizer, json: bytes, vocab, end_of_text, bytes: bytes_of_tokens, splits_as_gpt2 })
    }

    pub fn vocab(&self) -> usize {
        self.vocab
    }

    pub fn end_of_text(&self) -> u32 {
        self.end_of_text
    }

    /// The tokens of a text, in parallel if the text is long and can be divided.
    pub fn encode(&self, text: &str) -> Result<Vec<u32>> {
        let chunks = if self.splits_as_gpt2 { pretokenize::chunks(text, CHUNK) } else { vec![text] };
        let encode = |chunk: &&str| match self.tokenizer.encode_fast(*chunk, false) {
            Ok(encoding) => Ok(encoding.get_ids().to_vec()),
            Err(error) => Err(Error::invalid(format!("the tokenizer cannot encode the text: {error}"))),
        };
        Ok(chunks.par_iter().map(encode).collect::<Result<Vec<_>>>()?.concat())
    }

    /// The bytes of a token. None if the text of a token depends on its neighbours: then [`FileTokenizer::decode`] applies.
    pub fn token(&self, id: u32) -> Option<&[u8]> {
        self.bytes.as_ref().map(|bytes| bytes.get(&id).map_or("\u{fffd}".as_bytes(), |bytes| bytes))
    }

    /// The text of tokens, with U+FFFD for ids outside the vocabulary.
    pub fn decode(&self, tokens: &[u32]) -> String {
        let known = |id: &u32| self.tokenizer.id_to_token(*id).is_some();
        let mut text = String::new();
        for run in tokens.chunk_by(|left, right| known(left) == known(right)) {
            match self.tokenizer.decode(run, false) {
                Ok(decoded) if run.first().is_some_and(known) => text += &decoded,
                _ => text.extend(run.iter().map(|_| char::REPLACEMENT_CHARACTER)),
            }
        }
        text
    }

    /// The files that hold the tokenizer, as [`Source::from_folder`] and `transformers` read them.
    pub fn files(&self) -> Vec<(&'static str, Vec<u8>)> {
        let end_of_text = self.tokenizer.id_to_token(self.end_of_text);
        let config = json!({
            "tokenizer_class": "PreTrainedTokenizerFast",
            "eos_token": end_of_text,
            "bos_token": end_of_text,
            "clean_up_tokenization_spaces": false,
        });
        vec![(TOKENIZER, self.json.clone()), (TOKENIZER_CONFIG, format!("{config:#}\n").into_bytes())]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// GPT-2's own tokenizer as `vocab.json` and the lines of `merges.txt`, made from the tokens and their ranks.
    fn gpt2_files(bpe: &Bpe) -> (Map<String, Value>, Vec<String>) {
        let characters: HashMap<u8, char> = bytes_of_characters().into_iter().map(|(c, byte)| (byte, c)).collect();
        let text = |bytes: &[u8]| bytes.iter().map(|byte| characters[byte]).collect::<String>();
        let tokens: Vec<&[u8]> = (0..bpe.ordinary()).map(|id| bpe.token(id).unwrap()).collect();
        let ranks: HashMap<&[u8], usize> = tokens.iter().enumerate().map(|(id, bytes)| (*bytes, id)).collect();
        let merges = tokens[256..].iter().enumerate().map(|(merge, token)| {
            // The two parts to which the merges before this one reduce the token.
            let mut parts: Vec<&[u8]> = token.chunks(1).collect();
            while parts.len() > 2 {
                let rank = |at: &usize| {
                    let joined = [parts[*at], parts[at + 1]].concat();
                    ranks.get(&joined[..]).copied().filter(|&id| id < 256 + merge).unwrap_or(usize::MAX)
                };
                let at = (0..parts.len() - 1).min_by_key(rank).unwrap();
                let start = parts[..at].iter().map(|part| part.len()).sum::<usize>();
                let end = start + parts[at].len() + parts[at + 1].len();
                parts.splice(at..at + 2, [&token[start..end]]);
            }
            format!("{} {}", text(parts[0]), text(parts[1]))
        });
        let merges = merges.collect();
        let mut vocab: Map<String, Value> =
            tokens.iter().enumerate().map(|(id, bytes)| (text(bytes), id.into())).collect();
        vocab.insert("<|endoftext|>".into(), bpe.ordinary().into());
        (vocab, merges)
    }

    fn write(dir: &Path, vocab: &Map<String, Value>, merges: &[String]) {
        std::fs::write(dir.join(VOCAB), serde_json::to_vec(vocab).unwrap()).unwrap();
        std::fs::write(dir.join(MERGES), format!("#version: 0.2\n{}\n", merges.join("\n"))).unwrap();
    }

    #[test]
    fn gpt2_is_recognised_by_content_and_not_by_size() {
        let bpe = Bpe::gpt2().unwrap();
        let (vocab, merges) = gpt2_files(&bpe);
        let dir = tempfile::tempdir().unwrap();
        write(dir.path(), &vocab, &merges);
        let source = Source::from_folder(dir.path()).unwrap();
        assert!(source.is_gpt2(&bpe));
        // What the crate computes from the same files is what the fast path computes.
        let by_crate = FileTokenizer::new(dir.path(), source).unwrap();
        let ours = crate::text::tokenizer::Tokenizer::from_folder(dir.path()).unwrap();
        assert_eq!(ours.name(), "gpt2");
        let text = "Hello, I'm a  language model: \u{e9}\u{1f642} 12345\n\n  \u{3000}x".repeat(3);
        assert_eq!(by_crate.encode(&text).unwrap(), ours.encode(&text).unwrap());
        assert_eq!(by_crate.end_of_text(), ours.end_of_text());
        // The same size, but two merges in another order, or two ids exchanged.
        let mut swapped = merges.clone();
        swapped.swap(1000, 1001);
        write(dir.path(), &vocab, &swapped);
        assert!(!Source::from_folder(dir.path()).unwrap().is_gpt2(&bpe));
        let mut other = vocab.clone();
        let (first, second) = (vocab["the"].clone(), vocab["of"].clone());
        other.insert("the".into(), second);
        other.insert("of".into(), first);
        write(dir.path(), &other, &merges);
        assert!(!Source::from_folder(dir.path()).unwrap().is_gpt2(&bpe));
        // A setting that changes the ids.
        write(dir.path(), &vocab, &merges);
        std::fs::write(dir.path().join(TOKENIZER_CONFIG), r#"{"add_prefix_space": true}"#).unwrap();
        assert!(!Source::from_folder(dir.path()).unwrap().is_gpt2(&bpe));
    }

    /// A tokenizer of words without a decoder: words are joined with spaces, so a token's text depends on its neighbours.
    fn words(more: &str) -> Result<FileTokenizer> {
        let dir = tempfile::tempdir().unwrap();
        let text = format!(
            r#"{{"version": "1.0", "added_tokens": [{{"id": 3, "content": "</s>", "special": true, "single_word": false,
            "lstrip": false, "rstrip": false, "normalized": false}}], "normalizer": null, "post_processor": null,
            "pre_tokenizer": {{"type": "Whitespace"}}, "decoder": null, "truncation": null, "padding": null,
            "model": {{"type": "WordLevel", "vocab": {{"hola": 0, "mundo": 1, "niño": 2, "</s>": 3{more}}},
            "unk_token": "[UNK]"}}}}"#
        );
        let path = dir.path().join(TOKENIZER);
        std::fs::write(&path, text).unwrap();
        FileTokenizer::new(&path, Source::from_file(&path)?)
    }

    #[test]
    fn tokens_that_depend_on_their_neighbours_are_decoded_together() {
        let tokenizer = words("").unwrap();
        assert_eq!((tokenizer.vocab(), tokenizer.end_of_text()), (4, 3));
        assert_eq!(tokenizer.encode("hola niño").unwrap(), [0, 2]);
        assert_eq!(tokenizer.decode(&[0, 2, 9, 1]), "hola niño\u{fffd}mundo");
        let error = tokenizer.encode("adiós").unwrap_err().to_string();
        assert!(error.starts_with("the tokenizer cannot encode the text: "), "{error}");
        let error = words(r#", "a": 16777216"#).unwrap_err().to_string();
        assert!(error.ends_with("the tokenizer has 16777217 tokens; at most 16777216 are supported"), "{error}");
    }
}
