//! Loading checkpoints, and models from whatever folder holds one.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use super::manifest::{About, MANIFEST, Manifest, Refusal};
use super::{CHECKPOINTS, CONFIG, MODEL, OPTIMIZER, Part, STATE, file_name, list};
use crate::error::{Error, Result};
use crate::model::config::Config;
use crate::model::hugging_face;
use crate::model::json;
use crate::model::params::{HostWeights, Layout};
use crate::model::safetensors::{TensorFile, check_finite, shape_text};

/// Longest manifest read; it has a line for each of some fifty tensors.
const MAX_MANIFEST: u64 = 1 << 20;

/// A checkpoint in memory.
#[derive(Debug)]
pub struct Loaded<S> {
    /// Its folder.
    pub path: PathBuf,
    /// Steps done when it was saved.
    pub step: u64,
    /// Name of the tokenizer.
    pub tokenizer: Option<String>,
    /// The parameters.
    pub weights: HostWeights,
    /// AdamW's first moments, laid out as the parameters.
    pub m: Vec<f32>,
    /// AdamW's second moments, laid out as the parameters.
    pub v: Vec<f32>,
    /// The trainer's own.
    pub state: S,
    /// Newer checkpoints that were passed over, with the reasons.
    pub warnings: Vec<String>,
}

/// Loads the newest checkpoint of a run folder that is whole, passing over damaged ones with a warning; `None` where
/// there has been none yet.
///
/// # Errors
/// [`Error::Format`] where all are damaged, naming what is wrong with each; where the newest is of another version or,
/// given `config`, of another model, with both.
pub fn load_newest<S: DeserializeOwned>(dir: impl AsRef<Path>, config: Option<&Config>) -> Result<Option<Loaded<S>>> {
    newest(dir.as_ref(), |opened| opened.load(config))
        .map(|found| found.map(|(loaded, warnings)| Loaded { warnings, ..loaded }))
}

/// The weights, and the tokenizer's name if it is told, from a run folder (its newest checkpoint that is whole), a
/// single checkpoint, or a Hugging Face GPT-2 folder.
///
/// # Errors
/// [`Error::Format`] where the folder is none of these; what loading it fails with.
pub fn load_model_folder(path: impl AsRef<Path>) -> Result<(HostWeights, Option<String>)> {
    let path = path.as_ref();
    let model = |opened: &Opened| Ok((opened.weights()?, opened.about.tokenizer.clone()));
    if path.join(CHECKPOINTS).is_dir() {
        let found = newest(path, model)?;
        return found.map(|(model, _)| model).ok_or_else(|| Error::format(path, "the run has no checkpoint yet"));
    }
    if path.join(MANIFEST).exists() {
        return Opened::open(path).and_then(|opened| model(&opened)).map_err(Refusal::into_error);
    }
    if path.join(hugging_face::CONFIG).exists() {
        return hugging_face::import(path);
    }
    let what = if path.is_dir() { "no model in this folder" } else { "no such folder" };
    Err(Error::format(
        path,
        format!(
            "{what}; looked for {CHECKPOINTS}/ (a run), {MANIFEST} (a checkpoint) and {CONFIG} (a Hugging Face model)"
        ),
    ))
}

/// What `load` makes of the newest checkpoint that is whole, and why newer ones were passed over.
fn newest<T>(dir: &Path, load: impl Fn(&Opened) -> Result<T, Refusal>) -> Result<Option<(T, Vec<String>)>> {
    let checkpoints = dir.join(CHECKPOINTS);
    let ids = list(&checkpoints)?;
    let mut warnings = Vec::new();
    for id in ids.iter().rev() {
        let loaded = Opened::open(&checkpoints.join(id.name())).and_then(|opened| {
            if opened.manifest.step != id.step {
                let message = format!("it holds step {}, which is not its name's", opened.manifest.step);
                return Err(Error::format(&opened.dir, message).into());
            }
            load(&opened)
        });
        match loaded {
            Ok(loaded) => return Ok(Some((loaded, warnings))),
            Err(Refusal::Foreign(error)) => return Err(error),
            Err(Refusal::Damaged(error)) => {
                let warning = format!("checkpoint {} is passed over: {error}", id.name());
                tracing::warn!("{warning}");
                warnings.push(warning);
            }
        }
    }
    if warnings.is_empty() {
        return Ok(None);
    }
    let message = format!("no checkpoint of {} can be loaded:\n  {}", warnings.len(), warnings.join("\n  "));
    Err(Error::format(checkpoints, message))
}

/// A checkpoint whose manifest and configuration hold.
pub(super) struct Opened {
    dir: PathBuf,
    manifest: Manifest,
    about: About,
}

impl Opened {
    pub(super) fn open(dir: &Path) -> Result<Self, Refusal> {
        let path = dir.join(MANIFEST);
        let manifest = Manifest::parse(&path, &json::read_capped(&path, MAX_MANIFEST)?)?;
        let path = dir.join(CONFIG);
        let about = About::parse(&path, &manifest.read_text(&path)?)?;
        about.model.check().map_err(|e| Error::format(&path, e.to_string()))?;
        Ok(Opened { dir: dir.to_path_buf(), manifest, about })
    }

    pub(super) fn load<S: DeserializeOwned>(&self, config: Option<&Config>) -> Result<Loaded<S>, Refusal> {
        if let Some(config) = config.filter(|c| **c != self.about.model) {
            let message = format!(
                "the checkpoint's model is {}, this run's is {}",
                sizes_text(&self.about.model),
                sizes_text(config)
            );
            return Err(Refusal::Foreign(Error::format(self.dir.join(CONFIG), message)));
        }
        let path = self.dir.join(STATE);
        let state = self.manifest.read_text(&path)?;
        // Its checksum holds: what cannot be parsed now was written by another trainer.
        let state = json::parse(&path, &state).map_err(Refusal::Foreign)?;
        let weights = self.weights()?;
        let optimizer = self.manifest.open_tensors(&self.dir.join(OPTIMIZER))?;
        let m = self.read_part(&optimizer, Part::FirstMoment)?;
        let v = self.read_part(&optimizer, Part::SecondMoment)?;
        Ok(Loaded {
            path: self.dir.clone(),
            step: self.manifest.step,
            tokenizer: self.about.tokenizer.clone(),
            weights,
            m,
            v,
            state,
            warnings: Vec::new(),
        })
    }

    fn weights(&self) -> Result<HostWeights, Refusal> {
        let file = self.manifest.open_tensors(&self.dir.join(MODEL))?;
        let data = self.read_part(&file, Part::Weights)?;
        let config = self.about.model;
        Ok(HostWeights { config, layout: Layout::new(&config), data })
    }

    /// Reads the tensors of a part into one flat buffer.
    fn read_part(&self, file: &TensorFile, part: Part) -> Result<Vec<f32>> {
        let layout = Layout::new(&self.about.model);
        let mut problems = Vec::new();
        for (name, slot) in layout.slots.as_ref().into_array() {
            let name = file_name(part, name);
            let found = file.header().tensors.get(&name).map(|info| &info.shape);
            if found != Some(&slot.shape) {
                let found = found.map_or("missing".into(), |shape| shape_text(shape));
                problems.push(format!("'{name}' is {found}, the model needs {}", shape_text(&slot.shape)));
            }
        }
        if !problems.is_empty() {
            return Err(Error::Tensors { path: file.path().to_path_buf(), problems });
        }
        // The file holds tensors of these shapes, so it is at least as long as what is allocated here.
        let mut data = vec![0.0; layout.len];
        for (name, slot) in layout.slots.into_array() {
            let (name, out) = (file_name(part, name), &mut data[slot.range]);
            self.manifest.read_tensor(file, &name, out)?;
            check_finite(file.path(), &name, out)?;
        }
        Ok(data)
    }
}

fn sizes_text(config: &Config) -> String {
    let Config { context, vocab, layers, heads, channels } = config;
    format!("(L = {layers}, NH = {heads}, C = {channels}, T = {context}, V = {vocab})")
}
