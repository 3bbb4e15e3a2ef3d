//! What a file is that is neither text nor tokens, by the bytes that it begins with.

/// Signatures of formats, with what to do about them.
const FORMATS: &[(&[u8], &str)] = &[
    (b"version https://git-lfs", "a Git LFS pointer, not the data itself; `git lfs pull` downloads the data"),
    (b"PAR1", "a Parquet table; its name must end in .parquet"),
    (b"ARROW1", "an Arrow table, which is not supported; Parquet is"),
    (b"\x93NUMPY", "a NumPy array; its name must end in .npy"),
    (b"PK\x03\x04", "a ZIP archive, such as PyTorch's models and NumPy's .npz; `unzip` unpacks it"),
    (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19", "a model of an old PyTorch"),
    (b"\x80\x02}", "a Python pickle"),
    (b"\x80\x03}", "a Python pickle"),
    (b"\x80\x04\x95", "a Python pickle"),
    (b"\x80\x05\x95", "a Python pickle"),
    (b"\x1f\x8b\x08", "compressed by gzip; `gunzip` decompresses it"),
    (b"\x28\xb5\x2f\xfd", "compressed by Zstandard; `zstd -d` decompresses it"),
    (b"\xfd7zXZ\0", "compressed by xz, which is not supported; `xz -d` decompresses it"),
    // A text may begin with these three letters; a digit follows, and then this binary number.
    (BZIP2, "compressed by bzip2, which is not supported; `bunzip2` decompresses it"),
    (b"\x04\x22\x4d\x18", "compressed by LZ4, which is not supported; `lz4 -d` decompresses it"),
    (b"%PDF-", "a PDF document"),
    (b"SQLite format 3\0", "an SQLite database"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file"),
    (b"GGUF\x02\0\0\0", "a GGUF model"),
    (b"GGUF\x03\0\0\0", "a GGUF model"),
    (b"\x7fELF", "a program"),
];

const BZIP2: &[u8] = b"BZh";
const BZIP2_BLOCK: &[u8] = b"\x31\x41\x59\x26\x53\x59";

/// What a file is, if its first bytes tell; 262 bytes are enough.
pub(super) fn of(head: &[u8]) -> Option<&'static str> {
    if head.get(257..262) == Some(b"ustar") {
        return Some("a tar archive; `tar -xf` unpacks it");
    }
    let (magic, name) = FORMATS.iter().find(|(magic, _)| head.starts_with(magic))?;
    if *magic == BZIP2 && head.get(4..10) != Some(BZIP2_BLOCK) {
        return None;
    }
    Some(name)
}
