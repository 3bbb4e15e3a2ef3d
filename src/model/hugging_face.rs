//! GPT-2 folders as Hugging Face's `transformers` reads and writes them: `config.json` and safetensors.
//!
//! Their `Conv1D` keeps its weight as (in, out); ours are (out, in), so these are transposed on the way.

use std::borrow::Cow;
use std::ops::Range;
use std::path::Path;

use rayon::prelude::*;
use safetensors::Dtype;

use super::config::Config;
use super::json::{self, shown};
use super::params::{Gpt, HostWeights, Layout};
use super::safetensors::{Plan, check_finite, shape_text};
use crate::error::{Error, Result};
use crate::files::{self, Disk, TEMPORARY};

mod config;
mod shards;
#[cfg(test)]
mod tests;

pub(crate) use config::check_tokenizer;
use shards::{SINGLE, Shards};

/// The file of a model's sizes.
pub(crate) const CONFIG: &str = "config.json";
/// Longest `config.json` read; real ones have a thousand bytes.
const MAX_CONFIG: u64 = 1 << 20;

/// Each of our tensors' name there, `{}` standing for the block, and whether it is kept as (in, out).
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

/// A tensor of theirs and its place among ours.
#[derive(Debug)]
struct Piece {
    name: String,
    /// Shape there.
    shape: Vec<usize>,
    transposed: bool,
    /// Elements of our flat buffer.
    range: Range<usize>,
}

/// The tensors of a model as they are named there, in the order of our buffer.
fn pieces(config: &Config) -> Vec<Piece> {
    let slots = Layout::new(config).slots.into_array();
    let mut pieces = Vec::new();
    for ((field, slot), (_, (pattern, transposed))) in slots.into_iter().zip(NAMES.into_array()) {
        let stacked = pattern.contains("{}");
        let (count, mut shape) =
            if stacked { (config.layers, slot.shape[1..].to_vec()) } else { (1, slot.shape.clone()) };
        if field == "wte" {
            // Theirs has no padding rows.
            shape[0] = config.vocab;
        }
        let len: usize = shape.iter().product();
        if transposed {
            shape.reverse();
        }
        pieces.extend((0..count).map(|layer| {
            let start = slot.range.start + layer * len;
            let name = pattern.replace("{}", &layer.to_string());
            Piece { name, shape: shape.clone(), transposed, range: start..start + len }
        }));
    }
    pieces
}

/// Reads a folder with `config.json` and `model.safetensors`, whole or in shards: the weights, and the name of the
/// tokenizer if the folder tells it.
///
/// Tensors may be F32, F16, BF16 or F64 and be named with or without `transformer.`; the attention masks of old folders
/// are passed over, and so is an `lm_head.weight` equal to `wte.weight`.
///
/// # Errors
/// [`Error::Format`] naming the field of the configuration, the tensor or the value at fault; [`Error::Tensors`] with
/// every tensor that is missing, unexpected or of another shape.
pub fn import(dir: impl AsRef<Path>) -> Result<(HostWeights, Option<String>)> {
    let dir = dir.as_ref();
    let path = dir.join(CONFIG);
    let (config, tokenizer) = config::parse(&path, &json::read_capped(&path, MAX_CONFIG)?)?;
    let shards = Shards::open(dir)?;
    // Before anything is made that has the size of the claim.
    if config.layers > shards.len().max(1000) {
        let message = format!("n_layer = {}, but there are {} tensors in all", config.layers, shards.len());
        return Err(Error::format(path, message));
    }
    let pieces = pieces(&config);
    let problems = misfits(&pieces, &shards, &config);
    if !problems.is_empty() {
        return Err(Error::Tensors { path: dir.to_path_buf(), problems });
    }
    let mut weights = HostWeights::zeros(config);
    read_pieces(&pieces, &shards, &mut weights.data)?;
    check_head(&shards, &weights.data[..config.vocab * config.channels])?;
    Ok((weights, tokenizer))
}

/// Every way in which the tensors found are not those of the model.
fn misfits(pieces: &[Piece], shards: &Shards, config: &Config) -> Vec<String> {
    let mut problems = Vec::new();
    let head = Piece {
        name: "lm_head.weight".into(),
        shape: vec![config.vocab, config.channels],
        transposed: false,
        range: 0..0,
    };
    for piece in pieces.iter().chain([&head]) {
        let Piece { name, shape, .. } = piece;
        match shards.find(name) {
            // The head is tied to the embedding: folders leave it out.
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
                if !matches!(info.dtype, Dtype::F32 | Dtype::F16 | Dtype::BF16 | Dtype::F64) {
                    problems.push(format!("'{name}' is {}; F32, F16, BF16 and F64 can be read", info.dtype));
                }
            }
        }
    }
    let known: std::collections::BTreeSet<&str> = pieces.iter().chain([&head]).map(|p| &p.name[..]).collect();
    for name in shards.names().filter(|n| !known.contains(n) && !is_mask(n)) {
        if let Some((_, _, info)) = shards.find(name) {
            problems.push(format!("'{}' {} is not part of the model", shown(name), shape_text(&info.shape)));
        }
    }
    problems
}

/// Whether a tensor is one of the causal masks that old folders carry along.
fn is_mask(name: &str) -> bool {
    let block = name.strip_prefix("h.").and_then(|n| n.split_once(".attn."));
    block.is_some_and(|(layer, rest)| layer.parse::<usize>().is_ok() && matches!(rest, "bias" | "masked_bias"))
}

/// Reads all pieces into the flat buffer, by all threads.
fn read_pieces(pieces: &[Piece], shards: &Shards, mut rest: &mut [f32]) -> Result<()> {
    let mut taken = 0;
    let mut jobs = Vec::new();
    for piece in pieces {
        // Between two pieces lie at most padding rows, which stay zero.
        let (out, tail) = rest[piece.range.start - taken..].split_at_mut(piece.range.len());
        (rest, taken) = (tail, piece.range.end);
        jobs.push((piece, out));
    }
    // All are run and the first error told, so that the same folder gives the same message each time.
    let results: Vec<Result<()>> = jobs.into_par_iter().map(|(piece, out)| read_piece(piece, shards, out)).collect();
    results.into_iter().collect()
}

fn read_piece(piece: &Piece, shards: &Shards, out: &mut [f32]) -> Result<()> {
    let Some((file, name, _)) = shards.find(&piece.name) else { return Ok(()) };
    if piece.transposed {
        let values = file.to_f32(name)?;
        check_finite(file.path(), name, &values)?;
        transpose(&values, piece.shape[0], piece.shape[1], out);
        return Ok(());
    }
    file.read_f32(name, out)?;
    check_finite(file.path(), name, out)
}

/// Checks that an `lm_head.weight`, where there is one, is the embedding again.
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
                "'{name}' is not wte.weight (element {i}: {} and {}); an untied head is not implemented",
                head[i], wte[i]
            ),
        )),
    }
}

/// `to (columns, rows) = from (rows, columns)` transposed, by all threads.
fn transpose(from: &[f32], rows: usize, columns: usize, to: &mut [f32]) {
    // A block's 16 lines of either side stay in the first-level cache.
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
/// f32. It appears complete or not at all.
///
/// # Errors
/// [`Error::Invalid`] where `dir` exists and is not empty, or the tokenizer has no such name; [`Error::Format`] naming
/// a tensor that holds a NaN or an infinity; [`Error::Io`] with the bytes needed.
pub fn export(weights: &HostWeights, tokenizer: Option<&str>, dir: impl AsRef<Path>) -> Result<()> {
    let dir = dir.as_ref();
    let config = &weights.config;
    config.check()?;
    check_tokenizer(tokenizer)?;
    if std::fs::read_dir(dir).is_ok_and(|mut entries| entries.next().is_some()) {
        return Err(Error::invalid(format!("{}: the folder exists and is not empty", dir.display())));
    }
    let name = dir.file_name().ok_or_else(|| Error::invalid(format!("{}: not a folder's name", dir.display())))?;
    let temporary = dir.with_file_name(format!("{TEMPORARY}{}-{}", name.to_string_lossy(), std::process::id()));
    if let Some(above) = dir.parent().filter(|p| !p.as_os_str().is_empty()) {
        files::create_dirs(&Disk, above)?;
    }
    let pieces = pieces(config);
    let their_name = |piece: &Piece| format!("transformer.{}", piece.name);
    let plan = Plan::new(&[("format", "pt")], pieces.iter().map(|p| (their_name(p), &p.shape[..])))?;
    files::write_dir(&Disk, &temporary, dir, |folder| {
        files::write_bytes(&Disk, &folder.join(CONFIG), &config::text(config, tokenizer))?;
        let path = folder.join(SINGLE);
        let mut next = pieces.iter();
        files::write_file(&Disk, &path, plan.bytes(), |file| {
            plan.write(&path, file, |name| match next.next() {
                Some(piece) => tensor_for_export(piece, &weights.data),
                None => Err(Error::invalid(format!("tensor '{name}' is not part of the model"))),
            })
        })?;
        Ok(())
    })
}

/// A tensor as it is kept there.
fn tensor_for_export<'a>(piece: &Piece, data: &'a [f32]) -> Result<Cow<'a, [f32]>> {
    let ours = &data[piece.range.clone()];
    check_finite("the model", &piece.name, ours)?;
    if !piece.transposed {
        return Ok(ours.into());
    }
    let mut theirs = vec![0.0; ours.len()];
    transpose(ours, piece.shape[1], piece.shape[0], &mut theirs);
    Ok(theirs.into())
}
