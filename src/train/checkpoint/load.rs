//! Loading checkpoints, and loading models from run, checkpoint and Hugging Face folders.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::layout::{CHECKPOINTS, CONFIG, Id, MANIFEST, MODEL, OPTIMIZER, STATE, TensorGroup, list};
use super::manifest::{LoadError, Manifest, Metadata};
use crate::error::{Error, Result};
use crate::files;
use crate::message::{escaped_path, joined};
use crate::model::config::Config;
use crate::model::hugging_face;
use crate::model::json;
use crate::model::params::{HostWeights, Layout};
use crate::model::safetensors::{TensorFile, check_finite, shape_text};
use crate::tensor::host_zeros;
use crate::text::hugging_face::{MAX_FILE, TOKENIZER, TOKENIZER_CONFIG, has_files};
use crate::text::tokenizer::Tokenizer;

/// Maximum size of a manifest, which has one line for each of about fifty tensors.
const MAX_MANIFEST: u64 = 1 << 20;
/// Maximum size of a checkpoint's `config.json`; ours have two hundred bytes.
const MAX_CONFIG: u64 = 1 << 16;
/// Maximum size of a trainer's state; its largest content is two windows of 128 recent numbers.
const MAX_STATE: u64 = 1 << 20;

/// A loaded checkpoint.
#[derive(Debug)]
pub struct Loaded<S> {
    /// The checkpoint's folder.
    pub path: PathBuf,
    /// Number of steps done when it was saved.
    pub step: u64,
    /// The tokenizer of the training data.
    pub tokenizer: Option<Tokenizer>,
    /// The parameters.
    pub weights: HostWeights,
    /// AdamW's first moments, laid out as the parameters.
    pub m: Vec<f32>,
    /// AdamW's second moments, laid out as the parameters.
    pub v: Vec<f32>,
    /// The state of the trainer.
    pub state: S,
    /// Newer checkpoints that were skipped because they are damaged, with the reasons.
    pub warnings: Vec<String>,
}

/// Loads the newest intact checkpoint of a run folder, skipping damaged ones with a warning; `None` if the folder has no
/// checkpoint.
///
/// # Errors
/// [`Error::Format`] if all checkpoints are damaged, with the reason for each; if the newest has another format version; or
/// if `config` is given and the newest is of another model.
pub fn load_newest<S: DeserializeOwned>(dir: impl AsRef<Path>, config: Option<&Config>) -> Result<Option<Loaded<S>>> {
    newest(dir.as_ref(), |opened| opened.load(config))
        .map(|found| found.map(|(loaded, warnings)| Loaded { warnings, ..loaded }))
}

/// Loads the weights and the tokenizer from a run folder (its newest intact checkpoint), a single checkpoint, or a Hugging
/// Face GPT-2 folder, whose own tokenizer files decide ([`Tokenizer::from_folder`]).
///
/// The second value is an error if the folder has no tokenizer that can be read. Not every use of a model needs one, and
/// the user may name another, so this does not prevent loading the weights.
///
/// # Errors
/// [`Error::Format`] if the folder is none of these; the errors of loading it.
pub fn load_model_folder(path: impl AsRef<Path>) -> Result<(HostWeights, Result<Tokenizer>)> {
    let path = path.as_ref();
    let model = |opened: &Opened| {
        let unnamed = || Error::format(opened.dir.join(CONFIG), "the checkpoint has no tokenizer");
        Ok((opened.weights()?, opened.tokenizer()?.ok_or_else(unnamed)))
    };
    if path.join(CHECKPOINTS).is_dir() {
        let found = newest(path, model)?;
        return found.map(|(model, _)| model).ok_or_else(|| Error::format(path, "the run has no checkpoint yet"));
    }
    if path.join(MANIFEST).exists() {
        return Opened::open(path).and_then(|opened| model(&opened)).map_err(|error| match path.exists() {
            true => error.into_error(),
            false => Error::format(path, "the checkpoint was deleted while it was read"),
        });
    }
    if path.join(hugging_face::CONFIG).exists() {
        let unused = hugging_face::unused(path)?;
        let (weights, named) = hugging_face::import(path)?;
        if !unused.is_empty() {
            tracing::warn!("{}: not used: {}", escaped_path(path), joined(&unused, ", "));
        }
        let tokenizer = match Tokenizer::from_folder(path) {
            // Our exports of models with `gpt2` or `bytes` name the tokenizer and have no files of it.
            Err(_) if !has_files(path) && named.is_some() => Tokenizer::by_name(&named.unwrap_or_default()),
            found => found,
        };
        return Ok((weights, tokenizer));
    }
    let what = if path.is_dir() { "no model in this folder" } else { "no such folder" };
    Err(Error::format(
        path,
        format!(
            "{what}; looked for {CHECKPOINTS}/ (a run), {MANIFEST} (a checkpoint) and {CONFIG} (a Hugging Face model)"
        ),
    ))
}

/// How often a reader lists the checkpoints again because the run deleted one while it was read.
const MAX_LISTINGS: usize = 10;

/// Calls `load` on the newest checkpoints in turn until it succeeds. Returns its result, and the reasons why newer
/// checkpoints were skipped. If the run deletes a checkpoint while it is read, the run has saved newer ones, and all are
/// listed again.
pub(super) fn newest<T>(
    dir: &Path,
    load: impl Fn(&Opened) -> Result<T, LoadError>,
) -> Result<Option<(T, Vec<String>)>> {
    let checkpoints = dir.join(CHECKPOINTS);
    for _ in 0..MAX_LISTINGS {
        let ids = list(&checkpoints)?;
        let found = newest_of(&checkpoints, &ids, &load);
        if found.is_ok() || ids.iter().all(|id| checkpoints.join(id.name()).exists()) {
            return found;
        }
    }
    Err(Error::format(checkpoints, "each checkpoint was deleted while it was read; a larger --keep keeps them longer"))
}

/// [`newest`] of the listed checkpoints.
fn newest_of<T>(
    checkpoints: &Path,
    ids: &[Id],
    load: impl Fn(&Opened) -> Result<T, LoadError>,
) -> Result<Option<(T, Vec<String>)>> {
    let mut warnings = Vec::new();
    for id in ids.iter().rev() {
        let loaded = Opened::open(&checkpoints.join(id.name())).and_then(|opened| {
            if opened.manifest.step != id.step {
                let message = format!("holds step {}, but is named after another step", opened.manifest.step);
                return Err(Error::format(&opened.dir, message).into());
            }
            load(&opened)
        });
        match loaded {
            Ok(loaded) => return Ok(Some((loaded, warnings))),
            Err(LoadError::Incompatible(error)) => return Err(error),
            Err(LoadError::Damaged(error)) => {
                if !checkpoints.join(id.name()).exists() {
                    return Err(error);
                }
                let warning = format!("skipping damaged checkpoint {}: {error}", id.name());
                tracing::warn!("{warning}");
                warnings.push(warning);
            }
        }
    }
    if warnings.is_empty() {
        return Ok(None);
    }
    let message = format!("none of the {} checkpoints can be loaded:\n  {}", warnings.len(), joined(&warnings, "\n  "));
    Err(Error::format(checkpoints, message))
}

/// A checkpoint whose manifest and metadata have been verified.
pub(super) struct Opened {
    dir: PathBuf,
    manifest: Manifest,
    metadata: Metadata,
}

impl Opened {
    pub(super) fn open(dir: &Path) -> Result<Self, LoadError> {
        let path = dir.join(MANIFEST);
        let manifest = Manifest::parse(&path, &files::read_regular(&path, MAX_MANIFEST)?)?;
        let path = dir.join(CONFIG);
        let metadata = Metadata::parse(&path, &manifest.read_text(&path, MAX_CONFIG)?)?;
        metadata.model.check().map_err(|e| Error::format(&path, e.to_string()))?;
        Ok(Opened { dir: dir.to_path_buf(), manifest, metadata })
    }

    pub(super) fn load<S: DeserializeOwned>(&self, config: Option<&Config>) -> Result<Loaded<S>, LoadError> {
        if let Some(config) = config.filter(|c| **c != self.metadata.model) {
            let found = self.metadata.model;
            let message = format!("the checkpoint's model is {found}, but this run's model is {config}");
            return Err(LoadError::Incompatible(Error::format(self.dir.join(CONFIG), message)));
        }
        let path = self.dir.join(STATE);
        let state = self.manifest.read_text(&path, MAX_STATE)?;
        // The checksum is correct, so a state that cannot be parsed was written by another version of the trainer.
        let state = json::parse(&path, &state).map_err(LoadError::Incompatible)?;
        let weights = self.weights()?;
        let optimizer = self.manifest.open_tensors(&self.dir.join(OPTIMIZER))?;
        let m = self.read_group(&optimizer, TensorGroup::FirstMoment)?;
        let v = self.read_group(&optimizer, TensorGroup::SecondMoment)?;
        Ok(Loaded {
            path: self.dir.clone(),
            step: self.manifest.step,
            tokenizer: self.tokenizer()?,
            weights,
            m,
            v,
            state,
            warnings: Vec::new(),
        })
    }

    /// The tokenizer that the metadata names, from its files if it is not one of ours.
    fn tokenizer(&self) -> Result<Option<Tokenizer>, LoadError> {
        let Some(name) = &self.metadata.tokenizer else { return Ok(None) };
        if name != TOKENIZER {
            // The checksum is correct, so a tokenizer that is unknown was written by another version.
            return Tokenizer::by_name(name).map(Some).map_err(LoadError::Incompatible);
        }
        let path = self.dir.join(TOKENIZER);
        let json = self.manifest.read_text(&path, MAX_FILE)?;
        let config = self.manifest.read_text(&self.dir.join(TOKENIZER_CONFIG), MAX_FILE)?;
        Tokenizer::from_bytes(&path, &json, &config).map(Some).map_err(LoadError::Incompatible)
    }

    fn weights(&self) -> Result<HostWeights, LoadError> {
        let file = self.manifest.open_tensors(&self.dir.join(MODEL))?;
        let data = self.read_group(&file, TensorGroup::Weights)?;
        let config = self.metadata.model;
        Ok(HostWeights { config, layout: Layout::new(&config), data })
    }

    /// Reads the tensors of a group into one flat buffer.
    fn read_group(&self, file: &TensorFile, group: TensorGroup) -> Result<Vec<f32>> {
        let layout = Layout::new(&self.metadata.model);
        let mut problems = Vec::new();
        for (name, slot) in layout.slots.as_ref().into_array() {
            let name = group.tensor_name(name);
            let found = file.header().tensors.get(&name).map(|info| &info.shape);
            if found != Some(&slot.shape) {
                let found = found.map_or("missing".into(), |shape| shape_text(shape));
                problems.push(format!("'{name}' is {found}, the model needs {}", shape_text(&slot.shape)));
            }
        }
        if !problems.is_empty() {
            return Err(Error::Tensors { path: file.path().to_path_buf(), problems });
        }
        // The file holds tensors of these shapes, so this allocation is not larger than the file.
        let mut data = host_zeros(layout.len)?;
        for (name, slot) in layout.slots.into_array() {
            let (name, out) = (group.tensor_name(name), &mut data[slot.range]);
            self.manifest.read_tensor(file, &name, out)?;
            check_finite(file.path(), &name, out)?;
        }
        Ok(data)
    }
}
