use std::borrow::Cow;
use std::path::Path;

use super::*;
use crate::model::mutate::{SplitMix, mutate};

/// A file with this header text and `payload` bytes of data.
fn file(json: &str, payload: usize) -> Vec<u8> {
    let mut bytes = (json.len() as u64).to_le_bytes().to_vec();
    bytes.extend(json.as_bytes());
    bytes.extend((0..payload).map(|i| i as u8));
    bytes
}

fn rejection(bytes: &[u8]) -> String {
    TensorFile::from_bytes("m.safetensors", bytes).unwrap_err().to_string()
}

fn planned(tensors: &[(&str, &[usize], Vec<f32>)]) -> (Vec<u8>, FileChecksums) {
    let plan = Plan::new(&[("format", "pt")], tensors.iter().map(|t| (t.0.to_string(), t.1))).unwrap();
    let mut bytes = Vec::new();
    let find = |name: &str| Cow::Borrowed(&tensors.iter().find(|t| t.0 == name).unwrap().2[..]);
    let checksums = plan.write(Path::new("m.safetensors"), &mut bytes, |name| Ok(find(name))).unwrap();
    assert_eq!(plan.bytes(), bytes.len() as u64);
    (bytes, checksums)
}

#[test]
fn invalid_headers_are_rejected_with_the_tensors_name() {
    let good = r#""a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
    let table: &[(&str, usize, &str)] = &[
        (r#"[]"#, 0, "does not begin with '{'"),
        (r#" {}"#, 0, "does not begin with '{'"),
        (r#"{"a":"#, 0, "bad header: 'a': EOF"),
        (r#"{} {}"#, 0, "trailing characters"),
        (r#"{"a":1}"#, 0, "'a': invalid type: integer"),
        (r#"{"a":{"dtype":"F32","shape":[2]}}"#, 8, "'a': missing field `data_offsets`"),
        (r#"{"a":{"dtype":"F33","shape":[2],"data_offsets":[0,8]}}"#, 8, "'a': unknown variant `F33`"),
        (r#"{"a":{"dtype":"F32","dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 8, "'a': duplicate field `dtype`"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8],"x":1}}"#, 8, "'a': unknown field `x`"),
        (r#"{"a":{"dtype":"F32","shape":[-2],"data_offsets":[0,8]}}"#, 8, "'a': invalid value: integer `-2`"),
        (r#"{"a":{"dtype":"F32","shape":[2.0],"data_offsets":[0,8]}}"#, 8, "'a': invalid type: floating point"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8,9]}}"#, 8, "'a': "),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[8,0]}}"#, 8, "'a': data_offsets [8, 0] are reversed"),
        (r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}}"#, 7, "'a': data_offsets [0, 8] end beyond the 7"),
        (
            r#"{"a":{"dtype":"F32","shape":[3],"data_offsets":[0,8]}}"#,
            8,
            "'a': data_offsets [0, 8] hold 8 bytes, but shape",
        ),
        (
            r#"{"a":{"dtype":"F16","shape":[2],"data_offsets":[0,8]}}"#,
            8,
            "'a': data_offsets [0, 8] hold 8 bytes, but shape",
        ),
        (r#"{"a":{"dtype":"F4","shape":[3],"data_offsets":[0,1]}}"#, 1, "'a': the size of shape (3) in F4"),
        (r#"{"a":{"dtype":"F32","shape":[4294967296,4294967296],"data_offsets":[0,0]}}"#, 0, "'a': the size of shape"),
        (r#"{"a":{"dtype":"F32","shape":[4611686018427387904],"data_offsets":[0,0]}}"#, 0, "'a': the size of shape"),
        (r#"{"a":{"dtype":"F32","shape":[99999999999999999999],"data_offsets":[0,0]}}"#, 0, "'a': "),
        (r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[18446744073709551612,18446744073709551615]}}"#, 4, "a gap"),
        (
            r#"{"a":{"dtype":"F32","shape":[2],"data_offsets":[4,12]}}"#,
            12,
            "'a': data_offsets [4, 12] leave a gap of 4",
        ),
        (&format!("{{{good}}}"), 9, "1 bytes of data after the last tensor 'a'"),
        (r#"{}"#, 1, "1 bytes of data after the last tensor ''"),
        (&format!("{{{good},{good}}}"), 8, "'a' appears twice"),
        (&format!("{{{good},{}}}", good.replace("\"a\"", r#""\u0061""#)), 8, "'a' appears twice"),
        (&format!("{{{good},{}}}", good.replace("\"a\"", "\"b\"")), 8, "'b': data_offsets [0, 8] overlap tensor 'a'"),
        (r#"{"__metadata__":{"k":1}}"#, 0, "'__metadata__': 'k': invalid type"),
        (r#"{"__metadata__":{"k":"1","k":"2"}}"#, 0, "'__metadata__': 'k' appears twice"),
        (r#"{"__metadata__":{},"__metadata__":{}}"#, 0, "'__metadata__' appears twice"),
    ];
    for (json, payload, wanted) in table {
        let error = rejection(&file(json, *payload));
        assert!(error.starts_with("m.safetensors") && error.contains(wanted), "{json}: {error}");
    }
    // The parser limits the nesting depth; the stack must not overflow.
    let deep = format!("{{\"a\":{}", "[".repeat(100_000));
    assert!(rejection(&file(&deep, 0)).contains("'a': "));
}

#[test]
fn header_lengths_are_checked_against_the_file_and_the_limit() {
    assert!(rejection(b"1234567").contains("7 bytes are too few"));
    for length in [1, 3, MAX_HEADER, MAX_HEADER + 1, u64::MAX - 7, u64::MAX] {
        let error = rejection(&[&length.to_le_bytes()[..], b"{"].concat()[..if length == 1 { 8 } else { 9 }]);
        assert!(error.contains(&format!("at byte 0: header length {length} is beyond")), "{error}");
    }
}

#[test]
fn every_float_type_is_read_at_every_alignment() {
    let values = [0.0, -1.5, 65504.0, 0.25];
    let mut data = Vec::new();
    data.extend(values.iter().flat_map(|&v: &f32| v.to_le_bytes()));
    data.extend(values.iter().flat_map(|&v| f16::from_f32(v).to_le_bytes()));
    data.extend(values.iter().flat_map(|&v| bf16::from_f32(v).to_le_bytes()));
    data.extend(values.iter().flat_map(|&v| f64::from(v).to_le_bytes()));
    data.push(7);
    let json = r#"{"f32":{"dtype":"F32","shape":[2,2],"data_offsets":[0,16]},
        "f16":{"dtype":"F16","shape":[4],"data_offsets":[16,24]},"bf16":{"dtype":"BF16","shape":[4],"data_offsets":[24,32]},
        "f64":{"dtype":"F64","shape":[1,4],"data_offsets":[32,64]},"u8":{"dtype":"U8","shape":[1],"data_offsets":[64,65]},
        "none":{"dtype":"F32","shape":[0,9],"data_offsets":[65,65]}}"#;
    for padding in 0..8 {
        let mut bytes = file(&format!("{json}{}", " ".repeat(padding)), 0);
        bytes.extend(&data);
        let file = TensorFile::from_bytes("m.safetensors", bytes).unwrap();
        for name in ["f32", "f16", "f64"] {
            assert_eq!(file.to_f32(name).unwrap(), values, "{name}, padding {padding}");
        }
        // 65504 = 2^16 - 2^5 is not a bf16; it rounds to 2^16.
        assert_eq!(file.to_f32("bf16").unwrap(), [0.0, -1.5, 65536.0, 0.25]);
        assert!(file.to_f32("none").unwrap().is_empty());
        for (name, len, wanted) in [
            ("u8", 1, "tensor 'u8' is U8; supported types: F32, F16, BF16, F64"),
            ("f32", 3, "tensor 'f32' has 4 elements (2, 2), expected 3"),
            ("x", 1, "tensor 'x' is missing"),
        ] {
            let error = file.read_f32(name, &mut vec![0.0; len]).unwrap_err().to_string();
            assert_eq!(error, format!("m.safetensors: {wanted}"));
        }
    }
}

#[test]
fn written_files_are_read_back_by_us_and_by_the_safetensors_library() {
    let long: Vec<f32> = (0..CHUNK + 5).map(|i| i as f32).collect();
    let tensors: Vec<(&str, &[usize], Vec<f32>)> = vec![
        ("z", &[2, 3], vec![1.0, -2.0, f32::MIN_POSITIVE / 2.0, 4.0, 5.0, -0.0]),
        ("none", &[0, 3], vec![]),
        ("a.long", &[CHUNK + 5], long),
        ("scalar", &[], vec![3.5]),
    ];
    let (bytes, checksums) = planned(&tensors);
    let theirs = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("m.safetensors");
    std::fs::write(&path, &bytes).unwrap();
    let ours = TensorFile::open(&path).unwrap();
    assert_eq!(ours.header().metadata["format"], "pt");
    assert_eq!(ours.header().len % 8, 0);
    assert_eq!(ours.header().tensors.len(), tensors.len());
    for (name, shape, values) in &tensors {
        let (info, data) = ours.tensor(name).unwrap();
        assert_eq!(info.shape, *shape);
        assert_eq!(theirs.tensor(name).unwrap().data(), data);
        assert_eq!(crc32(data), checksums.tensors[*name]);
        let bits = |v: &[f32]| v.iter().map(|x| x.to_bits()).collect::<Vec<_>>();
        assert_eq!(bits(&ours.to_f32(name).unwrap()), bits(values), "{name}");
    }
    assert_eq!(checksums.head_crc32, crc32fast::hash(&bytes[..checksums.head_bytes as usize]));
    assert_eq!(checksums.bytes, bytes.len() as u64);
    assert!(TensorFile::open(dir.path()).unwrap_err().to_string().contains("not a regular file"));
    assert!(matches!(TensorFile::open(dir.path().join("none")), Err(Error::Io { .. })));
}

#[test]
fn plans_reject_what_they_cannot_write() {
    let twice = Plan::new(&[], [("a".to_string(), &[1][..]), ("a".to_string(), &[1])]).unwrap_err();
    assert_eq!(twice.to_string(), "tensor 'a' is repeated");
    let huge = Plan::new(&[], [("a".to_string(), &[usize::MAX / 2][..])]).unwrap_err();
    assert!(huge.to_string().contains("does not fit 64 bits"), "{huge}");
    let plan = Plan::new(&[], [("a".to_string(), &[2][..])]).unwrap();
    let short = plan.write(Path::new("m"), &mut Vec::new(), |_| Ok(vec![1.0].into())).unwrap_err();
    assert_eq!(short.to_string(), "tensor 'a' has 1 elements, but its shape has 2");
}

#[test]
fn the_first_non_finite_value_is_named() {
    for (at, value) in [(0, f32::NAN), (CHUNK - 1, f32::INFINITY), (CHUNK, f32::NEG_INFINITY), (2 * CHUNK, f32::NAN)] {
        let mut values = vec![f32::MAX; 2 * CHUNK + 1];
        check_finite("m", "wte", &values).unwrap();
        values[2 * CHUNK] = f32::NAN;
        values[at] = value;
        let error = check_finite("m", "wte", &values).unwrap_err().to_string();
        assert_eq!(error, format!("m: tensor 'wte' holds {value} at element {at}"));
    }
}

/// Fragments of a header's syntax.
const FRAGMENTS: &[&str] = &[
    "0",
    "1",
    "-1",
    "4",
    "8",
    "4294967296",
    "9223372036854775807",
    "18446744073709551615",
    "1e9",
    "\"F32\"",
    "\"BF16\"",
    "\"F4\"",
    "\"F64\"",
    "[0,0]",
    "[0,4]",
    "[4,8]",
    "\"a\"",
    "\"__metadata__\"",
    "{",
    "}",
    "[",
    "]",
    ",",
    ":",
    "\"",
    "null",
    "\\u0000",
    "\u{fffd}",
    "dtype",
    "shape",
    "data_offsets",
];

/// Repairs the header length of half the mutants, so that mutations reach the checks after the first one.
fn repair_length(random: &mut SplitMix, bytes: &mut [u8]) {
    if random.below(2) == 0 && bytes.len() > 8 {
        let json_end = bytes.iter().rposition(|&b| b == b'}').map_or(bytes.len(), |i| (i + 1).max(8));
        let length = (json_end - 8) as u64;
        bytes[..8].copy_from_slice(&length.to_le_bytes());
    }
}

#[test]
fn mutated_files_never_panic_and_accepted_ones_are_valid() {
    let two = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},
        "b":{"dtype":"BF16","shape":[2,2],"data_offsets":[4,12]}}"#;
    let corpus = vec![
        planned(&[("a", &[2, 3], vec![1.0; 6]), ("b", &[1], vec![2.0])]).0,
        file(two, 12),
        file(r#"{"a":{"dtype":"F64","shape":[],"data_offsets":[0,8]}}"#, 8),
        file(
            r#"{"a":{"dtype":"F4","shape":[2],"data_offsets":[0,1]},"b":{"dtype":"F32","shape":[0],"data_offsets":[1,1]}}"#,
            1,
        ),
        file("{}", 0),
    ];
    let mut random = SplitMix(20);
    let mut accepted = 0;
    for round in 0..250_000 {
        let mut bytes = mutate(&mut random, &corpus, FRAGMENTS);
        repair_length(&mut random, &mut bytes);
        let Ok(file) = TensorFile::from_bytes("m", &bytes[..]) else { continue };
        accepted += 1;
        let mut covered = 0;
        for (name, info) in &file.header().tensors {
            covered += info.range.len();
            match file.to_f32(name) {
                Ok(values) => assert_eq!(values.len(), info.shape.iter().product::<usize>(), "round {round}"),
                Err(error) => assert!(error.to_string().contains("supported types"), "round {round}: {error}"),
            }
        }
        assert_eq!(file.header().len + covered, bytes.len(), "round {round}");
        // The format's own library must accept every file that we accept, because our reader is the stricter one.
        assert!(safetensors::SafeTensors::deserialize(&bytes).is_ok(), "round {round}");
    }
    assert!(
        accepted > 5_000,
        "only {accepted} mutants were accepted: mutations are too coarse to reach the later checks"
    );
}
