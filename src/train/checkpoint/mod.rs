//! Checkpoints of a run: written whole or not at all, checked to the last bit when read.
//!
//! A run folder holds `checkpoints/step-00000100/` and its like, each with
//!
//! | file | content |
//! |---|---|
//! | `model.safetensors` | the weights, by our names ([`Gpt::NAMES`](crate::model::params::Gpt::NAMES)) and shapes, f32 |
//! | `optimizer.safetensors` | AdamW's moments, `m.<name>` and `v.<name>` |
//! | `config.json` | format version, sizes of the model, tokenizer |
//! | `state.json` | what the trainer needs to go on: settings, place in the data, updates, recent losses, … |
//! | `MANIFEST` | lengths and CRC-32 of every header and tensor, and a CRC-32 of itself |
//!
//! A checkpoint is written under a temporary name; every file, then the folder, is synced before it gets its own name,
//! and older ones are removed after that. So a kill or a power cut at any moment leaves the newest complete one.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions, TryLockError};
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::files::{self, Disk, FileSystem, TEMPORARY};
use crate::model::config::Config;
use crate::model::hugging_face::check_tokenizer;
use crate::model::params::Layout;
use crate::model::safetensors::{FileSums, Plan, check_finite};

#[cfg(test)]
mod faults;
mod load;
mod manifest;
#[cfg(test)]
mod tests;

pub use load::{Loaded, load_model_folder, load_newest};
use manifest::{About, MANIFEST, Manifest};

/// Version of the layout above; a checkpoint of another one is refused.
pub const FORMAT: u32 = 1;

const CHECKPOINTS: &str = "checkpoints";
const MODEL: &str = "model.safetensors";
const OPTIMIZER: &str = "optimizer.safetensors";
const CONFIG: &str = "config.json";
const STATE: &str = "state.json";

/// The three sets of tensors in a checkpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The parameters.
    Weights,
    /// AdamW's running mean of the gradient.
    FirstMoment,
    /// AdamW's running mean of the squared gradient.
    SecondMoment,
}

impl Part {
    /// What a tensor's name begins with in its file.
    fn prefix(self) -> &'static str {
        match self {
            Part::Weights => "",
            Part::FirstMoment => "m.",
            Part::SecondMoment => "v.",
        }
    }
}

/// What a checkpoint holds besides its tensors.
#[derive(Debug)]
pub struct Snapshot<'a, S> {
    /// Steps done.
    pub step: u64,
    /// Sizes of the model.
    pub config: &'a Config,
    /// Name of the tokenizer.
    pub tokenizer: Option<&'a str>,
    /// What the trainer needs to go on; its numbers must be finite, as JSON has no others.
    pub state: &'a S,
}

/// A run folder that this process alone writes to, as long as this value lives.
#[derive(Debug)]
pub struct RunFolder {
    dir: PathBuf,
    disk: Box<dyn FileSystem>,
    /// Holds the lock; the system lets go of it however the process ends.
    _lock: File,
}

impl RunFolder {
    /// Makes the folder if it is missing, locks it and clears away what a killed save left.
    ///
    /// # Errors
    /// [`Error::Locked`] where another process, or another `RunFolder`, writes to it; [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(dir.as_ref(), Box::new(Disk))
    }

    fn open_on(dir: &Path, disk: Box<dyn FileSystem>) -> Result<Self> {
        files::create_dirs(&*disk, dir)?;
        let lock = lock(dir)?;
        let checkpoints = dir.join(CHECKPOINTS);
        files::create_dirs(&*disk, &checkpoints)?;
        let failed = |e| Error::io("list", &checkpoints, e);
        for entry in fs::read_dir(&checkpoints).map_err(failed)? {
            let entry = entry.map_err(failed)?;
            if entry.file_name().to_string_lossy().starts_with(TEMPORARY) {
                files::remove_all(&*disk, &entry.path())?;
            }
        }
        Ok(RunFolder { dir: dir.to_path_buf(), disk, _lock: lock })
    }

    /// The folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Saves a checkpoint and returns its folder; then keeps the newest `keep` (at least this one) and removes older.
    ///
    /// `tensor` is asked for one tensor at a time, by part and name, in the order of the files; it may lend what lies
    /// in memory or hand over a copy from elsewhere.
    ///
    /// # Errors
    /// [`Error::Io`] with the file and the bytes it needs; [`Error::Format`] naming a tensor that holds a NaN or an
    /// infinity; [`Error::Invalid`] where a tensor has another length than the model's, or the state cannot be read
    /// back from JSON. Older checkpoints are untouched then.
    pub fn save<'a, S: Serialize + DeserializeOwned>(
        &self,
        snapshot: &Snapshot<'_, S>,
        keep: usize,
        mut tensor: impl FnMut(Part, &'static str) -> Result<Cow<'a, [f32]>>,
    ) -> Result<PathBuf> {
        snapshot.config.check()?;
        check_tokenizer(snapshot.tokenizer)?;
        let about =
            About { format: FORMAT, model: *snapshot.config, tokenizer: snapshot.tokenizer.map(str::to_string) };
        let texts = [(CONFIG, json_text(&about)?), (STATE, json_text(snapshot.state)?)];
        // A state that cannot be read back would be noticed only when the run is to be resumed.
        serde_json::from_slice::<S>(&texts[1].1)
            .map_err(|e| Error::invalid(format!("the trainer's state cannot be read back from JSON: {e}")))?;

        let checkpoints = self.dir.join(CHECKPOINTS);
        let id = next_id(&list(&checkpoints)?, snapshot.step);
        let target = checkpoints.join(id.name());
        let temporary = checkpoints.join(format!("{TEMPORARY}{}", id.name()));
        files::write_dir(&*self.disk, &temporary, &target, |folder| {
            let mut files = BTreeMap::new();
            for (name, parts) in [(MODEL, &[Part::Weights][..]), (OPTIMIZER, &[Part::FirstMoment, Part::SecondMoment])]
            {
                let sums = self.write_tensors(&folder.join(name), snapshot.config, parts, &mut tensor)?;
                files.insert(name.to_string(), sums);
            }
            for (name, text) in &texts {
                files::write_bytes(&*self.disk, &folder.join(name), text)?;
                files.insert(name.to_string(), manifest::sums_of_text(text));
            }
            let manifest = Manifest { step: snapshot.step, files };
            files::write_bytes(&*self.disk, &folder.join(MANIFEST), &manifest.to_bytes()?)
        })?;
        if let Err(error) = self.prune(id, keep) {
            // The checkpoint is safe; that older ones take space is no reason to stop a run.
            tracing::warn!("older checkpoints stay: {error}");
        }
        Ok(target)
    }

    fn write_tensors<'a>(
        &self,
        path: &Path,
        config: &Config,
        parts: &[Part],
        tensor: &mut impl FnMut(Part, &'static str) -> Result<Cow<'a, [f32]>>,
    ) -> Result<FileSums> {
        let slots = Layout::new(config).slots.into_array();
        let all = || parts.iter().flat_map(|&part| slots.iter().map(move |(name, slot)| (part, *name, slot)));
        let plan = Plan::new(&[], all().map(|(part, name, slot)| (file_name(part, name), &slot.shape[..])))?;
        let mut next = all();
        files::write_file(&*self.disk, path, plan.bytes(), |file| {
            plan.write(path, file, |in_file| match next.next() {
                Some((part, name, _)) => {
                    let values = tensor(part, name)?;
                    check_finite(path, in_file, &values)?;
                    Ok(values)
                }
                None => Err(Error::invalid(format!("tensor '{in_file}' is not part of the model"))),
            })
        })
    }

    /// Whether there is a checkpoint, damaged ones included.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn has_checkpoints(&self) -> Result<bool> {
        Ok(!list(&self.dir.join(CHECKPOINTS))?.is_empty())
    }

    /// Removes checkpoints older than the newest `keep` up to `saved`, and those of the same step that it replaces.
    ///
    /// Later steps are left alone: they are there only if they could not be loaded, and someone may want to see why.
    fn prune(&self, saved: Id, keep: usize) -> Result<()> {
        let checkpoints = self.dir.join(CHECKPOINTS);
        let older = list(&checkpoints)?.into_iter().rev().filter(|id| *id < saved);
        let (replaced, older): (Vec<Id>, Vec<Id>) = older.partition(|id| id.step == saved.step);
        for id in replaced.into_iter().chain(older.into_iter().skip(keep.saturating_sub(1))) {
            self.remove(id)?;
        }
        Ok(())
    }

    /// Removes all checkpoints of the run, oldest first, for one that is to start over.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_checkpoints(&self) -> Result<()> {
        let checkpoints = self.dir.join(CHECKPOINTS);
        for id in list(&checkpoints)? {
            self.remove(id)?;
        }
        // Else a power cut could bring one back, to be taken for the newest of the new run.
        self.disk.sync_dir(&checkpoints).map_err(|e| Error::io("sync folder", &checkpoints, e))
    }

    /// Removes a checkpoint.
    fn remove(&self, id: Id) -> Result<()> {
        // Renamed first: a kill while files are being removed must not leave half a checkpoint under its name.
        let path = self.dir.join(CHECKPOINTS).join(id.name());
        let doomed = path.with_file_name(format!("{TEMPORARY}old-{}", id.name()));
        files::remove_all(&*self.disk, &doomed)?;
        self.disk.rename(&path, &doomed).map_err(|e| Error::io("remove", &path, e))?;
        files::remove_all(&*self.disk, &doomed)
    }
}

/// Takes the lock of a run folder.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(".lock");
    let failed = |e| Error::io("lock", &path, e);
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(failed)?;
    // A lock that this process has just given up lasts a moment longer where another thread starts a program: the child has
    // the file until its program begins.
    for _ in 0..20 {
        match file.try_lock() {
            Ok(()) => return Ok(file),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
    }
    Err(Error::Locked { path: dir.to_path_buf() })
}

/// A tensor's name in its file.
fn file_name(part: Part, name: &str) -> String {
    format!("{}{name}", part.prefix())
}

fn json_text(value: &impl Serialize) -> Result<Vec<u8>> {
    let mut text = serde_json::to_vec_pretty(value)
        .map_err(|e| Error::invalid(format!("the checkpoint's state cannot be written as JSON: {e}")))?;
    text.push(b'\n');
    Ok(text)
}

/// A checkpoint in its run: the later of two is the greater.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Id {
    step: u64,
    /// Counts up where a step is saved again, so that the new one need not be renamed over the old.
    revision: u64,
}

impl Id {
    fn name(self) -> String {
        match self.revision {
            0 => format!("step-{:08}", self.step),
            revision => format!("step-{:08}-r{revision}", self.step),
        }
    }

    fn parse(name: &str) -> Option<Self> {
        let rest = name.strip_prefix("step-")?;
        let (step, revision) = rest.split_once("-r").unwrap_or((rest, "0"));
        let id = Id { step: step.parse().ok()?, revision: revision.parse().ok()? };
        (id.name() == name).then_some(id)
    }
}

/// The checkpoints in a folder, oldest first; none where there is no such folder.
fn list(checkpoints: &Path) -> Result<Vec<Id>> {
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

fn next_id(there: &[Id], step: u64) -> Id {
    let last = there.iter().filter(|id| id.step == step).map(|id| id.revision).max();
    Id { step, revision: last.map_or(0, |r| r.saturating_add(1)) }
}
