//! GPT-2 folders in the format of Hugging Face's `transformers`: `config.json` and safetensors.
//!
//! Hugging Face's `Conv1D` stores its weight as (in, out). Our weights are (out, in), so import and export transpose them.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;

use super::config::Config;
use super::params::{Gpt, HostWeights, Layout};
use super::safetensors::{Dtype, Plan, check_finite, shape_text};
use crate::error::{Error, Result};
use crate::files::{self, Disk, TEMPORARY};
use crate::message::{escaped, escaped_path};

mod config;
mod shards;
#[cfg(test)]
mod tests;
#[cfg(feature = "train")]
mod unused;

use config::{check_tokenizer, end_of_text};
use shards::{SINGLE, Shards};
#[cfg(feature = "train")]
pub(crate) use unused::unused;

/// The file with a model's sizes.
pub(crate) const CONFIG: &str = "config.json";
/// Maximum size of a `config.json`; typical ones have a thousand bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// The Hugging Face name of each of our tensors, where `{}` stands for the block, and whether it is stored as (in, out).
const NAMES: Gpt<(&str, bool)> = Gpt {
    wte: ("wte.weight", false),
    wpe: ("wpe.weight", false),
    qkv_weight: ("h.{}.attn.c_attn.weight", true),
    attn_proj_weight: ("h.{}.attn.c_proj.weight", true),
    fc_weight: ("h.{}.mlp.c_fc.weight", true),
    fc_proj_weight: ("h.{}.mlp.c_proj.weight", true),
    ln1_weight: ("h.{}.ln_1.weight", false),
    ln1_bias: ("h.{}.ln_1.bias", false),
    qkv_bias: ("h.{}.attn.c_attn.bias", false),
    attn_proj_bias: ("h.{}.attn.c_proj.bias", false),
    ln2_weight: ("h.{}.ln_2.weight", false),
    ln2_bias: ("h.{}.ln_2.bias", false),
    fc_bias: ("h.{}.mlp.c_fc.bias", false),
    fc_proj_bias: ("h.{}.mlp.c_proj.bias", false),
    lnf_weight: ("ln_f.weight", false),
    lnf_bias: ("ln_f.bias", false),
};

/// A tensor of a Hugging Face folder, and the range of our flat buffer that holds it.
#[derive(Debug)]
struct HfTensor {
    name: String,
    /// Shape in the file.
    shape: Vec<usize>,
    transposed: bool,
    /// Element range in our flat buffer.
    range: Range<usize>,
}

/// The Hugging Face tensors of a model, in the order of our buffer.
fn hf_tensors(config: &Config) -> Vec<HfTensor> {
    let slots = Layout::new(config).slots.into_array();
    let mut tensors = Vec::new();
    for ((field, slot), (_, (pattern, transposed))) in slots.into_iter().zip(NAMES.into_array()) {
        let stacked = pattern.contains("{}");
        let (count, mut shape) =
            if stacked { (config.layers, slot.shape[1..].to_vec()) } else { (1, slot.shape.clone()) };
        if field == "wte" {
            // The file has no padding rows.
            shape[0] = config.vocab;
        }
        let len: usize = shape.iter().product();
        if transposed {
            shape.reverse();
        }
        tensors.extend((0..count).map(|layer| {
            let start = slot.range.start + layer * len;
            let name = pattern.replace("{}", &layer.to_string());
            HfTensor { name, shape: shape.clone(), transposed, range: start..start + len }
        }));
    }
    tensors
}

/// Reads a folder with `config.json` and `model.safetensors`, as one file or in shards. Returns the weights, and the name
/// of the tokenizer if `config.json` has it, as our exports do; the files of a tokenizer are not read.
///
/// Tensors may be F32, F16, BF16 or F64, and their names may have the prefix `transformer.`. The attention masks of old
/// folders are ignored, and so is an `lm_head.weight` that equals `wte.weight`.
///
/// # Errors
/// [`Error::Format`] naming the field of the configuration, the tensor or the value at fault; [`Error::Tensors`] with
/// every tensor that is missing, unexpected or of another shape.
pub fn import(dir: impl AsRef<Path>) -> Result<(HostWeights, Option<String>)> {
    let dir = dir.as_ref();
    let path = dir.join(CONFIG);
    let (config, tokenizer) = config::parse(&path, &files::read_regular(&path, MAX_CONFIG)?)?;
    let shards = Shards::open(dir)?;
    // Checked before anything is allocated that has the claimed size. A layer has twelve tensors.
    if config.layers > shards.len() {
        let message = format!("n_layer = {}, but the folder has only {} tensors", config.layers, shards.len());
        return Err(Error::format(path, message));
    }
    let tensors = hf_tensors(&config);
    let problems = mismatches(&tensors, &shards, &config);
    if !problems.is_empty() {
        return Err(Error::Tensors { path: dir.to_path_buf(), problems });
    }
    let mut weights = HostWeights::zeros(config)?;
    read_all(&tensors, &shards, &mut weights.data)?;
    check_head(&shards, &weights.data[..config.vocab * config.channels])?;
    Ok((weights, tokenizer))
}

/// Lists all differences between the tensors of the files and those of the model.
fn mismatches(tensors: &[HfTensor], shards: &Shards, config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let head = HfTensor {
        name: "lm_head.weight".into(),
        shape: vec![config.vocab, config.channels],
        transposed: false,
        range: 0..0,
    };
    for tensor in tensors.iter().chain([&head]) {
        let HfTensor { name, shape, .. } = tensor;
        match shards.find(name) {
            // The LM head is tied to the embedding, so most folders omit it.
            None if *name == head.name => {}
            None => problems.push(format!("'{name}' {} is missing", shape_text(shape))),
            Some((_, _, info)) if info.shape != *shape => {
                let reversed = info.shape.len() > 1 && info.shape.iter().rev().eq(shape.iter());
                problems.push(format!(
                    "'{name}' is {}, the model needs {}{}",
                    shape_text(&info.shape),
                    shape_text(shape),
                    if reversed { ": it is transposed" } else { "" }
                ));
            }
            Some((_, _, info)) => {
                if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::Bf16 | Dtype::F64) {
                    problems.push(format!("'{name}' is {}; supported types: F32, F16, BF16, F64", info.dtype));
                }
            }
        }
    }
    let known: std::collections::BTreeSet<&str> = tensors.iter().chain([&head]).map(|p| &p.name[..]).collect();
    for name in shards.names().filter(|n| !known.contains(n) && !is_mask(n)) {
        if let Some((_, _, info)) = shards.find(name) {
            problems.push(format!("'{}' {} is not part of the model", escaped(name), shape_text(&info.shape)));
        }
    }
    problems
}

/// Whether a tensor is one of the causal masks that old folders contain.
fn is_mask(name: &str) -> bool {
    let block = name.strip_prefix("h.").and_then(|n| n.split_once(".attn."));
    block.is_some_and(|(layer, rest)| layer.parse::<usize>().is_ok() && matches!(rest, "bias" | "masked_bias"))
}

/// Reads all tensors into the flat buffer, in parallel.
fn read_all(tensors: &[HfTensor], shards: &Shards, mut rest: &mut [f32]) -> Result<()> {
    let mut taken = 0;
    let mut jobs = Vec::new();
    for tensor in tensors {
        // The only gaps between two tensors are padding rows, which stay zero.
        let (out, tail) = rest[tensor.range.start - taken..].split_at_mut(tensor.range.len());
        (rest, taken) = (tail, tensor.range.end);
        jobs.push((tensor, out));
    }
    // All jobs run even after an error, and the first error is returned, so that a folder always gives the same message.
    let results: Vec<Result<()>> = jobs.into_par_iter().map(|(tensor, out)| read_one(tensor, shards, out)).collect();
    results.into_iter().collect()
}

fn read_one(tensor: &HfTensor, shards: &Shards, out: &mut [f32]) -> Result<()> {
    let Some((file, name, _)) = shards.find(&tensor.name) else { return Ok(()) };
    if tensor.transposed {
        let values = file.to_f32(name)?;
        check_finite(file.path(), name, &values)?;
        transpose(&values, tensor.shape[0], tensor.shape[1], out);
        return Ok(());
    }
    file.read_f32(name, out)?;
    check_finite(file.path(), name, out)
}

/// Checks that `lm_head.weight`, if present, equals the embedding.
fn check_head(shards: &Shards, wte: &[f32]) -> Result<()> {
    let Some((file, name, info)) = shards.find("lm_head.weight") else { return Ok(()) };
    if let Some((wte_file, wte_name, wte_info)) = shards.find("wte.weight")
        && wte_info.dtype == info.dtype
        && wte_file.tensor(wte_name)?.1 == file.tensor(name)?.1
    {
        return Ok(());
    }
    let head = file.to_f32(name)?;
    match (0..wte.len()).find(|&i| head[i] != wte[i]) {
        None => Ok(()),
        Some(i) => Err(Error::format(
            file.path(),
            format!(
                "'{name}' differs from wte.weight (element {i}: {} and {}); an untied LM head is not supported",
                head[i], wte[i]
            ),
        )),
    }
}

/// Transposes `from` (rows, columns) to `to` (columns, rows), in parallel.
fn transpose(from: &[f32], rows: usize, columns: usize, to: &mut [f32]) {
    // The 16 rows of a block of either matrix fit the first-level cache.
    const BLOCK: usize = 16;
    to.par_chunks_mut(BLOCK * rows).enumerate().for_each(|(band, to)| {
        let column0 = band * BLOCK;
        for row0 in (0..rows).step_by(BLOCK) {
            for (c, line) in to.chunks_exact_mut(rows).enumerate() {
                for row in row0..(row0 + BLOCK).min(rows) {
                    line[row] = from[row * columns + column0 + c];
                }
            }
        }
    });
}

/// Writes a folder that `transformers.GPT2LMHeadModel.from_pretrained` reads: `config.json` and `model.safetensors`, in
/// f32. The folder is created atomically.
///
/// # Errors
/// [`Error::Invalid`] if `dir` exists and is not empty, or if the tokenizer is unknown; [`Error::Format`] naming a tensor
/// that holds a NaN or an infinity; [`Error::Io`] with the size of the file.
pub fn export(weights: &HostWeights, tokenizer: Option<&str>, dir: impl AsRef<Path>) -> Result<()> {
    check_tokenizer(tokenizer)?;
    write_folder(weights, config::text(&weights.config, tokenizer, end_of_text(tokenizer)), &[], dir.as_ref())
}

/// As [`export`], with a tokenizer from files: writes `files`, which are names and contents, next to the weights.
/// `end_of_text` is the id of the token that ends a text.
///
/// # Errors
/// As [`export`].
pub fn export_with_tokenizer(
    weights: &HostWeights,
    files: &[(&'static str, Vec<u8>)],
    end_of_text: u32,
    dir: impl AsRef<Path>,
) -> Result<()> {
    write_folder(weights, config::text(&weights.config, None, Some(end_of_text)), files, dir.as_ref())
}

/// Writes `config.json` with the text `description`, the weights and further files.
fn write_folder(
    weights: &HostWeights,
    description: Vec<u8>,
    others: &[(&'static str, Vec<u8>)],
    dir: &Path,
) -> Result<()> {
    let config = &weights.config;
    config.check()?;
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::invalid(format!("{}: the folder exists and is not empty", escaped_path(dir))));
    }
    let name = dir.file_name().ok_or_else(|| Error::invalid(format!("{}: not a folder name", escaped_path(dir))))?;
    let temporary = dir.with_file_name(format!("{TEMPORARY}{}-{}", name.to_string_lossy(), std::process::id()));
    if let Some(above) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        files::create_dirs(&Disk, above)?;
    }
    let tensors = hf_tensors(config);
    let full_name = |tensor: &HfTensor| format!("transformer.{}", tensor.name);
    let plan = Plan::new(&[("format", "pt")], tensors.iter().map(|t| (full_name(t), &t.shape[..])))?;
    files::write_dir(&Disk, &temporary, dir, |folder| {
        files::write_bytes(&Disk, &folder.join(CONFIG), &description)?;
        for (name, content) in others {
            files::write_bytes(&Disk, &folder.join(name), content)?;
        }
        let path = folder.join(SINGLE);
        let mut next = tensors.iter();
        files::write_file(&Disk, &path, plan.bytes(), |file| {
            plan.write(&path, file, |name| match next.next() {
                Some(tensor) => tensor_for_export(tensor, &weights.data),
                None => Err(Error::invalid(format!("tensor '{name}' is not part of the model"))),
            })
        })?;
        Ok(())
    })
}

/// The values of a tensor in the layout of the file.
fn tensor_for_export<'a>(tensor: &HfTensor, data: &'a [f32]) -> Result<Cow<'a, [f32]>> {
    let ours = &data[tensor.range.clone()];
    check_finite("the model", &tensor.name, ours)?;
    if !tensor.transposed {
        return Ok(ours.into());
    }
    let mut theirs = vec![0.0; ours.len()];
    transpose(ours, tensor.shape[1], tensor.shape[0], &mut theirs);
    Ok(theirs.into())
}
