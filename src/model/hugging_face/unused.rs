//! What a Hugging Face folder holds that is not used: so that it is said, and nothing is silently left out.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

use super::config::is_read;
use super::shards::{INDEX, SINGLE};
use super::{CONFIG, MAX_CONFIG};
use crate::error::{Error, Result};
use crate::files;
use crate::message::escaped;
use crate::model::json::{self, UniqueMap};

/// Keys of a `config.json` that do not change what a GPT-2 computes in evaluation and generation: dropout and
/// initialisation, which belong to training from scratch; heads other than the LM head; defaults of other programs. Keys
/// that begin with `summary_` configure another head.
const IRRELEVANT_KEYS: [&str; 21] = [
    "_name_or_path",
    "architectures",
    "attn_pdrop",
    "bos_token_id",
    "chunk_size_feed_forward",
    "dtype",
    "embd_pdrop",
    "eos_token_id",
    "gradient_checkpointing",
    "id2label",
    "initializer_range",
    "label2id",
    "output_attentions",
    "output_hidden_states",
    "output_past",
    "pad_token_id",
    "resid_pdrop",
    "task_specific_params",
    "torch_dtype",
    "transformers_version",
    "use_cache",
];

/// Files that are read, and those that do not change the model: descriptions, the same weights in other formats, defaults
/// for the sampling of other programs, and the state of other trainers.
const KNOWN_FILES: [&str; 22] = [
    CONFIG,
    SINGLE,
    INDEX,
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "flax_model.msgpack",
    "generation_config.json",
    "model.onnx",
    "optimizer.pt",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "rng_state.pth",
    "rust_model.ot",
    "scheduler.pt",
    "tf_model.h5",
    "trainer_state.json",
    "training_args.bin",
];

/// Adapters change the weights, and are not supported.
const ADAPTERS: [&str; 3] = ["adapter_config.json", "adapter_model.safetensors", "adapter_model.bin"];

/// The files of a folder and the keys of its `config.json` that are neither used nor known to be irrelevant.
///
/// # Errors
/// [`Error::Format`] if the folder has an adapter, without which its weights are another model; those of reading it.
pub(crate) fn unused(dir: &Path) -> Result<Vec<String>> {
    let path = dir.join(CONFIG);
    let fields = json::parse::<UniqueMap<Value>>(&path, &files::read_regular(&path, MAX_CONFIG)?)?.0;
    let is_known = |key: &str| is_read(key) || IRRELEVANT_KEYS.contains(&key) || key.starts_with("summary_");
    let keys = fields.iter().filter(|(key, value)| !is_known(key) && !value.is_null());
    let mut found: Vec<String> = keys.map(|(key, _)| format!("{CONFIG}: {}", escaped(key))).collect();
    let mut names = BTreeSet::new();
    for entry in fs::read_dir(dir).map_err(|e| Error::io("list", dir, e))? {
        let entry = entry.map_err(|e| Error::io("list", dir, e))?;
        names.insert(entry.file_name().to_string_lossy().into_owned());
    }
    if let Some(adapter) = ADAPTERS.iter().find(|name| names.contains(**name)) {
        let message =
            format!("the folder has an adapter ({adapter}), which is not supported; merge it into the weights");
        return Err(Error::format(dir, message));
    }
    found.extend(names.into_iter().filter(|name| !is_known_file(name)).map(|name| escaped(&name)));
    Ok(found)
}

/// Whether a file is read or does not matter. Shards of weights, which begin with `model-` or `pytorch_model-`, are those
/// that an index names, or the same weights in another format.
fn is_known_file(name: &str) -> bool {
    let lower = name.to_ascii_lowercase();
    KNOWN_FILES.contains(&name)
        || ["readme", "license", "."].iter().any(|start| lower.starts_with(start))
        || ["model-", "pytorch_model-"].iter().any(|start| lower.starts_with(start))
        || lower == "onnx"
        || lower.ends_with(".md")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_neither_used_nor_irrelevant_is_listed() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
        write(
            CONFIG,
            r#"{"n_embd": 4, "attn_pdrop": 0.1, "summary_type": "x", "rope_theta": 7, "pruned_heads": null}"#,
        );
        for name in ["README.md", SINGLE, "tf_model.h5", "generation_config.json", ".gitattributes"] {
            write(name, "");
        }
        assert_eq!(unused(folder.path()).unwrap(), ["config.json: rope_theta"]);
        write("weights.npz", "");
        assert_eq!(unused(folder.path()).unwrap(), ["config.json: rope_theta", "weights.npz"]);
        write("adapter_config.json", "{}");
        let error = unused(folder.path()).unwrap_err().to_string();
        assert!(error.ends_with("(adapter_config.json), which is not supported; merge it into the weights"), "{error}");
    }
}
