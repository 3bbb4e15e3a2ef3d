//! Tests of the readers of documents.

use std::fs;
use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

/// Reads documents from a file of this name and content.
pub(super) fn read_as(name: &str, bytes: &[u8], options: &DocumentOptions) -> Result<(Vec<String>, Documents)> {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    let mut texts = Vec::new();
    let documents = read(&path, options, &mut |batch, _| {
        texts.extend_from_slice(batch);
        Ok(())
    })?;
    assert_eq!(documents.read, texts.len() as u64);
    Ok((texts, documents))
}

fn texts(name: &str, bytes: &[u8]) -> Vec<String> {
    read_as(name, bytes, &DocumentOptions::default()).unwrap().0
}

/// The error of reading, without the folder's path.
pub(super) fn error(name: &str, bytes: &[u8]) -> String {
    let error = read_as(name, bytes, &DocumentOptions::default()).unwrap_err().to_string();
    let at = error.find(name).unwrap_or_else(|| panic!("{error} names the file"));
    error[at..].to_string()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

fn zstd(bytes: &[u8]) -> Vec<u8> {
    zstd::encode_all(bytes, 1).unwrap()
}

const LINES: &str = "{\"text\": \"a\\n\\u00e9\", \"id\": [1, {}]}\n\n  \r\n{\"text\":\"\"}\r\n{\"text\":\"last\"}";

#[test]
fn every_format_is_read_plain_and_compressed() {
    let array = "[{\"text\": \"a\\n\\u00e9\"},\n {\"id\": 1, \"text\": \"\"}, {\"text\": \"last\"}]";
    let objects = "{\n  \"text\": \"a\\n\\u00e9\"\n}\n{\"text\":\"\"} {\"text\":\"last\"}";
    let documents: &[&str] = &["a\né", "", "last"];
    for (name, content, expected, form) in [
        ("a.txt", "a\né", &["a\né"][..], "text"),
        ("a.rs", "fn", &["fn"], "text"),
        ("noextension", "x", &["x"], "text"),
        ("a.jsonl", LINES, documents, "JSONL"),
        ("A.NDJSON", LINES, documents, "JSONL"),
        ("a.json", array, documents, "JSON"),
        ("a.json", objects, documents, "JSON"),
        ("a.json", LINES, documents, "JSON"),
    ] {
        for bom in ["", "\u{feff}"] {
            let bytes = format!("{bom}{content}").into_bytes();
            for (suffix, bytes, compression) in [
                ("", bytes.clone(), ""),
                (".gz", gzip(&bytes), ", gzip"),
                (".GZ", [gzip(&bytes[..1]), gzip(&bytes[1..])].concat(), ", gzip"),
                (".zst", zstd(&bytes), ", Zstandard"),
                (".zstd", [zstd(&bytes[..1]), zstd(&bytes[1..])].concat(), ", Zstandard"),
            ] {
                let name = format!("{name}{suffix}");
                let (found, documents) = read_as(&name, &bytes, &DocumentOptions::default()).unwrap();
                assert_eq!(found, expected, "{name}");
                assert_eq!(documents.form, format!("{form}{compression}"), "{name}");
            }
        }
    }
}

#[test]
fn the_field_has_the_name_that_the_options_give() {
    let options = DocumentOptions { text_field: "body".into(), ..DocumentOptions::default() };
    let (found, _) = read_as("a.jsonl", b"{\"text\":1,\"body\":\"x\"}\n", &options).unwrap();
    assert_eq!(found, ["x"]);
    let error = read_as("a.jsonl", b"{\"text\":\"x\"}\n", &options).unwrap_err().to_string();
    assert!(error.ends_with("line 1: missing field `body`; --text-field names another one"), "{error}");
}

#[test]
fn errors_name_the_line_and_the_offset() {
    for (name, bytes, expected) in [
        ("a.txt", &b""[..], "a.txt: the file is empty"),
        ("a.txt", b"\xef\xbb\xbf", "a.txt: the file is empty"),
        ("a.txt", b"caf\xe9", "a.txt at byte 3: line 1: not UTF-8 text (byte 0xe9)"),
        ("a.jsonl", b"\n \n", "a.jsonl: the file has no documents"),
        ("a.jsonl", b"{\"text\":\"a\"}\n{\"text\":\"\xff\"}", "a.jsonl at byte 22: line 2: not UTF-8 text (byte 0xff)"),
        (
            "a.jsonl",
            b"{\"text\":\"a\"}\n{\"body\":1}\n",
            "a.jsonl at byte 13: line 2: missing field `text`; --text-field names another one",
        ),
        ("a.jsonl", b"\n{\"text\":7}", "a.jsonl at byte 9: line 2: the field `text` is a number, not a string"),
        (
            "a.jsonl",
            b"\xef\xbb\xbf{\"text\":null}",
            "a.jsonl at byte 11: line 1: the field `text` is null, not a string",
        ),
        ("a.jsonl", b"{\"text\":\"a\"", "a.jsonl at byte 10: line 1: EOF while parsing an object"),
        ("a.jsonl", b"{\"text\":\"a\"} x", "a.jsonl at byte 13: line 1: trailing characters"),
        ("a.jsonl", b"{\"text\":\"\\ud800\"}", "a.jsonl at byte 15: line 1: unexpected end of hex escape"),
        ("a.jsonl", b"{\"text\":\"\",\"text\":\"\"}", "a.jsonl at byte 16: line 1: the field `text` appears twice"),
        (
            "a.jsonl",
            b"{\"text\":\"a\"}\n [\"b\"]",
            "a.jsonl at byte 14: line 2: an array, not an object with the field `text`",
        ),
        (
            "a.jsonl",
            b"[{\"text\": \"a\"},\n",
            "a.jsonl at byte 0: line 1: an array; JSONL has an object per line, and a name that ends in .json has an array \
              read",
        ),
        ("a.txt", b"\xef\xbb\xbfcaf\xe9", "a.txt at byte 6: line 1: not UTF-8 text (byte 0xe9)"),
        ("a.json", b"\xef\xbb\xbf[\n7]", "a.json at byte 5: line 2: a number, not an object with the field `text`"),
        ("a.json", b"[]", "a.json: the file has no documents"),
        (
            "a.json",
            b"[{\"text\":\"a\"},\n \"b\"]",
            "a.json at byte 16: line 2: a string, not an object with the field `text`",
        ),
        ("a.json", b"[{\"text\":\"a\"},\n {\"text\":}]", "a.json at byte 24: line 2: expected value"),
        ("a.json", b"{\"text\":\"a\"}\n{\"a\"", "a.json at byte 16: line 2: EOF while parsing an object"),
    ] {
        assert_eq!(error(name, bytes), expected);
    }
}

#[test]
fn files_that_are_something_else_are_named_for_what_they_are() {
    let utf_16 = "UTF-16; `iconv -f UTF-16 -t UTF-8` converts it to UTF-8, which is required";
    let tar = [&[b'x'; 257][..], b"ustar\0"].concat();
    for (name, bytes, expected) in [
        ("a.txt", &b"\xff\xfea\0"[..], format!("a.txt: the file is {utf_16}")),
        ("a.jsonl", b"\xfe\xff\0{", format!("a.jsonl: the file is {utf_16}")),
        (
            "a.jsonl",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n",
            "a.jsonl: the file is a Git LFS pointer, not the data itself; `git lfs pull` downloads the data".into(),
        ),
        ("a.txt", &tar, "a.txt: the file is a tar archive; `tar -xf` unpacks it".into()),
        ("a.txt", b"PAR1", "a.txt: the file is a Parquet table; its name must end in .parquet".into()),
        (
            "a.txt",
            &gzip(b"x"),
            "a.txt: the file is compressed by gzip; a name that ends in .gz has it decompressed".into(),
        ),
        (
            "a.txt.gz",
            &zstd(b"x"),
            "a.txt.gz: the file is not compressed by gzip, as its name states; it is compressed by Zstandard; a name that \
             ends in .zst has it decompressed"
                .into(),
        ),
        ("a.txt.zst", b"plain", "a.txt.zst: the file is not compressed by Zstandard, as its name states".into()),
        ("a.tar.gz", &gzip(&tar), "a.tar.gz: the file is a tar archive; `tar -xf` unpacks it".into()),
        ("a.txt.gz", &gzip(b""), "a.txt.gz: the file is empty".into()),
        (
            "a.bin.gz",
            &gzip(b"ab"),
            "a.bin.gz: tables and tokens are not read compressed; decompress the file first".into(),
        ),
        (
            "a.dat",
            b"\x88\xd8\x34\x01\x01\0\0\0",
            "a.dat: the file is a token shard; its name must end in .bin".into(),
        ),
        ("a.parquet", b"", "a.parquet: the file is empty".into()),
        (
            "a.parquet",
            b"version https://git-lfs.github.com/spec/v1\n",
            "a.parquet: the file is a Git LFS pointer, not the data itself; `git lfs pull` downloads the data".into(),
        ),
    ] {
        assert_eq!(error(name, bytes), expected);
    }
    assert_eq!(texts("a.txt", b"BZhao wrote this"), ["BZhao wrote this"]);
}

#[test]
fn damaged_compression_is_an_error_and_never_a_shorter_text() {
    let content = LINES.repeat(1000);
    for (name, whole) in [("a.jsonl.gz", gzip(content.as_bytes())), ("a.jsonl.zst", zstd(content.as_bytes()))] {
        let skip = DocumentOptions { skip_bad_documents: true, ..DocumentOptions::default() };
        for cut in [whole.len() - 1, whole.len() / 2, 8] {
            let error = read_as(name, &whole[..cut], &skip).unwrap_err().to_string();
            assert!(error.contains("data is damaged or truncated: "), "{error}");
        }
    }
}

#[test]
fn bad_documents_are_left_out_and_counted_if_the_options_say_so() {
    let skip = DocumentOptions { skip_bad_documents: true, ..DocumentOptions::default() };
    let lines = b"{\"text\":\"a\"}\n{\"text\":null}\nnot JSON\n{\"text\":\"\xff\"}\n{}\n[1]\n{\"text\":\"b\"}\n";
    let (found, documents) = read_as("a.jsonl", lines, &skip).unwrap();
    assert_eq!((&found[..], documents.skipped), (&["a".to_string(), "b".into()][..], 5));
    let (found, documents) = read_as("a.json", b"[{\"text\":\"a\"}, 7, {\"text\":{}}]", &skip).unwrap();
    assert_eq!((&found[..], documents.skipped), (&["a".to_string()][..], 2));
    let error = read_as("a.jsonl", b"{}\n{\"text\":1}\n", &skip).unwrap_err().to_string();
    assert!(
        error.ends_with(
            "all 2 documents are bad; the first: line 1: missing field `text`; --text-field names another one"
        ),
        "{error}"
    );
    // What is not a document is an error all the same.
    assert!(read_as("a.txt", b"\xff", &skip).unwrap_err().to_string().contains("not UTF-8"));
}

#[test]
fn lines_are_the_same_wherever_blocks_end() {
    let long = "x".repeat(BATCH + 5);
    let mut expected: Vec<String> = (0..200_000).map(|i| format!("document {i} {}", "y".repeat(i % 300))).collect();
    expected.insert(77, long.clone());
    expected.push(long);
    let lines: String = expected.iter().map(|text| format!("{{\"text\":\"{text}\"}}\n")).collect();
    assert!(lines.len() > 3 * BATCH);
    assert!(texts("a.jsonl", lines.as_bytes()) == expected);
    assert!(texts("a.jsonl.zst", &zstd(lines.as_bytes())) == expected);
    assert!(texts("a.json", lines.as_bytes()) == expected);
    let broken = format!("{lines}{{\"text\":0}}");
    assert!(error("a.jsonl", broken.as_bytes()).contains(&format!("at byte {}: line 200003", lines.len() + 8)));
}

#[test]
fn mutated_bytes_never_panic() {
    let mut rng = ChaCha8Rng::seed_from_u64(2);
    let folder = tempfile::tempdir().unwrap();
    let lines = "{\"text\":\"a b\", \"x\":[1,-2.5e3,null]}\n{\"text\":\"\\ud83d\\ude42 \u{e9}\"}\n".as_bytes();
    let array = "[{\"text\":\"a b\", \"x\":[1,-2.5e3,null]},\n{\"text\":\"\\ud83d\\ude42 \u{e9}\"}]\n".as_bytes();
    let alphabet = b"{}[]\":,\\u0d8text \n\r\x00\xff\xc3\xa9";
    for (name, good, cases) in [
        ("a.jsonl", lines, 6_000),
        ("a.json", array, 6_000),
        ("a.jsonl.gz", &gzip(lines), 2_000),
        ("a.jsonl.zst", &zstd(lines), 2_000),
    ] {
        let path = folder.path().join(name);
        let (mut accepted, mut rejected) = (0, 0);
        for case in 0..cases {
            let mut bytes = good.to_vec();
            for _ in 0..rng.random_range(1..4) {
                let at = rng.random_range(0..bytes.len());
                let symbol = alphabet[rng.next_u32() as usize % alphabet.len()];
                match rng.random_range(0..4) {
                    0 => bytes[at] = symbol,
                    1 => bytes.insert(at, symbol),
                    2 if bytes.len() > 1 => drop(bytes.remove(at)),
                    _ => bytes.truncate(at + 1),
                }
            }
            fs::write(&path, &bytes).unwrap();
            let options = DocumentOptions { skip_bad_documents: case % 2 == 0, ..DocumentOptions::default() };
            match read(&path, &options, &mut |_, _| Ok(())) {
                Ok(_) => accepted += 1,
                Err(_) => rejected += 1,
            }
        }
        assert!(
            rejected > 500 && (accepted > 200 || name.len() > 7),
            "{name}: {accepted} accepted, {rejected} rejected"
        );
    }
}
