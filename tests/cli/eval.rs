//! `eval`, `tokenize`, `export` and `info`.

use std::fs;

use crate::support::{Lab, memorised};

const SENTENCES: &str = "my cat is tom. my dog is rex. my cat is tom. my hen is pip. my owl is zoe. ";

#[test]
fn a_text_has_a_loss_and_a_perplexity() {
    let lab = Lab::new();
    lab.write("s.txt", SENTENCES);
    lab.write("s.jsonl", "{\"text\": \"my cat is tom. \"}\n{\"text\": \"my dog is rex. \"}\n");
    lab.write("noise.txt", "Zq9#Zq9#Zq9#Zq9#");
    let eval = |args: &str| lab.run(&format!("eval --model {} {args} --json", memorised())).json();
    let score = eval("--text s.txt");
    let (loss, perplexity) = (score["loss"].as_f64().unwrap(), score["perplexity"].as_f64().unwrap());
    // Every token except the first is predicted.
    assert_eq!(score["tokens"], SENTENCES.len() - 1);
    assert!(loss > 0.0 && loss < 1.0 && (perplexity - loss.exp()).abs() < 1e-9, "{score}");
    assert!(eval("--text noise.txt")["loss"].as_f64().unwrap() > 4.0);
    // With less context the loss is higher.
    let short = eval("--text s.txt --context 3");
    assert!(short["loss"].as_f64().unwrap() > loss && short["tokens"] == score["tokens"], "{short}");
    // Two documents of 15 bytes, each after an end-of-text token.
    assert_eq!(eval("--text s.jsonl")["tokens"], 31);

    lab.run("tokenize s.txt --tokenizer bytes --out shards").ok();
    assert_eq!(eval("--text shards"), score);
    assert_eq!(eval("--text shards/s_train_000000.bin --threads 2"), score);
    let text = lab.run(&format!("eval --model {} --text s.txt", memorised())).ok();
    assert!(
        text.contains(&format!("loss        {loss:.4} nats/token\n")) && text.contains("in windows of 48"),
        "{text}"
    );
}

#[test]
fn choices_and_last_words_are_scored() {
    let lab = Lab::new();
    let endings = r#""endings": ["tom.", "rex.", "zoe.", "pip."]"#;
    let correct = format!("{{\"ctx\": \"my dog is\", {endings}, \"label\": 1}}\n");
    let label_as_text = format!("{{\"ctx\": \"my cat is tom. my owl is\", {endings}, \"label\": \"2\", \"ind\": 4}}\n");
    let wrong = format!("{{\"ctx\": \"my hen is\", {endings}, \"label\": 0}}\n");
    lab.write("h.jsonl", [correct, label_as_text, wrong].concat());
    lab.write("l.jsonl", "{\"text\": \"my cat is tom. my hen is pip.\"}\n{\"text\": \"my hen is tom.\"}\n");
    let eval = |args: &str| lab.run(&format!("eval --model {} {args} --json", memorised())).json();
    let score = eval("--hellaswag h.jsonl");
    assert_eq!((&score["items"], &score["accuracy"]), (&3.into(), &(2.0 / 3.0).into()), "{score}");
    assert_eq!(score["accuracy_normalised"], score["accuracy"]);
    assert_eq!(eval("--hellaswag h.jsonl --limit 2")["accuracy"], 1.0);
    let score = eval("--lambada l.jsonl");
    assert_eq!((&score["items"], &score["accuracy"]), (&2.into(), &0.5.into()), "{score}");
    assert!(eval("--lambada l.jsonl --limit 1")["perplexity"].as_f64().unwrap() < 1.5);
    for (flag, lines) in
        [("--hellaswag h.jsonl", ["accuracy  ", "questions"]), ("--lambada l.jsonl", ["perplexity", "passages"])]
    {
        let text = lab.run(&format!("eval --model {} {flag}", memorised())).ok();
        assert!(lines.iter().all(|line| text.contains(line)), "{text}");
    }
}

#[test]
fn an_exported_model_is_the_same_model() {
    let lab = Lab::new();
    lab.write("s.txt", SENTENCES);
    let exported = lab.run(&format!("export {} --out deep/hf --json", memorised())).json();
    let info = lab.run(&format!("info --model {} --json", memorised())).json();
    assert_eq!(exported["parameters"], info["parameters"]);
    lab.run("export deep/hf --out again").ok();
    let file = |folder: &str| fs::read(lab.path(folder).join("model.safetensors")).unwrap();
    assert!(file("deep/hf") == file("again"));
    let eval = |model: &str| lab.run(&format!("eval --model {model} --text s.txt --json")).json();
    assert_eq!(eval("deep/hf"), eval(memorised()));
    let config: serde_json::Value = serde_json::from_str(&lab.read("deep/hf/config.json")).unwrap();
    assert_eq!((&config["n_embd"], &config["n_ctx"], &config["vocab_size"]), (&48.into(), &48.into(), &257.into()));
    lab.run("export deep/hf --out again").fails(1, &["again: the folder exists and is not empty"]);
}

#[test]
fn tokenize_counts_tokens_and_writes_shards() {
    let lab = Lab::new();
    lab.write("a.txt", "Hello world");
    assert_eq!(lab.run("tokenize a.txt --json").json()["tokens"], 2);
    assert_eq!(lab.run("tokenize a.txt").ok(), "2 tokens\n");
    assert_eq!(lab.run("tokenize a.txt --tokenizer bytes --json").json()["tokens"], 11);
    lab.write("b.jsonl", "{\"text\": \"0123456789\"}\n");
    // 12 and 11 tokens, including an end-of-text token before each file.
    let args = "tokenize a.txt b.jsonl --tokenizer bytes --out shards --shard-tokens 4 --val-fraction 0.2 --json";
    let written = lab.run(args).json();
    assert_eq!((&written["train_tokens"], &written["val_tokens"]), (&19.into(), &4.into()), "{written}");
    let names = ["a_train_000000", "a_train_000001", "a_train_000002", "a_val_000000"];
    assert_eq!(written["shards"].as_array().unwrap().len(), 8);
    for name in names {
        assert!(lab.path(format!("shards/{name}.bin")).exists(), "{name}: {written}");
    }
    let counted = lab.run("tokenize shards --tokenizer bytes --json").json();
    assert_eq!((&counted["tokens"], &counted["val_tokens"]), (&23.into(), &4.into()), "{counted}");
}

#[test]
fn info_shows_devices_sizes_and_memory() {
    let lab = Lab::new();
    let machine = lab.run("info --json --threads 2").json();
    assert_eq!((&machine["devices"][0]["name"], &machine["devices"][0]["threads"]), (&"cpu".into(), &2.into()));
    assert!(lab.run("info").ok().contains("gpt2-124M"));
    let plan = lab.run("info --model gpt2-124M --batch 2 --json").json();
    assert_eq!(plan["parameters"], 124_439_808);
    let total = |what: &str| plan["memory"][what]["total"].as_u64().unwrap();
    assert!(total("none") > total("gelu") && total("gelu") > total("layernorm"), "{plan}");
    let text = lab.run("info --model m.toml --batch 3").ok();
    assert!(text.contains("L = 2, NH = 2, C = 32, T = 16, V = 257") && text.contains("B = 3, T = 16"), "{text}");
    for flags in ["--batch 0", "--context 0", "--context 17", "--batch 18446744073709551615"] {
        lab.run(&format!("info --model m.toml {flags}")).fails(1, &[flags.split(' ').next().unwrap()]);
    }
}

#[test]
fn every_command_has_help_and_there_is_a_version() {
    let lab = Lab::new();
    assert!(lab.run("--version").ok().starts_with("ironwarp "));
    assert!(lab.run("--help").ok().contains("3 stopped by a signal after saving"));
    for command in ["train", "generate", "eval", "tokenize", "export", "info"] {
        assert!(lab.run(&format!("{command} --help")).ok().contains("--json"), "{command}");
    }
}
