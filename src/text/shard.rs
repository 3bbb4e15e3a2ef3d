//! Token shards in llm.c's format.
//!
//! Layout, all little-endian: a header of 256 `i32`, of which the first three are the magic 20240520, the version 1 and
//! the number of tokens, and the others zero; then the tokens as `u16`. Source: karpathy/llm.c,
//! `dev/data/data_common.py` and `llmc/dataloader.h`.

use std::fs::{self, File, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use memmap2::Mmap;
use rayon::prelude::*;

use crate::error::{Error, Result};

/// First number of a shard's header.
pub const MAGIC: i32 = 20240520;

/// Second number of a shard's header; version 1 has `u16` tokens.
pub const VERSION: i32 = 1;

/// Size of the header.
pub const HEADER_BYTES: usize = 256 * 4;

/// Largest vocabulary of a shard, whose tokens have 16 bits.
pub const MAX_VOCAB: usize = 1 << 16;

/// Block size for checking the tokens of a shard.
const SCAN_BYTES: usize = 1 << 20;

/// A memory-mapped shard. Opening a large shard uses only page-cache memory.
#[derive(Debug)]
pub struct Shard {
    path: PathBuf,
    map: Mmap,
    len: usize,
}

impl Shard {
    /// Opens a shard and validates it: header, length, and that every token is below `vocab` (V).
    ///
    /// The validation reads the whole file once, unless V = 65536, where every token is valid.
    ///
    /// # Errors
    /// [`Error::Io`] if the file cannot be opened or mapped; [`Error::Format`] with the file, the byte offset and the
    /// numbers if it is not a valid shard for this vocabulary; [`Error::Invalid`] for a vocabulary above 65536.
    pub fn open(path: impl AsRef<Path>, vocab: usize) -> Result<Self> {
        let path = path.as_ref().to_path_buf();
        let file = File::open(&path).map_err(|e| Error::io("open", &path, e))?;
        let size = file.metadata().map_err(|e| Error::io("inspect", &path, e))?.len();
        if size == 0 {
            return Err(Error::format(&path, "not a token shard: the file is empty"));
        }
        // SAFETY: the map is only read, as bytes, for which every value is valid. The user must not truncate or rewrite the
        // file while it is in use, as with llm.c. Our own writer never does: it replaces whole files by renaming.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(|e| Error::io("map", &path, e))?;
        let len = check(&path, &map, vocab)?;
        Ok(Shard { path, map, len })
    }

    /// The number of tokens, never zero.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Iterates over the tokens from `start` to the end of the shard; empty if `start` is beyond the end.
    pub fn tokens_from(&self, start: usize) -> impl Iterator<Item = u16> + '_ {
        // Read byte by byte, so that alignment and byte order of the machine do not matter.
        let at = start.min(self.len).saturating_mul(2);
        self.map[HEADER_BYTES + at..].chunks_exact(2).map(|pair| u16::from_le_bytes([pair[0], pair[1]]))
    }
}

/// Validates the content of a shard and returns its number of tokens.
fn check(path: &Path, bytes: &[u8], vocab: usize) -> Result<usize> {
    check_vocab(vocab)?;
    let fail = |offset: usize, message: String| Err(Error::format_at(path, offset as u64, message));
    let Some((header, tokens)) = bytes.split_at_checked(HEADER_BYTES) else {
        return fail(
            bytes.len(),
            format!("truncated: a shard's header has {HEADER_BYTES} bytes, but the file has {}", bytes.len()),
        );
    };
    let mut numbers = header.chunks_exact(4).map(|b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let mut number = || numbers.next().unwrap_or_default();
    let (magic, version, count) = (number(), number(), number());
    if magic != MAGIC {
        return fail(0, format!("not a token shard: the magic number is {magic}, not {MAGIC}"));
    }
    if version != VERSION {
        return fail(
            4,
            format!("version {version} of the shard format is not supported, only {VERSION} (16-bit tokens)"),
        );
    }
    if count <= 0 {
        return fail(8, format!("invalid number of tokens in the header: {count}"));
    }
    let (expected, found) = (2 * count as u64, tokens.len() as u64);
    if expected != found {
        let end = HEADER_BYTES as u64 + expected.min(found);
        let what = if found < expected { "truncated" } else { "trailing bytes" };
        let message =
            format!("{what}: {count} tokens need {expected} bytes after the header, but the file has {found}");
        return Err(Error::format_at(path, end, message));
    }
    match first_outside(tokens, vocab) {
        Some((index, token)) => {
            fail(HEADER_BYTES + 2 * index, format!("token {token} >= V = {vocab} (token number {index})"))
        }
        None => Ok(count as usize),
    }
}

/// Finds the first token that is not below `vocab`: its index and the token.
fn first_outside(tokens: &[u8], vocab: usize) -> Option<(usize, u16)> {
    // A vocabulary above u16::MAX has no invalid tokens. Otherwise, the maximum of a block is computed first, because that
    // is faster than a search for the first large token.
    let limit = u16::try_from(vocab).ok()?;
    let token = |pair: &[u8]| u16::from_le_bytes([pair[0], pair[1]]);
    let blocks = tokens.par_chunks(SCAN_BYTES).enumerate();
    let bad = blocks.find_first(|(_, block)| block.chunks_exact(2).map(token).max().is_some_and(|max| max >= limit));
    let (block, bytes) = bad?;
    let at = bytes.chunks_exact(2).position(|pair| token(pair) >= limit)?;
    Some((block * SCAN_BYTES / 2 + at, token(&bytes[2 * at..])))
}

fn check_vocab(vocab: usize) -> Result<()> {
    if vocab > MAX_VOCAB {
        return Err(Error::invalid(format!("token shards hold 16-bit tokens: V <= {MAX_VOCAB} failed (V = {vocab})")));
    }
    Ok(())
}

/// Writes a shard atomically: to a temporary file in the same folder, which is synced and then renamed to `path`, replacing
/// an existing file. The folder is synced last.
///
/// # Errors
/// [`Error::Invalid`] if there are no tokens or more than 2^31 - 1, if a token is not below `vocab` (V), or if V > 65536;
/// [`Error::Io`] if an operation of the system fails, in which case an existing file at `path` is unchanged.
pub fn write(path: impl AsRef<Path>, tokens: &[u16], vocab: usize) -> Result<()> {
    let path = path.as_ref();
    check_vocab(vocab)?;
    let count = i32::try_from(tokens.len()).ok().filter(|&count| count > 0).ok_or_else(|| {
        Error::invalid(format!("{}: a shard holds 1 to {} tokens, not {}", path.display(), i32::MAX, tokens.len()))
    })?;
    if let Some((index, token)) = tokens.iter().enumerate().find(|&(_, &token)| usize::from(token) >= vocab) {
        return Err(Error::invalid(format!("{}: token {token} >= V = {vocab} (token number {index})", path.display())));
    }
    let bytes = HEADER_BYTES + 2 * tokens.len();
    write_synced(path, count, tokens).map_err(|e| Error::io(format!("write {bytes} bytes to"), path, e))
}

fn write_synced(path: &Path, count: i32, tokens: &[u16]) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The default permissions of temporary files are for the owner only; these are those of ordinary new files.
    let permissions = Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(".shard-").permissions(permissions).tempfile_in(folder)?;
    let mut header = [0; HEADER_BYTES];
    for (field, number) in header.chunks_exact_mut(4).zip([MAGIC, VERSION, count]) {
        field.copy_from_slice(&number.to_le_bytes());
    }
    file.write_all(&header)?;
    let mut buffer = Vec::with_capacity(SCAN_BYTES);
    for block in tokens.chunks(SCAN_BYTES / 2) {
        buffer.clear();
        buffer.extend(block.iter().flat_map(|token| token.to_le_bytes()));
        file.write_all(&buffer)?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The new name survives a power cut only if the folder is synced.
    fs::File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    use std::io::{Seek, SeekFrom};

    use rand::{Rng, RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn shard_bytes(tokens: &[u16]) -> Vec<u8> {
        let mut bytes: Vec<u8> = [MAGIC, VERSION, tokens.len() as i32].iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.resize(HEADER_BYTES, 0);
        bytes.extend(tokens.iter().flat_map(|t| t.to_le_bytes()));
        bytes
    }

    fn message(bytes: &[u8], vocab: usize) -> String {
        check(Path::new("a.bin"), bytes, vocab).unwrap_err().to_string()
    }

    #[test]
    fn written_shards_round_trip_and_have_the_bytes_of_llmc() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a_000000.bin");
        let tokens: Vec<u16> = (0..2_000_000_u32).map(|i| (i * 31 % 50257) as u16).collect();
        write(&path, &[1, 2, 3], 50257).unwrap();
        write(&path, &tokens, 50257).unwrap();
        assert!(fs::read(&path).unwrap() == shard_bytes(&tokens));
        let shard = Shard::open(&path, 50257).unwrap();
        assert_eq!((shard.len(), shard.path()), (tokens.len(), &*path));
        assert!(shard.tokens_from(0).eq(tokens.iter().copied()));
        assert!(shard.tokens_from(1_999_990).eq(tokens[1_999_990..].iter().copied()));
        assert_eq!(shard.tokens_from(usize::MAX).next(), None);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
    }

    #[test]
    fn every_error_names_the_offset() {
        let good = shard_bytes(&[1, 2, 3, 4]);
        assert_eq!(check(Path::new("a.bin"), &good, 5).unwrap(), 4);
        let with = |at: usize, number: i32| {
            let mut bytes = good.clone();
            bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
            bytes
        };
        for (bytes, expected) in [
            (
                good[..100].to_vec(),
                "a.bin at byte 100: truncated: a shard's header has 1024 bytes, but the file has 100",
            ),
            (with(0, 1), "a.bin at byte 0: not a token shard: the magic number is 1, not 20240520"),
            (with(4, 7), "a.bin at byte 4: version 7 of the shard format is not supported, only 1 (16-bit tokens)"),
            (with(8, -4), "a.bin at byte 8: invalid number of tokens in the header: -4"),
            (with(8, 0), "a.bin at byte 8: invalid number of tokens in the header: 0"),
            (with(8, 5), "a.bin at byte 1032: truncated: 5 tokens need 10 bytes after the header, but the file has 8"),
            (
                with(8, 3),
                "a.bin at byte 1030: trailing bytes: 3 tokens need 6 bytes after the header, but the file has 8",
            ),
            (
                good[..1031].to_vec(),
                "a.bin at byte 1031: truncated: 4 tokens need 8 bytes after the header, but the file has 7",
            ),
        ] {
            assert_eq!(message(&bytes, 5), expected);
        }
        assert_eq!(message(&good, 4), "a.bin at byte 1030: token 4 >= V = 4 (token number 3)");
        assert_eq!(message(&good, 70000), "token shards hold 16-bit tokens: V <= 65536 failed (V = 70000)");
        // The first invalid token is reported, wherever the blocks of the scan end.
        let mut tokens = vec![7; 3 * SCAN_BYTES];
        for at in [SCAN_BYTES + 5, SCAN_BYTES / 2, SCAN_BYTES / 2 - 1] {
            tokens[at] = 300;
            let expected = format!("a.bin at byte {}: token 300 >= V = 257 (token number {at})", 1024 + 2 * at);
            assert_eq!(message(&shard_bytes(&tokens), 257), expected);
        }
    }

    #[test]
    fn files_that_are_not_shards_are_rejected() {
        let folder = tempfile::tempdir().unwrap();
        let missing = Shard::open(folder.path().join("none.bin"), 257).unwrap_err().to_string();
        assert!(missing.contains("cannot open") && missing.contains("none.bin"), "{missing}");
        let empty = folder.path().join("empty.bin");
        fs::write(&empty, []).unwrap();
        assert!(Shard::open(&empty, 257).unwrap_err().to_string().ends_with("not a token shard: the file is empty"));
        assert!(matches!(Shard::open(folder.path(), 257), Err(Error::Io { .. })));
    }

    #[test]
    fn the_writer_rejects_what_the_reader_would_and_keeps_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.bin");
        write(&path, &[5], 257).unwrap();
        for (tokens, vocab, expected) in [
            (&[][..], 257, "a shard holds 1 to 2147483647 tokens, not 0"),
            (&[1, 257], 257, "token 257 >= V = 257 (token number 1)"),
            (&[1], 100_000, "V <= 65536 failed (V = 100000)"),
        ] {
            let error = write(&path, tokens, vocab).unwrap_err().to_string();
            assert!(error.ends_with(expected), "{error}");
        }
        let error = write(folder.path().join("no/such/a.bin"), &[1], 257).unwrap_err().to_string();
        assert!(error.starts_with("cannot write 1026 bytes to"), "{error}");
        assert_eq!(Shard::open(&path, 257).unwrap().tokens_from(0).collect::<Vec<_>>(), [5]);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }

    #[test]
    fn shards_over_two_gibibytes_work() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sparse.bin");
        let tokens = (1_u64 << 30) + 1000;
        let mut file = File::create(&path).unwrap();
        file.write_all(&shard_bytes(&[])).unwrap();
        file.seek(SeekFrom::Start(8)).unwrap();
        file.write_all(&(tokens as i32).to_le_bytes()).unwrap();
        file.seek(SeekFrom::Start(HEADER_BYTES as u64 + 2 * tokens - 4)).unwrap();
        file.write_all(&[7, 0, 8, 0]).unwrap();
        // The largest vocabulary skips the scan, which would fill the page cache with the holes of the file.
        let shard = Shard::open(&path, MAX_VOCAB).unwrap();
        assert_eq!(shard.len() as u64, tokens);
        assert!(fs::metadata(&path).unwrap().len() > 2 << 30);
        assert_eq!(shard.tokens_from(shard.len() - 3).collect::<Vec<_>>(), [0, 7, 8]);
    }

    /// Mutated shards: the reader accepts exactly what a naive reader accepts.
    #[test]
    fn mutated_shards_never_panic() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut accepted = 0;
        for case in 0..100_000 {
            let tokens: Vec<u16> = (0..rng.random_range(0..12)).map(|_| rng.random_range(0..260)).collect();
            let mut bytes = shard_bytes(&tokens);
            match case % 4 {
                0 => bytes.truncate(rng.random_range(0..=bytes.len())),
                1 => bytes.extend((0..rng.random_range(0..4)).map(|_| 0_u8)),
                2 => {
                    let at = rng.random_range(0..12);
                    bytes[at] = rng.random();
                }
                _ => {
                    let at = rng.random_range(0..bytes.len());
                    rng.fill_bytes(&mut bytes[at..]);
                }
            }
            let vocab = [257, 50257, 65536][case % 3];
            let word = |at: usize| bytes.get(4 * at..4 * at + 4).map(|b| i32::from_le_bytes(b.try_into().unwrap()));
            let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
            let naive = word(0) == Some(MAGIC)
                && word(1) == Some(VERSION)
                && word(2).is_some_and(|n| n > 0 && 2 * n as usize == body.len())
                && body.chunks(2).all(|b| usize::from(u16::from_le_bytes([b[0], b[1]])) < vocab);
            assert_eq!(check(Path::new("a.bin"), &bytes, vocab).is_ok(), naive, "case {case}");
            accepted += usize::from(naive);
        }
        assert!(accepted > 1000, "only {accepted} accepted: too many mutants are invalid");
    }
}
