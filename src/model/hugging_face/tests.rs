use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;

use half::{bf16, f16};
use safetensors::Dtype;
use safetensors::tensor::{TensorView, serialize};
use tempfile::TempDir;

use super::*;

const TINY: Config = Config { context: 3, vocab: 5, layers: 2, heads: 2, channels: 4 };

/// Weights that are exact in every supported float type.
fn weights() -> HostWeights {
    let mut weights = HostWeights::zeros(TINY).unwrap();
    for tensor in hf_tensors(&TINY) {
        for i in tensor.range {
            weights.data[i] = (i % 2048) as f32 / 64.0 - 16.0;
        }
    }
    weights
}

/// A tensor in a file: type, shape, bytes.
type Stored = (Dtype, Vec<usize>, Vec<u8>);

/// A modification of a folder's tensors.
type Change<'a> = &'a dyn Fn(&mut BTreeMap<String, Stored>);

/// An exported folder and its tensors.
fn exported() -> (TempDir, BTreeMap<String, Stored>) {
    let root = tempfile::tempdir().unwrap();
    export(&weights(), Some("bytes"), root.path().join("hf")).unwrap();
    let file = super::super::safetensors::TensorFile::open(root.path().join("hf/model.safetensors")).unwrap();
    let stored = |name: &String| {
        let (info, bytes) = file.tensor(name).unwrap();
        assert_eq!(info.dtype, super::Dtype::F32);
        (name.clone(), (Dtype::F32, info.shape.clone(), bytes.to_vec()))
    };
    let tensors = file.header().tensors.keys().map(stored).collect();
    (root, tensors)
}

fn write_tensors(path: &Path, tensors: &BTreeMap<String, Stored>) {
    let views = tensors.iter().map(|(n, (d, s, b))| (n, TensorView::new(*d, s.clone(), b).unwrap()));
    fs::write(path, serialize(views, None).unwrap()).unwrap();
}

/// An exported folder whose tensors have been modified.
fn folder(change: impl FnOnce(&mut BTreeMap<String, Stored>)) -> (TempDir, PathBuf) {
    let (root, mut tensors) = exported();
    change(&mut tensors);
    let dir = root.path().join("hf");
    write_tensors(&dir.join(SINGLE), &tensors);
    (root, dir)
}

fn f32_bytes(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|v| v.to_le_bytes()).collect()
}

fn f32_values(stored: &Stored) -> Vec<f32> {
    stored.2.chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

#[test]
fn an_export_round_trips_and_has_the_layout_of_hugging_face() {
    let (root, tensors) = exported();
    let (read, tokenizer) = import(root.path().join("hf")).unwrap();
    assert_eq!(read, weights());
    assert_eq!(tokenizer.as_deref(), Some("bytes"));
    assert_eq!(tensors.len(), 4 + 12 * TINY.layers);
    assert_eq!(tensors["transformer.wte.weight"].1, [5, 4]);
    // Compares their (in, out) with our (L, out, in), element by element.
    let weights = weights();
    let [.., (_, fc_shape, fc), _] = &weights.tensors().collect::<Vec<_>>()[..6] else { unreachable!() };
    let theirs = &tensors["transformer.h.1.mlp.c_fc.weight"];
    assert_eq!((&theirs.1[..], *fc_shape), (&[4, 16][..], &[2, 16, 4][..]));
    let values = f32_values(theirs);
    for (out, input) in (0..16).flat_map(|o| (0..4).map(move |i| (o, i))) {
        assert_eq!(values[input * 16 + out], fc[(16 + out) * 4 + input], "out {out}, in {input}");
    }
    let leftovers: Vec<_> = fs::read_dir(root.path()).unwrap().map(|e| e.unwrap().file_name()).collect();
    assert_eq!(leftovers, ["hf"]);
}

#[test]
fn transposing_works_for_every_remainder_of_the_block() {
    for (rows, columns) in [(1, 1), (15, 17), (16, 16), (33, 5), (64, 48), (3, 100)] {
        let from: Vec<f32> = (0..rows * columns).map(|i| i as f32).collect();
        let mut to = vec![-1.0; from.len()];
        transpose(&from, rows, columns, &mut to);
        for (r, c) in (0..rows).flat_map(|r| (0..columns).map(move |c| (r, c))) {
            assert_eq!(to[c * rows + r], from[r * columns + c], "({rows}, {columns}) at ({r}, {c})");
        }
    }
}

#[test]
fn other_types_names_and_extra_tensors_are_accepted() {
    let recode = |t: &mut BTreeMap<String, Stored>, dtype: Dtype, code: fn(f32) -> Vec<u8>| {
        for stored in t.values_mut() {
            *stored = (dtype, stored.1.clone(), f32_values(stored).into_iter().flat_map(code).collect());
        }
    };
    let table: &[(&str, Change)] = &[
        ("f16", &|t| recode(t, Dtype::F16, |v| f16::from_f32(v).to_le_bytes().to_vec())),
        ("f64", &|t| recode(t, Dtype::F64, |v| f64::from(v).to_le_bytes().to_vec())),
        ("no prefix", &|t| {
            *t = std::mem::take(t).into_iter().map(|(n, s)| (n.replace("transformer.", ""), s)).collect();
        }),
        ("masks", &|t| {
            t.insert("transformer.h.0.attn.bias".into(), (Dtype::U8, vec![1, 1, 3, 3], vec![1; 9]));
            t.insert("h.1.attn.masked_bias".into(), (Dtype::F32, vec![], f32_bytes(&[-1e4])));
        }),
        ("tied head", &|t| drop(t.insert("lm_head.weight".into(), t["transformer.wte.weight"].clone()))),
        ("tied head of another type", &|t| {
            let (_, shape, _) = t["transformer.wte.weight"].clone();
            let doubles = f32_values(&t["transformer.wte.weight"]).into_iter().flat_map(|v| f64::from(v).to_le_bytes());
            t.insert("lm_head.weight".into(), (Dtype::F64, shape, doubles.collect()));
        }),
    ];
    for (name, change) in table {
        let (_root, dir) = folder(change);
        assert_eq!(import(&dir).unwrap().0, weights(), "{name}");
    }
    let (_root, dir) = folder(|t| recode(t, Dtype::BF16, |v| bf16::from_f32(v).to_le_bytes().to_vec()));
    for (read, exact) in import(&dir).unwrap().0.data.iter().zip(weights().data) {
        assert_eq!(*read, bf16::from_f32(exact).to_f32());
    }
}

#[test]
fn every_tensor_that_does_not_fit_is_listed_in_one_error() {
    let (_root, dir) = folder(|t| {
        t.remove("transformer.h.1.ln_2.bias");
        t.get_mut("transformer.h.0.attn.c_attn.weight").unwrap().1.reverse();
        t.get_mut("transformer.ln_f.weight").unwrap().1 = vec![2, 2];
        let ids = (Dtype::I32, vec![3, 4], vec![0; 48]);
        t.insert("transformer.wpe.weight".into(), ids);
        t.insert("transformer.h.2.ln_1.bias".into(), (Dtype::F32, vec![4], vec![0; 16]));
        t.insert("lm_head.weight".into(), (Dtype::F32, vec![1, 5], vec![0; 20]));
    });
    let Err(Error::Tensors { path, problems }) = import(&dir) else { panic!("the folder was accepted") };
    assert_eq!(path, dir);
    assert_eq!(
        problems,
        [
            "'wpe.weight' is I32; supported types: F32, F16, BF16, F64",
            "'h.0.attn.c_attn.weight' is (12, 4), the model needs (4, 12): it is transposed",
            "'h.1.ln_2.bias' (4) is missing",
            "'ln_f.weight' is (2, 2), the model needs (4)",
            "'lm_head.weight' is (1, 5), the model needs (5, 4)",
            "'h.2.ln_1.bias' (4) is not part of the model",
        ]
    );
}

#[test]
fn non_finite_values_and_an_untied_head_are_rejected_by_name() {
    for (tensor, at, value) in [
        ("transformer.wte.weight", 19, f32::NAN),
        ("transformer.h.1.attn.c_proj.weight", 3, f32::INFINITY),
        ("transformer.ln_f.bias", 0, f32::NEG_INFINITY),
    ] {
        let (_root, dir) = folder(|t| {
            t.get_mut(tensor).unwrap().2[4 * at..4 * at + 4].copy_from_slice(&value.to_le_bytes());
        });
        let error = import(&dir).unwrap_err().to_string();
        assert!(error.ends_with(&format!("tensor '{tensor}' holds {value} at element {at}")), "{error}");
    }
    let (_root, dir) = folder(|t| {
        let (dtype, shape, mut bytes) = t["transformer.wte.weight"].clone();
        bytes[4 * 7 + 3] ^= 0x80;
        t.insert("lm_head.weight".into(), (dtype, shape, bytes));
    });
    let error = import(&dir).unwrap_err().to_string();
    assert!(error.contains("'lm_head.weight' differs from wte.weight (element 7: "), "{error}");
}

/// An exported folder that is split into two shards; `index` may modify the index, which maps tensors to files.
fn sharded(index: impl FnOnce(&mut BTreeMap<String, String>)) -> (TempDir, PathBuf) {
    let (root, tensors) = exported();
    let dir = root.path().join("hf");
    fs::remove_file(dir.join(SINGLE)).unwrap();
    let middle = tensors.keys().nth(11).unwrap().clone();
    let mut second = tensors;
    let mut first = second.split_off(&middle);
    std::mem::swap(&mut first, &mut second);
    write_tensors(&dir.join("a.safetensors"), &first);
    write_tensors(&dir.join("b.safetensors"), &second);
    let in_file =
        |t: &BTreeMap<String, Stored>, f: &str| t.keys().map(|n| (n.clone(), f.to_string())).collect::<Vec<_>>();
    let mut map: BTreeMap<_, _> = in_file(&first, "a.safetensors").into_iter().collect();
    map.extend(in_file(&second, "b.safetensors"));
    index(&mut map);
    let text = serde_json::json!({"metadata": {"total_size": 1}, "weight_map": map}).to_string();
    fs::write(dir.join("model.safetensors.index.json"), text).unwrap();
    (root, dir)
}

#[test]
fn shards_are_combined_and_invalid_indexes_rejected() {
    let (_root, dir) = sharded(|_| {});
    assert_eq!(import(&dir).unwrap().0, weights());

    let wte = "transformer.wte.weight";
    let long = "x".repeat(300);
    for name in ["../a.safetensors", "/etc/passwd", "x/a.safetensors", "..", ".", "", "x\\a", "C:a", "a\0b"] {
        let (_root, dir) = sharded(|map| drop(map.insert(wte.into(), name.into())));
        let error = import(&dir).unwrap_err().to_string();
        assert!(error.contains("which is not a plain file name"), "{name:?}: {error}");
    }
    let table: &[(&str, &str, &str)] = &[
        (wte, "none.safetensors", "cannot read"),
        (wte, &long, "cannot read"),
        (
            wte,
            "a.safetensors",
            "'transformer.wte.weight' is not in a.safetensors, although model.safetensors.index.json",
        ),
        ("new", "a.safetensors", "'new' is not in a.safetensors, although"),
    ];
    for (tensor, file, wanted) in table {
        let (_root, dir) = sharded(|map| drop(map.insert(tensor.to_string(), file.to_string())));
        let error = import(&dir).unwrap_err().to_string();
        assert!(error.contains(wanted), "{tensor} in {file}: {error}");
    }
    // Text from the files is escaped, and long lists are cut.
    let (_root, dir) = sharded(|map| {
        map.extend((0..1000).map(|i| (format!("\u{1b}[2J{i:04}"), "a.safetensors".to_string())));
    });
    let error = import(&dir).unwrap_err().to_string();
    assert!(
        error.contains("1000 tensor(s) do not fit the model:\n  '\\u{1b}[2J0000' is not in a.safetensors"),
        "{error}"
    );
    assert!(error.ends_with("\n  … and 988 more") && error.len() < 2000, "{error}");

    let (_root, dir) = sharded(|map| drop(map.remove(wte)));
    let error = import(&dir).unwrap_err().to_string();
    assert!(error.contains("'transformer.wte.weight' is in b.safetensors but not in"), "{error}");

    let (_root, dir) = sharded(|_| {});
    fs::copy(dir.join("a.safetensors"), dir.join("c.safetensors")).unwrap();
    let index = dir.join("model.safetensors.index.json");
    let text = fs::read_to_string(&index).unwrap();
    fs::write(&index, text.replacen("a.safetensors", "c.safetensors", 1)).unwrap();
    let error = import(&dir).unwrap_err().to_string();
    assert!(
        error.contains("in a.safetensors and '") && error.contains("in c.safetensors are the same tensor"),
        "{error}"
    );

    fs::write(&index, r#"{"weight_map": {"a": "a.safetensors", "a": "b.safetensors"}}"#).unwrap();
    let error = import(&dir).unwrap_err().to_string();
    assert!(error.contains("'a' appears twice"), "{error}");
}

#[test]
fn the_same_tensor_with_and_without_prefix_is_rejected() {
    let (_root, dir) = folder(|t| drop(t.insert("wte.weight".into(), t["transformer.wte.weight"].clone())));
    let error = import(&dir).unwrap_err().to_string();
    assert!(error.contains("'transformer.wte.weight' in model.safetensors and 'wte.weight'"), "{error}");
}

#[test]
fn claimed_sizes_are_checked_against_the_tensors() {
    let (_root, dir) = folder(|_| {});
    let config = fs::read_to_string(dir.join(CONFIG)).unwrap();
    for (field, size, wanted) in [
        ("\"n_layer\": 2", "\"n_layer\": 16000000", "1 <= layers (L) <= 16384 failed (16000000)"),
        ("\"n_layer\": 2", "\"n_layer\": 16384", "n_layer = 16384, but the folder has only 28 tensors"),
        ("\"n_embd\": 4", "\"n_embd\": 1048576", "'wte.weight' is (5, 4), the model needs (5, 1048576)"),
        ("\"n_embd\": 4", "\"n_embd\": 16777216", "1 <= channels (C) <= 1048576 failed (16777216)"),
        ("\"vocab_size\": 5", "\"vocab_size\": 16777216", "'wte.weight' is (5, 4), the model needs (16777216, 4)"),
        ("\"n_positions\": 3", "\"n_positions\": 16777216", "'wpe.weight' is (3, 4), the model needs (16777216, 4)"),
    ] {
        fs::write(dir.join(CONFIG), config.replace(field, size)).unwrap();
        let error = import(&dir).unwrap_err().to_string();
        assert!(error.contains(wanted), "{size}: {error}");
    }
}

#[test]
fn folders_without_a_model_and_occupied_targets_are_named() {
    let root = tempfile::tempdir().unwrap();
    assert!(import(root.path()).unwrap_err().to_string().starts_with("cannot read "));
    let (existing, _) = exported();
    let dir = existing.path().join("hf");
    fs::remove_file(dir.join(SINGLE)).unwrap();
    fs::write(dir.join("pytorch_model.bin"), "").unwrap();
    let error = import(&dir).unwrap_err().to_string();
    assert!(
        error.contains("neither model.safetensors nor") && error.contains("pytorch_model.bin is not supported"),
        "{error}"
    );
    let error = export(&weights(), None, &dir).unwrap_err().to_string();
    assert!(error.ends_with("the folder exists and is not empty"), "{error}");
    let error = export(&weights(), Some("x"), root.path().join("new")).unwrap_err().to_string();
    assert!(error.contains("unknown tokenizer 'x'"), "{error}");
    let mut planted = weights();
    planted.data[1] = f32::NAN;
    let error = export(&planted, None, root.path().join("new")).unwrap_err().to_string();
    assert_eq!(error, "the model: tensor 'wte.weight' holds NaN at element 1");
    assert_eq!(fs::read_dir(root.path()).unwrap().count(), 0, "a failed export leaves nothing");
    export(&weights(), None, root.path().join("a/b/new")).unwrap();
    fs::create_dir(root.path().join("empty")).unwrap();
    export(&weights(), None, root.path().join("empty")).unwrap();
}
