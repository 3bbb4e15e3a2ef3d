//! Folders without a model, or with an invalid one.

use std::collections::BTreeMap;
use std::fs;

use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::support::Lab;

/// Tensors of a file by name: shape and bytes.
type Tensors = BTreeMap<String, (Vec<usize>, Vec<u8>)>;

/// A lab with a Hugging Face folder `hf`, and its tensors.
fn lab() -> (Lab, Tensors) {
    let lab = Lab::new();
    lab.run("train --model m.toml --data t.txt --out run --steps 1 --batch 2 --val-every 0").ok();
    lab.run("export run --out hf").ok();
    let bytes = fs::read(lab.path("hf/model.safetensors")).unwrap();
    let tensors = SafeTensors::deserialize(&bytes).unwrap();
    let tensors = tensors.tensors().into_iter().map(|(name, t)| (name, (t.shape().to_vec(), t.data().to_vec())));
    (lab, tensors.collect())
}

fn write(lab: &Lab, tensors: &Tensors) {
    let views =
        tensors.iter().map(|(name, (shape, bytes))| (name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
    lab.write("hf/model.safetensors", safetensors::serialize(views, None).unwrap());
}

/// Asserts that every command that loads a model rejects it with the same message.
fn rejected(lab: &Lab, model: &str, texts: &[&str]) {
    for args in [
        format!("generate --model {model}"),
        format!("eval --model {model} --text t.txt"),
        format!("export {model} --out new"),
        format!("train --init-from {model} --data t.txt --out new-run"),
    ] {
        lab.run(&args).fails(1, texts);
    }
}

#[test]
fn errors_for_folders_without_a_model_list_the_files_searched() {
    let lab = Lab::new();
    lab.write("folder/a.txt", "x");
    lab.shell("mkdir -p begun/checkpoints");
    let looked_for = "looked for checkpoints/ (a run), MANIFEST (a checkpoint) and config.json (a Hugging Face model)";
    rejected(&lab, "folder", &["folder: no model in this folder", looked_for]);
    rejected(&lab, "none", &["none: no such folder", looked_for]);
    rejected(&lab, "t.txt", &["t.txt: no such folder"]);
    rejected(&lab, "begun", &["begun: the run has no checkpoint yet"]);
}

#[test]
fn every_tensor_that_does_not_fit_is_listed_in_the_error() {
    let (lab, good) = lab();
    let mut tensors = good.clone();
    tensors.remove("transformer.h.1.ln_2.bias").unwrap();
    tensors.insert("transformer.h.0.extra".into(), (vec![2], vec![0; 8]));
    tensors.get_mut("transformer.h.0.mlp.c_fc.weight").unwrap().0.reverse();
    tensors.insert("transformer.ln_f.weight".into(), (vec![31], vec![0; 31 * 4]));
    write(&lab, &tensors);
    rejected(
        &lab,
        "hf",
        &[
            "4 tensor(s) do not fit the model",
            "'h.1.ln_2.bias' (32) is missing",
            "'h.0.extra' (2) is not part of the model",
            "'h.0.mlp.c_fc.weight' is (128, 32), the model needs (32, 128): it is transposed",
            "'ln_f.weight' is (31), the model needs (32)",
        ],
    );
    write(&lab, &good);
    lab.run("generate --model hf --max-tokens 1").ok();
}

#[test]
fn non_finite_values_are_rejected() {
    let (lab, good) = lab();
    for (name, value, shown) in [
        ("wte.weight", f32::NAN, "NaN"),
        ("h.1.attn.c_attn.weight", f32::INFINITY, "inf"),
        ("ln_f.bias", f32::NEG_INFINITY, "-inf"),
    ] {
        let mut tensors = good.clone();
        let (_, bytes) = tensors.get_mut(&format!("transformer.{name}")).unwrap();
        bytes[20..24].copy_from_slice(&value.to_le_bytes());
        write(&lab, &tensors);
        rejected(&lab, "hf", &["model.safetensors", name, shown]);
    }
}

#[test]
fn truncated_and_forged_files_are_rejected() {
    let (lab, _) = lab();
    let good = fs::read(lab.path("hf/model.safetensors")).unwrap();
    let header = u64::from_le_bytes(good[..8].try_into().unwrap()) as usize;
    for len in [0, 4, 8, 8 + header / 2, 8 + header, good.len() - 1] {
        lab.write("hf/model.safetensors", &good[..len]);
        rejected(&lab, "hf", &["model.safetensors"]);
    }
    lab.write("hf/model.safetensors", [u64::MAX.to_le_bytes().to_vec(), good[8..].to_vec()].concat());
    rejected(&lab, "hf", &["model.safetensors", "header"]);
    fs::remove_file(lab.path("hf/model.safetensors")).unwrap();
    rejected(&lab, "hf", &["model.safetensors"]);
    lab.write("hf/model.safetensors", &good);
    let config = lab.read("hf/config.json");
    for (from, to, text) in [
        ("\"n_head\": 2", "\"n_head\": 3", "C % NH == 0"),
        ("\"n_layer\": 2", "\"n_layer\": 3", "'h.2.ln_1.weight' (32) is missing"),
        ("\"n_layer\": 2", "\"n_layer\": 99999999999", "layers (L)"),
        ("\"n_embd\": 32", "\"n_embd\": \"x\"", "n_embd"),
        ("{", "[", "config.json"),
    ] {
        assert!(config.contains(from), "{config}");
        lab.write("hf/config.json", config.replacen(from, to, 1));
        rejected(&lab, "hf", &[text]);
    }
}
