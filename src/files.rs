//! Writing to disk so that neither a kill nor a power cut leaves half a result under its final name.
//!
//! Checkpoints and exported models go through [`FileSystem`], so that tests can make each single step fail.

use std::fmt::Debug;
use std::fs::{self, File};
use std::io::{self, Write};
use std::path::Path;

use crate::error::{Error, Result};

/// Prefix of folders that are not complete; whoever finds one under a run may delete it.
pub(crate) const TEMPORARY: &str = ".tmp-";

/// The changes to a file system that the library makes.
pub(crate) trait FileSystem: Debug + Send + Sync {
    /// Makes one folder.
    fn create_dir(&self, path: &Path) -> io::Result<()>;
    /// Makes an empty file, or empties the one there is.
    fn create(&self, path: &Path) -> io::Result<Box<dyn OpenFile>>;
    /// Gives a file or folder a new name in one step.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;
    /// Waits until a folder's entries are on the disk.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;
    /// Removes a file.
    fn remove_file(&self, path: &Path) -> io::Result<()>;
    /// Removes an empty folder.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;
}

/// A file being written.
pub(crate) trait OpenFile: Write {
    /// Waits until the file's content is on the disk.
    fn sync(&mut self) -> io::Result<()>;
}

/// The machine's own file system.
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

/// The folder that `path` lies in.
fn parent(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) => Path::new("."),
        None => path,
    }
}

/// Makes a folder and those above it that are missing, each on the disk before the next.
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

/// Writes one file of `bytes` bytes and waits until it is on the disk.
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

/// As [`write_file`], for content that is at hand.
pub(crate) fn write_bytes(disk: &dyn FileSystem, path: &Path, content: &[u8]) -> Result<()> {
    let bytes = content.len() as u64;
    write_file(disk, path, bytes, |file| {
        file.write_all(content).map_err(|e| Error::io(format!("write {bytes} bytes to"), path, e))
    })
}

/// Makes the folder `target` appear complete or not at all: `content` fills `temporary`, which then takes its name.
///
/// Both lie in one folder. `target` must not exist, or be an empty folder.
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
        // Entries before the name: a folder renamed first could come back from a power cut empty.
        disk.sync_dir(temporary).map_err(|e| Error::io("sync folder", temporary, e))?;
        disk.rename(temporary, target).map_err(|e| Error::io("rename to its final name", temporary, e))
    })();
    if let Err(error) = written {
        // Gives the space back on a full disk; if that fails too, the first error is the one to tell.
        let _ = remove_all(disk, temporary);
        return Err(error);
    }
    disk.sync_dir(parent(target)).map_err(|e| Error::io("sync folder", parent(target), e))
}

/// Removes a file or folder with all in it, if it is there; links are removed, not followed.
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
