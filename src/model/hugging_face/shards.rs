//! The tensors of a Hugging Face folder, from one safetensors file or from several and their index.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use serde::Deserialize;

use crate::error::{Error, Result};
use crate::model::json::{self, UniqueMap, shown};
use crate::model::safetensors::{TensorFile, TensorInfo};

/// The file of a model that fits one file.
pub(super) const SINGLE: &str = "model.safetensors";
/// Says which file holds which tensor of a larger model.
const INDEX: &str = "model.safetensors.index.json";
/// Longest index read; that of a model of a million tensors.
const MAX_INDEX: u64 = 100_000_000;

/// All tensors of a folder by their name in the model, i.e. without a leading `transformer.`.
#[derive(Debug)]
pub(super) struct Shards {
    files: Vec<TensorFile>,
    places: BTreeMap<String, Place>,
}

#[derive(Debug)]
struct Place {
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
    /// [`Error::Tensors`] naming tensors that are in two files or not where the index says.
    pub fn open(dir: &Path) -> Result<Self> {
        let single = dir.join(SINGLE);
        let index = dir.join(INDEX);
        if single.exists() {
            return Self::collect(dir, vec![TensorFile::open(single)?], None);
        }
        if !index.exists() {
            let pickled = dir.join("pytorch_model.bin").exists();
            let hint = if pickled { "; pytorch_model.bin is not read, save the model as safetensors" } else { "" };
            return Err(Error::format(dir, format!("there is neither {SINGLE} nor {INDEX}{hint}")));
        }
        let map = json::parse::<Index>(&index, &json::read_capped(&index, MAX_INDEX)?)?.weight_map.0;
        let names: BTreeSet<&String> = map.values().collect();
        let mut files = Vec::new();
        for name in names {
            if !is_plain_name(name) {
                let message = format!("weight_map names the file '{}', which is not a plain file name", shown(name));
                return Err(Error::format(&index, message));
            }
            files.push(TensorFile::open(dir.join(name))?);
        }
        Self::collect(dir, files, Some(&map))
    }

    fn collect(dir: &Path, files: Vec<TensorFile>, index: Option<&BTreeMap<String, String>>) -> Result<Self> {
        let mut problems = Vec::new();
        let mut places = BTreeMap::new();
        let file_name = |file: usize| files[file].path().file_name().unwrap_or_default().to_string_lossy();
        for (file, content) in files.iter().enumerate() {
            for name in content.header().tensors.keys() {
                let model_name = name.strip_prefix("transformer.").unwrap_or(name).to_string();
                let place = Place { file, name: name.clone() };
                if index.is_some_and(|map| !map.contains_key(name)) {
                    problems.push(format!("'{}' is in {} but not in {INDEX}", shown(name), file_name(file)));
                }
                if let Some(other) = places.insert(model_name, place) {
                    let (there, here) = (file_name(other.file), file_name(file));
                    problems.push(format!(
                        "'{}' in {there} and '{}' in {here} are the same",
                        shown(&other.name),
                        shown(name)
                    ));
                }
            }
        }
        for (name, file) in index.into_iter().flatten() {
            let found = files.iter().any(|f| f.path() == dir.join(file) && f.header().tensors.contains_key(name));
            if !found {
                problems.push(format!("'{}' is not in {file}, where {INDEX} puts it", shown(name)));
            }
        }
        match problems.is_empty() {
            true => Ok(Shards { files, places }),
            false => Err(Error::Tensors { path: dir.to_path_buf(), problems }),
        }
    }

    /// Names in the model, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.places.keys().map(String::as_str)
    }

    /// Number of tensors.
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// The file a tensor is in, its name there, and what the file says of it.
    pub fn find(&self, name: &str) -> Option<(&TensorFile, &str, &TensorInfo)> {
        let place = self.places.get(name)?;
        let file = &self.files[place.file];
        Some((file, &place.name, file.header().tensors.get(&place.name)?))
    }
}

/// Whether a name stays inside its folder, on any system.
fn is_plain_name(name: &str) -> bool {
    !matches!(name, "" | "." | "..") && !name.contains(['/', '\\', ':', '\0'])
}
