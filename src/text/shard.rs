//! Token shards in llm.c's formats: the writer, and the header for [`super::token_file`], which reads them.
//!
//! Layout, all little-endian: a header of 256 `i32`, then the tokens.
//!
//! | number of the header | 16-bit tokens (llm.c's GPT-2) | 32-bit tokens (llm.c's Llama 3) |
//! |---|---|---|
//! | 0: magic | 20240520 | 20240801 |
//! | 1: version | 1 | 7 |
//! | 2: number of tokens | 1 to 2^31 - 1 | 1 to 2^31 - 1 |
//! | 3: V, the size of the vocabulary | 0: unknown | 0: unknown |
//! | others | 0 | 0 |
//!
//! The size of the vocabulary is our addition. llm.c and other readers use only the first three numbers, and llm.c writes 0.
//!
//! Source: karpathy/llm.c, `dev/data/data_common.py` and `llmc/dataloader.h`.

use std::fs::{self, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::error::{Error, Result};
use crate::message::escaped_path;
use crate::model::config::MAX_VOCAB;

/// First number of the header of a shard with 16-bit tokens.
pub const MAGIC: i32 = 20240520;

/// Second number of the header of a shard with 16-bit tokens.
pub const VERSION: i32 = 1;

/// First number of the header of a shard with 32-bit tokens.
pub const WIDE_MAGIC: i32 = 20240801;

/// Second number of the header of a shard with 32-bit tokens.
pub const WIDE_VERSION: i32 = 7;

/// Size of the header.
pub const HEADER_BYTES: usize = 256 * 4;

/// Largest vocabulary of 16-bit tokens.
pub const MAX_VOCAB_16_BITS: usize = 1 << 16;

/// Offset of the vocabulary's size in the header.
pub(super) const VOCAB_OFFSET: u64 = 12;

/// Size of the writer's buffer.
const BUFFER_BYTES: usize = 1 << 20;

/// The header of a shard whose length is right.
pub(super) struct Header {
    /// Whether the tokens have 32 bits instead of 16.
    pub wide: bool,
    /// Number of tokens.
    pub len: usize,
    /// Size of the vocabulary, if the shard says it.
    pub vocab: Option<usize>,
}

/// Reads and checks the header of a shard. None if the file has no magic number of a shard.
pub(super) fn header(path: &Path, bytes: &[u8]) -> Result<Option<Header>> {
    let fail = |offset: u64, message: String| Err(Error::format_at(path, offset, message));
    let number =
        |index: usize| bytes.get(4 * index..4 * index + 4).map_or(0, |b| i32::from_le_bytes([b[0], b[1], b[2], b[3]]));
    let (magic, version, count, vocab) = (number(0), number(1), number(2), number(3));
    let wide = match magic {
        MAGIC => false,
        WIDE_MAGIC => true,
        _ => return Ok(None),
    };
    let Some(found) = bytes.len().checked_sub(HEADER_BYTES) else {
        let message = format!("truncated: a shard's header has {HEADER_BYTES} bytes, but the file has {}", bytes.len());
        return fail(bytes.len() as u64, message);
    };
    let (supported, bits) = if wide { (WIDE_VERSION, 32) } else { (VERSION, 16) };
    if version != supported {
        let message = format!("version {version} of the shard format {magic} is not supported, only {supported}");
        return fail(4, format!("{message} ({bits}-bit tokens)"));
    }
    if count <= 0 {
        return fail(8, format!("invalid number of tokens in the header: {count}"));
    }
    let Ok(vocab) = usize::try_from(vocab) else {
        return fail(VOCAB_OFFSET, format!("invalid size of the vocabulary in the header: {vocab}"));
    };
    let (expected, found) = (bits / 8 * count as u64, found as u64);
    if expected != found {
        let end = HEADER_BYTES as u64 + expected.min(found);
        let what = if found < expected { "truncated" } else { "trailing bytes" };
        let message =
            format!("{what}: {count} tokens need {expected} bytes after the header, but the file has {found}");
        return fail(end, message);
    }
    Ok(Some(Header { wide, len: count as usize, vocab: (vocab > 0).then_some(vocab) }))
}

/// Writes a shard atomically: to a temporary file in the same folder, which is synced and then renamed to `path`, replacing
/// an existing file. The folder is synced last.
///
/// The tokens have 16 bits in the file if `vocab` (V) <= 65536, otherwise 32.
///
/// # Errors
/// [`Error::Invalid`] if there are no tokens or more than 2^31 - 1, if a token is not below `vocab`, or if V > 2^24;
/// [`Error::Io`] if an operation of the system fails, in which case an existing file at `path` is unchanged.
pub fn write<T: Copy + Into<u32>>(path: impl AsRef<Path>, tokens: &[T], vocab: usize) -> Result<()> {
    let path = path.as_ref();
    if vocab > MAX_VOCAB {
        return Err(Error::invalid(format!("a token shard's V <= {MAX_VOCAB} failed (V = {vocab})")));
    }
    let count = i32::try_from(tokens.len()).ok().filter(|&count| count > 0).ok_or_else(|| {
        Error::invalid(format!("{}: a shard holds 1 to {} tokens, not {}", escaped_path(path), i32::MAX, tokens.len()))
    })?;
    let ids = tokens.iter().map(|&token| token.into());
    if let Some((index, token)) = ids.enumerate().find(|&(_, token)| token as usize >= vocab) {
        let path = escaped_path(path);
        return Err(Error::invalid(format!("{path}: token {token} >= V = {vocab} (token number {index})")));
    }
    let wide = vocab > MAX_VOCAB_16_BITS;
    let (magic, version) = if wide { (WIDE_MAGIC, WIDE_VERSION) } else { (MAGIC, VERSION) };
    let bytes = HEADER_BYTES + if wide { 4 } else { 2 } * tokens.len();
    let written = match wide {
        // Every token is below V, which 16 bits hold.
        false => write_synced(path, [magic, version, count, vocab as i32], tokens, |id| (id as u16).to_le_bytes()),
        true => write_synced(path, [magic, version, count, vocab as i32], tokens, u32::to_le_bytes),
    };
    written.map_err(|e| Error::io(format!("write {bytes} bytes to"), path, e))
}

fn write_synced<T: Copy + Into<u32>, const N: usize>(
    path: &Path,
    numbers: [i32; 4],
    tokens: &[T],
    to_bytes: impl Fn(u32) -> [u8; N],
) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // The default permissions of temporary files are for the owner only; these are those of ordinary new files.
    let permissions = Permissions::from_mode(0o666);
    let mut file = tempfile::Builder::new().prefix(".shard-").permissions(permissions).tempfile_in(folder)?;
    let mut header = [0; HEADER_BYTES];
    for (field, number) in header.chunks_exact_mut(4).zip(numbers) {
        field.copy_from_slice(&number.to_le_bytes());
    }
    file.write_all(&header)?;
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    for block in tokens.chunks(BUFFER_BYTES / N) {
        buffer.clear();
        buffer.extend(block.iter().flat_map(|&token| to_bytes(token.into())));
        file.write_all(&buffer)?;
    }
    file.as_file().sync_all()?;
    file.persist(path)?;
    // The new name survives a power cut only if the folder is synced.
    fs::File::open(folder)?.sync_all()
}
