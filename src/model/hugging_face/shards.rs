//! The tensors of a Hugging Face folder: in one safetensors file, or in several shards with an index.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsStr;
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::files;
use crate::message::escaped;
use crate::model::json::{self, UniqueMap};
use crate::model::safetensors::{TensorFile, TensorInfo};

/// The file of a model that is not sharded.
pub(super) const SINGLE: &str = "model.safetensors";
/// The index of a sharded model: which file holds which tensor.
pub(super) const INDEX: &str = "model.safetensors.index.json";
/// Maximum size of an index, enough for a million tensors.
const MAX_INDEX: u64 = 100_000_000;

/// All tensors of a folder, by their name in the model: the name in the file without the prefix `transformer.`.
#[derive(Debug)]
pub(super) struct Shards {
    files: Vec<TensorFile>,
    locations: BTreeMap<String, Location>,
}

#[derive(Debug)]
struct Location {
    /// Index in [`Shards::files`].
    file: usize,
    /// Name in the file.
    name: String,
}

#[derive(Deserialize)]
struct Index {
    weight_map: UniqueMap<String>,
}

impl Shards {
    /// Opens the files of a folder.
    ///
    /// # Errors
    /// [`Error::Tensors`] naming the tensors that are in two files or in another file than the index says.
    pub fn open(dir: &Path) -> Result<Self> {
        let single = dir.join(SINGLE);
        let index = dir.join(INDEX);
        if single.exists() {
            return Self::collect(dir, vec![TensorFile::open(single)?], None);
        }
        if !index.exists() {
            let pickled = dir.join("pytorch_model.bin").exists();
            let hint = if pickled { "; pytorch_model.bin is not supported, save the model as safetensors" } else { "" };
            return Err(Error::format(dir, format!("has neither {SINGLE} nor {INDEX}{hint}")));
        }
        let map = json::parse::<Index>(&index, &files::read_regular(&index, MAX_INDEX)?)?.weight_map.0;
        let names: BTreeSet<&String> = map.values().collect();
        let mut files = Vec::new();
        for name in names {
            if !is_plain_name(name) {
                let message = format!("weight_map names the file '{}', which is not a plain file name", escaped(name));
                return Err(Error::format(&index, message));
            }
            files.push(TensorFile::open(dir.join(name))?);
        }
        Self::collect(dir, files, Some(&map))
    }

    fn collect(dir: &Path, files: Vec<TensorFile>, index: Option<&BTreeMap<String, String>>) -> Result<Self> {
        let mut problems = Vec::new();
        let mut locations = BTreeMap::new();
        let file_name = |file: usize| escaped(&files[file].path().file_name().unwrap_or_default().to_string_lossy());
        for (file, content) in files.iter().enumerate() {
            for name in content.header().tensors.keys() {
                let model_name = name.strip_prefix("transformer.").unwrap_or(name).to_string();
                let location = Location { file, name: name.clone() };
                if index.is_some_and(|map| !map.contains_key(name)) {
                    problems.push(format!("'{}' is in {} but not in {INDEX}", escaped(name), file_name(file)));
                }
                if let Some(other) = locations.insert(model_name, location) {
                    problems.push(format!(
                        "'{}' in {} and '{}' in {} are the same tensor",
                        escaped(&other.name),
                        file_name(other.file),
                        escaped(name),
                        file_name(file)
                    ));
                }
            }
        }
        let by_name: BTreeMap<_, _> = files.iter().map(|file| (file.path().file_name(), file)).collect();
        for (name, file) in index.into_iter().flatten() {
            let found = by_name.get(&Some(OsStr::new(file))).is_some_and(|f| f.header().tensors.contains_key(name));
            if !found {
                let file = escaped(file);
                problems.push(format!("'{}' is not in {file}, although {INDEX} says so", escaped(name)));
            }
        }
        match problems.is_empty() {
            true => Ok(Shards { files, locations }),
            false => Err(Error::Tensors { path: dir.to_path_buf(), problems }),
        }
    }

    /// The tensors' names in the model, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.locations.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.locations.len()
    }

    /// Finds a tensor by its name in the model: its file, its name in the file, and its description.
    pub fn find(&self, name: &str) -> Option<(&TensorFile, &str, &TensorInfo)> {
        let location = self.locations.get(name)?;
        let file = &self.files[location.file];
        Some((file, &location.name, file.header().tensors.get(&location.name)?))
    }
}

/// Whether a file name cannot point outside its folder, on any operating system.
fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}
