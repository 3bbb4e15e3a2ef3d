//! Evaluation data as tokens: HellaSwag, LAMBADA, and windows for perplexity. [`super::scoring`] evaluates a model on them.

use std::ops::Range;
use std::path::Path;

use serde::Deserialize;

use super::documents::compression::Opened;
use super::documents::jsonl::{Line, read_values};
use super::tokenizer::Tokenizer;
use crate::error::{Error, Result};

/// A question: which completion continues the context?
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Tokens of the context, at least one.
    pub context: Vec<u32>,
    /// Tokens of each completion, at least one each.
    pub completions: Vec<Vec<u32>>,
    /// Index of the correct completion.
    pub label: usize,
}

/// Number of endings of a HellaSwag question.
const ENDINGS: usize = 4;

/// Reads HellaSwag (Zellers et al. 2019) from JSONL: objects with a context `ctx`, four `endings`, and the `label` of the
/// correct one, as a number or, in some copies of the data, as a string.
///
/// As in llm.c and nanoGPT's successors, the context is tokens(ctx) and a completion is tokens(" " + ending).
///
/// # Errors
/// [`Error::Io`], or [`Error::Format`] with file, offset and line if the data is not UTF-8 or JSON, a field is missing,
/// there are not four endings, the label is out of range, or the context is empty.
pub fn hellaswag(path: impl AsRef<Path>, tokenizer: &Tokenizer) -> Result<Vec<Item>> {
    hellaswag_of(Opened::open(path.as_ref())?, tokenizer)
}

fn hellaswag_of(file: Opened<'_>, tokenizer: &Tokenizer) -> Result<Vec<Item>> {
    #[derive(Deserialize)]
    struct Question {
        ctx: String,
        endings: Vec<String>,
        label: Label,
    }
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "`label` is neither a number from 0 nor a string")]
    enum Label {
        Number(u64),
        Text(String),
    }
    let path = file.path();
    let item = |line: &Line<Question>| {
        let Question { ctx, endings, label } = &line.value;
        if endings.len() != ENDINGS {
            return Err(line.error(path, format!("{} endings, not {ENDINGS}", endings.len())));
        }
        let label = match label {
            Label::Number(label) => Some(*label),
            Label::Text(text) => text.parse().ok(),
        };
        let Some(label) = label.and_then(|label| usize::try_from(label).ok()).filter(|&label| label < ENDINGS) else {
            return Err(line.error(path, format!("the label is not in 0..={}", ENDINGS - 1)));
        };
        if ctx.is_empty() {
            return Err(line.error(path, "the context `ctx` is empty"));
        }
        let completions =
            endings.iter().map(|ending| tokenizer.encode(&format!(" {ending}"))).collect::<Result<_>>()?;
        Ok(Item { context: tokenizer.encode(ctx)?, completions, label })
    };
    read_values(file)?.iter().map(item).collect()
}

/// Reads LAMBADA (Paperno et al. 2016; OpenAI's copy) from JSONL: objects with a `text` whose last word the model predicts
/// from the rest.
///
/// The text, without trailing white space, is split at its last white space: the context is tokens(before) and the only
/// completion is tokens(" " + word). The label is 0.
///
/// # Errors
/// [`Error::Io`], or [`Error::Format`] with file, offset and line if the data is not UTF-8 or JSON, `text` is missing, or
/// it has fewer than two words.
pub fn lambada(path: impl AsRef<Path>, tokenizer: &Tokenizer) -> Result<Vec<Item>> {
    lambada_of(Opened::open(path.as_ref())?, tokenizer)
}

fn lambada_of(file: Opened<'_>, tokenizer: &Tokenizer) -> Result<Vec<Item>> {
    #[derive(Deserialize)]
    struct Passage {
        text: String,
    }
    let path = file.path();
    let item = |line: &Line<Passage>| {
        let text = line.value.text.trim_end();
        match text.rsplit_once(char::is_whitespace) {
            Some((context, word)) if !context.trim_start().is_empty() => Ok(Item {
                context: tokenizer.encode(context)?,
                completions: vec![tokenizer.encode(&format!(" {word}"))?],
                label: 0,
            }),
            _ => Err(line.error(path, "`text` has fewer than two words")),
        }
    };
    read_values(file)?.iter().map(item).collect()
}

/// A window of a token stream for perplexity: token `targets.start + i` is predicted from the tokens
/// `inputs.start..=inputs.start + i`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Window {
    /// The input tokens, at most T.
    pub inputs: Range<usize>,
    /// The predicted tokens: the inputs shifted by one.
    pub targets: Range<usize>,
}

/// Splits a stream of `len` tokens into consecutive windows of `context` (T) inputs.
///
/// Every token except the first is predicted exactly once; the last window may be shorter. The windows do not overlap, so
/// the tokens at the start of a window are predicted from little context, and the perplexity is an upper bound of that with
/// a sliding window.
///
/// # Errors
/// [`Error::Invalid`] if T = 0 or the stream has fewer than two tokens.
pub fn windows(len: usize, context: usize) -> Result<impl Iterator<Item = Window>> {
    if context == 0 || len < 2 {
        return Err(Error::invalid(format!(
            "perplexity: T >= 1 and at least two tokens failed (T = {context}, {len} tokens)"
        )));
    }
    let predicted = len - 1;
    Ok((0..predicted).step_by(context).map(move |start| {
        let end = start.saturating_add(context).min(predicted);
        Window { inputs: start..end, targets: start + 1..end + 1 }
    }))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    /// An open file with this content.
    fn open(text: &str) -> Opened<'static> {
        let content = std::io::Cursor::new(text.as_bytes().to_vec());
        Opened::new(Path::new("x.jsonl"), content, text.len() as u64).unwrap()
    }

    const HELLASWAG: &str = r#"{"ind": 4, "ctx": "A man sits", "endings": ["down.", "up.", "in cars.", ""], "label": 2}
{"ctx": "Then", "label": "0", "endings": ["a", "b", "c", "d"]}
"#;

    const LAMBADA: &str = "{\"text\": \"She said hello to Gabriel\"}\n{\"text\": \"two\\n words \\n\"}\n";

    #[test]
    fn hellaswag_completes_with_a_space() {
        let tokenizer = Tokenizer::by_name("gpt2").unwrap();
        let items = hellaswag_of(open(HELLASWAG), &tokenizer).unwrap();
        let texts = |item: &Item| item.completions.iter().map(|c| tokenizer.decode(c)).collect::<Vec<_>>();
        assert_eq!(items.len(), 2);
        assert_eq!((tokenizer.decode(&items[0].context), items[0].label), ("A man sits".into(), 2));
        assert_eq!(texts(&items[0]), [" down.", " up.", " in cars.", " "]);
        assert_eq!((items[1].label, &texts(&items[1])[..]), (0, &[" a", " b", " c", " d"].map(String::from)[..]));
    }

    #[test]
    fn lambada_predicts_the_last_word() {
        let tokenizer = Tokenizer::by_name("gpt2").unwrap();
        let items = lambada_of(open(LAMBADA), &tokenizer).unwrap();
        let decoded = |item: &Item| (tokenizer.decode(&item.context), tokenizer.decode(&item.completions[0]));
        assert_eq!(decoded(&items[0]), ("She said hello to".into(), " Gabriel".into()));
        assert_eq!(decoded(&items[1]), ("two\n".into(), " words".into()));
        assert!(items.iter().all(|item| item.label == 0 && item.completions.len() == 1));
    }

    #[test]
    fn errors_name_the_line() {
        let bytes = Tokenizer::bytes();
        let question = |ctx: &str, endings: &str, label: &str| {
            let text = format!("\n{{\"ctx\": {ctx}, \"endings\": {endings}, \"label\": {label}}}");
            hellaswag_of(open(&text), &bytes).unwrap_err().to_string()
        };
        let four = r#"["a","b","c","d"]"#;
        for (message, expected) in [
            (question("\"x\"", r#"["a","b","c"]"#, "0"), "x.jsonl at byte 1: line 2: 3 endings, not 4"),
            (question("\"x\"", four, "4"), "x.jsonl at byte 1: line 2: the label is not in 0..=3"),
            (question("\"x\"", four, "\"\""), "x.jsonl at byte 1: line 2: the label is not in 0..=3"),
            (question("\"\"", four, "1"), "x.jsonl at byte 1: line 2: the context `ctx` is empty"),
        ] {
            assert_eq!(message, expected);
        }
        assert!(question("\"x\"", four, "-1").contains("line 2: `label` is neither a number from 0 nor a string"));
        let missing = hellaswag_of(open("{\"ctx\":\"x\"}"), &bytes).unwrap_err().to_string();
        assert!(missing.ends_with("line 1: missing field `endings`"), "{missing}");
        for text in ["", "   ", "word", "  word "] {
            let line = serde_json::json!({ "text": text }).to_string();
            let error = lambada_of(open(&line), &bytes).unwrap_err().to_string();
            assert_eq!(error, "x.jsonl at byte 0: line 1: `text` has fewer than two words");
        }
    }

    #[test]
    fn files_are_read_and_their_bytes_checked() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("set.jsonl");
        std::fs::write(&path, LAMBADA).unwrap();
        assert_eq!(lambada(&path, &Tokenizer::bytes()).unwrap().len(), 2);
        std::fs::write(&path, b"{\"text\":\"a b\"}\n{\"text\":\"\xc3\"}").unwrap();
        let error = lambada(&path, &Tokenizer::bytes()).unwrap_err().to_string();
        assert!(error.ends_with("at byte 24: line 2: not UTF-8 text (byte 0xc3)"), "{error}");
        let error = hellaswag(&path, &Tokenizer::bytes()).unwrap_err().to_string();
        assert!(error.ends_with("line 1: missing field `ctx`"), "the first error: {error}");
    }

    #[test]
    fn mutated_lines_never_panic() {
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let alphabet = b"{}[]\":,\\0 49e\n";
        let (mut accepted, mut rejected) = (0, 0);
        for case in 0..100_000 {
            let mut bytes = if case % 2 == 0 { HELLASWAG } else { LAMBADA }.as_bytes().to_vec();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                bytes[at] = alphabet[rng.next_u32() as usize % alphabet.len()];
            }
            let text = String::from_utf8(bytes).unwrap();
            let parse = if case % 2 == 0 { hellaswag_of } else { lambada_of };
            match parse(open(&text), &Tokenizer::bytes()) {
                Ok(items) => {
                    accepted += 1;
                    let whole = |item: &Item| {
                        !item.context.is_empty()
                            && item.label < item.completions.len()
                            && item.completions.iter().all(|c| !c.is_empty())
                    };
                    assert!(items.iter().all(whole), "{text}");
                }
                Err(_) => rejected += 1,
            }
        }
        assert!(accepted > 1000 && rejected > 1000, "{accepted} accepted, {rejected} rejected");
    }

    proptest! {
        #[test]
        fn windows_predict_every_token_except_the_first_once(len in 2_usize..300, context in 1_usize..40) {
            let windows: Vec<Window> = windows(len, context).unwrap().collect();
            let predicted: Vec<usize> = windows.iter().flat_map(|w| w.targets.clone()).collect();
            prop_assert_eq!(predicted, (1..len).collect::<Vec<_>>());
            for (index, window) in windows.iter().enumerate() {
                prop_assert_eq!(window.inputs.start + 1..window.inputs.end + 1, window.targets.clone());
                prop_assert!(window.inputs.len() == context || index + 1 == windows.len());
            }
        }
    }

    #[test]
    fn windows_without_predicted_tokens_are_rejected() {
        for (len, context) in [(0, 4), (1, 4), (9, 0)] {
            assert!(windows(len, context).is_err());
        }
        assert_eq!(windows(5, usize::MAX).unwrap().count(), 1);
    }
}
