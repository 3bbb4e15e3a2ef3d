//! The layout of a checkpoint on disk: names of folders, files and tensors.

use std::fs;
use std::io;
use std::path::Path;

use serde::Serialize;

use crate::error::{Error, Result};

/// Version of the checkpoint format. Checkpoints of other versions are rejected.
pub const FORMAT: u32 = 1;

pub(super) const CHECKPOINTS: &str = "checkpoints";
pub(super) const MODEL: &str = "model.safetensors";
pub(super) const OPTIMIZER: &str = "optimizer.safetensors";
pub(super) const CONFIG: &str = "config.json";
pub(super) const STATE: &str = "state.json";
pub(super) const MANIFEST: &str = "MANIFEST";

/// A group of tensors in a checkpoint. Each group has one tensor per parameter tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TensorGroup {
    /// The parameters.
    Weights,
    /// AdamW's first moment: the running mean of the gradient.
    FirstMoment,
    /// AdamW's second moment: the running mean of the squared gradient.
    SecondMoment,
}

impl TensorGroup {
    /// Name of the group's tensor for the parameter `parameter`, in its file.
    pub(super) fn tensor_name(self, parameter: &str) -> String {
        let prefix = match self {
            TensorGroup::Weights => "",
            TensorGroup::FirstMoment => "m.",
            TensorGroup::SecondMoment => "v.",
        };
        format!("{prefix}{parameter}")
    }
}

/// Identifies a checkpoint of a run. The order is the order in which checkpoints are saved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Id {
    pub step: u64,
    /// Incremented each time a step is saved again, so that the new checkpoint need not be renamed over the old one.
    pub revision: u64,
}

impl Id {
    /// An id for `step` that no existing checkpoint has.
    pub fn next(existing: &[Id], step: u64) -> Self {
        let last = existing.iter().filter(|id| id.step == step).map(|id| id.revision).max();
        Id { step, revision: last.map_or(0, |r| r.saturating_add(1)) }
    }

    /// The name of the checkpoint's folder.
    pub fn name(self) -> String {
        match self.revision {
            0 => format!("step-{:08}", self.step),
            revision => format!("step-{:08}-r{revision}", self.step),
        }
    }

    pub fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("step-")?;
        let (step, revision) = rest.split_once("-r").unwrap_or((rest, "0"));
        let id = Id { step: step.parse().ok()?, revision: revision.parse().ok()? };
        (id.name() == name).then_some(id)
    }
}

/// Lists the checkpoints in a folder, oldest first. The list is empty if the folder does not exist.
pub(super) fn list(checkpoints: &Path) -> Result<Vec<Id>> {
    let failed = |e| Error::io("list", checkpoints, e);
    let entries = match fs::read_dir(checkpoints) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.map_err(failed)?,
    };
    let mut ids = Vec::new();
    for entry in entries {
        ids.extend(entry.map_err(failed)?.file_name().to_str().and_then(Id::parse));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// Serialises a value as the text of a JSON file.
pub(super) fn json_text(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::invalid(format!("the checkpoint's state cannot be written as JSON: {e}")))?;
    text.push(b'\n');
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_the_writer_makes_are_parsed() {
        for id in [Id { step: 7, revision: 0 }, Id { step: u64::MAX, revision: 12 }] {
            assert_eq!(Id::parse(&id.name()), Some(id));
        }
        for name in
            ["step-7", "step-+0000007", "step-00000007-r0", "step-00000007-r", "step-0000000x", ".tmp-step-00000007"]
        {
            assert_eq!(Id::parse(name), None, "{name}");
        }
    }
}
