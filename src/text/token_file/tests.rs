//! Every form: what is read, what is refused and with which words, and mutants against naive readers.

use std::fs::{self, File};
use std::io::{Seek, SeekFrom, Write};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;
use crate::text::shard::{HEADER_BYTES, MAGIC, VERSION, WIDE_MAGIC, WIDE_VERSION, write};

/// A shard's header with tokens after it.
fn shard_bytes(numbers: [i32; 4], tokens: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = numbers.iter().flat_map(|n| n.to_le_bytes()).collect();
    bytes.resize(HEADER_BYTES, 0);
    bytes.extend(tokens);
    bytes
}

fn narrow(tokens: &[u16]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

fn wide(tokens: &[u32]) -> Vec<u8> {
    tokens.iter().flat_map(|token| token.to_le_bytes()).collect()
}

/// An array as NumPy writes it.
fn npy_bytes(header: &str, elements: &[u8]) -> Vec<u8> {
    let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
    let padded = format!("{header:<117}\n");
    bytes.extend((padded.len() as u16).to_le_bytes());
    bytes.extend(padded.as_bytes());
    bytes.extend(elements);
    bytes
}

fn array(dtype: &str, shape: &str, elements: &[u8]) -> Vec<u8> {
    npy_bytes(&format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': {shape}, }}"), elements)
}

fn message(name: &str, bytes: &[u8], vocab: usize) -> String {
    check(Path::new(name), bytes, vocab).unwrap_err().to_string()
}

/// The form and the tokens of a file.
fn read(name: &str, bytes: &[u8], vocab: usize) -> (String, Vec<i32>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let file = TokenFile::open(&path, vocab).unwrap();
    let mut tokens = vec![-1; file.len()];
    file.read(0, &mut tokens).unwrap();
    (file.form().to_string(), tokens)
}

#[test]
fn written_shards_round_trip_and_have_the_bytes_of_llmc() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a_000000.bin");
    let tokens: Vec<u16> = (0..2_000_000_u32).map(|i| (i * 31 % 50257) as u16).collect();
    write(&path, &[1_u16, 2, 3], 50257).unwrap();
    write(&path, &tokens, 50257).unwrap();
    assert!(fs::read(&path).unwrap() == shard_bytes([MAGIC, VERSION, 2_000_000, 50257], &narrow(&tokens)));
    let shard = TokenFile::open(&path, 50304).unwrap();
    assert_eq!((shard.len(), shard.path(), shard.vocab()), (tokens.len(), &*path, Some(50257)));
    for start in [0, 1_999_990, 2_000_000] {
        let mut read = vec![-1; tokens.len() - start];
        shard.read(start, &mut read).unwrap();
        assert!(read.iter().copied().eq(tokens[start..].iter().map(|&token| i32::from(token))));
    }
    assert!(shard.read(1_999_999, &mut [0; 2]).is_err() && shard.read(usize::MAX, &mut [0]).is_err());
    // A larger vocabulary needs 32 bits, even if no token does.
    let tokens: Vec<u32> = (0..700_000).map(|i| i * 31 % 65537).collect();
    write(&path, &tokens, 65537).unwrap();
    assert!(fs::read(&path).unwrap() == shard_bytes([WIDE_MAGIC, WIDE_VERSION, 700_000, 65537], &wide(&tokens)));
    let shard = TokenFile::open(&path, 65537).unwrap();
    let mut read = vec![-1; 10];
    shard.read(699_990, &mut read).unwrap();
    assert!(read.iter().copied().eq(tokens[699_990..].iter().map(|&token| token as i32)));
    assert_eq!((shard.form().to_string(), shard.vocab()), ("shard (uint32)".to_string(), Some(65537)));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no temporary file is left");
}

#[test]
fn the_writer_rejects_what_the_reader_would_and_keeps_the_old_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a.bin");
    write(&path, &[5_u16], 257).unwrap();
    for (tokens, vocab, expected) in [
        (&[][..], 257, "a shard holds 1 to 2147483647 tokens, not 0"),
        (&[1, 257], 257, "token 257 >= V = 257 (token number 1)"),
        (&[65537], 65537, "token 65537 >= V = 65537 (token number 0)"),
        (&[1], 16777217, "V <= 16777216 failed (V = 16777217)"),
    ] {
        let error = write::<u32>(&path, tokens, vocab).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
    for (vocab, bytes) in [(257, 1026), (70_000, 1028)] {
        let error = write(folder.path().join("no/such/a.bin"), &[1_u16], vocab).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot write {bytes} bytes to")), "{error}");
    }
    assert_eq!(TokenFile::open(&path, 257).unwrap().len(), 1);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
}

#[test]
fn shards_of_other_writers_are_read() {
    let of_llmc = shard_bytes([MAGIC, VERSION, 3, 0], &narrow(&[1, 65535, 2]));
    assert_eq!(read("a.bin", &of_llmc, 65536), ("shard (uint16)".into(), vec![1, 65535, 2]));
    assert_eq!(check(Path::new("a.bin"), &of_llmc, 1 << 20).unwrap().vocab, None);
    let of_llama = shard_bytes([WIDE_MAGIC, WIDE_VERSION, 3, 0], &wide(&[1, 128_000, 2]));
    assert_eq!(read("a.bin", &of_llama, 128_256), ("shard (uint32)".into(), vec![1, 128_000, 2]));
    // 32-bit tokens are accepted for any vocabulary that has them.
    let small = shard_bytes([WIDE_MAGIC, WIDE_VERSION, 2, 0], &wide(&[64, 0]));
    assert_eq!(read("a.bin", &small, 65).1, [64, 0]);
}

#[test]
fn every_error_of_a_shard_names_the_offset() {
    let good = shard_bytes([MAGIC, VERSION, 4, 5], &narrow(&[1, 2, 3, 4]));
    assert_eq!(check(Path::new("a.bin"), &good, 5).unwrap().len, 4);
    let with = |at: usize, number: i32| {
        let mut bytes = good.clone();
        bytes[at..at + 4].copy_from_slice(&number.to_le_bytes());
        bytes
    };
    for (bytes, expected) in [
        (good[..100].to_vec(), "at byte 100: truncated: a shard's header has 1024 bytes, but the file has 100"),
        (with(0, 1), "at byte 0: a damaged token shard: the magic number is 1, not 20240520 or 20240801"),
        (with(4, 7), "at byte 4: version 7 of the shard format 20240520 is not supported, only 1 (16-bit tokens)"),
        (
            with(0, 20240801),
            "at byte 4: version 1 of the shard format 20240801 is not supported, only 7 (32-bit tokens)",
        ),
        (with(8, -4), "at byte 8: invalid number of tokens in the header: -4"),
        (with(8, 0), "at byte 8: invalid number of tokens in the header: 0"),
        (with(8, 5), "at byte 1032: truncated: 5 tokens need 10 bytes after the header, but the file has 8"),
        (with(8, 3), "at byte 1030: trailing bytes: 3 tokens need 6 bytes after the header, but the file has 8"),
        (good[..1031].to_vec(), "at byte 1031: truncated: 4 tokens need 8 bytes after the header, but the file has 7"),
        (with(12, -1), "at byte 12: invalid size of the vocabulary in the header: -1"),
        (with(12, 6), "at byte 12: the shard is of a vocabulary of 6 tokens, more than V = 5"),
        (with(12, 4), "at byte 1030: token 4 >= V = 4 (token number 3); V is in the header"),
        (
            with(12, 0)[..1031].to_vec(),
            "at byte 1031: truncated: 4 tokens need 8 bytes after the header, but the file has 7",
        ),
    ] {
        assert_eq!(message("a.bin", &bytes, 5), format!("a.bin {expected}"));
    }
    let unknown = with(12, 0);
    assert_eq!(message("a.bin", &unknown, 4), "a.bin at byte 1030: token 4 >= V = 4 (token number 3)");
    assert!(message("a.bin", &unknown, 1 << 31).contains("V <= 2147483647 failed (V = 2147483648)"));
    let wide = shard_bytes([WIDE_MAGIC, WIDE_VERSION, 2, 0], &wide(&[1, u32::MAX]));
    assert_eq!(message("a.bin", &wide, 70000), "a.bin at byte 1028: token 4294967295 >= V = 70000 (token number 1)");
    // The first invalid token is reported, wherever the blocks of the scan end.
    let scan = element::SCAN_BYTES;
    let mut tokens = vec![7; 3 * scan];
    for at in [scan + 5, scan / 2, scan / 2 - 1] {
        tokens[at] = 300;
        let bytes = shard_bytes([MAGIC, VERSION, tokens.len() as i32, 0], &narrow(&tokens));
        let expected = format!("a.bin at byte {}: token 300 >= V = 257 (token number {at})", 1024 + 2 * at);
        assert_eq!(message("a.bin", &bytes, 257), expected);
    }
}

#[test]
fn bare_tokens_are_read_if_they_can_be_nothing_else() {
    let tokens: Vec<u16> = (0..600).map(|i| i * 7 % 65).collect();
    let (form, read) = read("train.bin", &narrow(&tokens), 65);
    assert!(form == "bare uint16" && read.into_iter().eq(tokens.iter().map(|&token| i32::from(token))));
    assert_eq!(
        message("train.bin", &narrow(&tokens), 60),
        "train.bin at byte 18: token 63 >= V = 60 (token number 9); the file has no header, so it was read as uint16"
    );
    let gpt2 = narrow(&[15496, 995].repeat(100));
    for (bytes, vocab, expected) in [
        (
            &gpt2[..399],
            50257,
            "at byte 399: neither a token shard nor bare uint16 tokens, which an odd number of bytes \
                               cannot be: 399 bytes, magic number 65223816",
        ),
        (
            &gpt2,
            128_256,
            "at byte 0: a file without a header has 16-bit tokens, but V = 128256 needs 32 bits; save it as \
                          .npy or as a uint32 shard",
        ),
        (
            &wide(&[15496, 995].repeat(20)),
            50257,
            "at byte 2: every second 16-bit number is zero, as in 32-bit tokens, \
                          which need a header; save it as .npy or as a uint32 shard",
        ),
        (&[0; 4096], 257, "at byte 0: a damaged token shard: the magic number is 0, not 20240520 or 20240801"),
    ] {
        assert_eq!(message("train.bin", bytes, vocab), format!("train.bin {expected}"));
    }
}

#[test]
fn files_of_other_formats_are_named() {
    let mut safetensors = 40_u64.to_le_bytes().to_vec();
    safetensors.extend(b"{\"a\":1}".repeat(10));
    let llmc = [20240326_i32, 20240522].map(|magic| [&magic.to_le_bytes()[..], &[7; 200]].concat());
    for (bytes, expected) in [
        (
            &b"PK\x03\x04\x00\x00\x08\x08"[..],
            "a ZIP archive, such as PyTorch's models and NumPy's .npz; `unzip` unpacks it",
        ),
        (b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.\x80\x02", "a model of an old PyTorch"),
        (b"\x80\x04\x95\x10\0\0", "a Python pickle"),
        (b"\x1f\x8b\x08\0", "compressed by gzip; `gunzip` decompresses it"),
        (b"\x28\xb5\x2f\xfd", "compressed by Zstandard; `zstd -d` decompresses it"),
        (b"GGUF\x03\0\0\0", "a GGUF model"),
        (b"PAR1\x15\x04", "a Parquet table; its name must end in .parquet"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0",
            "a Git LFS pointer, not the data itself; `git lfs pull` downloads the data",
        ),
        (&safetensors, "a safetensors model"),
        (&llmc[0], "a model of llm.c"),
        (&llmc[1], "an evaluation set of llm.c"),
        (&b"Once upon a time\n".repeat(6), "text; .txt or .jsonl would be its ending"),
    ] {
        for name in ["a.bin", "a.npy"] {
            assert_eq!(message(name, bytes, 65536), format!("{name}: the file has no tokens: it is {expected}"));
        }
    }
    assert_eq!(message("a.npy", &[7; 40], 65536), "a.npy at byte 0: not a .npy file, which begins with \\x93NUMPY");
    let folder = tempfile::tempdir().unwrap();
    let missing = TokenFile::open(folder.path().join("none.bin"), 257).unwrap_err().to_string();
    assert!(missing.contains("cannot read") && missing.contains("none.bin"), "{missing}");
    let empty = folder.path().join("empty.bin");
    fs::write(&empty, []).unwrap();
    assert!(TokenFile::open(&empty, 257).unwrap_err().to_string().ends_with("the file is empty"));
    let error = TokenFile::open(folder.path(), 257).unwrap_err().to_string();
    assert!(error.ends_with("a folder, not a regular file"), "{error}");
}

#[test]
fn arrays_of_every_integer_type_and_shape_are_read() {
    let tokens = [3_u8, 0, 127, 64, 5, 6];
    let of_width =
        |n: usize| tokens.iter().flat_map(|&t| (u64::from(t)).to_le_bytes()[..n].to_vec()).collect::<Vec<_>>();
    for (dtype, name, bytes) in [
        ("|u1", "uint8", 1),
        ("|i1", "int8", 1),
        ("<u2", "uint16", 2),
        ("<i2", "int16", 2),
        ("<u4", "uint32", 4),
        ("<i4", "int32", 4),
        ("<u8", "uint64", 8),
        ("<i8", "int64", 8),
    ] {
        for shape in ["(6,)", "(2, 3)", "(1, 6, 1)"] {
            let (form, read) = read("a.npy", &array(dtype, shape, &of_width(bytes)), 128);
            assert_eq!((form, read), (format!("npy {name}"), tokens.map(i32::from).to_vec()));
        }
        let expected = ": token 127 >= V = 127 (token number 2)";
        assert!(message("a.npy", &array(dtype, "(6,)", &of_width(bytes)), 127).ends_with(expected));
        let negative = [of_width(bytes), vec![0xff; bytes]].concat();
        let found = check(Path::new("a.npy"), &array(dtype, "(7,)", &negative), 1 << 20);
        match found {
            Ok(_) => assert!(matches!(dtype, "|u1" | "<u2"), "{dtype} has 0xff…"),
            Err(e) if name.starts_with('i') => assert!(e.to_string().ends_with("token -1 < 0 (token number 6)"), "{e}"),
            Err(e) => assert!(e.to_string().contains(">= V = 1048576 (token number 6)"), "{e}"),
        }
    }
    // Version 2.0, double quotes, another order of keys, and .npy content under the name .bin.
    let mut second = b"\x93NUMPY\x02\x00".to_vec();
    let header = "{\"shape\": (2,), \"fortran_order\": True, \"descr\": \"<u2\"}\n";
    second.extend((header.len() as u32).to_le_bytes());
    second.extend(header.as_bytes());
    second.extend(narrow(&[7, 8]));
    assert_eq!(read("a.bin", &second, 9), ("npy uint16".into(), vec![7, 8]));
}

#[test]
fn every_error_of_an_array_names_the_offset() {
    let two = narrow(&[1, 2]);
    let header = |text: &str| npy_bytes(text, &two);
    let descr = |dtype: &str| header(&format!("{{'descr': {dtype}, 'fortran_order': False, 'shape': (2,), }}"));
    let shape = |shape: &str| header(&format!("{{'descr': '<u2', 'fortran_order': False, 'shape': {shape}}}"));
    let mut third = array("<u2", "(2,)", &two);
    third[6] = 4;
    let mut long = array("<u2", "(2,)", &two);
    long[6] = 2;
    long[8..12].copy_from_slice(&[0, 0, 2, 0]);
    for (bytes, expected) in [
        (b"\x93NUMPY\x01".to_vec(), "at byte 7: truncated: the header of a .npy file ends at byte 7"),
        (array("<u2", "(2,)", &two)[..60].to_vec(), "at byte 60: truncated: the header of a .npy file ends at byte 60"),
        (third, "at byte 6: version 4.0 of .npy is not supported"),
        (long, "at byte 8: the header has 131072 bytes, more than the limit of 65536"),
        (descr("'>u2'"), "at byte 20: big-endian integers (dtype '>u2'); save them as '<u2'"),
        (descr("'<f4'"), "at byte 20: floating-point numbers (dtype '<f4'); tokens are integers"),
        (descr("'|b1'"), "at byte 20: the dtype '|b1' is not one of integers"),
        (descr("'\x1b[1m'"), "at byte 20: the dtype '\\u{1b}[1m' is not one of integers"),
        (descr("[('a', '<u2')]"), "at byte 20: the array has a structured dtype; tokens are integers"),
        (descr("<u2"), "at byte 20: not the header of a .npy file: expected a string"),
        (shape("(3,)"), "at byte 132: truncated: 3 elements need 6 bytes after the header, but the file has 4"),
        (shape("(1,)"), "at byte 130: trailing bytes: 1 elements need 2 bytes after the header, but the file has 4"),
        (shape("(0, 5)"), "at byte 10: the array has no elements"),
        (shape("(-2,)"), "at byte 61: not the header of a .npy file: expected a size"),
        (shape("(4294967296, 4294967296)"), "at byte 60: the shape has too many elements"),
        (shape("(2,), 'shape': (2,)"), "at byte 66: the key 'shape' is in the header twice"),
        (shape("(2,), 'size': 2"), "at byte 66: unknown key 'size' in the header"),
        (shape("(2,)} {"), "at byte 66: not the header of a .npy file: expected the end of the header"),
        (header("{'descr': '<u2', 'shape': (2,)}"), "at byte 128: the header has no key 'fortran_order'"),
        (
            header("{'descr': '<u2', 'fortran_order': True, 'shape': (1, 2)}"),
            "at byte 59: an array in Fortran order, whose rows are not contiguous; save it in C order",
        ),
        (
            header("{'descr': '<u2', 'fortran_order': false, 'shape': (2,)}"),
            "at byte 44: not the header of a .npy file: expected True or False",
        ),
    ] {
        assert_eq!(message("a.npy", &bytes, 9), format!("a.npy {expected}"));
    }
}

#[test]
fn shards_over_two_gibibytes_work() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.bin");
    let tokens = (1_u64 << 30) + 1000;
    let mut file = File::create(&path).unwrap();
    file.write_all(&shard_bytes([MAGIC, VERSION, tokens as i32, 0], &[])).unwrap();
    file.seek(SeekFrom::Start(HEADER_BYTES as u64 + 2 * tokens - 4)).unwrap();
    file.write_all(&[7, 0, 8, 0]).unwrap();
    // The largest vocabulary skips the scan, which would fill the page cache with the holes of the file.
    let shard = TokenFile::open(&path, 65536).unwrap();
    assert_eq!(shard.len() as u64, tokens);
    assert!(fs::metadata(&path).unwrap().len() > 2 << 30);
    let mut last = [-1; 3];
    shard.read(shard.len() - 3, &mut last).unwrap();
    assert_eq!(last, [0, 7, 8]);
}

/// Changes bytes at random, the first `header` ones more often.
fn mutate(rng: &mut ChaCha8Rng, bytes: &mut Vec<u8>, header: usize, alphabet: &[u8]) {
    match rng.random_range(0..5) {
        0 => bytes.truncate(rng.random_range(0..=bytes.len())),
        1 => bytes.extend((0..rng.random_range(0..4)).map(|_| 0_u8)),
        2 => {
            let at = rng.random_range(0..header);
            bytes[at] = rng.random();
        }
        3 => {
            let at = rng.random_range(0..header);
            bytes[at] = alphabet[rng.next_u32() as usize % alphabet.len()];
        }
        _ => {
            let at = rng.random_range(0..bytes.len());
            rng.fill_bytes(&mut bytes[at..]);
        }
    }
}

/// Mutated shards: the reader accepts exactly what a naive reader accepts.
#[test]
fn mutated_shards_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(1);
    let mut accepted = 0;
    for case in 0..100_000 {
        let is_wide = case % 2 == 0;
        let tokens: Vec<u32> = (0..rng.random_range(1..12)).map(|_| rng.random_range(0..260)).collect();
        let given = [0, 257, 50257][rng.random_range(0..3)];
        let mut bytes = match is_wide {
            true => shard_bytes([WIDE_MAGIC, WIDE_VERSION, tokens.len() as i32, given], &wide(&tokens)),
            false => {
                let tokens: Vec<u16> = tokens.iter().map(|&token| token as u16).collect();
                shard_bytes([MAGIC, VERSION, tokens.len() as i32, given], &narrow(&tokens))
            }
        };
        mutate(&mut rng, &mut bytes, 16, &[0, 1, 7, 255]);
        let vocab = [257, 50257, 65536][case % 3];
        let word = |at: usize| bytes.get(4 * at..4 * at + 4).map(|b| i32::from_le_bytes(b.try_into().unwrap()));
        let body = bytes.get(HEADER_BYTES..).unwrap_or_default();
        let width = match (word(0), word(1)) {
            (Some(MAGIC), Some(VERSION)) => 2,
            (Some(WIDE_MAGIC), Some(WIDE_VERSION)) => 4,
            _ => 0,
        };
        let limit = match word(3) {
            Some(0) => vocab,
            Some(given) => usize::try_from(given).ok().filter(|&given| given <= vocab).unwrap_or(0),
            None => 0,
        };
        let token = |bytes: &[u8]| bytes.iter().rev().fold(0, |token, &byte| token << 8 | usize::from(byte));
        let naive = width > 0
            && word(2).is_some_and(|n| n > 0 && width * n as usize == body.len())
            && body.chunks(width).all(|bytes| token(bytes) < limit);
        let found = check(Path::new("a.bin"), &bytes, vocab);
        // Without its magic number, a file may be bare tokens.
        let found = matches!(found, Ok(Layout { form: Form::Shard(_), .. }));
        assert_eq!(found, naive, "case {case}");
        accepted += usize::from(naive);
    }
    assert!(accepted > 10_000, "only {accepted} accepted: too many mutants are invalid");
}

/// Mutated bare files: what is accepted has an even length, is below V and begins as no other format.
#[test]
fn mutated_bare_tokens_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let mut accepted = 0;
    for case in 0..20_000 {
        let len = [3, 40, 600][case % 3];
        let tokens: Vec<u16> = (0..len).map(|_| rng.random_range(0..300)).collect();
        let mut bytes = narrow(&tokens);
        mutate(&mut rng, &mut bytes, 6, b"PKGU\x1f\x8b\x28");
        if let Ok(layout) = check(Path::new("a.bin"), &bytes, 300) {
            assert_eq!((layout.form, layout.start, 2 * layout.len), (Form::Bare, 0, bytes.len()));
            assert!(bytes.chunks(2).all(|pair| u16::from_le_bytes([pair[0], pair[1]]) < 300));
            assert!(!bytes.starts_with(b"PK\x03\x04") && !bytes.starts_with(b"GGUF"));
            accepted += 1;
        }
    }
    assert!((1000..19_000).contains(&accepted), "{accepted} accepted");
}

/// Mutated arrays: the reader accepts what a naive reader accepts of arrays whose header is whole, and nothing that does not
/// end where its shape says.
#[test]
fn mutated_arrays_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let (mut accepted, mut mutants) = (0, 0);
    for case in 0..100_000 {
        let (dtype, width) = [("|u1", 1), ("<u2", 2), ("<i4", 4), ("<i8", 8), (">u2", 0), ("<f4", 0)][case % 6];
        let shape: Vec<usize> = (0..rng.random_range(0..4)).map(|_| rng.random_range(0..3)).collect();
        let sizes: String = shape.iter().map(|size| format!("{size}, ")).collect();
        let elements = [width * shape.iter().product::<usize>(), 8][rng.random_range(0..2)];
        let mut bytes = array(dtype, &format!("({sizes})"), &vec![0; elements]);
        let is_whole = rng.random_range(0..4) == 0;
        if !is_whole {
            mutate(&mut rng, &mut bytes, 80, b"{}()[]',: <>|u1248iTrueFals\\\n");
        }
        match check(Path::new("a.npy"), &bytes, 1 << 20) {
            Ok(Layout { form, start, len, element, .. }) => {
                assert_eq!((form, bytes.len()), (Form::Npy(element), start + len * element.bytes()));
                accepted += 1;
                mutants += usize::from(!is_whole);
                assert!(!is_whole || elements == width * shape.iter().product::<usize>() && elements > 0);
            }
            Err(Error::Format { offset, .. }) => {
                assert!(offset.is_none_or(|offset| offset <= bytes.len() as u64));
                assert!(!is_whole || elements != width * shape.iter().product::<usize>() || elements == 0);
            }
            Err(error) => panic!("case {case}: {error}"),
        }
    }
    assert!(accepted > 5000 && mutants > 1000, "{accepted} accepted, of these {mutants} mutants");
}
