//! `config.json` of a Hugging Face GPT-2 folder.

use std::collections::BTreeMap;
use std::path::Path;

use serde_json::{Value, json};

use crate::error::{Error, Result};
use crate::message::escaped;
use crate::model::config::{BYTES_VOCAB, Config, GPT2_VOCAB, TOKENIZERS};
use crate::model::json::{self, UniqueMap};

/// A key that our exports add: the tokenizer that the model was trained with.
const TOKENIZER_KEY: &str = "ironwarp_tokenizer";

/// Fields that change what a GPT-2 computes, with the values that we support. If a field is absent or null, GPT-2's default
/// applies, which is one of the supported values.
const SUPPORTED: &[(&str, &[&str])] = &[
    ("activation_function", &[r#""gelu_new""#, r#""gelu_pytorch_tanh""#]),
    ("layer_norm_epsilon", &["1e-5"]),
    ("scale_attn_weights", &["true"]),
    ("scale_attn_by_inverse_layer_idx", &["false"]),
    ("reorder_and_upcast_attn", &["false"]),
    ("tie_word_embeddings", &["true"]),
    ("add_cross_attention", &["false"]),
    ("is_encoder_decoder", &["false"]),
    ("quantization_config", &[]),
];

/// Whether a key of a `config.json` is read.
#[cfg(feature = "train")]
pub(super) fn is_read(key: &str) -> bool {
    let sizes = ["n_positions", "n_ctx", "vocab_size", "n_layer", "n_head", "n_embd", "n_inner"];
    ["model_type", TOKENIZER_KEY].contains(&key)
        || sizes.contains(&key)
        || SUPPORTED.iter().any(|(name, _)| *name == key)
}

/// Checks the name of a tokenizer.
///
/// # Errors
/// [`Error::Invalid`] if the name is unknown; the message lists all names.
pub(super) fn check_tokenizer(name: Option<&str>) -> Result<()> {
    match name {
        Some(name) if !TOKENIZERS.contains(&name) => {
            Err(Error::invalid(format!("unknown tokenizer '{}'; available: {}", escaped(name), TOKENIZERS.join(", "))))
        }
        _ => Ok(()),
    }
}

/// Parses the sizes and the tokenizer from the text of a `config.json`.
pub(super) fn parse(path: &Path, text: &[u8]) -> Result<(Config, Option<String>)> {
    let fields = json::parse::<UniqueMap<Value>>(path, text)?.0;
    let field = |name: &str| fields.get(name).filter(|v| !v.is_null());
    let mut problems = Vec::new();
    if field("model_type") != Some(&json!("gpt2")) {
        let found = field("model_type").map_or("missing".into(), text_of);
        return Err(Error::format(path, format!("model_type is {found}; only \"gpt2\" is supported")));
    }
    for &(name, allowed) in SUPPORTED {
        if let Some(value) = field(name)
            && !allowed.iter().any(|text| serde_json::from_str(text).is_ok_and(|v: Value| v == *value))
        {
            let allowed = if allowed.is_empty() { "none".into() } else { allowed.join(", ") };
            problems.push(format!("{name} = {} is not supported (supported: {allowed})", text_of(value)));
        }
    }
    let mut size = |names: &[&str]| {
        let found = names.iter().find_map(|n| Some((n, field(n)?)));
        let value = found.and_then(|(_, v)| usize::try_from(v.as_u64()?).ok());
        match (found, value) {
            (None, _) => problems.push(format!("{} is missing", names[0])),
            (Some((name, v)), None) => problems.push(format!("{name} = {} is not a valid size", text_of(v))),
            _ => {}
        }
        value.unwrap_or(0)
    };
    let config = Config {
        // Old configurations have both n_ctx and n_positions. The library uses the latter.
        context: size(&["n_positions", "n_ctx"]),
        vocab: size(&["vocab_size"]),
        layers: size(&["n_layer"]),
        heads: size(&["n_head"]),
        channels: size(&["n_embd"]),
    };
    if let Some(inner) = field("n_inner")
        && inner.as_u64() != config.channels.checked_mul(4).map(|c| c as u64)
    {
        problems.push(format!("n_inner = {} is not supported (supported: null, 4 * n_embd)", text_of(inner)));
    }
    let tokenizer = tokenizer(&fields).unwrap_or_else(|problem| {
        problems.push(problem);
        None
    });
    if !problems.is_empty() {
        return Err(Error::format(path, problems.join("; ")));
    }
    config.check().map_err(|e| Error::format(path, e.to_string()))?;
    Ok((config, tokenizer))
}

/// The tokenizer that the configuration names. The size of a vocabulary does not tell which tokenizer it is of.
fn tokenizer(fields: &BTreeMap<String, Value>) -> Result<Option<String>, String> {
    match fields.get(TOKENIZER_KEY) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(name)) => match check_tokenizer(Some(name)) {
            Ok(()) => Ok(Some(name.clone())),
            Err(e) => Err(format!("{TOKENIZER_KEY}: {e}")),
        },
        Some(other) => Err(format!("{TOKENIZER_KEY} = {} is not a string", text_of(other))),
    }
}

/// Formats a value for a message.
fn text_of(value: &Value) -> String {
    match value {
        Value::Array(_) => "[…]".into(),
        Value::Object(_) => "{…}".into(),
        plain => escaped(&plain.to_string()),
    }
}

/// The end-of-text token of one of our tokenizers, which is its last token. The model's vocabulary may be larger.
pub(super) fn end_of_text(tokenizer: Option<&str>) -> Option<u32> {
    tokenizer.map(|name| if name == "gpt2" { GPT2_VOCAB } else { BYTES_VOCAB } as u32 - 1)
}

/// The text of a `config.json` for `transformers`.
pub(super) fn text(config: &Config, tokenizer: Option<&str>, end_of_text: Option<u32>) -> Vec<u8> {
    let value = json!({
        "architectures": ["GPT2LMHeadModel"],
        "model_type": "gpt2",
        "activation_function": "gelu_new",
        "layer_norm_epsilon": 1e-5,
        "scale_attn_weights": true,
        "scale_attn_by_inverse_layer_idx": false,
        "reorder_and_upcast_attn": false,
        "tie_word_embeddings": true,
        "n_positions": config.context,
        "n_ctx": config.context,
        "vocab_size": config.vocab,
        "n_layer": config.layers,
        "n_head": config.heads,
        "n_embd": config.channels,
        "n_inner": null,
        "initializer_range": 0.02,
        // The model was trained without dropout. The library's default of 0.1 would apply in fine-tuning.
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "bos_token_id": end_of_text,
        "eos_token_id": end_of_text,
        "torch_dtype": "float32",
        TOKENIZER_KEY: tokenizer,
    });
    format!("{value:#}\n").into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unsupported_values_are_rejected_with_field_and_value() {
        let config = Config { context: 8, vocab: 257, layers: 2, heads: 2, channels: 4 };
        let base: Value = serde_json::from_slice(&text(&config, Some("bytes"), Some(256))).unwrap();
        let path = Path::new("config.json");
        let with = |field: &str, value: Value| {
            let mut changed = base.clone();
            changed[field] = value;
            parse(path, changed.to_string().as_bytes())
        };
        for (field, value, wanted) in [
            ("model_type", json!("gpt_neo"), "model_type is \"gpt_neo\"; only"),
            ("model_type", json!(null), "model_type is missing"),
            (
                "activation_function",
                json!("relu"),
                "activation_function = \"relu\" is not supported (supported: \"gelu_new\", ",
            ),
            ("activation_function", json!("gelu"), "activation_function = \"gelu\""),
            ("layer_norm_epsilon", json!(1e-6), "layer_norm_epsilon = 1e-6 is not supported (supported: 1e-5)"),
            ("scale_attn_weights", json!(false), "scale_attn_weights = false is"),
            ("scale_attn_by_inverse_layer_idx", json!(true), "scale_attn_by_inverse_layer_idx = true is"),
            ("reorder_and_upcast_attn", json!(true), "reorder_and_upcast_attn = true is"),
            ("tie_word_embeddings", json!(false), "tie_word_embeddings = false is"),
            ("add_cross_attention", json!(true), "add_cross_attention = true is"),
            ("quantization_config", json!({"bits": 4}), "quantization_config = {…} is not supported (supported: none)"),
            ("n_inner", json!(8), "n_inner = 8 is not supported (supported: null, 4 * n_embd)"),
            ("n_layer", json!(null), "n_layer is missing"),
            ("n_layer", json!(-1), "n_layer = -1 is not a valid size"),
            ("n_embd", json!("4"), "n_embd = \"4\" is not a valid size"),
            ("n_embd", json!(u64::MAX), "failed (18446744073709551615)"),
            ("n_head", json!(3), "C % NH == 0 failed (C = 4, NH = 3)"),
            ("vocab_size", json!(0), "vocab (V)"),
            ("ironwarp_tokenizer", json!("x"), "ironwarp_tokenizer: unknown tokenizer 'x'"),
            ("ironwarp_tokenizer", json!(1), "ironwarp_tokenizer = 1 is not a string"),
        ] {
            let error = with(field, value.clone()).unwrap_err().to_string();
            assert!(error.starts_with("config.json: ") && error.contains(wanted), "{field} = {value}: {error}");
        }
        for (field, value) in
            [("n_inner", json!(16)), ("activation_function", json!("gelu_pytorch_tanh")), ("n_ctx", json!(99))]
        {
            assert_eq!(with(field, value).unwrap(), (config, Some("bytes".into())), "{field}");
        }
        let two = parse(path, br#"{"model_type": "gpt2", "n_layer": 1, "n_layer": 2}"#).unwrap_err();
        assert!(two.to_string().contains("'n_layer' appears twice"), "{two}");
    }

    #[test]
    fn only_a_name_tells_the_tokenizer() {
        let published = |vocab: usize, more: &str| {
            let text = format!(
                r#"{{"model_type":"gpt2","n_ctx":8,"vocab_size":{vocab},"n_layer":1,"n_head":1,"n_embd":4{more}}}"#
            );
            parse(Path::new("config.json"), text.as_bytes()).unwrap()
        };
        assert_eq!(published(50257, "").1, None);
        assert_eq!(published(257, "").1, None);
        assert_eq!(published(257, r#","ironwarp_tokenizer":"bytes""#).1.as_deref(), Some("bytes"));
        assert_eq!(published(50257, r#","ironwarp_tokenizer":null"#).1, None);
        assert_eq!(published(9, "").0, Config { context: 8, vocab: 9, layers: 1, heads: 1, channels: 4 });
    }

    #[test]
    fn mutated_configurations_never_panic_and_accepted_ones_are_valid() {
        use std::time::{Duration, Instant};

        use crate::cpu::Cpu;
        use crate::model::activations::Recompute;
        use crate::model::mutate::{SplitMix, mutate};
        use crate::model::plan::MemoryPlan;
        let config = Config { context: 8, vocab: 257, layers: 2, heads: 2, channels: 4 };
        let corpus = [text(&config, Some("bytes"), Some(256)), text(&Config::preset("gpt2-124M").unwrap(), None, None)];
        let fragments = [
            "0",
            "-1",
            "1e-5",
            "16384",
            "16777217",
            "18446744073709551615",
            "1e400",
            "null",
            "true",
            "\"gpt2\"",
            "{",
            "[",
            ",",
            "\u{1b}[2J",
            "\\u001b",
        ];
        let mut random = SplitMix(9);
        let mut accepted = 0;
        for round in 0..50_000 {
            let start = Instant::now();
            match parse(Path::new("config.json"), &mutate(&mut random, &corpus, &fragments)) {
                Ok((config, _)) => {
                    accepted += 1;
                    config.check().unwrap_or_else(|e| panic!("round {round}: {e}"));
                    MemoryPlan::new::<Cpu<f32>>(&config, 1, 1, Recompute::None).unwrap();
                }
                Err(error) => {
                    let error = error.to_string();
                    assert!(error.len() < 4000 && !error.contains(char::is_control), "round {round}: {error:?}");
                }
            }
            // Milliseconds on a busy machine; a loop over a claimed size would take hours.
            assert!(start.elapsed() < Duration::from_secs(2), "round {round}: {:?}", start.elapsed());
        }
        assert!(accepted > 1000, "only {accepted} mutants were accepted");
    }
}
