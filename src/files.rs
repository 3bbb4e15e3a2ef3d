//! Files: reads that neither block nor exceed a limit, and atomic writes.
//!
//! A path may lead to anything: opening a named pipe blocks until a writer opens it, and a device may deliver bytes
//! without end. Every reader of the library therefore opens its files with [`open_regular`].
//!
//! Neither a kill nor a power cut leaves a partial result under its final name. Checkpoints and exported models are
//! written through `FileSystem`, so that tests can inject a failure at every single step.
//!
//! ```
//! let error = ironwarp::files::read_regular("/dev/zero", 100).unwrap_err();
//! assert_eq!(error.to_string(), "/dev/zero: a character device, not a regular file");
//! ```

use std::fmt::Debug;
use std::fs::{self, File, FileType, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use memmap2::Mmap;

use crate::error::{Error, Result};

/// Opens a regular file for reading, at once whatever the path leads to. Links are followed.
///
/// # Errors
/// [`Error::Io`]; [`Error::Format`] that names the kind of a file that is not regular: a folder, a named pipe, a socket or
/// a device.
pub fn open_regular(path: impl AsRef<Path>) -> Result<File> {
    let path = path.as_ref();
    let failed = |e| Error::io("read", path, e);
    // Checked before opening, because opening a device can act on it, and again after, because the path may have changed.
    check_regular(path, fs::metadata(path).map_err(failed)?.file_type())?;
    // Without the flag, opening a named pipe would block until a writer opens it. For a regular file it has no effect.
    let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(path).map_err(failed)?;
    check_regular(path, file.metadata().map_err(failed)?.file_type())?;
    Ok(file)
}

/// Opens a regular file for appending, and creates it if it does not exist; at once, as [`open_regular`]. `action` is the
/// purpose, for errors.
#[cfg(feature = "train")]
pub(crate) fn append_regular(path: &Path, action: &str) -> Result<File> {
    let failed = |e| Error::io(action, path, e);
    // Opening a named pipe for writing fails with this flag if nothing reads it, and would otherwise block.
    let opened = OpenOptions::new().append(true).create(true).custom_flags(libc::O_NONBLOCK).open(path);
    let found = opened.as_ref().map_or_else(|_| fs::metadata(path), File::metadata);
    if let Ok(metadata) = found {
        check_regular(path, metadata.file_type())?;
    }
    opened.map_err(failed)
}

fn check_regular(path: &Path, kind: FileType) -> Result<()> {
    let found = match kind {
        kind if kind.is_file() => return Ok(()),
        kind if kind.is_dir() => "a folder",
        kind if kind.is_fifo() => "a named pipe (FIFO)",
        kind if kind.is_socket() => "a socket",
        kind if kind.is_block_device() => "a block device",
        kind if kind.is_char_device() => "a character device",
        _ => "a special file",
    };
    Err(Error::format(path, format!("{found}, not a regular file")))
}

/// Reads a regular file of at most `max_bytes` bytes. A longer one is refused before it is read.
///
/// # Errors
/// As [`open_regular`]; [`Error::Format`] with the size and the limit if the file is longer; [`Error::Io`] if its content
/// does not fit the memory.
pub fn read_regular(path: impl AsRef<Path>, max_bytes: u64) -> Result<Vec<u8>> {
    let path = path.as_ref();
    let failed = |e| Error::io("read", path, e);
    let too_long = |bytes: u64| Error::format(path, format!("{bytes} bytes are above the limit of {max_bytes} bytes"));
    let file = open_regular(path)?;
    let size = file.metadata().map_err(failed)?.len();
    if size > max_bytes {
        return Err(too_long(size));
    }
    let mut bytes = Vec::new();
    let room = usize::try_from(size).unwrap_or(usize::MAX);
    bytes.try_reserve_exact(room).map_err(|_| failed(io::ErrorKind::OutOfMemory.into()))?;
    // The file may grow, and files of the kernel say that they are empty.
    file.take(max_bytes.saturating_add(1)).read_to_end(&mut bytes).map_err(failed)?;
    match bytes.len() as u64 {
        length if length > max_bytes => Err(too_long(length)),
        _ => Ok(bytes),
    }
}

/// As [`read_regular`], for a text.
///
/// # Errors
/// As [`read_regular`]; [`Error::Format`] with the offset of the first byte that is not UTF-8.
pub fn read_regular_text(path: impl AsRef<Path>, max_bytes: u64) -> Result<String> {
    let path = path.as_ref();
    String::from_utf8(read_regular(path, max_bytes)?)
        .map_err(|e| Error::format_at(path, e.utf8_error().valid_up_to() as u64, "not UTF-8 text"))
}

/// Memory-maps a regular file.
///
/// # Errors
/// As [`open_regular`].
pub(crate) fn map_regular(path: &Path) -> Result<Mmap> {
    let file = open_regular(path)?;
    // SAFETY: the map is only read, as bytes, for which every value is valid. Our tools and Hugging Face's replace files by
    // renaming and never modify them in place; that users do not either is documented where they name the file. If a file
    // is truncated while it is mapped, the process receives SIGBUS, as in every reader that maps its files.
    #[allow(unsafe_code)]
    let map = unsafe { Mmap::map(&file) };
    map.map_err(|e| Error::io("map", path, e))
}

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

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::process::Command;
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    #[test]
    fn only_regular_files_are_read_and_nothing_blocks() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        assert!(Command::new("mkfifo").arg(at("pipe")).status().unwrap().success());
        let _socket = UnixListener::bind(at("socket")).unwrap();
        fs::write(at("file"), "text").unwrap();
        std::os::unix::fs::symlink(at("pipe"), at("link")).unwrap();
        std::os::unix::fs::symlink(at("file"), at("good")).unwrap();
        for (path, kind) in [
            (at("pipe"), "a named pipe (FIFO)"),
            (at("link"), "a named pipe (FIFO)"),
            (at("socket"), "a socket"),
            (dir.path().to_path_buf(), "a folder"),
            ("/dev/zero".into(), "a character device"),
        ] {
            // In a thread, so that a read that blocks fails the test.
            let (sender, receiver) = mpsc::channel();
            let wanted = format!("{}: {kind}, not a regular file", path.display());
            std::thread::spawn(move || {
                let errors = [
                    open_regular(&path).map(drop),
                    read_regular(&path, 9).map(drop),
                    read_regular_text(&path, 9).map(drop),
                    map_regular(&path).map(drop),
                ];
                sender.send(errors.map(|result| result.unwrap_err().to_string()))
            });
            let errors = receiver.recv_timeout(Duration::from_secs(20)).unwrap_or_else(|e| panic!("{kind}: {e}"));
            assert_eq!(errors, [&wanted[..]; 4]);
        }
        assert_eq!(read_regular(at("good"), 4).unwrap(), b"text");
        assert_eq!(&map_regular(&at("good")).unwrap()[..], b"text");
        assert!(matches!(open_regular(at("none")), Err(Error::Io { .. })));
    }

    #[test]
    fn a_named_pipe_that_replaces_a_file_does_not_block() {
        let dir = tempfile::tempdir().unwrap();
        let pipe = dir.path().join("pipe");
        assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
        // What `open_regular` does if the pipe comes between its first check and the opening.
        let file = OpenOptions::new().read(true).custom_flags(libc::O_NONBLOCK).open(&pipe).unwrap();
        assert!(check_regular(&pipe, file.metadata().unwrap().file_type()).is_err());
    }

    #[test]
    fn long_files_are_refused_with_the_limit() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f.json");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read_regular(&path, 5).unwrap(), b"12345");
        let error = read_regular(&path, 4).unwrap_err().to_string();
        assert!(error.ends_with("f.json: 5 bytes are above the limit of 4 bytes"), "{error}");
        // A sparse file of 1 TiB, whose content would not fit the memory.
        File::create(&path).unwrap().set_len(1 << 40).unwrap();
        assert!(read_regular(&path, 1 << 20).unwrap_err().to_string().contains("1099511627776 bytes are above"));
        // The kernel says that this file is empty.
        assert!(read_regular("/proc/self/status", 10).unwrap_err().to_string().contains("11 bytes are above"));
    }

    #[test]
    fn text_that_is_not_utf_8_is_refused_with_the_offset() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.ptx");
        fs::write(&path, b"ab\xffc").unwrap();
        let error = read_regular_text(&path, 9).unwrap_err().to_string();
        assert!(error.ends_with("a.ptx at byte 2: not UTF-8 text"), "{error}");
    }
}
