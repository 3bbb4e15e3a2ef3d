//! Atomic writes: neither a kill nor a power cut leaves a partial result under its final name.
//!
//! Checkpoints and exported models go through [`FileSystem`], so that tests can inject a failure at every single step.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Name prefix of incomplete folders. A process that holds the run's lock may delete any folder with this prefix.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// The file-system operations that the library modifies the disk with.
pub(crate) trait FileSystem: Debug + Send + Sync {
    /// Creates one folder.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Creates an empty file, or truncates an existing one.
    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Renames a file or folder atomically.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Syncs the entries of a folder to the disk (fsync).
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Deletes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Deletes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
}

/// A file that is open for writing.
pub(crate) trait OpenFile: Write {
    /// Syncs the content of the file to the disk (fsync).
    fn sync(&mut self) -> io::Result<()>;
}

/// The real file system.
#[derive(Debug)]
pub(crate) struct Disk;

impl FileSystem for Disk {
    fn create_dir(&self, path: &Path) -> io::Result<()> {
        fs::create_dir(path)
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>> {
        Ok(Box::new(File::create(path)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        fs::rename(from, to)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        File::open(path)?.sync_all()
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        fs::remove_file(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        fs::remove_dir(path)
    }
}

impl OpenFile for File {
    fn sync(&mut self) -> io::Result<()> {
        self.sync_all()
    }
}

/// The folder that contains `path`.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Creates a folder and its missing parents, and syncs each before the next is created.
pub(crate) fn create_dirs(disk: &dyn FileSystem, path: &Path) -> Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    let above = parent(path);
    if above != path && above != Path::new(".") {
        create_dirs(disk, above)?;
    }
    disk.create_dir(path).map_err(|e| Error::io("create folder", path, e))?;
    disk.sync_dir(above).map_err(|e| Error::io("sync folder", above, e))
}

/// Writes one file of `bytes` bytes and syncs it to the disk.
pub(crate) fn write_file<T>(
    disk: &dyn FileSystem,
    path: &Path,
    bytes: u64,
    content: impl FnOnce(&mut dyn Write) -> Result<T>,
) -> Result<T> {
    let failed = |e| Error::io(format!("write {bytes} bytes to"), path, e);
    let mut file = disk.create(path).map_err(failed)?;
    let value = content(&mut *file)?;
    file.flush().map_err(failed)?;
    file.sync().map_err(failed)?;
    Ok(value)
}

/// As [`write_file`], for content that is in memory.
pub(crate) fn write_bytes(disk: &dyn FileSystem, path: &Path, content: &[u8]) -> Result<()> {
    let bytes = content.len() as u64;
    write_file(disk, path, bytes, |file| {
        file.write_all(content).map_err(|e| Error::io(format!("write {bytes} bytes to"), path, e))
    })
}

/// Creates the folder `target` atomically: `content` fills the folder `temporary`, which is then renamed to `target`.
///
/// Both must have the same parent. `target` must not exist, or be an empty folder.
pub(crate) fn write_dir(
    disk: &dyn FileSystem,
    temporary: &Path,
    target: &Path,
    content: impl FnOnce(&Path) -> Result<()>,
) -> Result<()> {
    remove_all(disk, temporary)?;
    let written = (|| {
        disk.create_dir(temporary).map_err(|e| Error::io("create folder", temporary, e))?;
        content(temporary)?;
        // The entries are synced before the rename: a folder renamed first could be empty after a power cut.
        disk.sync_dir(temporary).map_err(|e| Error::io("sync folder", temporary, e))?;
        disk.rename(temporary, target).map_err(|e| Error::io("rename to its final name", temporary, e))
    })();
    if let Err(error) = written {
        // Frees the space on a full disk. If this fails too, the first error is the one to report.
        let _ = remove_all(disk, temporary);
        return Err(error);
    }
    disk.sync_dir(parent(target)).map_err(|e| Error::io("sync folder", parent(target), e))
}

/// Deletes a file, or a folder with its content, if it exists. Links are deleted, not followed.
pub(crate) fn remove_all(disk: &dyn FileSystem, path: &Path) -> Result<()> {
    let failed = |e| Error::io("remove", path, e);
    let kind = match fs::symlink_metadata(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(()),
        found => found.map_err(failed)?,
    };
    if !kind.is_dir() {
        return disk.remove_file(path).map_err(failed);
    }
    for entry in fs::read_dir(path).map_err(failed)? {
        remove_all(disk, &entry.map_err(failed)?.path())?;
    }
    disk.remove_dir(path).map_err(failed)
}
