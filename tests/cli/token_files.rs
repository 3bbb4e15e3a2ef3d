//! Data as tokens: every form of file, and training without a tokenizer.

use serde_json::json;

use crate::support::Lab;

/// Size of the vocabulary, which is that of no tokenizer, as of nanoGPT's shakespeare_char.
const V: u32 = 65;

/// A model of this vocabulary.
const MODEL: &str = "context = 16\nvocab = 65\nlayers = 1\nheads = 2\nchannels = 16\n";

fn tokens() -> impl Iterator<Item = u32> {
    (0..600_u32).map(|i| i * 31 / 7 % V)
}

fn bytes<const N: usize>(convert: impl Fn(u32) -> [u8; N]) -> Vec<u8> {
    tokens().flat_map(convert).collect()
}

/// A shard as llm.c writes it, with the size of its vocabulary unknown.
fn shard(magic: i32, version: i32, tokens: &[u8]) -> Vec<u8> {
    let mut bytes: Vec<u8> = [magic, version, 600].into_iter().flat_map(i32::to_le_bytes).collect();
    bytes.resize(1024, 0);
    [bytes, tokens.to_vec()].concat()
}

fn npy(dtype: &str, elements: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{dtype}', 'fortran_order': False, 'shape': (20, 30), }}\n");
    [b"\x93NUMPY\x01\x00", &(header.len() as u16).to_le_bytes()[..], header.as_bytes(), elements].concat()
}

fn lab() -> Lab {
    let lab = Lab::new();
    lab.write("v65.toml", MODEL);
    lab.write("c65.bin", shard(20240520, 1, &bytes(|id| (id as u16).to_le_bytes())));
    lab
}

const TRAIN: &str = "train --model v65.toml --batch 2 --save-every 0 --val-every 2 --lr 1e-3 --threads 1";

#[test]
fn shards_are_trained_on_without_a_tokenizer() {
    let lab = lab();
    let ran = lab.run(&format!("{TRAIN} --data c65.bin --out whole --steps 4 --sample-every 1"));
    let note = "the run has no tokenizer, and therefore no samples: no tokenizer has the model's vocabulary size of 65; \
                choose one with --tokenizer";
    assert_eq!(ran.stderr.matches(note).count(), 1, "{}", ran.stderr);
    let printed = ran.ok();
    assert!(!printed.contains("sample") && printed.contains("validation  "), "{printed}");
    let config = lab.read(format!("{}/config.json", lab.newest("whole")));
    assert!(config.contains("\"tokenizer\": null") || config.contains("\"tokenizer\":null"), "{config}");
    // A resumed run has the same bits.
    lab.run(&format!("{TRAIN} --data c65.bin --out parts --steps 2")).ok();
    lab.run("train --resume --out parts --steps 4").ok();
    lab.assert_same_end("whole", "parts");
    // The model can be evaluated on tokens, but not on text, and cannot generate.
    assert_eq!(lab.run("eval --model whole --text c65.bin --json").json()["tokens"], 599);
    let missing = "the checkpoint has no tokenizer; choose one with --tokenizer (gpt2, bytes, FILE or DIR)";
    lab.run("eval --model whole --text t.txt").fails(1, &[missing]);
    lab.run("eval --model whole --lambada t.txt").fails(1, &[missing]);
    lab.run("generate --model whole --prompt a").fails(1, &["model whole: ", missing]);
    let exported = lab.run("export whole --out hf");
    assert!(exported.stderr.contains("exported without a tokenizer"), "{}", exported.stderr);
    exported.ok();
    for (from, out) in [("whole", "again"), ("hf", "from-hf")] {
        let flags = format!("--init-from {from} --data c65.bin --out {out} --steps 1 --batch 2");
        let ran = lab.run(&format!("train {flags}"));
        assert!(ran.stderr.contains("the run has no tokenizer, and therefore no samples: "), "{}", ran.stderr);
        ran.ok();
    }
}

#[test]
fn a_text_among_the_tokens_needs_a_tokenizer() {
    let lab = lab();
    lab.write("d/c65.bin", shard(20240520, 1, &bytes(|id| (id as u16).to_le_bytes())));
    lab.write("d/more.txt", "a text");
    let missing = "a text needs a tokenizer: no tokenizer has the model's vocabulary size of 65; choose one with \
                   --tokenizer (gpt2, bytes, FILE or DIR)";
    lab.run(&format!("{TRAIN} --data d --out run")).fails(1, &["d/more.txt: ", missing]);
    lab.run(&format!("{TRAIN} --data d --data-dry-run")).fails(1, &["d/more.txt: ", missing]);
    // The embedded corpus is a text too.
    lab.run(&format!("{TRAIN} --out run")).fails(1, &["no tokenizer has the model's vocabulary size of 65"]);
    lab.run(&format!("{TRAIN} --data c65.bin --tokenizer bytes --out run")).fails(1, &["'bytes' has 257 tokens"]);
}

#[test]
fn every_form_of_tokens_trains_the_same_model() {
    let lab = lab();
    let wide = bytes(u32::to_le_bytes);
    for (name, form, content) in [
        ("c65.bin", "shard (uint16)", shard(20240520, 1, &bytes(|id| (id as u16).to_le_bytes()))),
        ("wide.bin", "shard (uint32)", shard(20240801, 7, &wide)),
        ("nano.bin", "bare uint16", bytes(|id| (id as u16).to_le_bytes())),
        ("u2.npy", "npy uint16", npy("<u2", &bytes(|id| (id as u16).to_le_bytes()))),
        ("i8.npy", "npy int64", npy("<i8", &bytes(|id| i64::from(id).to_le_bytes()))),
    ] {
        lab.write(name, content);
        let run = format!("run-{name}");
        let printed = lab.run(&format!("{TRAIN} --data {name} --out {run} --steps 2")).ok();
        assert!(printed.contains(&format!("{name}: {form}, 600 tokens, 30 of them held out\n")), "{printed}");
        lab.assert_same_end("run-c65.bin", &run);
    }
    let listed = lab.run(&format!("{TRAIN} --data u2.npy --data-dry-run --json")).json();
    assert_eq!(listed["files"][0]["form"], json!("npy uint16"));
    // nanoGPT's folder has the text and the script next to the tokens of the two splits.
    for name in ["train.bin", "val.bin"] {
        lab.write(&format!("nano/{name}"), bytes(|id| (id as u16).to_le_bytes()));
    }
    lab.write("nano/input.txt", "First Citizen:");
    lab.write("nano/meta.pkl", b"\x80\x04\x95\0");
    let printed = lab.run(&format!("{TRAIN} --data nano --data-dry-run")).ok();
    for line in ["train.bin: bare uint16, 600 tokens", "val.bin: bare uint16, 600 tokens", "600 for validation"] {
        assert!(printed.contains(line), "{printed}");
    }
    // A token outside the vocabulary is found before the run begins.
    lab.write("v64.toml", MODEL.replace("65", "64"));
    let at = tokens().position(|id| id == 64).unwrap();
    let problem = format!("nano.bin at byte {}: token 64 >= V = 64 (token number {at})", 2 * at);
    lab.run("train --model v64.toml --data nano.bin --out bad").fails(1, &[&problem]);
    assert_eq!(lab.run("eval --model run-c65.bin --text wide.bin --json").json()["tokens"], 599);
}

#[test]
fn a_run_without_a_tokenizer_may_get_one_when_it_is_resumed() {
    let lab = lab();
    lab.write("v300.toml", MODEL.replace("65", "300"));
    lab.run("train --model v300.toml --data c65.bin --out run --steps 1 --batch 2").ok();
    let printed = lab.run("train --resume --out run --steps 2 --tokenizer bytes").ok();
    assert!(printed.contains("sample:"), "{printed}");
    lab.run("generate --model run --prompt a --max-tokens 2").ok();
    lab.run("train --resume --out run --steps 3 --tokenizer gpt2").fails(1, &["with the tokenizer 'bytes'"]);
}
