//! Hostile files: special files in place of regular ones, claimed sizes, and text that would control a terminal.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Lab, Ran};

/// Far above the time of an answer on a busy machine, and far below that of work in proportion to a claimed size.
const AT_ONCE: Duration = Duration::from_secs(20);

const TRAIN: &str = "train --model m.toml --data t.txt --batch 2 --steps 2 --val-every 0 --sample-tokens 4";

/// Runs a command, which must end at once.
fn at_once(lab: &Lab, args: &str) -> Ran {
    let start = Instant::now();
    let ran = lab.run(args);
    assert!(start.elapsed() < AT_ONCE, "{args} took {:?}", start.elapsed());
    ran
}

/// Replaces a file by a named pipe, calls `check`, and puts the file back.
fn with_pipe(lab: &Lab, name: &str, check: impl FnOnce()) {
    let path = lab.path(name);
    let saved = fs::read(&path).ok();
    let _ = fs::remove_file(&path);
    assert!(Command::new("mkfifo").arg(&path).status().unwrap().success());
    check();
    fs::remove_file(&path).unwrap();
    saved.into_iter().for_each(|content| fs::write(&path, content).unwrap());
}

/// A lab with the run `run` and its export `hf`, which has the files of a tokenizer.
fn lab() -> Lab {
    let lab = Lab::new();
    lab.run(&format!("{TRAIN} --out run")).ok();
    lab.run("export run --out hf").ok();
    lab
}

#[test]
fn a_named_pipe_in_place_of_any_file_is_an_error_at_once() {
    let lab = lab();
    let refused = |name: &str, args: &str| {
        with_pipe(&lab, name, || {
            let ran = at_once(&lab, args);
            ran.fails(1, &[&format!("{name}: a named pipe (FIFO), not a regular file")]);
        });
    };
    refused("p.toml", "info --model p.toml");
    refused("p.toml", "train --model p.toml --data t.txt --out new");
    for name in ["p.txt", "p.jsonl", "p.bin"] {
        refused(name, &format!("train --model m.toml --data {name} --out new"));
        refused(name, &format!("eval --model run --text {name}"));
    }
    refused("p.txt", "train --model m.toml --data p.txt --data-dry-run");
    refused("p.txt", "tokenize p.txt --tokenizer bytes");
    refused("p.txt", "tokenize p.txt --tokenizer bytes --out shards");
    refused("p.jsonl", "eval --model run --hellaswag p.jsonl");
    refused("p.jsonl", "eval --model run --lambada p.jsonl");
    refused("p.json", "tokenize t.txt --tokenizer p.json");
    refused("p.json", "bench gelu --device cpu --shape n=64,c=512 --ms 2 --compare p.json");

    let checkpoint = lab.newest("run");
    for name in ["MANIFEST", "config.json", "state.json", "model.safetensors", "optimizer.safetensors"] {
        refused(&format!("{checkpoint}/{name}"), "train --resume --out run --steps 3");
    }
    refused("run/metrics.jsonl", "train --resume --out run --steps 3");
    refused("run/.lock", "train --resume --out run --steps 3");

    for name in ["config.json", "model.safetensors"] {
        refused(&format!("hf/{name}"), "info --model hf");
    }
    lab.shell("mv hf/model.safetensors hf/other.safetensors");
    refused("hf/model.safetensors.index.json", "info --model hf");
    lab.shell("mv hf/other.safetensors hf/model.safetensors");
    lab.write("tokens/vocab.json", "{}");
    lab.write("tokens/merges.txt", "");
    for name in ["vocab.json", "merges.txt", "added_tokens.json", "tokenizer_config.json", "special_tokens_map.json"] {
        refused(&format!("tokens/{name}"), "tokenize t.txt --tokenizer tokens");
    }
    refused("tokens/tokenizer.json", "tokenize t.txt --tokenizer tokens");
    assert!(!lab.path("new").exists(), "no run was started");
}

#[cfg(feature = "cuda")]
#[test]
fn a_named_pipe_in_place_of_a_kernel_or_the_emulator_is_an_error_at_once() {
    let lab = Lab::new();
    lab.shell("mkfifo pipe");
    let text = "pipe: a named pipe (FIFO), not a regular file";
    at_once(&lab, "profile gelu --check pipe").fails(1, &[text]);
    let ran = lab.run_after("export IRONWARP_EMULATOR=pipe", "info --device emulated");
    ran.fails(1, &[text]);
    at_once(&lab, "profile gelu --kernels gelu=pipe").fails(1, &[text]);
}

/// Changes `state.json` of a checkpoint, and its checksums.
fn change_state(lab: &Lab, checkpoint: &str, change: impl FnOnce(&mut Value)) {
    let mut state: Value = serde_json::from_str(&lab.read(format!("{checkpoint}/state.json"))).unwrap();
    change(&mut state);
    let state = state.to_string();
    lab.write(&format!("{checkpoint}/state.json"), &state);
    let manifest = lab.read(format!("{checkpoint}/MANIFEST"));
    let mut manifest: Value = serde_json::from_str(manifest.rsplit_once("crc32 ").unwrap().0).unwrap();
    let file = &mut manifest["files"]["state.json"];
    file["bytes"] = state.len().into();
    file["head_bytes"] = state.len().into();
    file["head_crc32"] = crc32fast::hash(state.as_bytes()).into();
    let body = format!("{manifest}\n");
    let checksum = crc32fast::hash(body.as_bytes());
    lab.write(&format!("{checkpoint}/MANIFEST"), format!("{body}crc32 {checksum:08x}\n"));
}

#[test]
fn claimed_sizes_are_bounded_before_any_work() {
    let lab = lab();
    lab.write("deep.toml", "context = 1\nvocab = 257\nlayers = 16777216\nheads = 1\nchannels = 1\n");
    at_once(&lab, "info --model deep.toml").fails(1, &["deep.toml: model: 1 <= layers (L) <= 16384 failed (16777216)"]);
    // The largest sizes that are accepted.
    lab.write("deepest.toml", "context = 16777216\nvocab = 16777216\nlayers = 16384\nheads = 512\nchannels = 512\n");
    lab.write("widest.toml", "context = 16777216\nvocab = 16777216\nlayers = 1\nheads = 65536\nchannels = 1048576\n");
    for model in ["deepest.toml", "widest.toml"] {
        at_once(&lab, &format!("info --model {model}")).ok();
        at_once(&lab, &format!("train --model {model} --data t.txt --context 1 --out new --device cpu"))
            .fails(1, &["out of memory: the run needs "]);
    }

    let checkpoint = lab.newest("run");
    let settings = lab.read(format!("{checkpoint}/state.json"));
    for (key, value, text) in [
        (
            "layers",
            16_777_216,
            "the settings are for a model (L = 16777216, NH = 2, C = 32, T = 16, V = 257), but the weights",
        ),
        ("layers", 16_384, "the settings are for a model (L = 16384,"),
        ("channels", 1_048_576, "the settings are for a model (L = 2, NH = 2, C = 1048576,"),
    ] {
        change_state(&lab, &checkpoint, |state| state["settings"]["model"][key] = value.into());
        at_once(&lab, "train --resume --out run --steps 3").fails(1, &[text]);
        change_state(&lab, &checkpoint, |state| *state = serde_json::from_str(&settings).unwrap());
    }
    for (change, text) in [
        (json!({"settings": {"sample_tokens": 1_u64 << 32}}), "--sample-tokens <= 1048576 failed (4294967296)"),
        (json!({"settings": {"accumulate": 1 << 20}}), "--accumulate <= 65536 failed (1048576)"),
        (json!({"trainer": {"updates": u64::MAX}}), "the state has 18446744073709551615 updates"),
        (json!({"bad_steps": u32::MAX}), "4294967295 consecutive steps"),
    ] {
        let (group, value) = change.as_object().unwrap().iter().next().unwrap();
        change_state(&lab, &checkpoint, |state| match value.as_object() {
            Some(keys) => keys.iter().for_each(|(key, value)| state[group][key] = value.clone()),
            None => state[group] = value.clone(),
        });
        at_once(&lab, "train --resume --out run --steps 3").fails(1, &[text]);
        change_state(&lab, &checkpoint, |state| *state = serde_json::from_str(&settings).unwrap());
    }
    lab.run("train --resume --out run --steps 3").ok();
}

#[test]
fn counts_are_bounded_before_a_run_starts() {
    let lab = Lab::new();
    for (flag, text) in [
        ("--sample-tokens 4294967296", "--sample-tokens <= 1048576 failed (4294967296)"),
        ("--accumulate 65537 --batch 1 --context 1", "--accumulate <= 65536 failed (65537)"),
        ("--batch 67108864", "<= 67108864 tokens per step failed (67108864 x 16 x 1)"),
    ] {
        at_once(&lab, &format!("train --model m.toml --data t.txt --out new {flag}")).fails(1, &[text]);
        assert!(!lab.path("new").exists(), "{flag}");
    }
    // These only limit what the data or a clock end.
    let most = u64::MAX;
    let flags =
        format!("--val-batches {most} --keep {most} --save-every {most} --sample-every {most} --log-every {most}");
    at_once(&lab, &format!("train --model m.toml --data t.txt --steps 2 --sample-tokens 2 --out run {flags}")).ok();
    at_once(&lab, &format!("tokenize t.txt --tokenizer bytes --out s --shard-tokens {most}"))
        .fails(1, &["1 <= n <= 2147483647"]);
    at_once(&lab, &format!("eval --model run --text t.txt --context {most}")).fails(1, &["exceed the model's context"]);
}

/// Asserts that the output has no characters that control a terminal.
fn assert_plain(ran: &Ran) {
    for text in [&ran.stdout, &ran.stderr] {
        let hostile = |c: char| !matches!(c, '\n' | '\t') && (c.is_control() || ('\u{202a}'..='\u{202e}').contains(&c));
        assert!(!text.contains(hostile), "{}: {text:?}", ran.args);
        assert!(text.len() < 5000, "{}: {} bytes: {text:.300}", ran.args, text.len());
    }
}

#[test]
fn text_from_files_is_escaped_and_cut() {
    let lab = lab();
    let evil = "\u{1b}]0;owned\u{7}\u{202e}\u{9b}2J";
    let fails = |args: &str, text: &str| {
        let ran = lab.run(args);
        ran.fails(1, &[text]);
        assert_plain(&ran);
    };
    lab.write(
        "e.toml",
        format!("context = 16\n\"{}\" = 1\n", evil.escape_default().to_string().replace(['{', '}'], "")),
    );
    fails("info --model e.toml", "e.toml at byte ");
    lab.write("raw.toml", format!("{evil} = 1\n"));
    fails("info --model raw.toml", "raw.toml at byte 1: line 1: not a valid model description: key with no value");
    lab.write("long.toml", format!("{} = 1\n", "k".repeat(60_000)));
    fails("info --model long.toml", "unknown field `kkk");
    lab.write("key.toml", format!("{} = 1\n", "k".repeat(10_000_000)));
    fails("info --model key.toml", "key.toml: 10000005 bytes are above the limit of 65536 bytes");

    let config = lab.read("hf/config.json");
    for (from, to, text) in [
        ("\"gpt2\"", json!(evil).to_string(), "model_type is \"\\u001b]0;owned"),
        ("\"gelu_new\"", json!(evil.repeat(1000)).to_string(), "activation_function = \"\\u001b]0;owned"),
        ("\"model_type\"", format!("{}: 1, {0}: 2, \"model_type\"", json!(evil)), "appears twice"),
        ("\"n_layer\": 2", "\"n_layer\": 1000".into(), "n_layer = 1000, but the folder has only 28 tensors"),
    ] {
        let changed = config.replace(from, &to);
        assert_ne!(changed, config, "{from}");
        lab.write("hf/config.json", changed);
        fails("info --model hf", text);
    }
    // Exactly as many tensors as the claimed layers, none of which is a layer's.
    lab.write("hf/config.json", config.replace("\"n_layer\": 2", "\"n_layer\": 1000"));
    let header: serde_json::Map<String, Value> = (0..1000)
        .map(|i| (format!("{evil}{i}"), json!({"dtype": "F32", "shape": [0], "data_offsets": [0, 0]})))
        .collect();
    let header = Value::Object(header).to_string();
    lab.write("hf/model.safetensors", [&(header.len() as u64).to_le_bytes()[..], header.as_bytes()].concat());
    fails("info --model hf", "tensor(s) do not fit the model");

    lab.write("e.jsonl", format!("{{\"text\": {{{}: 1}}}}\n", json!(evil)));
    fails("eval --model run --text e.jsonl", "e.jsonl at byte ");
    lab.write("value.jsonl", format!("{{\"text\": \"x\", \"text\": {}}}\n", json!(evil.repeat(100_000))));
    fails("eval --model run --text value.jsonl", "the field `text` appears twice");
    lab.write("label.jsonl", format!("{{\"ctx\": \"a\", \"endings\": {}, \"label\": 0}}\n", json!(evil.repeat(1000))));
    fails("eval --model run --hellaswag label.jsonl", "invalid type: string \"\\u{1b}");
    lab.write("e.json", json!({"version": "1.0", "model": {"type": evil.repeat(1000)}}).to_string());
    fails("tokenize t.txt --tokenizer e.json", "not a tokenizer");

    // Names of files and folders.
    let name = format!("{evil}\n.txt");
    lab.write(&name, "text of a file whose name would control a terminal");
    let ran =
        lab.run_args(&["train", "--model", "m.toml", "--data", &name, "--out", &format!("out{evil}"), "--steps", "1"]);
    assert_eq!(ran.code, 0, "{}", ran.stderr);
    assert!(ran.stdout.contains("\\u{1b}]0;owned\\u{7}\\u{202e}\\u{9b}2J\\n.txt: text, 1 document"), "{}", ran.stdout);
    assert_plain(&ran);
    for args in [
        &["eval", "--model", "run", "--text", "none\u{1b}[2J"][..],
        &["info", "--model", "none\u{1b}[2J.toml"],
        &["info", "--model", "none\u{1b}[2J"],
        &["export", "none\u{1b}[2J", "--out", "new"],
        &["train", "--resume", "--out", "none\u{1b}[2J"],
        &["tokenize", "t.txt", "--tokenizer", "none\u{1b}[2J"],
    ] {
        let ran = lab.run_args(args);
        ran.fails(1, &["none\\u{1b}[2J"]);
        assert_plain(&ran);
    }
}
