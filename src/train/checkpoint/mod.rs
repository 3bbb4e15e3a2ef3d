//! Checkpoints of a run: written atomically, and verified by checksums down to the last bit when read.
//!
//! A run folder has one folder per checkpoint, e.g. `checkpoints/step-00000100/`, which contains
//!
//! | file | content |
//! |---|---|
//! | `model.safetensors` | the weights in f32, with the names of [`Gpt::NAMES`](crate::model::params::Gpt::NAMES) and our shapes |
//! | `optimizer.safetensors` | AdamW's moments, `m.<name>` and `v.<name>` |
//! | `config.json` | format version, sizes of the model, tokenizer |
//! | `tokenizer.json`, `tokenizer_config.json` | the tokenizer, unless `config.json` names `gpt2` or `bytes` |
//! | `state.json` | what resuming needs: settings, position in the data, number of updates, recent losses, … |
//! | `MANIFEST` | lengths and CRC-32 of every header and tensor, and a CRC-32 of the manifest itself |
//!
//! A checkpoint is written under a temporary name. Every file and then the folder is synced before the folder is renamed to
//! its final name, and older checkpoints are deleted after that. A kill or a power cut at any moment therefore leaves the
//! newest complete checkpoint.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fs::{self, File, TryLockError};
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::error::{Error, Result};
use crate::files::{self, Disk, FileSystem, TEMPORARY};
use crate::model::config::Config;
use crate::model::params::Layout;
use crate::model::safetensors::{FileChecksums, Plan, check_finite};
use crate::text::tokenizer::Tokenizer;

#[cfg(test)]
mod faults;
mod layout;
mod load;
mod manifest;
#[cfg(test)]
mod tests;

use layout::{CHECKPOINTS, CONFIG, Id, MANIFEST, MODEL, OPTIMIZER, STATE, json_text, list};
pub use layout::{FORMAT, TensorGroup};
pub use load::{Loaded, load_model_folder, load_newest};
use manifest::{Manifest, Metadata};

/// The content of a checkpoint, except for its tensors.
#[derive(Debug)]
pub struct Snapshot<'a, S> {
    /// Number of steps done.
    pub step: u64,
    /// Sizes of the model.
    pub config: &'a Config,
    /// The tokenizer of the training data.
    pub tokenizer: Option<&'a Tokenizer>,
    /// The state that resuming needs. Its numbers must be finite because JSON cannot represent others.
    pub state: &'a S,
}

/// A locked run folder: no other process writes to it during the lifetime of this value.
#[derive(Debug)]
pub struct RunFolder {
    dir: PathBuf,
    disk: Box<dyn FileSystem>,
    new: New,
    /// Holds the lock, which the operating system releases however the process ends.
    _lock: File,
}

impl RunFolder {
    /// Creates the folder if it is missing, locks it, and deletes incomplete checkpoints of killed processes.
    ///
    /// # Errors
    /// [`Error::Locked`] if another process, or another `RunFolder`, holds the lock; [`Error::Io`].
    pub fn open(dir: impl AsRef<Path>) -> Result<Self> {
        Self::open_on(dir.as_ref(), Box::new(Disk))
    }

    fn open_on(dir: &Path, disk: Box<dyn FileSystem>) -> Result<Self> {
        let is_missing = |folder: &&Path| !folder.as_os_str().is_empty() && !folder.exists();
        let created = dir.ancestors().take_while(is_missing).map(Path::to_path_buf).collect();
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
        Ok(RunFolder { dir: dir.to_path_buf(), disk, new: New { dir: dir.to_path_buf(), created }, _lock: lock })
    }

    /// What dropping this value does for a run that could not start, for a process that ends without dropping it: if
    /// opening created the folder and nothing was written to it since, it is deleted.
    pub fn clean_up(&self) -> impl FnOnce() + Send + use<> {
        let new = self.new.clone();
        move || new.remove_if_unused(&Disk)
    }

    /// Path of the folder.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Saves a checkpoint and returns its folder. Then deletes older checkpoints except for the newest `keep`, which
    /// include this one.
    ///
    /// `tensor` is called for one tensor at a time, with its group and the name of its parameter, in the order of the
    /// files. It may return borrowed values or a copy.
    ///
    /// # Errors
    /// [`Error::Io`] with the file and its size; [`Error::Format`] naming a tensor that holds a NaN or an infinity;
    /// [`Error::Invalid`] if a tensor's length does not fit the model, or if the state cannot be read back from JSON. After
    /// an error, older checkpoints are unchanged.
    pub fn save<'a, S: Serialize + DeserializeOwned>(
        &self,
        snapshot: &Snapshot<'_, S>,
        keep: usize,
        mut tensor: impl FnMut(TensorGroup, &'static str) -> Result<Cow<'a, [f32]>>,
    ) -> Result<PathBuf> {
        snapshot.config.check()?;
        let tokenizer = snapshot.tokenizer.map(|tokenizer| tokenizer.name().to_string());
        let metadata = Metadata { format: FORMAT, model: *snapshot.config, tokenizer };
        let mut texts = vec![(CONFIG, json_text(&metadata)?), (STATE, json_text(snapshot.state)?)];
        texts.extend(snapshot.tokenizer.map(Tokenizer::files).unwrap_or_default());
        // Without this check, an unreadable state would be noticed only when the run is resumed.
        serde_json::from_slice::<S>(&texts[1].1)
            .map_err(|e| Error::invalid(format!("the trainer's state cannot be read back from JSON: {e}")))?;

        let checkpoints = self.dir.join(CHECKPOINTS);
        let id = Id::next(&list(&checkpoints)?, snapshot.step);
        let target = checkpoints.join(id.name());
        let temporary = checkpoints.join(format!("{TEMPORARY}{}", id.name()));
        files::write_dir(&*self.disk, &temporary, &target, |folder| {
            let mut files = BTreeMap::new();
            let moments = [TensorGroup::FirstMoment, TensorGroup::SecondMoment];
            for (name, groups) in [(MODEL, &[TensorGroup::Weights][..]), (OPTIMIZER, &moments)] {
                let checksums = self.write_tensors(&folder.join(name), snapshot.config, groups, &mut tensor)?;
                files.insert(name.to_string(), checksums);
            }
            for (name, text) in &texts {
                files::write_bytes(&*self.disk, &folder.join(name), text)?;
                files.insert(name.to_string(), manifest::text_checksums(text));
            }
            let manifest = Manifest { step: snapshot.step, files };
            files::write_bytes(&*self.disk, &folder.join(MANIFEST), &manifest.to_bytes()?)
        })?;
        if let Err(error) = self.prune(id, keep) {
            // The checkpoint is complete; a failure to free disk space must not end the run.
            tracing::warn!("cannot delete older checkpoints: {error}");
        }
        Ok(target)
    }

    fn write_tensors<'a>(
        &self,
        path: &Path,
        config: &Config,
        groups: &[TensorGroup],
        tensor: &mut impl FnMut(TensorGroup, &'static str) -> Result<Cow<'a, [f32]>>,
    ) -> Result<FileChecksums> {
        let slots = Layout::new(config).slots.into_array();
        let all = || groups.iter().flat_map(|&group| slots.iter().map(move |(name, slot)| (group, *name, slot)));
        let plan = Plan::new(&[], all().map(|(group, name, slot)| (group.tensor_name(name), &slot.shape[..])))?;
        let mut next = all();
        files::write_file(&*self.disk, path, plan.bytes(), |file| {
            plan.write(path, file, |in_file| match next.next() {
                Some((group, name, _)) => {
                    let values = tensor(group, name)?;
                    check_finite(path, in_file, &values)?;
                    Ok(values)
                }
                None => Err(Error::invalid(format!("tensor '{in_file}' is not part of the model"))),
            })
        })
    }

    /// Whether the folder has a checkpoint, which may be damaged.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn has_checkpoints(&self) -> Result<bool> {
        Ok(!list(&self.dir.join(CHECKPOINTS))?.is_empty())
    }

    /// Deletes all checkpoints before `saved` except for the newest `keep - 1`, and those of the same step, which `saved`
    /// replaces.
    ///
    /// Checkpoints of later steps are kept: they exist only if they could not be loaded, and a user may want to inspect
    /// them.
    fn prune(&self, saved: Id, keep: usize) -> Result<()> {
        let checkpoints = self.dir.join(CHECKPOINTS);
        let older = list(&checkpoints)?.into_iter().rev().filter(|id| *id < saved);
        let (replaced, older): (Vec<Id>, Vec<Id>) = older.partition(|id| id.step == saved.step);
        for id in replaced.into_iter().chain(older.into_iter().skip(keep.saturating_sub(1))) {
            self.remove(id)?;
        }
        Ok(())
    }

    /// Deletes all checkpoints of the run, oldest first, so that it can start over.
    ///
    /// # Errors
    /// [`Error::Io`].
    pub fn remove_checkpoints(&self) -> Result<()> {
        let checkpoints = self.dir.join(CHECKPOINTS);
        for id in list(&checkpoints)? {
            self.remove(id)?;
        }
        // Without this sync, a power cut could restore an old checkpoint, which would pass for the newest of the new run.
        self.disk.sync_dir(&checkpoints).map_err(|e| Error::io("sync folder", &checkpoints, e))
    }

    /// Deletes a checkpoint.
    fn remove(&self, id: Id) -> Result<()> {
        // Renamed first, so that a kill during the deletion does not leave a partial checkpoint under its final name.
        let path = self.dir.join(CHECKPOINTS).join(id.name());
        let renamed = path.with_file_name(format!("{TEMPORARY}old-{}", id.name()));
        files::remove_all(&*self.disk, &renamed)?;
        self.disk.rename(&path, &renamed).map_err(|e| Error::io("remove", &path, e))?;
        files::remove_all(&*self.disk, &renamed)
    }
}

/// If opening created the folder and nothing was written to it since, the run could not start, and the folder is deleted.
impl Drop for RunFolder {
    fn drop(&mut self) {
        self.new.remove_if_unused(&*self.disk);
    }
}

/// What [`RunFolder::open`] created.
#[derive(Debug, Clone)]
struct New {
    dir: PathBuf,
    /// The folders, the run folder first, then its parents; none if the run folder existed.
    created: Vec<PathBuf>,
}

impl New {
    /// Whether the run folder has only what [`RunFolder::open`] creates.
    fn is_unused(&self) -> io::Result<bool> {
        let names: io::Result<Vec<_>> = fs::read_dir(&self.dir)?.map(|entry| Ok(entry?.file_name())).collect();
        let is_unused = names?.iter().all(|name| [LOCK, CHECKPOINTS].iter().any(|own| name == own));
        Ok(is_unused && fs::read_dir(self.dir.join(CHECKPOINTS))?.next().is_none())
    }

    fn remove_if_unused(&self, disk: &dyn FileSystem) {
        if self.created.is_empty() || !self.is_unused().unwrap_or(false) {
            return;
        }
        // A failure leaves an empty folder, in which a run can start. No folder that has a file is deleted.
        let removed = disk.remove_dir(&self.dir.join(CHECKPOINTS));
        if removed.and_then(|()| disk.remove_file(&self.dir.join(LOCK))).is_ok() {
            let _ = self.created.iter().try_for_each(|folder| disk.remove_dir(folder));
        }
    }
}

/// Name of the file whose lock is the lock of the run folder.
const LOCK: &str = ".lock";

/// Locks a run folder.
fn lock(dir: &Path) -> Result<File> {
    let path = dir.join(LOCK);
    let failed = |e| Error::io("lock", &path, e);
    let file = files::append_regular(&path, "lock")?;
    let identity = |metadata: fs::Metadata| (metadata.dev(), metadata.ino());
    // Retries, because a lock that this process has just released may persist for a moment: if another thread is starting
    // a child process, the child has inherited the file until it executes its program.
    for _ in 0..20 {
        match file.try_lock() {
            // Its last owner may have deleted the file, with the folder of a run that could not start.
            Ok(()) if fs::metadata(&path).ok().map(identity) == file.metadata().ok().map(identity) => return Ok(file),
            Ok(()) => return Err(failed(ErrorKind::NotFound.into())),
            Err(TryLockError::WouldBlock) => std::thread::sleep(Duration::from_millis(10)),
            Err(TryLockError::Error(e)) => return Err(failed(e)),
        }
    }
    Err(Error::Locked { path: dir.to_path_buf() })
}
